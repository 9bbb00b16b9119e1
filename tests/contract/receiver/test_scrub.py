"""What is stored is read again: what was lost or changed is noticed, told apart from what may come back, and healed."""

import asyncio
import json
import os
import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, closing
from dataclasses import replace
from datetime import timedelta

import pytest

from dockd.cli.main import main
from dockd.core import canonical, sshsig
from dockd.core.losses import verify_losses
from dockd.core.receipts import verify_receipt
from dockd.receiver import scrub_rows
from dockd.receiver.catalogue import Catalogue
from dockd.receiver.layout import Layout
from dockd.receiver.problems import Kind
from dockd.receiver.reading import SLICE_BYTES, be_idle
from dockd.receiver.scrub import Scrub
from dockd.receiver.scrub_rows import What
from dockd.receiver.uploads import Uploads


@asynccontextmanager
async def scrubbing(receiver, *stations, settings=None):
    """A scrub over the store of a receiver that is stopped meanwhile."""
    for station in stations:
        await station.http.aclose()
    await receiver.stop()
    settings = settings or receiver.settings
    catalogue = await Catalogue.open(settings.directory, may_be_new=False)
    layout = Layout(root=settings.directory)
    uploads = Uploads(catalogue=catalogue, layout=layout, settings=settings, clock=receiver.clock)
    try:
        scrub = Scrub(catalogue=catalogue, layout=layout, settings=settings, uploads=uploads, clock=receiver.clock)
        yield scrub
    finally:
        await catalogue.aclose()
    await receiver.start()
    for station in stations:
        station.http = await receiver.connect()
        await station.log_in()


async def looked(scrub):
    """All that is due now is looked at; what was found gone, twice."""
    pace = scrub.pace

    async def due():
        return await scrub.catalogue.run(lambda db: scrub_rows.next_due(db, pace, scrub.clock.now()))

    for _ in range(2):
        for _ in range(20):
            if await due() is None:
                break
            await scrub.turn()
        scrub.clock.ahead += scrub_rows.AGAIN_FIRST
    return await said(scrub)


async def said(scrub):
    pace, now = scrub.pace, scrub.clock.now()
    return await scrub.catalogue.run(lambda db: scrub_rows.looked(db, pace, now))


def clip_of(receiver, clip):
    return receiver.store / "acquisitions" / clip.fields["station"] / clip.acquisition / "clip.age"


def change(path):
    path.chmod(0o600)
    with path.open("r+b") as file:
        file.seek(-100, os.SEEK_END)
        byte = file.read(1)[0]
        file.seek(-100, os.SEEK_END)
        file.write(bytes([byte ^ 1]))


def zero(path):
    path.chmod(0o600)
    path.write_bytes(bytes(path.stat().st_size))


def cut(path):
    path.chmod(0o600)
    os.truncate(path, 1000)


DAMAGES = {
    "missing": (lambda path: path.unlink(), What.MISSING),
    "changed": (change, What.CHANGED),
    "zeroed": (zero, What.CHANGED),
    "truncated": (cut, What.LENGTH),
}


async def test_p11_what_is_stored_is_read_again_within_a_day_and_then_once_a_month(receiver, station):
    clips = [station.clip(size) for size in (10, 3 * SLICE_BYTES)]
    for clip in clips:
        await station.stored(clip)
    async with scrubbing(receiver, station) as scrub:
        assert (await said(scrub)).never == 2
        await scrub.turn()
        assert (await said(scrub)).looked == 0, "not while all of it is in memory still"
        receiver.clock.ahead += timedelta(hours=23)
        found = await looked(scrub)
        assert (found.objects, found.looked, found.never, found.late, found.losses) == (2, 2, 0, 0, 0)
        assert found.size_bytes == sum(len(clip.content) for clip in clips)
        assert found.is_whole
        receiver.clock.ahead += timedelta(days=31)
        assert (await said(scrub)).late == 2
        assert (await said(scrub)).oldest is None, "what was looked at too long ago is no look"
        assert (await looked(scrub)).looked == 2
        counts = await scrub.catalogue.run(scrub_rows.counts)
        assert counts == {
            "looks": 4,
            "bytes_read": 2 * found.size_bytes,
            "suspected": 0,
            "losses": 0,
            "mended": 0,
        }


