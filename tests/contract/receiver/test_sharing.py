"""Who may ask what others brought, what is answered, and what a receipt on another's object rests on."""

import asyncio
import json
import os
import secrets
from dataclasses import replace
from datetime import timedelta

import pytest

from dockd.cli import main as cli
from dockd.core import canonical, receipts, sshsig
from dockd.receiver.problems import Kind

STORE = "0190a5c0-0000-4000-8000-00000000000a"
PLAIN = canonical.digest(b"what the camera recorded")


class Asking:
    """A station's calls about twins, raw."""

    def __init__(self, receiver, station):
        self.receiver = receiver
        self.station = station

    async def twins(self, clip, *stations):
        body = {"type": "twins-request", "v": 1, "stations": [one.id for one in stations]}
        return await self.station.http.post(f"/acquisitions/{clip.acquisition}/twins", content=canonical.encode(body))

    async def share(self, clip, other):
        body = {"type": "share-request", "v": 1, "manifest": other.digest}
        return await self.station.http.post(f"/acquisitions/{clip.acquisition}/share", content=canonical.encode(body))

    async def shown(self, clip, *stations):
        answer = await self.twins(clip, *stations)
        assert answer.status_code == 200, answer.text
        return [sshsig.signed_from_json(one).payload for one in answer.json()["manifests"]]

    def verified(self, clip, signed):
        return receipts.verify_receipt(
            signed,
            store_key=self.receiver.key.public,
            store=STORE,
            station=self.station.id,
            manifest=clip.payload,
        )

    async def receipt(self, clip):
        answer = await self.station.receipt(clip)
        assert answer.status_code == 200, answer.text
        return self.verified(clip, sshsig.signed_from_json(answer.json()))


def permit(receiver, permitted):
    """Let stations ask about others."""
    receiver.lookups.update({asker.id: frozenset(one.id for one in others) for asker, others in permitted.items()})


async def restart(receiver, *stations, **changes):
    await receiver.stop()
    await receiver.start(replace(receiver.settings, **changes))
    for station in stations:
        await station.log_in()


@pytest.fixture
async def other(receiver):
    """Another station."""
    return await receiver.station()


@pytest.fixture
async def asking(receiver, station, other):
    """The first may ask about the other."""
    permit(receiver, {station: [other]})
    return Asking(receiver, station)


def _stored(receiver, station, clip):
    return receiver.store / "acquisitions" / station.id / clip.acquisition


# --- who is answered


async def test_nobody_is_answered_by_default(receiver, station, other):
    await other.stored(other.clip(plaintext_digest=PLAIN))
    clip = station.clip(plaintext_digest=PLAIN)
    await station.announced(clip)
    assert await Asking(receiver, station).shown(clip, other) == []


async def test_only_who_is_permitted_is_answered_and_only_about_whom(receiver, station, other):
    third = await receiver.station()
    permit(receiver, {station: [other], third: []})
    for one in (other, third):
        await one.stored(one.clip(plaintext_digest=PLAIN))
    for asker, told in ((station, [other]), (third, []), (other, [])):
        clip = asker.clip(plaintext_digest=PLAIN)
        await asker.announced(clip)
        shown = await Asking(receiver, asker).shown(clip, station, other, third)
        assert [json.loads(one)["station"] for one in shown] == [one.id for one in told]


async def test_what_may_not_be_told_and_what_is_not_here_have_one_answer(receiver, station, other, asking):
    """Not stored yet, of a station that is not permitted, not there at all: nobody can tell these apart."""
    third = await receiver.station()
    unfinished, theirs = other.clip(plaintext_digest=PLAIN), third.clip(plaintext_digest=PLAIN)
    await other.announced(unfinished)
    await third.stored(theirs)
    clip, absent = station.clip(plaintext_digest=PLAIN), other.clip()
    await station.announced(clip)
    answers = [await asking.twins(clip, *asked) for asked in ((), (other,), (third,), (station,), (other, third))]
    assert {(one.status_code, one.content) for one in answers} == {(200, answers[0].content)}
    refusals = [await asking.share(clip, one) for one in (unfinished, theirs, absent)]
    assert {(one.status_code, one.content) for one in refusals} == {(404, refusals[0].content)}


