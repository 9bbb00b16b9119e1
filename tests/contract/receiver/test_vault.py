"""Manifests, receipts and holding statements: what is taken, what is refused, and what is signed for."""

import hashlib
import os
import secrets
import shutil
import subprocess
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from dockd.core import canonical, receipts, sshsig
from dockd.core.ids import uuid7
from dockd.core.sealing import Identity, Sealer, sealed_size
from dockd.receiver.problems import Kind

STORE = "0190a5c0-0000-4000-8000-00000000000a"


def _verify(receiver, station, clip, signed):
    return receipts.verify_receipt(
        signed, store_key=receiver.key.public, store=STORE, station=station.id, manifest=clip.payload
    )


# --- announcing


async def test_announcing_is_idempotent_and_tells_where_to_send(station):
    clip = station.clip()
    first, again = await station.announce(clip), await station.announce(clip)
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json() == again.json()
    assert first.json() == {
        "type": "upload",
        "v": 1,
        "upload": first.headers["Location"],
        "offset": 0,
        "stored": False,
    }
    await station.patch(first.headers["Location"], 0, clip.content[:70_000])
    assert (await station.announce(clip)).json()["offset"] == 70_000


async def test_a_manifest_signed_by_another_key_is_refused(station, problem):
    for key in (station.checkpoint_key, sshsig.SigningKey.generate()):
        problem(await station.announce(station.clip(), key=key), Kind.SIGNATURE_REFUSED)


async def test_a_signature_over_something_else_is_refused(station, problem):
    clip = station.clip()
    body = station.envelope(clip.payload, sshsig.SESSION)
    problem(await station.http.put(f"/acquisitions/{clip.acquisition}", content=body), Kind.SIGNATURE_REFUSED)


async def test_another_stations_manifest_is_refused(receiver, station, problem):
    other = await receiver.station()
    problem(await station.announce(other.clip(), key=station.key), Kind.OTHER_STATION)


async def test_a_manifest_of_another_acquisition_is_refused(station, problem):
    elsewhere = uuid7(datetime.now(UTC), bytes(10))
    problem(await station.announce(station.clip(), at=elsewhere), Kind.MANIFEST_MISMATCH)


async def test_what_is_no_manifest_is_refused(station, problem):
    clip = station.clip()
    for payload in (b"{}", clip.payload[:-1], clip.payload.replace(b'"bay":1', b'"bay":1,"more":2')):
        body = station.envelope(payload, sshsig.MANIFEST)
        problem(await station.http.put(f"/acquisitions/{clip.acquisition}", content=body), Kind.MALFORMED)
    unreadable = b'{"type":"signed","v":1,"payload":"?","signature":"-"}'
    for body in (b"{}", unreadable, canonical.encode({"type": "a", "v": 1})):
        problem(await station.http.put(f"/acquisitions/{clip.acquisition}", content=body), Kind.MALFORMED)


async def test_a_recipient_outside_the_allow_list_is_refused(station, problem):
    mine, stranger = station.receiver.recipients[0], Identity.generate(secrets.token_bytes).recipient
    clip = station.clip(recipients=(mine.fingerprint, stranger.fingerprint))
    record = problem(await station.announce(clip), Kind.RECIPIENT_REFUSED)
    assert stranger.fingerprint in record["detail"]


async def test_too_few_different_recipients_are_refused(station, problem):
    mine = station.receiver.recipients[0].fingerprint
    problem(await station.announce(station.clip(recipients=(mine, mine))), Kind.RECIPIENT_REFUSED)
    problem(await station.announce(station.clip(recipients=(mine,))), Kind.RECIPIENT_REFUSED)


async def test_a_sealed_size_that_does_not_follow_is_refused(station, problem):
    clip = station.clip()
    for size in (len(clip.content) - 1, len(clip.content) + 1):
        problem(await station.announce(clip.restated(sealed_size_bytes=size)), Kind.MANIFEST_MISMATCH)


