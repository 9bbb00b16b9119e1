"""One suite for every kind of evidence store, in memory and as real servers, directly and through proxies.

What an adapter must do is in dockd/stores/port.py; each test here holds one of its sentences, or one of the hard cases
that every upload meets. Stores that sign have more tests in test_evidence_store.py.
"""

import asyncio
import contextlib
import hashlib

import pytest
from contract.evidence import blocks, certificate
from contract.stores import enforced, exclusions
from contract.stores.conftest import KINDS
from servers.scripted import scripted

from dockd.core.objects import Algorithm, Piece
from dockd.core.transfer import Call
from dockd.errors import (
    OffsetConflict,
    PatchTooLarge,
    StoreBusy,
    StoreError,
    StoreIncomplete,
    StoreRefused,
    StoreUnreachable,
    StoreUntrusted,
    UploadLost,
)

REFUSALS = (400, 401, 403, 404, 409, 410, 423, 460, 500, 502, 504, 507, 511)
REDIRECTS = (302, 307, 308)
PATIENCE = 1200  # how often something that settles by itself is asked for; some servers hold a lock for ten seconds
RETRIED = (StoreBusy, StoreUnreachable, OffsetConflict)  # what a push goes on after


def test_every_exclusion_is_of_a_test_and_a_kind_that_exist():
    names = {kind.name for kind in KINDS}
    assert set(exclusions.EXCLUDED) <= set(globals())
    assert all(set(kinds) <= names and all(kinds.values()) for kinds in exclusions.EXCLUDED.values())


def test_what_a_server_is_not_put_through_stands_in_the_document():
    servers = {kind.name: kind for kind in KINDS if kind.servers}
    rows = [
        f"| {test.removeprefix('test_').replace('_', ' ')} | {servers[name].title} | {why} |"
        for test, kinds in exclusions.EXCLUDED.items()
        for name, why in kinds.items()
        if name in servers
    ]
    missing = [row for row in rows if row not in enforced.DOCUMENT.read_text()]
    assert not missing, "docs/stores.md should show:\n" + "\n".join(rows)


async def _register(store, clip):
    return await store.register(clip.acquisition, clip.manifest, len(clip.content))


async def _send(store, url, clip, *, offset=0, end=None, piece_bytes=64 * 1024):
    """Append from `offset` until `end` is reached or passed; returns where it stands."""
    while offset < (len(clip.content) if end is None else end):
        offset = await _append(store, url, clip, offset, piece_bytes)
    return offset


async def _append(store, url, clip, offset, wanted_bytes):
    length = store.stretch(url, offset, min(wanted_bytes, len(clip.content) - offset))
    return await store.append(url, offset, blocks(clip.content[offset : offset + length]), length)


async def _settled(ask):
    """What `ask` gives, once the server let go of a connection that broke."""
    for _ in range(PATIENCE):
        with contextlib.suppress(*RETRIED):
            return await ask()
        await asyncio.sleep(0.05)
    return await ask()


async def _push(store, url, clip, piece_bytes=64 * 1024):
    """To the end, as a pusher does: ask for the offset after every doubt."""

    async def rest():
        return await _send(store, url, clip, offset=await store.offset(url), piece_bytes=piece_bytes)

    assert await _settled(rest) == len(clip.content)


async def _stored(case, store, clip):
    url = await _register(store, clip)
    await _push(store, url, clip, case.piece_bytes)
    return await store.finish(url, clip.acquisition, clip.manifest)


async def _read(store, objects, piece, offset=0):
    async with contextlib.aclosing(store.read(objects, piece, offset)) as got:
        return b"".join([block async for block in got])


def _pieces(clip):
    return {
        Piece.SEALED: clip.content,
        Piece.MANIFEST: clip.manifest.payload,
        Piece.SIGNATURE: clip.manifest.signature.encode(),
    }


# --- register, offset, append


async def test_an_upload_goes_on_where_it_stopped(case):
    store, clip = case.adapter(), case.clip()
    url = await _register(store, clip)
    assert await store.offset(url) == 0
    stopped = await _send(store, url, clip, end=1, piece_bytes=case.piece_bytes)
    assert await store.offset(url) == stopped > 0
    await _send(store, url, clip, offset=stopped, piece_bytes=case.piece_bytes)


