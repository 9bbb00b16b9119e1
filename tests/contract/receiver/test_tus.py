"""The tus 1.0 server: core, creation, creation-with-upload, checksum, termination, expiration, and who may write."""

import asyncio
import contextlib
import hashlib
from dataclasses import replace
from datetime import timedelta
from email.utils import parsedate_to_datetime

import httpx
import pytest

from dockd.receiver.problems import Kind

TUS = {"Tus-Resumable": "1.0.0"}
BYTES = TUS | {"Content-Type": "application/offset+octet-stream"}


def _create(b64, clip, length=None):
    named = {"Upload-Metadata": f"acquisition {b64(clip.acquisition.encode())}"}
    return TUS | named | {"Upload-Length": str(len(clip.content) if length is None else length)}


class Body:
    """A body that a test sends piece by piece."""

    def __init__(self, *pieces):
        self._pieces = asyncio.Queue()
        for piece in pieces:
            self.send(piece)

    def send(self, piece):
        self._pieces.put_nowait(piece)

    def end(self):
        self._pieces.put_nowait(None)

    async def __aiter__(self):
        while (piece := await self._pieces.get()) is not None:
            yield piece


def _uploaded_bytes(receiver):
    return sum(path.stat().st_size for path in (receiver.store / "uploads").iterdir())


async def _arrived(receiver, size):
    """Wait until the receiver has written so many bytes."""
    async with asyncio.timeout(10):
        while _uploaded_bytes(receiver) < size:
            await asyncio.sleep(0)


async def _refused_or_cut(sending, kind):
    """The answer comes before the body's end, and the connection is closed: a client may see either first."""
    with contextlib.suppress(httpx.TransportError):
        assert (await sending).status_code == kind.status


async def test_options_say_what_is_offered(receiver):
    client = await receiver.connect()
    for path in ("/uploads", "/uploads/anything"):
        answer = await client.options(path)
        assert answer.status_code == 204
        assert answer.headers["Tus-Version"] == answer.headers["Tus-Resumable"] == "1.0.0"
        offered = set(answer.headers["Tus-Extension"].split(","))
        assert offered == {"creation", "creation-with-upload", "checksum", "termination", "expiration"}
        assert answer.headers["Tus-Checksum-Algorithm"] == "sha256,sha1"
        assert int(answer.headers["Tus-Max-Size"]) == receiver.settings.max_clip_bytes


async def test_every_call_names_its_version(station, problem, b64):
    clip = station.clip()
    url = await station.announced(clip)
    for method, path in (("POST", "/uploads"), ("PATCH", url), ("DELETE", url)):
        for version in ({}, {"Tus-Resumable": "0.2.2"}):
            answer = await station.http.request(
                method, path, headers=_create(b64, clip) | {"Tus-Resumable": ""} | version
            )
            problem(answer, Kind.TUS_VERSION)
            assert answer.headers["Tus-Version"] == "1.0.0"


async def test_head_tells_offset_length_and_expiry(receiver, station):
    clip = station.clip()
    url = await station.announced(clip)
    await station.patch(url, 0, clip.content[:4000])
    answer = await station.http.head(url, headers=TUS)
    assert answer.headers["Upload-Offset"] == "4000"
    assert answer.headers["Upload-Length"] == str(len(clip.content))
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["Tus-Resumable"] == "1.0.0"
    ends = parsedate_to_datetime(answer.headers["Upload-Expires"]) - receiver.clock.now()
    assert timedelta(days=13) < ends <= timedelta(days=14)


async def test_p02_pieces_add_up_and_an_offset_is_on_the_disk(receiver, station):
    clip = station.clip(9 << 20)
    url = await station.announced(clip)
    offset = 0
    for size in (1, 17, 65_535, 3 << 20, 0, len(clip.content)):
        piece = clip.content[offset : offset + size]
        answer = await station.patch(url, offset, piece)
        offset += len(piece)
        assert (answer.status_code, answer.headers["Upload-Offset"]) == (204, str(offset))
        assert await station.offset(url) == offset
        assert _uploaded_bytes(receiver) == offset
    assert (await station.receipt(clip)).status_code == 200