async def test_a_clip_beyond_the_limit_is_refused(receiver, station, problem):
    await receiver.stop()
    await receiver.start(replace(receiver.settings, max_clip_bytes=50_000))
    problem(await station.announce(station.clip()), Kind.TOO_LARGE)
    assert (await station.announce(station.clip(20_000))).status_code == 201


async def test_what_the_disk_cannot_hold_is_refused_before_any_byte(receiver, station, problem):
    status = os.statvfs(receiver.store)
    free = status.f_bavail * status.f_frsize
    huge = free * 2
    clip = station.clip()
    stated = {"size_bytes": huge, "plaintext_size_bytes": huge, "sealed_size_bytes": sealed_size(huge, 2)}
    await receiver.stop()
    await receiver.start(replace(receiver.settings, max_clip_bytes=huge * 2))
    answer = await station.announce(clip.restated(**stated))
    problem(answer, Kind.DISK_FULL)
    assert int(answer.headers["Retry-After"]) > 0
    assert (await station.announce(clip)).status_code == 201


async def test_promised_bytes_count_as_taken(receiver, station, problem):
    status = os.statvfs(receiver.store)
    free = status.f_bavail * status.f_frsize
    big = free * 6 // 10
    stated = {"size_bytes": big, "plaintext_size_bytes": big, "sealed_size_bytes": sealed_size(big, 2)}
    await receiver.stop()
    await receiver.start(replace(receiver.settings, max_clip_bytes=big * 2, station_percent=100))
    assert (await station.announce(station.clip().restated(**stated))).status_code == 201
    problem(await station.announce(station.clip().restated(**stated)), Kind.DISK_FULL)


async def test_the_same_id_or_ciphertext_with_another_manifest_is_a_conflict(receiver, station, problem):
    clip = station.clip()
    await station.announced(clip)
    problem(await station.announce(clip.restated(bay=2)), Kind.CONFLICT)
    other = uuid7(datetime.now(UTC), secrets.token_bytes(10))
    renamed = clip.restated(acquisition=other)
    problem(await station.announce(renamed, at=other), Kind.CONFLICT)
    stranger = await receiver.station()
    copied = clip.restated(station=stranger.id)
    problem(await stranger.announce(copied), Kind.CONFLICT)
    assert (await station.announce(clip)).status_code == 200


async def test_two_stations_may_use_the_same_id(receiver, station):
    clip = station.clip()
    other = await receiver.station()
    twin = other.clip(acquisition=clip.acquisition)
    twin.acquisition = clip.acquisition
    await station.stored(clip)
    await other.stored(twin)


# --- receipts


async def test_p01_a_receipt_is_signed_for_all_bytes_and_the_same_for_ever(receiver, station, problem):
    clip = station.clip()
    url = await station.announced(clip)
    record = problem(await station.receipt(clip), Kind.INCOMPLETE)
    assert record["offset"] == 0
    await station.patch(url, 0, clip.content[:-1])
    assert problem(await station.receipt(clip), Kind.INCOMPLETE)["offset"] == len(clip.content) - 1
    await station.patch(url, len(clip.content) - 1, clip.content[-1:])
    first = await station.receipt(clip)
    signed = sshsig.signed_from_json(first.json())
    verified = _verify(receiver, station, clip, signed)
    assert verified.receipt_seq == 1
    assert verified.previous == receipts.NO_PREVIOUS
    assert verified.kept_until - verified.at == timedelta(days=32)
    receiver.clock.ahead = timedelta(days=3)
    await station.log_in()
    assert (await station.receipt(clip)).content == first.content
    await receiver.stop()
    await receiver.start()
    assert (await station.receipt(clip)).content == first.content