async def test_p02_another_life_goes_on_with_what_the_journal_kept(case):
    clip = case.clip()
    first = case.adapter()
    url = await _register(first, clip)
    stopped = await _send(first, url, clip, end=1, piece_bytes=case.piece_bytes)
    second = case.adapter()
    assert await second.offset(url) == stopped
    assert await _send(second, url, clip, offset=stopped, piece_bytes=case.piece_bytes) == len(clip.content)


async def test_registering_again_is_the_same_upload(case):
    store, clip = case.adapter(), case.clip()
    url = await _register(store, clip)
    stopped = await _send(store, url, clip, end=1, piece_bytes=case.piece_bytes)
    again = await _register(store, clip)
    assert await store.offset(again) == stopped
    await _push(store, again, clip, case.piece_bytes)
    assert await store.offset(url) == len(clip.content)


async def test_p02_another_life_that_registers_again_goes_on_with_the_upload_it_knows(case):
    clip, first = case.clip(), case.adapter()
    url = await _register(first, clip)
    stopped = await _send(first, url, clip, end=1, piece_bytes=case.piece_bytes)
    second = case.adapter()
    assert await second.offset(url) == stopped
    assert await second.offset(await _register(second, clip)) == stopped


async def test_two_clips_do_not_mix(case):
    store, one, other = case.adapter(), case.clip(), case.clip()
    urls = [await _register(store, clip) for clip in (one, other)]
    async with asyncio.TaskGroup() as tasks:
        for url, clip in zip(urls, (one, other), strict=True):
            tasks.create_task(_push(store, url, clip, case.piece_bytes))
    assert urls[0] != urls[1]


@pytest.mark.parametrize("kept", [0, 1, 30_000])
async def test_p02_a_cut_append_is_resumed_where_the_store_stands(case, kept):
    store, clip = case.adapter(), case.clip()
    url = await _register(store, clip)
    case.faults.cut(kept)
    with pytest.raises(StoreUnreachable):
        await _append(store, url, clip, 0, case.piece_bytes)
    stands = await _settled(lambda: store.offset(url))
    assert 0 <= stands <= max(kept, case.piece_bytes)
    await _push(store, url, clip, case.piece_bytes)


async def test_p02_a_lost_answer_to_an_append_is_no_loss(case):
    store, clip = case.adapter(), case.clip()
    url = await _register(store, clip)
    case.faults.lose(Call.APPEND)
    with pytest.raises(StoreUnreachable):
        await _append(store, url, clip, 0, case.piece_bytes)
    await _push(store, url, clip, case.piece_bytes)


async def test_p02_a_lost_answer_to_a_registration_is_asked_for_again(case):
    store, clip = case.adapter(), case.clip()
    case.faults.lose(Call.REGISTER)
    with pytest.raises(StoreUnreachable):
        await _register(store, clip)
    url = await _settled(lambda: _register(store, clip))
    await _push(store, url, clip, case.piece_bytes)


async def test_a_wrong_offset_changes_nothing(case):
    store, clip = case.adapter(), case.clip()
    url = await _register(store, clip)
    stopped = await _send(store, url, clip, end=1, piece_bytes=case.piece_bytes)
    # An nginx may lose the word of a server that refuses before it has read the body.
    with pytest.raises(OffsetConflict if case.nginx is None else (OffsetConflict, StoreUnreachable)):
        await _append(store, url, clip, 0, case.piece_bytes)
    assert await _settled(lambda: store.offset(url)) == stopped


@pytest.mark.parametrize("status", [429, 503])
async def test_a_busy_store_says_when_to_come_back(case, status):
    store, clip = case.adapter(), case.clip()
    url = await _register(store, clip)
    case.faults.answer(Call.APPEND, status, "Retry-After: 7")
    with pytest.raises(StoreBusy) as caught:
        await _append(store, url, clip, 0, 4096)
    assert caught.value.retry_after_s == 7.0
    await _push(store, url, clip, case.piece_bytes)


