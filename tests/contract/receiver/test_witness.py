"""Checkpoints: a station's log may only grow, and a fork is kept as evidence."""

import json

import pytest

from dockd.core import checkpoint, merkle, receipts
from dockd.errors import VerificationFailed
from dockd.receiver.generation import accept_log
from dockd.receiver.problems import Kind

STORE = "0190a5c0-0000-4000-8000-00000000000a"


class Log:
    def __init__(self, station, count, *, salt="", generation=0):
        self._station, self._frontier, self._nodes = station, merkle.Frontier(), {}
        self._origin = checkpoint.origin_of(station.id, generation)
        for number in range(count):
            for level, index, value in self._frontier.append(f"{salt if number > 3 else ''}{number}".encode()):
                self._nodes[level, index] = value

    def node(self, level, index):
        return self._nodes[level, index]

    def note(self, size, key=None):
        head = checkpoint.Checkpoint(origin=self._origin, size=size, root=merkle.root_at(self, size))
        return checkpoint.sign(head, key or self._station.checkpoint_key)

    def proof(self, old, new):
        return merkle.consistency_proof(self, old, new) if 0 < old < new else ()


async def _size(station):
    return (await station.http.get("/checkpoints")).json()["size"]


async def test_p07_a_growing_log_is_cosigned(receiver, station):
    log = Log(station, 20)
    assert await _size(station) == 0
    for old, new in ((0, 5), (5, 5), (5, 20)):
        answer = await station.checkpoint(log.note(new), old, log.proof(old, new))
        assert answer.status_code == 200, answer.text
        note = answer.json()["note"].encode()
        at = checkpoint.verify_cosignature(note, f"dockd-store/{STORE}", receiver.key.public)
        assert abs(at - receiver.clock.now().timestamp()) < 60
        assert await _size(station) == new
        assert (receiver.store / "checkpoints" / station.id).read_bytes() == note
    await receiver.stop()
    await receiver.start()
    assert await _size(station) == 20


async def test_p07_a_receipt_says_what_was_witnessed(receiver, station):
    log = Log(station, 7)
    await station.checkpoint(log.note(7), 0)
    clip = station.clip(100)
    _, signed = await station.stored(clip)
    receipt = receipts.verify_receipt(
        signed, store_key=receiver.key.public, store=STORE, station=station.id, manifest=clip.payload
    )
    assert (receipt.witnessed_size, receipt.witnessed_root) == (7, merkle.root_at(log, 7))


async def test_p07_an_older_checkpoint_with_a_proof_is_cosigned_and_the_newest_stays(station, problem):
    log = Log(station, 20)
    await station.checkpoint(log.note(12), 0)
    answer = await station.checkpoint(log.note(6), 12, log.proof(6, 12))
    assert answer.status_code == 200
    assert await _size(station) == 12
    problem(await station.checkpoint(log.note(6), 12), Kind.LOG_FORKED)


async def test_another_size_than_the_newest_is_told(station, problem):
    log = Log(station, 9)
    assert problem(await station.checkpoint(log.note(9), 4), Kind.CHECKPOINT_SIZE)["size"] == 0
    await station.checkpoint(log.note(9), 0)
    assert problem(await station.checkpoint(log.note(9), 0), Kind.CHECKPOINT_SIZE)["size"] == 9


@pytest.mark.parametrize("size", [9, 12, 5])
async def test_p07_a_fork_is_refused_and_kept_as_evidence(receiver, station, problem, size):
    log, other = Log(station, 12), Log(station, 12, salt="rewritten")
    await station.checkpoint(log.note(9), 0)
    first, last = sorted((9, size))
    for number in (1, 2):
        problem(await station.checkpoint(other.note(size), 9, other.proof(first, last)), Kind.LOG_FORKED)
        kept = json.loads((receiver.store / "checkpoints" / f"{station.id}.fork-{number}").read_bytes())
        assert kept["shown"].encode() == other.note(size)
        assert kept["known"].encode().startswith(log.note(9))
    assert await _size(station) == 9
    assert (await station.checkpoint(log.note(12), 9, log.proof(9, 12))).status_code == 200


async def test_a_checkpoint_of_another_log_or_key_is_refused(receiver, station, problem):
    other = await receiver.station()
    problem(await station.checkpoint(Log(other, 3).note(3), 0), Kind.OTHER_LOG)
    log = Log(station, 3)
    problem(await station.checkpoint(log.note(3, station.key), 0), Kind.OTHER_LOG)
    problem(await station.checkpoint(b"hello\n", 0), Kind.OTHER_LOG)
    await station.checkpoint(log.note(3), 0)
    problem(await station.checkpoint(Log(station, 5, generation=1).note(5), 3), Kind.OTHER_LOG)


async def test_what_is_no_checkpoint_submission_is_refused(station, problem):
    note = Log(station, 3).note(3).decode()
    good = {"type": "checkpoint-submission", "v": 1, "old_size": 0, "proof": [], "note": note}
    for changes in ({"old_size": -1}, {"proof": ["xx"]}, {"proof": ["00" * 32] * 129}, {"note": 1}, {"more": 1}):
        body = json.dumps(good | changes).encode()
        problem(await station.http.post("/checkpoints", content=body), Kind.MALFORMED)


async def test_p07_a_log_that_begins_anew_has_to_be_accepted_by_a_person(receiver, station, problem):
    old, new = Log(station, 12, generation=1), Log(station, 5, salt="new", generation=2)
    await station.checkpoint(old.note(9), 0)
    problem(await station.checkpoint(new.note(5), 9), Kind.OTHER_LOG)
    with pytest.raises(VerificationFailed, match="newer generation"):
        accept_log(receiver.store, station.id, 1)
    with pytest.raises(VerificationFailed, match="not enrolled"):
        accept_log(receiver.store, "0190a5c0-0000-4000-8000-00000000000b", 2)

    for _ in range(2):
        done = accept_log(receiver.store, station.id, 2)
        assert (done.former, done.former_size) == (checkpoint.origin_of(station.id, 1), 9)
    assert await _size(station) == 0
    problem(await station.checkpoint(old.note(12), 0, ()), Kind.CHECKPOINT_SIZE)
    assert (await station.checkpoint(new.note(5), 0)).status_code == 200
    kept = (receiver.store / "checkpoints" / f"{station.id}.generation-1").read_bytes()
    assert kept.startswith(old.note(9))
    assert await _size(station) == 5
    problem(await station.checkpoint(old.note(12), 5, old.proof(5, 12)), Kind.OTHER_LOG)
    problem(await station.checkpoint(Log(station, 3, generation=3).note(3), 5), Kind.OTHER_LOG)
    await receiver.stop()
    await receiver.start()
    assert await _size(station) == 5