@pytest.mark.parametrize("damage", DAMAGES)
async def test_p11_what_is_lost_or_changed_is_found_said_and_healed_when_it_is_sent_again(
    receiver, station, problem, damage, capsys
):
    spoil, what = DAMAGES[damage]
    async with scrubbing(receiver, station):
        receiver.clock.ahead = -timedelta(hours=15)  # the command goes by the machine's own
    kept, clip = station.clip(), station.clip()
    await station.stored(kept)
    url, given = await station.stored(clip)
    spoil(clip_of(receiver, clip))
    receiver.clock.ahead += timedelta(hours=7)
    async with scrubbing(receiver, station) as scrub:
        for _ in range(2):
            await scrub.turn()
        found = await said(scrub)
        assert (found.unread, found.losses) == (1, 0), "nothing is lost that was seen to be so once"
        found = await looked(scrub)
        assert (found.looked, found.unread, found.losses) == (2, 0, 1)
        (loss,) = await scrub.catalogue.run(lambda db: scrub_rows.losses(db, station.id, "", 10))
        assert (loss.acquisition, loss.what) == (clip.acquisition, what)
    capsys.readouterr()
    assert await asyncio.to_thread(main, ["receiver", "scrub", "--json", "--directory", str(receiver.store)]) == 65
    summary, lost = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert (summary["looked"], summary["losses"], summary["counts"]["losses"]) == (2, 1, 1)
    assert (lost["acquisition"], lost["what"], lost["healed"]) == (clip.acquisition, what, None)
    problem(await station.holding(clip), Kind.OBJECT_LOST)
    problem(await station.ranges(clip, [0, 10]), Kind.OBJECT_LOST)
    assert (await station.holding(kept)).status_code == 200

    answer = await station.announce(clip)
    assert (answer.json()["offset"], answer.json()["stored"]) == (0, False)
    assert (await station.patch(url, 0, clip.content)).status_code == 204
    again = sshsig.signed_from_json((await station.receipt(clip)).json())
    assert again == given
    verify_receipt(
        again, store_key=receiver.key.public, store=receiver.settings.store, station=station.id, manifest=clip.payload
    )
    assert (await station.holding(clip)).status_code == 200
    receiver.clock.ahead += timedelta(hours=7)
    async with scrubbing(receiver, station) as scrub:
        found = await looked(scrub)
        assert (found.looked, found.never, found.losses) == (2, 0, 0)
        (healed,) = await scrub.catalogue.run(scrub_rows.history)
        assert (healed.acquisition, healed.what, healed.healed_by) == (clip.acquisition, what, "sent-again")
    assert await asyncio.to_thread(main, ["receiver", "scrub", "--history", "--directory", str(receiver.store)]) == 0
    assert "sent-again" in capsys.readouterr().out


async def test_p11_what_its_people_put_back_is_no_loss_any_more(receiver, station):
    clip = station.clip()
    await station.stored(clip)
    path = clip_of(receiver, clip)
    elsewhere = path.rename(path.with_name("elsewhere"))
    receiver.clock.ahead += timedelta(hours=7)
    async with scrubbing(receiver, station) as scrub:
        assert (await looked(scrub)).losses == 1
        elsewhere.rename(path)
        receiver.clock.ahead += scrub_rows.AGAIN_MOST
        assert (await looked(scrub)).losses == 0
        (healed,) = await scrub.catalogue.run(scrub_rows.history)
        assert healed.healed_by == "found-well"
    assert (await station.holding(clip)).status_code == 200


