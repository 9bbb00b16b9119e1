"""One suite for every kind of evidence store, in memory and as real servers, directly and through proxies.

What an adapter must do is in dockd/stores/port.py; each test here holds one of its sentences, or one of the hard cases
that every upload meets. test_object_conformance.py goes on with stores that keep objects; those that sign have more
tests in test_evidence_store.py.
"""

import asyncio

import pytest
from contract.evidence import blocks, certificate
from contract.stores.pushing import RETRIED, append, push, register, send, settled
from servers.scripted import scripted

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


async def test_an_upload_goes_on_where_it_stopped(case):
    store, clip = case.adapter(), case.clip()
    url = await register(store, clip)
    assert await store.offset(url) == 0
    stopped = await send(store, url, clip, end=1, piece_bytes=case.piece_bytes)
    assert await store.offset(url) == stopped > 0
    await send(store, url, clip, offset=stopped, piece_bytes=case.piece_bytes)


async def test_p02_another_life_goes_on_with_what_the_journal_kept(case):
    clip = case.clip()
    first = case.adapter()
    url = await register(first, clip)
    stopped = await send(first, url, clip, end=1, piece_bytes=case.piece_bytes)
    second = case.adapter()
    assert await second.offset(url) == stopped
    assert await send(second, url, clip, offset=stopped, piece_bytes=case.piece_bytes) == len(clip.content)


async def test_registering_again_is_the_same_upload(case):
    store, clip = case.adapter(), case.clip()
    url = await register(store, clip)
    stopped = await send(store, url, clip, end=1, piece_bytes=case.piece_bytes)
    again = await register(store, clip)
    assert await store.offset(again) == stopped
    await push(store, again, clip, case.piece_bytes)
    assert await store.offset(url) == len(clip.content)


async def test_p02_another_life_that_registers_again_goes_on_with_the_upload_it_knows(case):
    clip, first = case.clip(), case.adapter()
    url = await register(first, clip)
    stopped = await send(first, url, clip, end=1, piece_bytes=case.piece_bytes)
    second = case.adapter()
    assert await second.offset(url) == stopped
    assert await second.offset(await register(second, clip)) == stopped


async def test_two_clips_do_not_mix(case):
    store, one, other = case.adapter(), case.clip(), case.clip()
    urls = [await register(store, clip) for clip in (one, other)]
    async with asyncio.TaskGroup() as tasks:
        for url, clip in zip(urls, (one, other), strict=True):
            tasks.create_task(push(store, url, clip, case.piece_bytes))
    assert urls[0] != urls[1]


@pytest.mark.parametrize("kept", [0, 1, 30_000])
async def test_p02_a_cut_append_is_resumed_where_the_store_stands(case, kept):
    store, clip = case.adapter(), case.clip()
    url = await register(store, clip)
    case.faults.cut(kept)
    with pytest.raises(StoreUnreachable):
        await append(store, url, clip, 0, case.piece_bytes)
    stands = await settled(lambda: store.offset(url))
    assert 0 <= stands <= max(kept, case.piece_bytes)
    await push(store, url, clip, case.piece_bytes)


async def test_p02_a_lost_answer_to_an_append_is_no_loss(case):
    store, clip = case.adapter(), case.clip()
    url = await register(store, clip)
    case.faults.lose(Call.APPEND)
    with pytest.raises(StoreUnreachable):
        await append(store, url, clip, 0, case.piece_bytes)
    await push(store, url, clip, case.piece_bytes)


async def test_p02_a_lost_answer_to_a_registration_is_asked_for_again(case):
    store, clip = case.adapter(), case.clip()
    case.faults.lose(Call.REGISTER)
    with pytest.raises(StoreUnreachable):
        await register(store, clip)
    url = await settled(lambda: register(store, clip))
    await push(store, url, clip, case.piece_bytes)


async def test_a_wrong_offset_changes_nothing(case):
    store, clip = case.adapter(), case.clip()
    url = await register(store, clip)
    stopped = await send(store, url, clip, end=1, piece_bytes=case.piece_bytes)
    # An nginx may lose the word of a server that refuses before it has read the body.
    with pytest.raises(OffsetConflict if case.nginx is None else (OffsetConflict, StoreUnreachable)):
        await append(store, url, clip, 0, case.piece_bytes)
    assert await settled(lambda: store.offset(url)) == stopped


@pytest.mark.parametrize("status", [429, 503])
async def test_a_busy_store_says_when_to_come_back(case, status):
    store, clip = case.adapter(), case.clip()
    url = await register(store, clip)
    case.faults.answer(Call.APPEND, status, "Retry-After: 7")
    with pytest.raises(StoreBusy) as caught:
        await append(store, url, clip, 0, 4096)
    assert caught.value.retry_after_s == 7.0
    await push(store, url, clip, case.piece_bytes)


@pytest.mark.parametrize("status", [413, 503])
async def test_an_early_refusal_is_survived(case, status):
    """The client may lose a status that comes while it still sends: then the connection broke, and asking goes on."""
    store, clip = case.adapter(), case.clip(size=3_000_000)
    url = await register(store, clip)
    case.faults.answer(Call.APPEND, status, early=True)
    with pytest.raises((PatchTooLarge, StoreBusy, StoreUnreachable)):
        await append(store, url, clip, 0, len(clip.content))
    assert await settled(lambda: store.offset(url)) == 0
    await push(store, url, clip, case.piece_bytes)