async def test_a_receipt_is_asked_for_with_the_announced_manifest(station, problem):
    clip = station.clip()
    await station.sent(clip)
    problem(await station.receipt(clip, clip.restated(bay=2).digest), Kind.OTHER_MANIFEST)
    for body in (b"{}", b'{"type":"receipt-request","v":1,"manifest":"md5:1"}'):
        answer = await station.http.post(f"/acquisitions/{clip.acquisition}/receipt", content=body)
        problem(answer, Kind.MALFORMED)


async def test_p02_the_object_manifest_and_receipt_stand_as_plain_files(receiver, station, tmp_path):
    clip = station.clip()
    _, signed = await station.stored(clip)
    directory = receiver.store / "acquisitions" / station.id / clip.acquisition
    names = {"clip.age", "manifest.json", "manifest.json.sig", "receipt.json", "receipt.json.sig"}
    assert {path.name for path in directory.iterdir()} == names
    assert (directory / "clip.age").read_bytes() == clip.content
    assert (directory / "manifest.json").read_bytes() == clip.payload
    assert (directory / "receipt.json").read_bytes() == signed.payload
    assert not list((receiver.store / "uploads").iterdir())
    allowed = tmp_path / "allowed"
    allowed.write_text(receiver.key.public.line("x").replace("ssh-ed25519", "store ssh-ed25519", 1))
    check = ["ssh-keygen", "-Y", "verify", "-f", allowed, "-I", "store", "-n", "receipt.v1@dockd"]
    with (directory / "receipt.json").open("rb") as payload:
        done = subprocess.run(
            [*check, "-s", directory / "receipt.json.sig"], stdin=payload, capture_output=True, check=False
        )
    assert done.returncode == 0, done.stderr


async def test_receipts_to_a_station_form_a_chain_of_its_own(receiver, station):
    other = await receiver.station()
    before = None
    for number in range(1, 4):
        clip = station.clip(1000)
        _, signed = await station.stored(clip)
        verified = _verify(receiver, station, clip, signed)
        assert verified.receipt_seq == number
        receipts.check_succession(before, verified)
        before = verified
        foreign = other.clip(1000)
        _, signed = await other.stored(foreign)
        assert _verify(receiver, other, foreign, signed).receipt_seq == number
        if number == 2:
            await receiver.stop()
            await receiver.start()


async def test_wrong_bytes_are_dropped_and_can_be_sent_again(receiver, station, problem):
    clip = station.clip()
    url = await station.announced(clip)
    wrong = clip.content[:-1] + bytes([clip.content[-1] ^ 1])
    await station.patch(url, 0, wrong)
    record = problem(await station.receipt(clip), Kind.DIGEST_MISMATCH)
    assert record["offset"] == 0
    assert await station.offset(url) == 0
    await station.patch(url, 0, clip.content)
    signed = sshsig.signed_from_json((await station.receipt(clip)).json())
    _verify(receiver, station, clip, signed)


async def test_wrong_bytes_are_found_after_a_restart_too(receiver, station, problem):
    clip = station.clip()
    url = await station.announced(clip)
    await station.patch(url, 0, bytes([*clip.content[:60_000], clip.content[60_000] ^ 1]))
    await receiver.stop()
    await receiver.start()
    await station.patch(url, 60_001, clip.content[60_001:])
    problem(await station.receipt(clip), Kind.DIGEST_MISMATCH)


async def test_a_header_with_other_stanzas_is_refused_as_soon_as_it_is_there(receiver, station, problem):
    three = [*receiver.recipients, Identity.generate(secrets.token_bytes).recipient]
    sealer = Sealer(three, secrets.token_bytes)
    content = sealer.header() + bytes(sealer.seal(bytes(100_000), final=True))
    clip = station.clip()
    url = await station.announced(clip)
    problem(await station.patch(url, 0, content[:5000]), Kind.HEADER_REFUSED)
    assert await station.offset(url) == 0
    problem(await station.patch(url, 0, bytes(5000)), Kind.HEADER_REFUSED)
    assert (await station.patch(url, 0, clip.content)).status_code == 204