@pytest.mark.parametrize("status", [413, 503])
async def test_an_early_refusal_is_survived(case, status):
    """The client may lose a status that comes while it still sends: then the connection broke, and asking goes on."""
    store, clip = case.adapter(), case.clip(size=3_000_000)
    url = await _register(store, clip)
    case.faults.answer(Call.APPEND, status, early=True)
    with pytest.raises((PatchTooLarge, StoreBusy, StoreUnreachable)):
        await _append(store, url, clip, 0, len(clip.content))
    assert await _settled(lambda: store.offset(url)) == 0
    await _push(store, url, clip, case.piece_bytes)


async def test_no_refusal_of_an_append_condemns_anything(case):
    """Said by something on the way, not by the store: nothing is lost, nothing goes elsewhere, and all goes on."""
    store, clip = case.adapter(), case.clip()
    url = await _register(store, clip)
    async with scripted() as elsewhere:
        for status in (*REFUSALS, *REDIRECTS):
            headers = [f"Location: {elsewhere.url}/files/x"] if status in REDIRECTS else []
            case.faults.answer(Call.APPEND, status, *headers)
            with pytest.raises((*RETRIED, UploadLost)):
                await _append(store, url, clip, 0, 4096)
            assert await _settled(lambda: store.offset(url)) == 0, status
        assert elsewhere.seen == []
    await _push(store, url, clip, case.piece_bytes)


async def test_a_store_that_fails_to_say_where_it_stands_is_asked_again(case):
    """HEAD or its like: a failure is never a reason to begin anew."""
    store, clip = case.adapter(), case.clip()
    url = await _register(store, clip)
    stopped = await _send(store, url, clip, end=1, piece_bytes=case.piece_bytes)
    for status in (423, 500, 502, 503, 504):
        case.faults.answer(Call.OFFSET, status)
        with pytest.raises((StoreBusy, StoreUnreachable)):
            await store.offset(url)
    assert await store.offset(url) == stopped


@pytest.mark.parametrize("status", [404, 410])
async def test_an_upload_that_was_not_found_once_is_gone_on_with(case, status):
    store, clip = case.adapter(), case.clip()
    url = await _register(store, clip)
    stopped = await _send(store, url, clip, end=1, piece_bytes=case.piece_bytes)
    case.faults.answer(Call.OFFSET, status)
    with pytest.raises((UploadLost, StoreUnreachable)):
        await store.offset(url)
    assert await store.offset(await _register(store, clip)) == stopped


async def test_p02_another_life_goes_on_while_the_first_ones_append_still_hangs_at_the_store(case):
    clip, first = case.clip(), case.adapter()
    url = await _register(first, clip)
    hangs = case.faults.hang(30_000)
    length = first.stretch(url, 0, len(clip.content))
    hanging = asyncio.create_task(first.append(url, 0, blocks(clip.content[:length]), length))
    try:
        assert await asyncio.to_thread(hangs.wait, 60)
        await _push(case.adapter(), url, clip, case.piece_bytes)
    finally:
        hanging.cancel()
        with pytest.raises((asyncio.CancelledError, StoreError)):
            await hanging
    assert await case.adapter().offset(url) == len(clip.content)


async def test_a_certificate_of_another_authority_stops_everything(nginx_case, tmp_path):
    case, (another, _) = nginx_case, certificate(tmp_path)
    store = case.adapter(lambda: case.at(case.nginx.passing, another))
    with pytest.raises(StoreUntrusted, match="certificate"):
        await _register(store, case.clip())


async def test_a_proxy_that_takes_small_bodies_only(nginx_case):
    """nginx as nobody set it up: 1 MiB. Larger pieces never get through; smaller ones do."""
    case, nginx = nginx_case, nginx_case.nginx
    store, clip = case.adapter(lambda: case.at(nginx.limited, nginx.ca_file)), case.clip(size=3_000_000)
    url = await _register(store, clip)
    with pytest.raises((PatchTooLarge, StoreUnreachable)):
        await _append(store, url, clip, 0, len(clip.content))
    await _push(store, url, clip, 512 * 1024)