async def test_a_station_that_is_out_is_not_told_of(receiver, station, other, asking):
    await other.stored(other.clip(plaintext_digest=PLAIN))
    clip = station.clip(plaintext_digest=PLAIN)
    await station.announced(clip)
    assert await asking.shown(clip, other)
    (receiver.store / "stations" / f"{other.id}.pub").unlink()
    assert await asking.shown(clip, other) == []


async def test_what_was_not_announced_and_another_stations_is_not_found(station, other, asking, problem):
    theirs = other.clip(plaintext_digest=PLAIN)
    await other.stored(theirs)
    for clip in (station.clip(plaintext_digest=PLAIN), theirs):
        problem(await asking.twins(clip, other), Kind.NOT_FOUND)
        problem(await asking.share(clip, theirs), Kind.NOT_FOUND)


async def test_a_clip_that_is_another_stations_object_itself_is_no_twin(receiver, station, other, asking):
    third = await receiver.station()
    permit(receiver, {station: [other], third: [station, other]})
    theirs, clip, last = (one.clip(plaintext_digest=PLAIN) for one in (other, station, third))
    await other.stored(theirs)
    await station.announced(clip)
    assert (await asking.share(clip, theirs)).status_code == 200
    await asking.receipt(clip)
    await third.announced(last)
    assert await Asking(receiver, third).shown(last, station, other) == [theirs.payload]


async def test_at_most_three_are_shown_the_newest_first(station, other, asking):
    clips = [other.clip(plaintext_digest=PLAIN) for _ in range(5)]
    for one in clips:
        await other.stored(one)
    clip = station.clip(plaintext_digest=PLAIN)
    await station.announced(clip)
    newest = sorted(clips, key=lambda one: one.acquisition, reverse=True)[:3]
    assert await asking.shown(clip, other) == [one.payload for one in newest]


async def test_a_question_about_too_many_is_refused(station, asking, problem):
    clip = station.clip()
    await station.announced(clip)
    problem(await asking.twins(clip, *[station] * 65), Kind.MALFORMED)


# --- what is signed


async def test_no_byte_of_the_clip_is_needed_and_both_keep_their_receipts(receiver, station, other, asking):
    theirs, clip = other.clip(plaintext_digest=PLAIN), station.clip(plaintext_digest=PLAIN)
    _, before = await other.stored(theirs)
    await station.announced(clip)
    assert (await asking.share(clip, theirs)).json()["sealed"]["digest"] == theirs.fields["sealed_digest"]
    receipt = await asking.receipt(clip)
    assert receipt.receipt_seq == 1
    assert receipt.shared.acquisition == theirs.acquisition
    place = _stored(receiver, station, clip)
    assert sorted(path.name for path in place.iterdir()) == [
        "manifest.json",
        "manifest.json.sig",
        "receipt.json",
        "receipt.json.sig",
    ]
    assert (place / "manifest.json").read_bytes() == clip.payload
    assert sshsig.signed_from_json((await other.receipt(theirs)).json()) == before


async def test_the_retention_is_not_shortened(receiver, station, other):
    """The other's receipt promises more than the store promises now."""
    permit(receiver, {station: [other]})
    await restart(receiver, station, other, legacy=timedelta(days=3650))
    theirs = other.clip(plaintext_digest=PLAIN)
    _, long = await other.stored(theirs)
    await restart(receiver, station, other, legacy=timedelta(days=10))
    clip, asking = station.clip(plaintext_digest=PLAIN), Asking(receiver, station)
    await station.announced(clip)
    await asking.share(clip, theirs)
    receipt = await asking.receipt(clip)
    promised = json.loads(long.payload)["retention_until"]
    assert canonical.format_time(receipt.kept_until) == promised


async def test_it_goes_on_after_a_restart_at_every_step(receiver, station, other, asking):
    theirs, clip = other.clip(plaintext_digest=PLAIN), station.clip(plaintext_digest=PLAIN)
    await other.stored(theirs)
    url = await station.announced(clip)
    await station.patch(url, 0, clip.content[:50_000])
    await restart(receiver, station)
    assert (await asking.share(clip, theirs)).status_code == 200
    await restart(receiver, station)
    assert (await asking.share(clip, theirs)).status_code == 200
    first = await station.receipt(clip)
    await restart(receiver, station)
    assert (await station.receipt(clip)).content == first.content
    assert (await station.holding(clip)).status_code == 200
    assert not list((receiver.store / "uploads").iterdir())