async def test_no_refusal_of_an_append_condemns_anything(case):
    """Said by something on the way, not by the store: nothing is lost, nothing goes elsewhere, and all goes on."""
    store, clip = case.adapter(), case.clip()
    url = await register(store, clip)
    async with scripted() as elsewhere:
        for status in (*REFUSALS, *REDIRECTS):
            headers = [f"Location: {elsewhere.url}/files/x"] if status in REDIRECTS else []
            case.faults.answer(Call.APPEND, status, *headers)
            with pytest.raises((*RETRIED, UploadLost)):
                await append(store, url, clip, 0, 4096)
            assert await settled(lambda: store.offset(url)) == 0, status
        assert elsewhere.seen == []
    await push(store, url, clip, case.piece_bytes)


async def test_a_store_that_fails_to_say_where_it_stands_is_asked_again(case):
    """HEAD or its like: a failure is never a reason to begin anew."""
    store, clip = case.adapter(), case.clip()
    url = await register(store, clip)
    stopped = await send(store, url, clip, end=1, piece_bytes=case.piece_bytes)
    for status in (423, 500, 502, 503, 504):
        case.faults.answer(Call.OFFSET, status)
        with pytest.raises((StoreBusy, StoreUnreachable)):
            await store.offset(url)
    assert await store.offset(url) == stopped


@pytest.mark.parametrize("status", [404, 410])
async def test_an_upload_that_was_not_found_once_is_gone_on_with(case, status):
    store, clip = case.adapter(), case.clip()
    url = await register(store, clip)
    stopped = await send(store, url, clip, end=1, piece_bytes=case.piece_bytes)
    case.faults.answer(Call.OFFSET, status)
    with pytest.raises((UploadLost, StoreUnreachable)):
        await store.offset(url)
    assert await store.offset(await register(store, clip)) == stopped


async def test_p02_another_life_goes_on_while_the_first_ones_append_still_hangs_at_the_store(case):
    clip, first = case.clip(), case.adapter()
    url = await register(first, clip)
    hangs = case.faults.hang(30_000)
    length = first.stretch(url, 0, len(clip.content))
    hanging = asyncio.create_task(first.append(url, 0, blocks(clip.content[:length]), length))
    try:
        assert await asyncio.to_thread(hangs.wait, 60)
        await push(case.adapter(), url, clip, case.piece_bytes)
    finally:
        hanging.cancel()
        with pytest.raises((asyncio.CancelledError, StoreError)):
            await hanging
    assert await case.adapter().offset(url) == len(clip.content)


async def test_a_certificate_of_another_authority_stops_everything(nginx_case, tmp_path):
    case, (another, _) = nginx_case, certificate(tmp_path)
    store = case.adapter(lambda: case.at(case.nginx.passing, another))
    with pytest.raises(StoreUntrusted, match="certificate"):
        await register(store, case.clip())


async def test_a_proxy_that_takes_small_bodies_only(nginx_case):
    """nginx as nobody set it up: 1 MiB. Larger pieces never get through; smaller ones do."""
    case, nginx = nginx_case, nginx_case.nginx
    store, clip = case.adapter(lambda: case.at(nginx.limited, nginx.ca_file)), case.clip(size=3_000_000)
    url = await register(store, clip)
    with pytest.raises((PatchTooLarge, StoreUnreachable)):
        await append(store, url, clip, 0, len(clip.content))
    await push(store, url, clip, 512 * 1024)


async def test_after_a_cancelled_append_the_rest_can_be_sent(case):
    store, clip = case.adapter(), case.clip(size=1_000_000)
    url = await register(store, clip)
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
    await push(store, url, clip, case.piece_bytes)


async def test_wrong_credentials_hold_and_condemn_nothing(case):
    store, clip = case.adapter(case.connect_wrongly), case.clip()
    with pytest.raises(StoreError) as caught:
        await register(store, clip)
    # Neither a verdict on the clip nor a reason to begin anew: credentials are mended, and all goes on.
    assert not isinstance(caught.value, StoreRefused | UploadLost | StoreIncomplete)
    url = await register(case.adapter(), clip)
    stopped = await send(case.adapter(), url, clip, end=1, piece_bytes=case.piece_bytes)
    with pytest.raises(StoreError) as caught:
        await store.offset(url)
    assert not isinstance(caught.value, StoreRefused | UploadLost | StoreIncomplete)
    assert await case.adapter().offset(url) == stopped


async def test_an_upload_that_expired_is_lost_and_can_be_made_again(case):
    store, clip = case.adapter(), case.clip()
    url = await register(store, clip)
    await send(store, url, clip, end=1, piece_bytes=case.piece_bytes)
    await case.expire(url)
    with pytest.raises(UploadLost):
        await store.offset(url)
    again = await register(store, clip)
    assert again != url
    await push(store, again, clip, case.piece_bytes)


async def test_a_full_disk_keeps_what_was_acknowledged(case):
    store, clip = case.adapter(), case.clip(size=1_000_000)
    url = await register(store, clip)
    stopped = await send(store, url, clip, end=1, piece_bytes=case.piece_bytes)
    async with case.fill():
        with pytest.raises((StoreBusy, StoreUnreachable, StoreIncomplete)):
            await send(store, url, clip, offset=stopped, piece_bytes=len(clip.content))
    await push(store, url, clip, case.piece_bytes)


async def test_closing_twice_is_no_error(case):
    store = case.adapter()
    await store.aclose()
    await store.aclose()