async def test_a_patch_at_another_offset_is_told_where_to_go_on(station, problem):
    clip = station.clip()
    url = await station.announced(clip)
    await station.patch(url, 0, clip.content[:1000])
    for offset in (0, 999, 1001):
        assert problem(await station.patch(url, offset, b"x"), Kind.OFFSET_MISMATCH)["offset"] == 1000
    for offset in ("", "-1", "1e3", "٣"):
        headers = BYTES | {"Upload-Offset": offset.encode()}
        problem(await station.http.patch(url, content=b"x", headers=headers), Kind.MALFORMED)
    assert await station.offset(url) == 1000


async def test_a_patch_has_its_content_type(station, problem):
    url = await station.announced(station.clip())
    headers = TUS | {"Upload-Offset": "0", "Content-Type": "application/octet-stream"}
    problem(await station.http.patch(url, content=b"x", headers=headers), Kind.CONTENT_TYPE)


async def test_more_bytes_than_announced_are_refused(station, problem):
    clip = station.clip()
    url = await station.announced(clip)
    problem(await station.patch(url, 0, clip.content + b"x"), Kind.LENGTH_MISMATCH)
    assert await station.offset(url) == 0

    async def unsized():
        yield clip.content
        yield b"x"

    problem(await station.patch(url, 0, unsized()), Kind.LENGTH_MISMATCH)
    offset = await station.offset(url)
    assert (await station.patch(url, offset, clip.content[offset:])).status_code == 204
    assert (await station.receipt(clip)).status_code == 200


async def test_an_unknown_upload_is_not_found(station, problem):
    problem(await station.patch("/uploads/unknown", 0, b"x"), Kind.NOT_FOUND)
    answer = await station.http.head("/uploads/unknown", headers=TUS)
    assert (answer.status_code, answer.headers["Tus-Resumable"]) == (404, "1.0.0")


async def test_p02_early_refusals_reach_a_client_that_is_still_sending(station, problem):
    clip = station.clip(24 << 20)
    url = await station.announced(clip)

    async def blocks():
        for at in range(0, len(clip.content), 1 << 18):
            yield clip.content[at : at + (1 << 18)]

    for _ in range(5):
        sized = {"Content-Length": str(len(clip.content))}
        problem(await station.patch(url, 5, blocks(), **sized), Kind.OFFSET_MISMATCH)
    assert await station.offset(url) == 0


# --- creation


async def test_creation_needs_an_announcement(receiver, station, problem, b64):
    clip = station.clip()
    problem(await station.http.post("/uploads", headers=_create(b64, clip)), Kind.NOT_ANNOUNCED)
    url = await station.announced(clip)
    problem(await station.http.post("/uploads", headers=TUS | {"Upload-Length": "5"}), Kind.NOT_ANNOUNCED)
    problem(await station.http.post("/uploads", headers=_create(b64, clip, 5)), Kind.LENGTH_MISMATCH)
    problem(await station.http.post("/uploads", headers=_create(b64, clip) | {"Upload-Length": ""}), Kind.MALFORMED)
    broken = _create(b64, clip) | {"Upload-Metadata": "acquisition ???"}
    problem(await station.http.post("/uploads", headers=broken), Kind.MALFORMED)
    other = await receiver.station()
    problem(await other.http.post("/uploads", headers=_create(b64, clip)), Kind.NOT_ANNOUNCED)
    answer = await station.http.post("/uploads", headers=_create(b64, clip))
    assert (answer.status_code, answer.headers["Location"]) == (201, url)
    await station.patch(url, 0, clip.content)
    await station.receipt(clip)
    problem(await station.http.post("/uploads", headers=_create(b64, clip)), Kind.FINISHED)


