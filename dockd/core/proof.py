"""What the word of a store is worth: decided here alone, from what a trial found, for every kind of store.

`dockd doctor`, status, the confirmation of a clip and its erase warrant take their verdict from `weigh`, so that what
is said of a store and what is erased on its word cannot differ. Nothing counts that no trial showed; what no trial
could show yet is told apart from what a trial showed to be missing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

from dockd.core.challenge import Range
from dockd.core.findings import Answer, Findings, Question
from dockd.core.objects import ObjectState, Piece
from dockd.core.policy import PolicyStore
from dockd.model import Entropy

WHOLE_BYTES = 64 * 1024 * 1024  # up to this length an object whose checksum is not believed is read back whole
CHUNK_BYTES = 64 * 1024  # a range that is read back is such a chunk, counted from the object's start
CHUNKS = 256  # of a longer object: the first, the last, and one out of each of so many less two equal stretches
SAMPLED = 16  # the same of an object whose checksum is believed, as a sample
_OFFSET_BYTES = 16  # so many random bytes choose a chunk: the remainder then favours none that could be noticed

_CHECKSUM = (Question.WRONG_CHECKSUM, Question.CHECKSUM_BACK)


class Needs(StrEnum):
    """What "the store still has it" takes, right before erasing."""

    STATEMENT = "statement"  # its signed holding statement, with a new nonce
    CHECKSUM = "checksum"  # its own SHA-256 of all three objects, by new requests, and a sample of their bytes
    BYTES = "bytes"  # the bytes: all of them up to WHOLE_BYTES, of longer objects ranges that nobody could foresee


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What one store's word can be worth."""

    needs: Needs
    said: tuple[str, ...]  # what that means for erasing, in sentences
    cannot: tuple[str, ...] = ()  # what a trial showed that speaks against it: nothing is erased on its word
    untried: tuple[str, ...] = ()  # what has to be shown first, and could not be tried yet: the same until then

    @property
    def held(self) -> tuple[str, ...]:
        """Why nothing is erased on its word now; empty where it can be."""
        return (*self.cannot, *self.untried)


def weigh(store: PolicyStore | None, findings: Findings, *, signs: bool) -> Verdict:
    """The verdict on a store. `signs`: it is a receiver, whose signatures are verified one by one, whatever was found.

    Of several findings for one question the last one that is known counts.
    """
    if signs:
        return Verdict(needs=Needs.STATEMENT, said=("A clip is confirmed by its signed receipt.",))
    answers = _answers(findings)
    if answers.get(Question.COMPLETE) is Answer.NO:
        reason = "it lacks something that dockd needs: clips wait on their cameras"
        return _kept(Verdict(needs=Needs.BYTES, said=(f"I{reason[1:]}.",), cannot=(reason,)), store, answers)
    if believes_checksum(findings):
        needs, said = Needs.CHECKSUM, "A clip is confirmed by the store's own SHA-256 of all three objects."
    else:
        needs, said = Needs.BYTES, "No checksum is believed: a clip is confirmed by reading all of it back."
    verdict = _readable(Verdict(needs=needs, said=(said,)), answers.get(Question.READ_BACK))
    return _kept(verdict, store, answers)


def believes_checksum(findings: Findings) -> bool:
    """Whether a trial saw that the store refuses wrong SHA-256 checksums, and gives back the right ones."""
    answers = _answers(findings)
    return all(answers.get(one) is Answer.YES for one in _CHECKSUM)


def believed(states: Mapping[Piece, ObjectState], verdict: Verdict) -> dict[Piece, ObjectState]:
    """The same states, without the checksums where none is believed."""
    if verdict.needs is Needs.CHECKSUM:
        return dict(states)
    return {piece: replace(state, checksum=None) for piece, state in states.items()}


def is_whole(size_bytes: int, needs: Needs) -> bool:
    """Whether an object of this length has to be read back whole."""
    return size_bytes <= (WHOLE_BYTES if needs is Needs.BYTES else SAMPLED * CHUNK_BYTES)


def choose_chunks(size_bytes: int, needs: Needs, random: Entropy) -> tuple[Range, ...]:
    """What of an object has to be shown right before erasing: all of it, or chunks that nobody can foresee.

    One chunk is taken out of each of equally long stretches. So damage that is as long as two of them is met for
    certain, and damage to a share f of the chunks, wherever, is missed with a chance of (1 - f) ** 254 at most.
    """
    if is_whole(size_bytes, needs):
        return (Range(offset=0, length=size_bytes),)
    last = (size_bytes - 1) // CHUNK_BYTES
    stretches = (CHUNKS if needs is Needs.BYTES else SAMPLED) - 2
    chosen = [0]
    for number in range(stretches):
        first, behind = (1 + (last - 1) * one // stretches for one in (number, number + 1))
        chosen.append(first + int.from_bytes(random(_OFFSET_BYTES), "big") % (behind - first))
    ends = ((one, min(size_bytes, (one + 1) * CHUNK_BYTES)) for one in (*chosen, last))
    return tuple(Range(offset=one * CHUNK_BYTES, length=end - one * CHUNK_BYTES) for one, end in ends)


def least_shown(size_bytes: int, needs: Needs) -> int:
    """The bytes of an object of this length that have to be the same right before erasing."""
    if is_whole(size_bytes, needs):
        return size_bytes
    chunks = CHUNKS if needs is Needs.BYTES else SAMPLED
    return (chunks - 1) * CHUNK_BYTES + (size_bytes - 1) % CHUNK_BYTES + 1


def _answers(findings: Findings) -> dict[str, Answer]:
    return {str(one.question): one.answer for one in findings if one.answer is not Answer.UNKNOWN}


def _readable(verdict: Verdict, given: Answer | None) -> Verdict:
    """Without bytes nothing is confirmed. Not tried is no obstacle: each clip shows it anew, or is held."""
    if given is Answer.NO:
        reason = "it gave nothing back, or other bytes than it was sent: it confirms nothing, clips are held"
        return replace(verdict, said=(f"I{reason[1:]}.",), cannot=(reason,))
    if given is None:
        more = "Not tried yet: whether it gives bytes back. Each clip has to show it; one that does not is held."
        return replace(verdict, said=(*verdict.said, more))
    return verdict


def _kept(verdict: Verdict, store: PolicyStore | None, answers: Mapping[str, Answer]) -> Verdict:
    locked = answers.get(Question.LOCKED)
    days = 0 if store is None else store.min_retention.days
    if not days:
        return replace(verdict, said=(*verdict.said, "Nothing makes it keep a clip: whoever may delete there can."))
    if locked is Answer.YES:
        said = f"It counts where the store locks every object for {days} days or more, which is read back."
        return replace(verdict, said=(*verdict.said, said))
    if locked is Answer.NO:
        reason = f"no lock was seen to hold, and {days} days are asked for: nothing counts, clips are held"
        return replace(verdict, said=(*verdict.said, f"N{reason[1:]}."), cannot=(*verdict.cannot, reason))
    reason = f"its lock was not tried yet, and {days} days are asked for: clips are held until it was"
    return replace(verdict, said=(*verdict.said, f"I{reason[1:]}."), untried=(*verdict.untried, reason))