async def test_what_is_signed_for_cannot_be_changed_and_does_not_expire(receiver, station, problem):
    clip = station.clip()
    url, _ = await station.stored(clip)
    problem(await station.patch(url, len(clip.content), b""), Kind.FINISHED)
    problem(await station.patch(url, 0, clip.content), Kind.FINISHED)
    tus = {"Tus-Resumable": "1.0.0"}
    problem(await station.http.delete(url, headers=tus), Kind.FINISHED)
    assert await station.offset(url) == len(clip.content)
    receiver.clock.ahead = timedelta(days=400)
    await receiver.stop()
    await receiver.start()
    await station.log_in()
    assert (await station.announce(clip)).json()["stored"] is True
    assert (await station.holding(clip)).status_code == 200


async def test_another_stations_acquisition_is_as_if_not_there(receiver, station, problem):
    clip = station.clip()
    url, _ = await station.stored(clip)
    other = await receiver.station()
    problem(await other.receipt(clip), Kind.NOT_FOUND)
    problem(await other.holding(clip), Kind.NOT_FOUND)
    problem(await other.patch(url, 0, b"x"), Kind.NOT_FOUND)
    tus = {"Tus-Resumable": "1.0.0"}
    assert (await other.http.head(url, headers=tus)).status_code == 404
    problem(await other.http.delete(url, headers=tus), Kind.NOT_FOUND)
    problem(await other.receipt(other.clip()), Kind.NOT_FOUND)


# --- ranges


async def test_p01_ranges_are_digests_of_the_nonce_and_the_bytes(station):
    clip, nonce = station.clip(), secrets.token_bytes(32)
    await station.stored(clip)
    answer = await station.ranges(clip, [0, 5], [99_000, 1000], [7, 0], nonce=nonce)
    pieces = (clip.content[:5], clip.content[99_000:100_000], b"")
    digests = [hashlib.sha256(nonce + piece).hexdigest() for piece in pieces]
    assert answer.json() == {"type": "ranges", "v": 1, "digests": digests}


async def test_ranges_that_are_none_are_refused(station, problem):
    clip = station.clip()
    await station.sent(clip)
    problem(await station.ranges(clip, [0, 5]), Kind.INCOMPLETE)
    await station.receipt(clip)
    beyond = [len(clip.content) - 1, 2]
    for wanted in ([[0]], [[0, 1, 2]], [[0, -1]], [["0", 1]], [[True, 1]], ["x"], [beyond], [[0, 1]] * 65):
        problem(await station.ranges(clip, *wanted), Kind.MALFORMED)
    problem(await station.ranges(clip, *[[0, 90_000]] * 3), Kind.MALFORMED)
    problem(await station.ranges(clip, [0, 1], nonce=b"short"), Kind.MALFORMED)
    problem(await (await station.receiver.station()).ranges(clip, [0, 1]), Kind.NOT_FOUND)


@pytest.mark.parametrize("damage", ["gone", "short", "link"])
async def test_p01_ranges_of_a_lost_object_are_not_answered(receiver, station, problem, damage):
    clip = station.clip()
    await station.stored(clip)
    path = receiver.store / "acquisitions" / station.id / clip.acquisition / "clip.age"
    if damage == "short":
        path.chmod(0o600)
        os.truncate(path, 60_000)
    else:
        path.rename(path.with_name("elsewhere"))
    if damage == "link":
        path.symlink_to("elsewhere")
    problem(await station.ranges(clip, [90_000, 5]), Kind.OBJECT_LOST)


# --- holding