async def test_creation_with_upload(station, b64):
    clip = station.clip()
    url = await station.announced(clip)
    said = _create(b64, clip) | {"Content-Type": "application/offset+octet-stream"}
    answer = await station.http.post("/uploads", headers=said, content=clip.content[:5000])
    assert (answer.status_code, answer.headers["Location"], answer.headers["Upload-Offset"]) == (201, url, "5000")
    again = await station.http.post("/uploads", headers=said, content=clip.content)  # what was kept stays
    assert (again.status_code, again.headers["Upload-Offset"]) == (201, "5000")
    assert (await station.patch(url, 5000, clip.content[5000:])).status_code == 204
    assert (await station.receipt(clip)).status_code == 200


# --- checksum


@pytest.mark.parametrize("algorithm", ["sha1", "sha256"])
async def test_a_checksum_is_checked_and_nothing_kept_on_a_mismatch(receiver, station, problem, b64, algorithm):
    clip = station.clip(5 << 20)
    url = await station.announced(clip)
    piece = clip.content[: 3 << 20]
    right = f"{algorithm} {b64(hashlib.new(algorithm, piece).digest())}"
    wrong = f"{algorithm} {b64(hashlib.new(algorithm, b'').digest())}"
    problem(await station.patch(url, 0, piece, **{"Upload-Checksum": wrong}), Kind.CHECKSUM_MISMATCH)
    assert await station.offset(url) == 0
    assert (await station.patch(url, 0, piece, **{"Upload-Checksum": right})).status_code == 204
    rest = clip.content[3 << 20 :]
    problem(await station.patch(url, len(piece), rest, **{"Upload-Checksum": wrong}), Kind.CHECKSUM_MISMATCH)
    assert (await station.patch(url, len(piece), rest)).status_code == 204
    assert (await station.receipt(clip)).status_code == 200


async def test_an_unknown_checksum_is_refused(station, problem):
    url = await station.announced(station.clip())
    problem(await station.patch(url, 0, b"x", **{"Upload-Checksum": "crc32 AAAA"}), Kind.CHECKSUM_UNKNOWN)
    problem(await station.patch(url, 0, b"x", **{"Upload-Checksum": "sha1 ???"}), Kind.MALFORMED)


async def test_a_body_with_a_checksum_that_is_cut_off_leaves_nothing(receiver, station, b64):
    clip = station.clip(5 << 20)
    url = await station.announced(clip)
    body = Body(clip.content[: 3 << 20])
    said = {"Upload-Checksum": f"sha1 {b64(bytes(20))}", "Content-Length": str(len(clip.content))}
    sending = asyncio.create_task(station.patch(url, 0, body, **said))
    await _arrived(receiver, 2 << 20)
    sending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sending
    assert await station.offset(url) == 0


# --- termination, expiration


async def test_termination_forgets_bytes_and_announcement(receiver, station, problem):
    clip = station.clip()
    url = await station.announced(clip)
    await station.patch(url, 0, clip.content[:5000])
    assert (await station.http.delete(url, headers=TUS)).status_code == 204
    assert (await station.http.head(url, headers=TUS)).status_code == 404
    assert _uploaded_bytes(receiver) == 0
    problem(await station.receipt(clip), Kind.NOT_FOUND)
    await station.stored(clip)


async def test_an_upload_expires_some_time_after_its_last_byte(receiver, station):
    clip, other = station.clip(), station.clip()
    url, lively = await station.announced(clip), await station.announced(other)
    await station.patch(url, 0, clip.content[:5000])
    receiver.clock.ahead = timedelta(days=10)
    await station.log_in()
    await station.patch(lively, 0, other.content[:5000])
    receiver.clock.ahead = timedelta(days=15)
    await receiver.stop()
    await receiver.start()  # the sweep runs at start, and every minute
    await station.log_in()
    async with asyncio.timeout(10):
        while (await station.http.head(url, headers=TUS)).status_code != 404:
            await asyncio.sleep(0)
    assert await station.offset(lively) == 5000
    await station.stored(clip)


async def test_a_method_may_be_meant_in_a_header(station):
    clip = station.clip()
    url = await station.announced(clip)
    said = BYTES | {"Upload-Offset": "0", "X-HTTP-Method-Override": "PATCH"}
    assert (await station.http.post(url, headers=said, content=clip.content)).status_code == 204
    assert await station.offset(url) == len(clip.content)


# --- one writer