async def test_after_a_cancelled_append_the_rest_can_be_sent(case):
    store, clip = case.adapter(), case.clip(size=1_000_000)
    url = await _register(store, clip)
    length = store.stretch(url, 0, len(clip.content))
    begun = asyncio.Event()

    async def halting():
        yield clip.content[: length // 2]
        begun.set()
        await asyncio.Event().wait()

    sending = asyncio.create_task(store.append(url, 0, halting(), length))
    await asyncio.wait_for(begun.wait(), 60)
    sending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sending
    await _push(store, url, clip, case.piece_bytes)


async def test_wrong_credentials_hold_and_condemn_nothing(case):
    store, clip = case.adapter(case.connect_wrongly), case.clip()
    with pytest.raises(StoreError) as caught:
        await _register(store, clip)
    # Neither a verdict on the clip nor a reason to begin anew: credentials are mended, and all goes on.
    assert not isinstance(caught.value, StoreRefused | UploadLost | StoreIncomplete)
    url = await _register(case.adapter(), clip)
    stopped = await _send(case.adapter(), url, clip, end=1, piece_bytes=case.piece_bytes)
    with pytest.raises(StoreError) as caught:
        await store.offset(url)
    assert not isinstance(caught.value, StoreRefused | UploadLost | StoreIncomplete)
    assert await case.adapter().offset(url) == stopped


async def test_an_upload_that_expired_is_lost_and_can_be_made_again(case):
    store, clip = case.adapter(), case.clip()
    url = await _register(store, clip)
    await _send(store, url, clip, end=1, piece_bytes=case.piece_bytes)
    await case.expire(url)
    with pytest.raises(UploadLost):
        await store.offset(url)
    again = await _register(store, clip)
    assert again != url
    await _push(store, again, clip, case.piece_bytes)


async def test_a_full_disk_keeps_what_was_acknowledged(case):
    store, clip = case.adapter(), case.clip(size=1_000_000)
    url = await _register(store, clip)
    stopped = await _send(store, url, clip, end=1, piece_bytes=case.piece_bytes)
    async with case.fill():
        with pytest.raises((StoreBusy, StoreUnreachable, StoreIncomplete)):
            await _send(store, url, clip, offset=stopped, piece_bytes=len(clip.content))
    await _push(store, url, clip, case.piece_bytes)


async def test_closing_twice_is_no_error(case):
    store = case.adapter()
    await store.aclose()
    await store.aclose()


# --- stores of objects: finish, look, read, abandon


async def test_p01_three_objects_are_described_and_given_back(objects_case):
    case, store, clip = objects_case, objects_case.adapter(), objects_case.clip()
    objects = await _stored(case, store, clip)
    later = case.adapter()  # by new requests, of a new life
    states = await later.look(objects)
    for piece, content in _pieces(clip).items():
        assert states[piece].size_bytes == len(content)
        assert _fits(states[piece].checksum, content)
        assert await _read(later, objects, piece) == content
    assert await _read(later, objects, Piece.SEALED, 70_000) == clip.content[70_000:]
    assert await _read(later, objects, Piece.SEALED, len(clip.content) - 1) == clip.content[-1:]
    again = await later.look(objects)
    assert {piece: state.version for piece, state in again.items()} == {p: s.version for p, s in states.items()}


def _fits(checksum, content):
    if checksum is None:
        return True  # then the object is read back, as the test does
    if checksum.algorithm is Algorithm.SHA256:
        return checksum.digest == hashlib.sha256(content).digest()
    part = checksum.part_bytes
    digests = (hashlib.sha256(content[at : at + part]).digest() for at in range(0, len(content), part))
    return checksum.digest == hashlib.sha256(b"".join(digests)).digest()


async def test_p01_nothing_is_finished_while_bytes_are_missing(objects_case):
    case, store, clip = objects_case, objects_case.adapter(), objects_case.clip()
    url = await _register(store, clip)
    with pytest.raises(StoreIncomplete):
        await store.finish(url, clip.acquisition, clip.manifest)
    await _send(store, url, clip, end=1, piece_bytes=case.piece_bytes)
    with pytest.raises(StoreIncomplete):
        await store.finish(url, clip.acquisition, clip.manifest)
    await _push(store, url, clip, case.piece_bytes)
    await store.look(await store.finish(url, clip.acquisition, clip.manifest))


async def test_p02_finishing_again_is_the_same(objects_case):
    case, store, clip = objects_case, objects_case.adapter(), objects_case.clip()
    objects = await _stored(case, store, clip)
    url = await _register(store, clip)
    assert await store.offset(url) == len(clip.content)
    assert await store.finish(url, clip.acquisition, clip.manifest) == objects
    assert await _read(store, objects, Piece.SEALED) == clip.content


async def test_p02_another_life_finishes(objects_case):
    case, store, clip = objects_case, objects_case.adapter(), objects_case.clip()
    url = await _register(store, clip)
    await _push(store, url, clip, case.piece_bytes)
    await store.finish(url, clip.acquisition, clip.manifest)
    later = case.adapter()
    assert await later.offset(url) == len(clip.content)
    objects = await later.finish(url, clip.acquisition, clip.manifest)
    for piece, content in _pieces(clip).items():
        assert await _read(later, objects, piece) == content


async def test_p02_a_lost_answer_to_finish_is_no_loss(objects_case):
    case, store, clip = objects_case, objects_case.adapter(), objects_case.clip()
    url = await _register(store, clip)
    await _push(store, url, clip, case.piece_bytes)
    case.faults.lose(Call.FINISH)
    with pytest.raises(StoreUnreachable):
        await store.finish(url, clip.acquisition, clip.manifest)
    objects = await _settled(lambda: store.finish(url, clip.acquisition, clip.manifest))
    for piece, content in _pieces(clip).items():
        assert await _read(store, objects, piece) == content


async def test_p02_a_failed_finish_is_tried_again(objects_case):
    case, store, clip = objects_case, objects_case.adapter(), objects_case.clip()
    url = await _register(store, clip)
    await _push(store, url, clip, case.piece_bytes)
    for status in (500, 502, 503, 504, 507):
        case.faults.answer(Call.FINISH, status)
        with pytest.raises((StoreBusy, StoreUnreachable)):
            await store.finish(url, clip.acquisition, clip.manifest)
    objects = await _settled(lambda: store.finish(url, clip.acquisition, clip.manifest))
    for piece, content in _pieces(clip).items():
        assert await _read(store, objects, piece) == content


async def test_p02_a_finished_upload_takes_no_more_bytes(objects_case):
    case, store, clip = objects_case, objects_case.adapter(), objects_case.clip()
    objects = await _stored(case, store, clip)
    url = await _register(store, clip)
    with pytest.raises((UploadLost, OffsetConflict)):
        await store.append(url, 0, blocks(b"x" * 1000), 1000)
    assert await _read(store, objects, Piece.SEALED) == clip.content


@pytest.mark.parametrize("piece", list(Piece))
async def test_p01_an_object_that_is_gone_is_missed(objects_case, piece):
    case, store, clip = objects_case, objects_case.adapter(), objects_case.clip()
    objects = await _stored(case, store, clip)
    await case.remove(objects, piece)
    with pytest.raises(UploadLost):
        await store.look(objects)
    with pytest.raises(UploadLost):
        await _read(store, objects, piece)


async def test_another_object_under_the_name_is_not_overwritten(objects_case):
    case, store, clip = objects_case, objects_case.adapter(), objects_case.clip()
    url = await _register(store, clip)
    await _push(store, url, clip, case.piece_bytes)
    await case.occupy(url, clip)
    with pytest.raises(StoreRefused):
        await store.finish(url, clip.acquisition, clip.manifest)


async def test_an_abandoned_upload_is_begun_anew(objects_case):
    case, store, clip = objects_case, objects_case.adapter(), objects_case.clip()
    url = await _register(store, clip)
    await _send(store, url, clip, end=1, piece_bytes=case.piece_bytes)
    await store.abandon(url)
    await store.abandon(url)
    again = await _register(store, clip)
    assert await store.offset(again) == 0
    await _push(store, again, clip, case.piece_bytes)
    await store.look(await store.finish(again, clip.acquisition, clip.manifest))


async def test_p01_what_is_finished_is_not_abandoned(objects_case):
    case, store, clip = objects_case, objects_case.adapter(), objects_case.clip()
    url = await _register(store, clip)
    await _push(store, url, clip, case.piece_bytes)
    objects = await store.finish(url, clip.acquisition, clip.manifest)
    await store.abandon(url)
    assert await _read(store, objects, Piece.SEALED) == clip.content