async def test_p01_a_holding_statement_answers_its_nonce(receiver, station, problem):
    clip = station.clip()
    await station.sent(clip)
    assert problem(await station.holding(clip), Kind.INCOMPLETE)["offset"] == len(clip.content)
    receipt = _verify(receiver, station, clip, sshsig.signed_from_json((await station.receipt(clip)).json()))
    nonce = secrets.token_bytes(32)
    signed = sshsig.signed_from_json((await station.holding(clip, nonce)).json())
    holding = receipts.verify_holding(
        signed, store_key=receiver.key.public, store=STORE, station=station.id, manifest=clip.payload, nonce=nonce
    )
    assert holding.kept_until == receipt.kept_until
    for nonce in (b"short", b""):
        body = canonical.encode({"type": "holding-request", "v": 1, "nonce": nonce.hex()})
        problem(await station.http.post(f"/acquisitions/{clip.acquisition}/holding", content=body), Kind.MALFORMED)


@pytest.mark.parametrize("damage", ["gone", "short", "link", "manifest"])
async def test_p01_nothing_is_said_to_be_held_that_is_not(receiver, station, problem, damage):
    clip = station.clip()
    await station.stored(clip)
    directory = receiver.store / "acquisitions" / station.id / clip.acquisition
    path = directory / "clip.age"
    if damage == "gone":
        path.unlink()
    elif damage == "short":
        path.chmod(0o600)
        os.truncate(path, len(clip.content) - 1)
    elif damage == "link":
        path.rename(directory / "moved")
        path.symlink_to("moved")
    else:
        (directory / "manifest.json").write_bytes(b"{}")
    problem(await station.holding(clip), Kind.OBJECT_LOST)


async def test_p01_a_rehash_finds_a_changed_byte(receiver, station, problem):
    clip = station.clip()
    await station.stored(clip)
    path = receiver.store / "acquisitions" / station.id / clip.acquisition / "clip.age"
    path.chmod(0o600)
    with path.open("r+b") as file:
        file.seek(50_000)
        file.write(bytes([clip.content[50_000] ^ 1]))
    assert (await station.holding(clip)).status_code == 200  # the file system's word
    await receiver.stop()
    await receiver.start(replace(receiver.settings, holding_rehash=True))
    problem(await station.holding(clip), Kind.OBJECT_LOST)


async def test_p01_a_receiver_restored_from_a_back_up_takes_again_what_it_lost(receiver, station, problem):
    """What a station relies on: it says that it does not hold the later clips, and goes on from its older receipt."""
    early, late = station.clip(), station.clip()
    await station.stored(early)
    await receiver.stop()
    backup = receiver.store.with_name("backup")
    shutil.copytree(receiver.store, backup)
    await receiver.start()
    await station.stored(late)
    await receiver.stop()
    shutil.rmtree(receiver.store)
    backup.rename(receiver.store)
    await receiver.start()
    await station.log_in()
    assert (await station.holding(early)).status_code == 200
    problem(await station.holding(late), Kind.NOT_FOUND)
    problem(await station.ranges(late, [0, 1]), Kind.NOT_FOUND)
    _, signed = await station.stored(late)
    assert _verify(receiver, station, late, signed).receipt_seq == 2


# --- an object that is lost, and its receipt is not


@pytest.mark.parametrize("damage", ["gone", "short", "rehash"])
async def test_p01_what_is_provably_gone_is_taken_again_under_its_receipt(receiver, station, problem, damage):
    clip, other = station.clip(), station.clip()
    url, receipt = await station.stored(clip)
    await station.stored(other)
    path = receiver.store / "acquisitions" / station.id / clip.acquisition / "clip.age"
    if damage == "gone":
        path.unlink()
    else:
        path.chmod(0o600)
        os.truncate(path, len(clip.content) - 1)
    if damage == "rehash":
        path.write_bytes(bytes(len(clip.content)))
        await receiver.stop()
        await receiver.start(replace(receiver.settings, holding_rehash=True))
    problem(await station.holding(clip), Kind.OBJECT_LOST)
    again = await station.announce(clip)
    assert (again.status_code, again.json()["offset"], again.json()["stored"]) == (200, 0, False)
    assert again.headers["Location"] == url
    await station.patch(url, 0, clip.content[:50_000])
    problem(await station.holding(clip), Kind.OBJECT_LOST)
    problem(await station.ranges(clip, [0, 5]), Kind.OBJECT_LOST)
    problem(await station.receipt(clip), Kind.INCOMPLETE)
    await receiver.stop()
    await receiver.start()
    assert (await station.announce(clip)).json()["offset"] == 50_000
    await station.patch(url, 50_000, clip.content[50_000:])
    assert sshsig.signed_from_json((await station.receipt(clip)).json()) == receipt
    assert path.read_bytes() == clip.content
    assert (await station.holding(clip)).status_code == 200
    assert (await station.announce(clip)).json()["stored"] is True
    aside = path.with_name("clip.age.set-aside-1")
    assert aside.exists() == (damage != "gone"), "what stood there is kept for whoever looks into it"
    _, signed = await station.stored(station.clip())
    assert canonical.decode(signed.payload, type_="receipt")["receipt_seq"] == 3


