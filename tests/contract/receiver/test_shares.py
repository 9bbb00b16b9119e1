"""What one station has announced and not finished takes no room from another, and makes way by itself."""

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest

from dockd.core import sshsig
from dockd.core.keyfiles import StorePublic
from dockd.errors import Disposition, StoreBusy
from dockd.model import SignedBytes
from dockd.receiver.problems import Kind
from dockd.stores.receiver_store import ReceiverStore

TUS = {"Tus-Resumable": "1.0.0"}


@pytest.fixture
async def shares(receiver):
    """Start the receiver again with shares of the test's own, in bytes and uploads."""

    async def start(**settings):
        await receiver.stop()
        receiver.settings = replace(receiver.settings, station_percent=0, **settings)
        await receiver.start()
        return receiver

    return start


async def test_who_announces_much_and_sends_nothing_waits_and_others_do_not(shares, problem):
    receiver = await shares(station_least_bytes=250_000)
    greedy, other = await receiver.station(), await receiver.station()
    taken = [await greedy.announce(greedy.clip()) for _ in range(10)]
    assert [answer.status_code for answer in taken] == [201] * 2 + [507] * 8
    said = problem(taken[-1], Kind.STATION_SHARE)
    assert "station_percent" in said["detail"]
    assert int(taken[-1].headers["Retry-After"]) > 0
    for _ in range(3):
        await other.stored(other.clip())


async def test_a_clip_that_had_to_wait_goes_on_when_another_one_is_finished(shares, problem):
    receiver = await shares(station_least_bytes=250_000)
    station = await receiver.station()
    first, second, third = (station.clip() for _ in range(3))
    await station.announced(first)
    url = await station.announced(second)
    problem(await station.announce(third), Kind.STATION_SHARE)
    assert (await station.announce(second)).status_code == 200  # what is announced stays announced
    await station.patch(url, 0, second.content)
    problem(await station.announce(third), Kind.STATION_SHARE)  # its bytes are there, and still unfinished
    assert (await station.receipt(second)).status_code == 200
    await station.stored(third)
    await station.stored(first)


async def test_uploads_are_counted_however_small_they_are(shares, problem):
    receiver = await shares(station_unfinished=3)
    station, other = await receiver.station(), await receiver.station()
    clips = [station.clip(100) for _ in range(4)]
    urls = [await station.announced(clip) for clip in clips[:3]]
    problem(await station.announce(clips[3]), Kind.STATION_SHARE)
    assert (await other.announce(other.clip(100))).status_code == 201
    assert (await station.http.delete(urls[0], headers=TUS)).status_code == 204
    await station.announced(clips[3])


async def test_what_never_got_a_byte_goes_after_a_day_and_what_got_one_stays(receiver, station):
    silent, begun = station.clip(), station.clip()
    gone, kept = await station.announced(silent), await station.announced(begun)
    await station.patch(kept, 0, begun.content[:5000])
    receiver.clock.ahead = timedelta(days=1, minutes=1)
    await receiver.stop()
    await receiver.start()
    await station.log_in()
    async with asyncio.timeout(10):
        while (await station.http.head(gone, headers=TUS)).status_code != 404:
            await asyncio.sleep(0)
    assert await station.offset(kept) == 5000
    await station.stored(silent)  # announced again, it is as it was


async def test_a_clip_that_is_taken_anew_after_a_loss_counts_as_all_others(shares, problem):
    receiver = await shares(station_least_bytes=250_000)
    station = await receiver.station()
    lost, one, two = (station.clip() for _ in range(3))
    await station.stored(lost)
    urls = [await station.announced(clip) for clip in (one, two)]
    (receiver.store / "acquisitions" / station.id / lost.acquisition / "clip.age").unlink()
    problem(await station.announce(lost), Kind.STATION_SHARE)
    assert (await station.http.delete(urls[0], headers=TUS)).status_code == 204
    assert (await station.announce(lost)).json()["offset"] == 0
    await station.stored(lost)


async def test_to_a_stations_adapter_it_is_a_store_that_has_too_much_to_do_and_no_verdict_on_the_clip(shares):
    receiver = await shares(station_unfinished=1)
    station = await receiver.station()
    store = ReceiverStore(
        url=f"https://127.0.0.1:{receiver.port}/",
        ca_file=receiver.cert,
        store_public=StorePublic(store=receiver.settings.store, key=receiver.key.public),
        station=station.id,
        key=station.key,
        clock=receiver.clock,
    )
    first, second = station.clip(), station.clip()
    signed = {
        clip: SignedBytes(payload=clip.payload, signature=sshsig.sign(station.key, sshsig.MANIFEST, clip.payload))
        for clip in (first, second)
    }
    try:
        await store.register(first.acquisition, signed[first], len(first.content))
        with pytest.raises(StoreBusy, match="unfinished") as caught:
            await store.register(second.acquisition, signed[second], len(second.content))
        assert caught.value.disposition is Disposition.RETRY
        await station.stored(first)
        await store.register(second.acquisition, signed[second], len(second.content))
    finally:
        await store.aclose()