async def test_p11_what_may_come_back_is_suspected_and_asked_for_again(receiver, station, capsys):
    clip = station.clip()
    await station.stored(clip)
    disk = receiver.store / "acquisitions" / station.id
    receiver.clock.ahead += timedelta(hours=7)
    async with scrubbing(receiver, station) as scrub:
        away = disk.rename(receiver.store / "not-mounted")
        for _ in range(5):
            found = await looked(scrub)
            assert (found.unread, found.losses, found.looked) == (1, 0, 0)
            receiver.clock.ahead += scrub_rows.AGAIN_MOST
        assert await asyncio.to_thread(main, ["receiver", "scrub", "--directory", str(receiver.store)]) == 65
        assert "UNREADABLE" in capsys.readouterr().out
        away.rename(disk)
        found = await looked(scrub)
        assert (found.unread, found.losses, found.looked) == (0, 0, 1)


async def test_p11_a_look_that_was_cut_short_is_begun_again_by_the_next_start(receiver, station):
    clip = station.clip(3 * SLICE_BYTES)
    await station.stored(clip)
    change(clip_of(receiver, clip))
    receiver.clock.ahead += timedelta(hours=7)
    async with scrubbing(receiver, station) as scrub:
        await scrub.turn()  # seen once; then it stops
    async with scrubbing(receiver, station) as scrub:
        receiver.clock.ahead += scrub_rows.AGAIN_FIRST
        assert (await looked(scrub)).losses == 1


@pytest.mark.parametrize("name", ["manifest.json", "manifest.json.sig", "receipt.json", "receipt.json.sig"])
@pytest.mark.parametrize("damage", ["gone", "changed"])
async def test_p11_what_is_kept_beside_a_clip_is_compared_and_mended(receiver, station, name, damage):
    clip = station.clip()
    await station.stored(clip)
    path = clip_of(receiver, clip).with_name(name)
    before = path.read_bytes()
    path.unlink()
    if damage == "changed":
        path.write_bytes(before[:-1])
    receiver.clock.ahead += timedelta(hours=7)
    async with scrubbing(receiver, station) as scrub:
        assert (await looked(scrub)).is_whole
        assert path.read_bytes() == before
        assert path.with_name(f"{name}.set-aside-1").exists() == (damage == "changed")
        (mended,) = await scrub.catalogue.run(scrub_rows.history)
        assert (mended.what, mended.detail, mended.healed_by) == (What.PAPERS, name, "mended")


async def test_p11_what_rests_on_another_stations_object_is_lost_with_it(receiver, station):
    other = await receiver.station()
    receiver.lookups[other.id] = frozenset({station.id})
    first = station.clip()
    await station.stored(first)
    second = other.clip(plaintext_digest=first.fields["plaintext_digest"])
    await other.announced(second)
    shared = await other.http.post(
        f"/acquisitions/{second.acquisition}/share",
        content=json.dumps({"type": "share-request", "v": 1, "manifest": first.digest}).encode(),
    )
    assert shared.status_code == 200, shared.text
    assert (await other.receipt(second)).status_code == 200
    receiver.clock.ahead += timedelta(hours=7)
    async with scrubbing(receiver, station, other) as scrub:
        found = await looked(scrub)
        assert (found.objects, found.looked, found.size_bytes) == (2, 2, len(first.content))
        clip_of(receiver, first).unlink()
        receiver.clock.ahead += timedelta(days=30)
        await looked(scrub)
        for whose, clip in ((station, first), (other, second)):
            (loss,) = await scrub.catalogue.run(lambda db, one=whose.id: scrub_rows.losses(db, one, "", 10))
            assert loss.acquisition == clip.acquisition
    answer = await other.announce(second)
    assert answer.json()["offset"] == 0
    assert (await other.patch(answer.json()["upload"], 0, second.content)).status_code == 204
    assert (await other.receipt(second)).status_code == 200
    receiver.clock.ahead += timedelta(hours=7)
    async with scrubbing(receiver, station, other) as scrub:
        await looked(scrub)
        assert await scrub.catalogue.run(lambda db: scrub_rows.losses(db, other.id, "", 10)) == []


