"""Every write of dockd that has to be durable, by name, in one place; and what can go wrong at each.

A crash or a failing disk shows itself at one of these points, so a test that makes each of them fail in each way has
tried every state in which dockd can be found afterwards. dockd.faults makes them fail; docs/reliability.md has the
figures. Pure: names and nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, StrEnum
from typing import Self


class Act(Enum):
    """What is done at a point."""

    WRITE = "bytes are written: also half of them can be"
    WHOLE = "something is done that happens wholly or not at all, or cannot be seen half done"


class Kind(StrEnum):
    """A way to fail."""

    FAILED = "failed"  # an error, and nothing was done
    LOST = "lost"  # it was done, but an error is all that is heard of it
    EIO = "eio"  # an error, and nothing was done: the medium fails
    ENOSPC = "enospc"  # an error, and nothing was done: the disk is full
    SHORT = "short"  # half of the bytes are written, and no error says so: only the count does
    KILL_BEFORE = "kill-before"  # SIGKILL, and nothing was done
    KILL_WITHIN = "kill-within"  # SIGKILL when half of the bytes were written
    KILL_AFTER = "kill-after"  # SIGKILL right after it was done


KILLS = frozenset({Kind.KILL_BEFORE, Kind.KILL_WITHIN, Kind.KILL_AFTER})

# The only pairs that are left out, and why.
IMPOSSIBLE: dict[tuple[Act, Kind], str] = {
    (Act.WHOLE, Kind.SHORT): "a call that does all or nothing returns no count that could fall short",
    (Act.WHOLE, Kind.KILL_WITHIN): "a kill comes before or after a system call that does all or nothing",
}


class Side(Enum):
    """Whose write it is, and so which program a kill ends."""

    READER = "the reader of one docking"
    STATION = "the station's daemon"
    RECEIVER = "the receiver"
    COMMAND = "a command that a person at the store gives, and repeats where it failed"


class Point(StrEnum):
    """A durable write. `side` makes it, `act` says what it is, `sentence` what for."""

    side: Side
    act: Act
    sentence: str

    def __new__(cls, name: str, side: Side, act: Act, sentence: str) -> Self:
        """One member."""
        made = str.__new__(cls, name)
        made._value_ = name
        made.side, made.act, made.sentence = side, act, sentence
        return made

    # A clip on its way into the spool.
    SPOOL_ROOM = "spool.room", Side.READER, Act.WHOLE, "the room of a whole sealed file is reserved"
    SPOOL_DATA = "spool.data", Side.READER, Act.WRITE, "a block of ciphertext is written"
    SPOOL_SYNC = "spool.sync", Side.READER, Act.WHOLE, "the whole sealed file is made durable"
    SPOOL_NAME = "spool.name", Side.READER, Act.WHOLE, "the sealed file gets its finished name"
    SPOOL_NAME_SYNC = "spool.name-sync", Side.READER, Act.WHOLE, "that name is made durable"
    SPOOL_PART = "spool.part", Side.READER, Act.WHOLE, "a sealed file that was not finished goes"
    ADOPT = "spool.adopt", Side.STATION, Act.WHOLE, "the sealed file leaves its docking's corner for the spool"
    ADOPT_SYNC = "spool.adopt-sync", Side.STATION, Act.WHOLE, "that is made durable in both directories"
    MANIFEST_DATA = "manifest.data", Side.STATION, Act.WRITE, "manifest and signature are written beside the clip"
    MANIFEST_SYNC = "manifest.sync", Side.STATION, Act.WHOLE, "they are made durable"
    MANIFEST_NAME = "manifest.name", Side.STATION, Act.WHOLE, "they get their names"
    MANIFEST_NAME_SYNC = "manifest.name-sync", Side.STATION, Act.WHOLE, "the names are made durable"
    DISCARD = "spool.discard", Side.STATION, Act.WHOLE, "a file of an erased clip leaves the spool"
    DISCARD_SYNC = "spool.discard-sync", Side.STATION, Act.WHOLE, "that is made durable"
    SPOOL_PLACES = "spool.places-sync", Side.STATION, Act.WHOLE, "the spool's own directories are made durable"
    SWEEP = "spool.sweep", Side.STATION, Act.WHOLE, "what nobody owns any more leaves the spool"
    SWEEP_SYNC = "spool.sweep-sync", Side.STATION, Act.WHOLE, "that is made durable"
    SPOOL_ASIDE = "spool.set-aside", Side.STATION, Act.WHOLE, "a sealed file that nothing proves is set aside"
    SPOOL_ASIDE_SYNC = "spool.set-aside-sync", Side.STATION, Act.WHOLE, "that is made durable in both directories"

    # The journal and what is signed over it.
    JOURNAL_MADE = "journal.made", Side.STATION, Act.WHOLE, "a step of the journal's format is committed"
    JOURNAL_CLAIM = "journal.claim", Side.STATION, Act.WHOLE, "whose journal it is, and of which log, is committed"
    JOURNAL_PLACES = "journal.places-sync", Side.STATION, Act.WHOLE, "the journal's directories are made durable"
    JOURNAL_COMMIT = "journal.commit", Side.STATION, Act.WHOLE, "changes and their custody entries are committed"
    MIRROR_DATA = "mirror.data", Side.STATION, Act.WRITE, "the same entries are appended to custody.jsonl"
    MIRROR_SYNC = "mirror.sync", Side.STATION, Act.WHOLE, "they are made durable there"
    MIRROR_CUT = "mirror.cut", Side.STATION, Act.WHOLE, "the torn end that a power cut left is cut off"
    CUSTODY_SWEEP = "custody.sweep", Side.STATION, Act.WHOLE, "a half-made file leaves the custody directory"
    CHECKPOINT_DATA = "checkpoint.data", Side.STATION, Act.WRITE, "the signed head of the log is written"
    CHECKPOINT_SYNC = "checkpoint.sync", Side.STATION, Act.WHOLE, "it is made durable"
    CHECKPOINT_NAME = "checkpoint.name", Side.STATION, Act.WHOLE, "it takes the place of the last one"
    CHECKPOINT_NAME_SYNC = "checkpoint.name-sync", Side.STATION, Act.WHOLE, "that is made durable"
    KEYS_DATA = "checkpoint-keys.data", Side.STATION, Act.WRITE, "the keys that verify a checkpoint are written"
    KEYS_SYNC = "checkpoint-keys.sync", Side.STATION, Act.WHOLE, "they are made durable"
    KEYS_NAME = "checkpoint-keys.name", Side.STATION, Act.WHOLE, "they get their names"
    KEYS_NAME_SYNC = "checkpoint-keys.name-sync", Side.STATION, Act.WHOLE, "the names are made durable"
    WITNESSED_DATA = "witnessed.data", Side.STATION, Act.WRITE, "the checkpoint that the store cosigned is written"
    WITNESSED_SYNC = "witnessed.sync", Side.STATION, Act.WHOLE, "it is made durable"
    WITNESSED_NAME = "witnessed.name", Side.STATION, Act.WHOLE, "it takes the place of the last one"
    WITNESSED_NAME_SYNC = "witnessed.name-sync", Side.STATION, Act.WHOLE, "that is made durable"

    # A journal that is corrupt or gone makes room for the one that is rebuilt.
    ASIDE_NAME = "aside.name", Side.STATION, Act.WHOLE, "a file of the broken journal gets a name of its own"
    ASIDE_SYNC = "aside.sync", Side.STATION, Act.WHOLE, "that is made durable"
    REBUILT_NAME = "rebuilt.name", Side.STATION, Act.WHOLE, "the new journal is whole, and is called so"
    REBUILT_SYNC = "rebuilt.sync", Side.STATION, Act.WHOLE, "that is made durable"
    REBUILT_FORMER = "rebuilt.former", Side.STATION, Act.WHOLE, "the log of the broken journal makes room"
    REBUILT_LOG = "rebuilt.log", Side.STATION, Act.WHOLE, "the new log takes its place"
    REBUILT_LOG_SYNC = "rebuilt.log-sync", Side.STATION, Act.WHOLE, "both are made durable"
    REBUILT_JOURNAL = "rebuilt.journal", Side.STATION, Act.WHOLE, "a file of the new journal takes its place"
    REBUILT_JOURNAL_SYNC = "rebuilt.journal-sync", Side.STATION, Act.WHOLE, "that is made durable"
    REBUILT_GONE = "rebuilt.gone", Side.STATION, Act.WHOLE, "the directory that it was made in goes"
    REBUILT_GONE_SYNC = "rebuilt.gone-sync", Side.STATION, Act.WHOLE, "that is made durable"

    # A clip's erasure, under its warrant.
    ERASE_LIFT = "erase.lift-mark", Side.READER, Act.WHOLE, "a read-only mark is lifted (volumes)"
    ERASE_MARK = "erase.mark-again", Side.READER, Act.WHOLE, "it is set again, where the clip was not erased"
    ERASE_ASIDE = "erase.aside-name", Side.READER, Act.WHOLE, "the clip gets the name of a remnant"
    ERASE_ASIDE_SYNC = "erase.aside-sync", Side.READER, Act.WHOLE, "that is made durable, before a byte changes"
    ERASE_BACK = "erase.back-name", Side.READER, Act.WHOLE, "the clip gets its own name back"
    ERASE_BACK_SYNC = "erase.back-sync", Side.READER, Act.WHOLE, "that is made durable"
    ERASE_END_ZEROS = "erase.end-zeros", Side.READER, Act.WRITE, "no room for that: its last block is overwritten"
    ERASE_END_SYNC = "erase.end-sync", Side.READER, Act.WHOLE, "that is made durable"
    ERASE_CUT = "erase.cut-end", Side.READER, Act.WHOLE, "and given up"
    ERASE_CUT_SYNC = "erase.cut-sync", Side.READER, Act.WHOLE, "that is made durable"
    ERASE_CUT_NAME = "erase.cut-name", Side.READER, Act.WHOLE, "now the clip gets the name of a remnant"
    ERASE_CUT_NAME_SYNC = "erase.cut-name-sync", Side.READER, Act.WHOLE, "that is made durable"
    ERASE_ZEROS = "erase.zeros", Side.READER, Act.WRITE, "zeros are written over its bytes"
    ERASE_ZEROS_SYNC = "erase.zeros-sync", Side.READER, Act.WHOLE, "they are made durable"
    ERASE_TRUNCATE = "erase.truncate", Side.READER, Act.WHOLE, "its blocks are given up"
    ERASE_TRUNCATE_SYNC = "erase.truncate-sync", Side.READER, Act.WHOLE, "that is made durable"
    ERASE_UNLINK = "erase.unlink", Side.READER, Act.WHOLE, "its name goes"
    ERASE_UNLINK_SYNC = "erase.unlink-sync", Side.READER, Act.WHOLE, "that is made durable"
    ERASE_VOLUME_SYNC = "erase.volume-sync", Side.READER, Act.WHOLE, "all of a volume is made durable, and let go"
    ERASE_OBJECT = "erase.object", Side.READER, Act.WHOLE, "a camera is asked to delete an object (MTP)"

    # The receiver.
    STORE_PLACES = "store.places-sync", Side.RECEIVER, Act.WHOLE, "the store's directories are made durable"
    STORE_SWEEP = "store.sweep", Side.RECEIVER, Act.WHOLE, "what a kill left half-made leaves the store"
    CATALOGUE_MADE = "catalogue.made", Side.RECEIVER, Act.WHOLE, "a step of the catalogue's format is committed"
    SESSION_ROW = "row.session", Side.RECEIVER, Act.WHOLE, "a session's token is committed"
    POLICY_ROW = "row.policy", Side.RECEIVER, Act.WHOLE, "a policy that was changed is committed, under its number"
    ANNOUNCED_ROW = "row.announced", Side.RECEIVER, Act.WHOLE, "an announced manifest is committed"
    PART_NAME_SYNC = "part.name-sync", Side.RECEIVER, Act.WHOLE, "a new upload's name is made durable"
    PART_CUT = "part.cut", Side.RECEIVER, Act.WHOLE, "what lies beyond its durable offset is cut off"
    PART_DATA = "part.data", Side.RECEIVER, Act.WRITE, "bytes that arrived are written"
    PART_SYNC = "part.sync", Side.RECEIVER, Act.WHOLE, "they are made durable"
    OFFSET_ROW = "row.offset", Side.RECEIVER, Act.WHOLE, "the offset behind them is committed, before it is told"
    PART_GONE = "part.gone", Side.RECEIVER, Act.WHOLE, "the bytes of an upload that is no more go"
    DROPPED_ROW = "row.dropped", Side.RECEIVER, Act.WHOLE, "an unfinished upload is forgotten"
    VERIFIED_ROW = "row.verified", Side.RECEIVER, Act.WHOLE, "an upload whose digest is right is closed for good"
    SHARED_ROW = "row.shared", Side.RECEIVER, Act.WHOLE, "another station's object stands for a clip, or no longer"
    PLACE_SYNC = "place.sync", Side.RECEIVER, Act.WHOLE, "the directory of a stored clip is made durable"
    STORED_DATA = "stored-manifest.data", Side.RECEIVER, Act.WRITE, "manifest and signature are written into it"
    STORED_SYNC = "stored-manifest.sync", Side.RECEIVER, Act.WHOLE, "they are made durable"
    STORED_NAME = "stored-manifest.name", Side.RECEIVER, Act.WHOLE, "they get their names"
    STORED_NAME_SYNC = "stored-manifest.name-sync", Side.RECEIVER, Act.WHOLE, "the names are made durable"
    STORED_ASIDE = (
        "stored.set-aside",
        Side.RECEIVER,
        Act.WHOLE,
        "what is left of a lost clip that came again makes room",
    )
    MOVE = "move", Side.RECEIVER, Act.WHOLE, "the clip leaves the upload space for its place"
    MOVE_SYNC = "move.sync", Side.RECEIVER, Act.WHOLE, "that is made durable in both directories"
    LOOKED_ROW = "row.looked", Side.RECEIVER, Act.WHOLE, "what a stored clip was found to be, read again, is committed"
    RECEIPT_ROW = "row.receipt", Side.RECEIVER, Act.WHOLE, "the receipt becomes part of the station's chain"
    RECEIPT_DATA = (
        "receipt.data",
        Side.RECEIVER,
        Act.WRITE,
        "a receipt, extension or policy is written for people, with its signature",
    )
    RECEIPT_SYNC = "receipt.sync", Side.RECEIVER, Act.WHOLE, "they are made durable"
    RECEIPT_NAME = "receipt.name", Side.RECEIVER, Act.WHOLE, "they get their names"
    RECEIPT_NAME_SYNC = "receipt.name-sync", Side.RECEIVER, Act.WHOLE, "the names are made durable, before it is told"
    PROMISE_ROW = "row.promise", Side.RECEIVER, Act.WHOLE, "a floor that moved is committed, before it is stated"
    EXTENSION_ROW = "row.extension", Side.RECEIVER, Act.WHOLE, "an extension becomes part of its receipt's chain"
    COSIGNED_ROW = "row.cosigned", Side.RECEIVER, Act.WHOLE, "a cosigned checkpoint becomes the station's newest"
    COSIGNED_DATA = "cosigned.data", Side.RECEIVER, Act.WRITE, "its copy for people is written"
    COSIGNED_SYNC = "cosigned.sync", Side.RECEIVER, Act.WHOLE, "it is made durable"
    COSIGNED_NAME = "cosigned.name", Side.RECEIVER, Act.WHOLE, "it takes the place of the last one"
    COSIGNED_NAME_SYNC = "cosigned.name-sync", Side.RECEIVER, Act.WHOLE, "that is made durable"
    FORMER_DATA = "former.data", Side.RECEIVER, Act.WRITE, "the last checkpoint of a log that begins anew is kept"
    FORMER_SYNC = "former.sync", Side.RECEIVER, Act.WHOLE, "it is made durable"
    FORMER_NAME = "former.name", Side.RECEIVER, Act.WHOLE, "it gets its name"
    FORMER_NAME_SYNC = "former.name-sync", Side.RECEIVER, Act.WHOLE, "the name is made durable"
    FORK_DATA = "fork.data", Side.RECEIVER, Act.WRITE, "the evidence of a forked log is written"
    FORK_SYNC = "fork.sync", Side.RECEIVER, Act.WHOLE, "it is made durable"
    FORK_NAME = "fork.name", Side.RECEIVER, Act.WHOLE, "it gets a name that nothing had"
    FORK_NAME_SYNC = "fork.name-sync", Side.RECEIVER, Act.WHOLE, "the name is made durable"

    # What people at the store decide.
    ENROLLED_DATA = "enrolled.data", Side.COMMAND, Act.WRITE, "a station's public keys are written"
    ENROLLED_SYNC = "enrolled.sync", Side.COMMAND, Act.WHOLE, "they are made durable"
    ENROLLED_NAME = "enrolled.name", Side.COMMAND, Act.WHOLE, "they get their name"
    ENROLLED_NAME_SYNC = "enrolled.name-sync", Side.COMMAND, Act.WHOLE, "the name is made durable"
    ACCEPTED_DATA = "accepted.data", Side.COMMAND, Act.WRITE, "the generation that a log may begin anew is written"
    ACCEPTED_SYNC = "accepted.sync", Side.COMMAND, Act.WHOLE, "it is made durable"
    ACCEPTED_NAME = "accepted.name", Side.COMMAND, Act.WHOLE, "it takes the place of the last one"
    ACCEPTED_NAME_SYNC = "accepted.name-sync", Side.COMMAND, Act.WHOLE, "that is made durable"


@dataclass(frozen=True, slots=True, kw_only=True)
class FilePoints:
    """The four points of a small file that is made whole or not at all (dockd.keep.durable)."""

    data: Point
    sync: Point
    name: Point
    name_sync: Point


_NAMED = {point.value: point for point in Point}


def _file(prefix: str) -> FilePoints:
    return FilePoints(
        data=_NAMED[f"{prefix}.data"],
        sync=_NAMED[f"{prefix}.sync"],
        name=_NAMED[f"{prefix}.name"],
        name_sync=_NAMED[f"{prefix}.name-sync"],
    )


MANIFEST = _file("manifest")
CHECKPOINT = _file("checkpoint")
KEYS = _file("checkpoint-keys")
WITNESSED = _file("witnessed")
STORED = _file("stored-manifest")
RECEIPT = _file("receipt")
COSIGNED = _file("cosigned")
FORMER = _file("former")
FORK = _file("fork")
ENROLLED = _file("enrolled")
ACCEPTED = _file("accepted")


def kinds(point: Point) -> tuple[Kind, ...]:
    """The ways in which a point can fail, in their order."""
    return tuple(kind for kind in Kind if (point.act, kind) not in IMPOSSIBLE)