@pytest.mark.parametrize("damage", ["none", "link", "manifest", "away", "directory"])
async def test_p01_what_is_not_provably_gone_is_never_reopened(receiver, station, problem, damage):
    clip = station.clip()
    url, _ = await station.stored(clip)
    directory = receiver.store / "acquisitions" / station.id / clip.acquisition
    path = directory / "clip.age"
    if damage == "link":
        path.rename(directory / "moved")
        path.symlink_to("moved")
    elif damage == "manifest":
        (directory / "manifest.json").write_bytes(b"{}")
    elif damage == "away":  # as where the disk of the stored clips is not mounted
        directory.parent.rename(receiver.store / "elsewhere")
    elif damage == "directory":
        path.rename(directory / "moved")
        path.mkdir()
        path = directory / "moved"
    again = await station.announce(clip)
    if damage == "directory":  # nothing that could come back by itself stands there
        assert again.json()["stored"] is False
        return
    assert (again.status_code, again.json()["stored"]) == (200, True)
    problem(await station.patch(url, 0, clip.content), Kind.FINISHED)
    if damage == "none":
        assert (await station.holding(clip)).status_code == 200
    else:
        problem(await station.holding(clip), Kind.OBJECT_LOST)


async def test_p01_a_receipt_outlives_the_upload_that_was_to_replace_its_object(receiver, station, problem):
    """Deleted or expired, the bytes that were sent again go; what was signed is never forgotten."""
    clip = station.clip()
    url, receipt = await station.stored(clip)
    path = receiver.store / "acquisitions" / station.id / clip.acquisition / "clip.age"
    path.unlink()
    for end in ("delete", "expire"):
        await station.announced(clip)
        await station.patch(url, 0, clip.content[:70_000])
        if end == "delete":
            assert (await station.http.delete(url, headers={"Tus-Resumable": "1.0.0"})).status_code == 204
        else:
            receiver.clock.ahead += receiver.settings.upload_expiry + timedelta(hours=1)
            await receiver.stop()
            await receiver.start()
            await station.log_in()
        problem(await station.holding(clip), Kind.OBJECT_LOST)
        assert not list((receiver.store / "uploads").iterdir())
    assert (await station.announce(clip)).json()["offset"] == 0
    await station.patch(url, 0, clip.content)
    assert sshsig.signed_from_json((await station.receipt(clip)).json()) == receipt


async def test_what_is_gone_is_reopened_by_its_own_station_and_manifest_alone(receiver, station, problem):
    clip = station.clip()
    await station.stored(clip)
    (receiver.store / "acquisitions" / station.id / clip.acquisition / "clip.age").unlink()
    problem(await station.announce(clip.restated(category_reason="other")), Kind.CONFLICT)
    other = await receiver.station()
    problem(await other.announce(clip, key=station.key), Kind.SIGNATURE_REFUSED)
    problem(await station.holding(clip), Kind.OBJECT_LOST)
    assert (await station.receipt(clip)).status_code == 200