async def test_reading_again_keeps_to_its_rate(receiver, station):
    clip = station.clip(4 * SLICE_BYTES)
    await station.stored(clip)
    receiver.clock.ahead += timedelta(hours=7)
    async with scrubbing(
        receiver, station, settings=replace(receiver.settings, scrub_bytes_per_s=SLICE_BYTES)
    ) as scrub:
        slept = []

        class Clock:
            now, monotonic_s = receiver.clock.now, receiver.clock.monotonic_s

            @staticmethod
            async def sleep(delay_s):
                slept.append(delay_s)
                receiver.clock.ahead += timedelta(seconds=delay_s)

        scrub.clock = Clock
        await scrub.turn()
        assert sum(slept) == pytest.approx(len(clip.content) / SLICE_BYTES, rel=0.05)
        assert max(slept) < 1.1


async def test_a_receiver_looks_by_itself(tmp_path, receiver, station):
    clip = station.clip()
    await station.stored(clip)
    await receiver.stop()
    await receiver.start(replace(receiver.settings, scrub_first_within=timedelta(milliseconds=20)))
    path = receiver.store / "catalogue.sqlite"
    for _ in range(2000):
        await receiver.clock.sleep(0.01)
        with closing(sqlite3.connect(path)) as db:
            (looks,) = db.execute("SELECT count(*) FROM look WHERE looked_us IS NOT NULL").fetchone()
        if looks:
            break
    assert looks == 1


def test_the_thread_that_reads_makes_itself_the_least_of_all():
    def idle():
        refused = be_idle()
        return refused, os.getpriority(os.PRIO_PROCESS, threading.get_native_id())

    before = os.getpriority(os.PRIO_PROCESS, 0)
    with ThreadPoolExecutor(1) as pool:
        refused, nice = pool.submit(idle).result()
    assert (refused, nice) == ("", 19)
    assert os.getpriority(os.PRIO_PROCESS, 0) == before, "the others are not slowed down"


async def told(receiver, station, after="", nonce=bytes(32)):
    body = canonical.encode({"type": "losses-request", "v": 1, "nonce": nonce.hex(), "after": after})
    answer = await station.http.post("/losses", content=body)
    assert answer.status_code == 200, answer.text
    return verify_losses(
        sshsig.signed_from_json(answer.json()),
        store_key=receiver.key.public,
        store=receiver.settings.store,
        station=station.id,
        nonce=nonce,
        after=after,
    )


async def test_p11_a_station_is_told_what_of_its_clips_is_lost_and_how_much_was_looked_at(receiver, station, problem):
    other = await receiver.station()
    clips = [station.clip() for _ in range(3)]
    for clip in clips:
        await station.stored(clip)
    await other.stored(other.clip())
    said = await told(receiver, station)
    assert (said.looking.objects, said.looking.looked, said.looking.never, said.losses) == (3, 0, 3, ())
    for clip in clips[:2]:
        clip_of(receiver, clip).unlink()
    receiver.clock.ahead += timedelta(hours=7)
    async with scrubbing(receiver, station, other) as scrub:
        await looked(scrub)
    await station.stored(station.clip())
    said = await told(receiver, station)
    assert (said.looking.objects, said.looking.looked, said.looking.never, said.looking.losses) == (4, 3, 1, 2)
    assert [one.acquisition for one in said.losses] == sorted(clip.acquisition for clip in clips[:2])
    assert {one.what for one in said.losses} == {"missing"}
    assert said.looking.oldest < said.at
    beyond = await told(receiver, station, after=said.losses[0].acquisition)
    assert (beyond.losses, beyond.more) == (said.losses[1:], False)
    theirs = await told(receiver, other)
    assert (theirs.looking.objects, theirs.looking.looked, theirs.losses) == (1, 1, ())
    body = canonical.encode({"type": "losses-request", "v": 1, "nonce": bytes(32).hex(), "after": "x"})
    problem(await station.http.post("/losses", content=body), Kind.MALFORMED)
    del station.http.headers["Authorization"]
    problem(await station.http.post("/losses", content=body), Kind.NO_TOKEN)