async def test_what_stands_for_another_does_not_expire(receiver, station, other, asking):
    theirs, clip = other.clip(plaintext_digest=PLAIN), station.clip(plaintext_digest=PLAIN)
    await other.stored(theirs)
    url = await station.announced(clip)
    await asking.share(clip, theirs)
    assert (await station.http.delete(url, headers={"Tus-Resumable": "1.0.0"})).status_code == 403
    receiver.clock.ahead = timedelta(days=20)
    await restart(receiver, station)
    assert (await asking.receipt(clip)).shared


async def test_two_stations_share_one_object_at_the_same_time(receiver, station, other):
    third = await receiver.station()
    permit(receiver, {station: [other], third: [other]})
    theirs = other.clip(plaintext_digest=PLAIN)
    await other.stored(theirs)
    pairs = [(Asking(receiver, one), one.clip(plaintext_digest=PLAIN)) for one in (station, third)]
    for asking, clip in pairs:
        await asking.station.announced(clip)
    answers = await asyncio.gather(*(asking.share(clip, theirs) for asking, clip in pairs for _ in range(2)))
    assert {one.status_code for one in answers} <= {200, 423}
    for asking, clip in pairs:
        assert (await asking.share(clip, theirs)).status_code == 200
        assert (await asking.receipt(clip)).receipt_seq == 1


async def test_two_that_send_at_the_same_time_both_send(station, other, asking):
    """Neither has its receipt when the other asks: nothing is shared, and nothing is in the way."""
    theirs, clip = other.clip(plaintext_digest=PLAIN), station.clip(plaintext_digest=PLAIN)
    await other.sent(theirs)
    await station.sent(clip)
    assert await asking.shown(clip, other) == []
    assert (await other.receipt(theirs)).status_code == 200
    assert (await asking.receipt(clip)).shared is None


async def test_a_complete_upload_or_another_object_stands(station, other, asking, problem):
    first, second = (other.clip(plaintext_digest=PLAIN) for _ in range(2))
    for one in (first, second):
        await other.stored(one)
    clip, sent = (station.clip(plaintext_digest=PLAIN) for _ in range(2))
    await station.announced(clip)
    assert (await asking.share(clip, first)).status_code == 200
    problem(await asking.share(clip, second), Kind.CONFLICT)
    await station.stored(sent)
    problem(await asking.share(sent, first), Kind.CONFLICT)


# --- the object is gone


def _spoil(path, how):
    path.chmod(0o600)
    if how == "deleted":
        path.unlink()
    elif how == "put aside":
        path.rename(path.with_name("quarantined"))
    elif how == "cut":
        os.truncate(path, 1000)
    else:
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)


@pytest.mark.parametrize("how", ["deleted", "put aside", "cut", "changed"])
async def test_p01_an_object_that_is_not_as_it_was_is_not_shared(station, other, asking, problem, how):
    theirs, clip = other.clip(plaintext_digest=PLAIN), station.clip(plaintext_digest=PLAIN)
    await other.stored(theirs)
    url = await station.announced(clip)
    _spoil(_stored(asking.receiver, other, theirs) / "clip.age", how)
    problem(await asking.share(clip, theirs), Kind.OBJECT_LOST)
    assert await station.offset(url) == 0
    await station.sent(clip)
    assert (await asking.receipt(clip)).shared is None


async def test_p01_it_is_looked_at_again_before_anything_is_signed(receiver, station, other, asking, problem):
    theirs, clip = other.clip(plaintext_digest=PLAIN), station.clip(plaintext_digest=PLAIN)
    await other.stored(theirs)
    url = await station.announced(clip)
    await asking.share(clip, theirs)
    _spoil(_stored(receiver, other, theirs) / "clip.age", "deleted")
    problem(await station.receipt(clip), Kind.OBJECT_LOST)
    assert await station.offset(url) == 0
    await station.sent(clip)
    assert (await asking.receipt(clip)).shared is None