async def test_p02_what_arrived_before_a_cut_is_kept(receiver, station):
    clip = station.clip(6 << 20)
    url = await station.announced(clip)
    body = Body(clip.content[: 4 << 20])
    sending = asyncio.create_task(station.patch(url, 0, body, **{"Content-Length": str(len(clip.content))}))
    await _arrived(receiver, 3 << 20)
    sending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sending
    offset = await station.offset(url)  # HEAD waits for what the dead PATCH still writes
    assert 3 << 20 <= offset <= 4 << 20
    assert (await station.patch(url, offset, clip.content[offset:])).status_code == 204
    assert (await station.receipt(clip)).status_code == 200


async def test_one_writer_at_a_time(receiver, station, problem):
    clip = station.clip(6 << 20)
    url = await station.announced(clip)
    body = Body(clip.content[: 2 << 20])
    sending = asyncio.create_task(station.patch(url, 0, body))
    await _arrived(receiver, 1 << 20)
    answer = await station.patch(url, 0, b"x")
    problem(answer, Kind.LOCKED)
    assert int(answer.headers["Retry-After"]) > 0
    problem(await station.http.delete(url, headers=TUS), Kind.LOCKED)
    problem(await station.receipt(clip), Kind.LOCKED)
    body.send(clip.content[2 << 20 :])
    body.end()
    assert (await sending).status_code == 204
    assert (await station.receipt(clip)).status_code == 200


async def test_p02_a_silent_connection_gives_way_to_the_next(receiver, station, problem):
    clip = station.clip(6 << 20)
    url = await station.announced(clip)
    body = Body(clip.content[: 2 << 20])
    silent = asyncio.create_task(station.patch(url, 0, body))
    await _arrived(receiver, 1 << 20)
    async with asyncio.timeout(10):
        while (answer := await station.patch(url, 0, b"x")).status_code == Kind.LOCKED.status:
            receiver.clock.ahead += timedelta(seconds=11)
    offset = problem(answer, Kind.OFFSET_MISMATCH)["offset"]  # the lock is free
    assert 1 << 20 <= offset <= 2 << 20  # and the bytes were kept
    body.end()
    await _refused_or_cut(silent, Kind.LOCKED)
    assert (await station.patch(url, offset, clip.content[offset:])).status_code == 204
    assert (await station.receipt(clip)).status_code == 200


async def test_a_stalled_body_is_ended_and_kept(receiver, station, problem):
    await receiver.stop()
    await receiver.start(replace(receiver.settings, stall=timedelta(seconds=0.2)))
    clip = station.clip(6 << 20)
    url = await station.announced(clip)
    body = Body(clip.content[: 2 << 20])
    sending = asyncio.create_task(station.patch(url, 0, body))
    await _arrived(receiver, 2 << 20)
    assert await station.offset(url) == 2 << 20
    body.end()
    await _refused_or_cut(sending, Kind.STALLED)


async def test_p02_stopping_ends_patches_at_once_and_keeps_their_bytes(receiver, station):
    clip = station.clip(6 << 20)
    url = await station.announced(clip)
    body = Body(clip.content[: 2 << 20])
    sending = asyncio.create_task(station.patch(url, 0, body))
    await _arrived(receiver, 1 << 20)
    async with asyncio.timeout(5):
        await receiver.stop()
    body.end()
    await _refused_or_cut(sending, Kind.STOPPING)
    await receiver.start()
    assert 1 << 20 <= await station.offset(url) <= 2 << 20


async def test_acknowledged_bytes_that_the_disk_lost_are_not_claimed(receiver, station, problem):
    clip = station.clip()
    url = await station.announced(clip)
    await station.patch(url, 0, clip.content[:60_000])
    (path,) = (receiver.store / "uploads").iterdir()
    with path.open("r+b") as file:
        file.truncate(50_000)
    assert problem(await station.patch(url, 60_000, b"x"), Kind.OFFSET_MISMATCH)["offset"] == 50_000
    assert (await station.patch(url, 50_000, clip.content[50_000:])).status_code == 204
    assert (await station.receipt(clip)).status_code == 200
