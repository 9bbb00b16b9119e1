"""The conformance suite's second half: stores that keep objects. How they finish, describe, give back and let go."""

import hashlib

import pytest
from contract.evidence import blocks
from contract.stores.pushing import pieces, push, read, register, send, settled, stored

from dockd.core.objects import Algorithm, Piece
from dockd.core.transfer import Call
from dockd.errors import (
    OffsetConflict,
    StoreBusy,
    StoreIncomplete,
    StoreRefused,
    StoreUnreachable,
    UploadLost,
)


async def test_p01_three_objects_are_described_and_given_back(objects_case):
    case, store, clip = objects_case, objects_case.adapter(), objects_case.clip()
    objects = await stored(case, store, clip)
    later = case.adapter()  # by new requests, of a new life
    states = await later.look(objects)
    for piece, content in pieces(clip).items():
        assert states[piece].size_bytes == len(content)
        assert _fits(states[piece].checksum, content)
        assert await read(later, objects, piece) == content
    assert await read(later, objects, Piece.SEALED, 70_000) == clip.content[70_000:]
    assert await read(later, objects, Piece.SEALED, len(clip.content) - 1) == clip.content[-1:]
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
    url = await register(store, clip)
    with pytest.raises(StoreIncomplete):
        await store.finish(url, clip.acquisition, clip.manifest)
    await send(store, url, clip, end=1, piece_bytes=case.piece_bytes)
    with pytest.raises(StoreIncomplete):
        await store.finish(url, clip.acquisition, clip.manifest)
    await push(store, url, clip, case.piece_bytes)
    await store.look(await store.finish(url, clip.acquisition, clip.manifest))


async def test_p02_finishing_again_is_the_same(objects_case):
    case, store, clip = objects_case, objects_case.adapter(), objects_case.clip()
    objects = await stored(case, store, clip)
    url = await register(store, clip)
    assert await store.offset(url) == len(clip.content)
    assert await store.finish(url, clip.acquisition, clip.manifest) == objects
    assert await read(store, objects, Piece.SEALED) == clip.content


async def test_p02_another_life_finishes(objects_case):
    case, store, clip = objects_case, objects_case.adapter(), objects_case.clip()
    url = await register(store, clip)
    await push(store, url, clip, case.piece_bytes)
    await store.finish(url, clip.acquisition, clip.manifest)
    later = case.adapter()
    assert await later.offset(url) == len(clip.content)
    objects = await later.finish(url, clip.acquisition, clip.manifest)
    for piece, content in pieces(clip).items():
        assert await read(later, objects, piece) == content


async def test_p02_a_lost_answer_to_finish_is_no_loss(objects_case):
    case, store, clip = objects_case, objects_case.adapter(), objects_case.clip()
    url = await register(store, clip)
    await push(store, url, clip, case.piece_bytes)
    case.faults.lose(Call.FINISH)
    with pytest.raises(StoreUnreachable):
        await store.finish(url, clip.acquisition, clip.manifest)
    objects = await settled(lambda: store.finish(url, clip.acquisition, clip.manifest))
    for piece, content in pieces(clip).items():
        assert await read(store, objects, piece) == content


async def test_p02_a_failed_finish_is_tried_again(objects_case):
    case, store, clip = objects_case, objects_case.adapter(), objects_case.clip()
    url = await register(store, clip)
    await push(store, url, clip, case.piece_bytes)
    for status in (500, 502, 503, 504, 507):
        case.faults.answer(Call.FINISH, status)
        with pytest.raises((StoreBusy, StoreUnreachable)):
            await store.finish(url, clip.acquisition, clip.manifest)
    objects = await settled(lambda: store.finish(url, clip.acquisition, clip.manifest))
    for piece, content in pieces(clip).items():
        assert await read(store, objects, piece) == content


async def test_p02_a_finished_upload_takes_no_more_bytes(objects_case):
    case, store, clip = objects_case, objects_case.adapter(), objects_case.clip()
    objects = await stored(case, store, clip)
    url = await register(store, clip)
    with pytest.raises((UploadLost, OffsetConflict)):
        await store.append(url, 0, blocks(b"x" * 1000), 1000)
    assert await read(store, objects, Piece.SEALED) == clip.content


@pytest.mark.parametrize("piece", list(Piece))
async def test_p01_an_object_that_is_gone_is_missed(objects_case, piece):
    case, store, clip = objects_case, objects_case.adapter(), objects_case.clip()
    objects = await stored(case, store, clip)
    await case.remove(objects, piece)
    with pytest.raises(UploadLost):
        await store.look(objects)
    with pytest.raises(UploadLost):
        await read(store, objects, piece)


async def test_another_object_under_the_name_is_not_overwritten(objects_case):
    case, store, clip = objects_case, objects_case.adapter(), objects_case.clip()
    url = await register(store, clip)
    await push(store, url, clip, case.piece_bytes)
    await case.occupy(url, clip)
    with pytest.raises(StoreRefused):
        await store.finish(url, clip.acquisition, clip.manifest)


async def test_an_abandoned_upload_is_begun_anew(objects_case):
    case, store, clip = objects_case, objects_case.adapter(), objects_case.clip()
    url = await register(store, clip)
    await send(store, url, clip, end=1, piece_bytes=case.piece_bytes)
    await store.abandon(url)
    await store.abandon(url)
    again = await register(store, clip)
    assert await store.offset(again) == 0
    await push(store, again, clip, case.piece_bytes)
    await store.look(await store.finish(again, clip.acquisition, clip.manifest))


async def test_p01_what_is_finished_is_not_abandoned(objects_case):
    case, store, clip = objects_case, objects_case.adapter(), objects_case.clip()
    url = await register(store, clip)
    await push(store, url, clip, case.piece_bytes)
    objects = await store.finish(url, clip.acquisition, clip.manifest)
    await store.abandon(url)
    assert await read(store, objects, Piece.SEALED) == clip.content