async def test_p01_what_was_lost_later_is_told_to_both_and_taken_again(receiver, station, other, asking, problem):
    theirs, clip = other.clip(plaintext_digest=PLAIN), station.clip(plaintext_digest=PLAIN)
    await other.stored(theirs)
    await station.announced(clip)
    await asking.share(clip, theirs)
    receipt = await asking.receipt(clip)
    _spoil(_stored(receiver, other, theirs) / "clip.age", "deleted")
    problem(await station.holding(clip), Kind.OBJECT_LOST)
    problem(await station.ranges(clip, (0, 1)), Kind.OBJECT_LOST)
    problem(await other.holding(theirs), Kind.OBJECT_LOST)
    assert (await station.announce(clip)).json()["offset"] == 0
    await station.sent(clip)
    assert await asking.receipt(clip) == receipt  # the one that was given, for ever
    nonce = secrets.token_bytes(32)
    said = receipts.verify_holding(
        sshsig.signed_from_json((await station.holding(clip, nonce)).json()),
        store_key=receiver.key.public,
        store=STORE,
        station=station.id,
        manifest=clip.payload,
        nonce=nonce,
    )
    assert said.shared is None  # the clip's own bytes are here now
    await other.sent(theirs)
    assert (await other.receipt(theirs)).status_code == 200


async def test_holding_says_so_where_the_own_manifest_is_gone(receiver, station, other, asking, problem):
    theirs, clip = other.clip(plaintext_digest=PLAIN), station.clip(plaintext_digest=PLAIN)
    await other.stored(theirs)
    await station.announced(clip)
    await asking.share(clip, theirs)
    await asking.receipt(clip)
    (_stored(receiver, station, clip) / "manifest.json").unlink()
    problem(await station.holding(clip), Kind.OBJECT_LOST)


# --- uploads that were left


def _listed(receiver, capsys, *options):
    capsys.readouterr()
    assert cli.main(["receiver", "uploads", "--directory", str(receiver.store), *options]) == 0
    return capsys.readouterr()


async def _expired(receiver):
    """Turn the clock beyond the time of an upload; a start looks at once."""
    receiver.clock.ahead += receiver.settings.upload_expiry + timedelta(minutes=1)
    await receiver.stop()
    await receiver.start()
    async with asyncio.timeout(30):
        while list((receiver.store / "uploads").iterdir()):
            await asyncio.sleep(0.01)


async def test_what_was_left_is_listed_with_when_it_expires_and_that_it_did(receiver, station, capsys):
    clip, done = station.clip(), station.clip()
    await station.stored(done)
    url = await station.announced(clip)
    await station.patch(url, 0, clip.content[:70_000])
    (line,) = _listed(receiver, capsys, "--json").out.splitlines()
    said = json.loads(line)
    assert (said["state"], said["station"], said["acquisition"]) == ("unfinished", station.id, clip.acquisition)
    assert (said["durable_bytes"], said["size_bytes"]) == (70_000, len(clip.content))
    assert said["since"] < said["expires"]
    assert f"70000 of {len(clip.content)} bytes" in _listed(receiver, capsys).out
    await _expired(receiver)
    (line,) = _listed(receiver, capsys, "--json").out.splitlines()
    gone = json.loads(line)
    expired = {"state": "expired", "expired": gone["expired"]}
    assert gone == {key: value for key, value in said.items() if key != "expires"} | expired
    assert gone["expired"] >= said["expires"]


async def test_what_comes_back_is_no_longer_listed_as_expired(receiver, station, capsys):
    clip = station.clip()
    url = await station.announced(clip)
    await station.patch(url, 0, clip.content[:1000])
    await _expired(receiver)
    assert "expired" in _listed(receiver, capsys).out
    await station.log_in()
    await station.stored(clip)
    assert _listed(receiver, capsys).out == ""


async def test_what_its_station_gave_up_is_not_listed(receiver, station, capsys):
    url = await station.announced(station.clip())
    await station.http.delete(url, headers={"Tus-Resumable": "1.0.0"})
    said = _listed(receiver, capsys)
    assert said.out == ""
    assert "No upload is unfinished" in said.err


async def test_a_stopped_receivers_uploads_are_listed_too(receiver, station, capsys):
    await station.announced(station.clip())
    await receiver.stop()
    before = sorted(path.name for path in receiver.store.iterdir())
    assert "unfinished" in _listed(receiver, capsys).out
    assert sorted(path.name for path in receiver.store.iterdir()) == before


def test_a_directory_that_is_no_receivers_is_refused(tmp_path, capsys):
    assert cli.main(["receiver", "uploads", "--directory", str(tmp_path)]) == 78
    assert "catalogue.sqlite" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
