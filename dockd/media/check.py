"""The structure check of a clip: in the one pass that reads it, is it whole as a recording?

`feed` every byte in order, then `finish`. The first bytes say which container it is, and that container's parser goes
on. A finding is only ever a label: a damaged clip is preserved like any other.

Bounded: below 50 MiB of memory whatever the file claims, and work by the box, not by the byte. Where a cap was met the
verdict's reasons begin a sentence with "not checked:"; that alone does not make a clip damaged.
"""

from __future__ import annotations

from dockd.media.avi import AviParser, is_avi
from dockd.media.findings import Findings, Parser
from dockd.media.matroska import MatroskaParser, is_matroska
from dockd.media.mp4 import FIRST_BOXES, Mp4Parser
from dockd.media.mpegts import HEAD_BYTES, TsParser, packet_layout
from dockd.media.zeros import ZeroTail
from dockd.model import Verdict, VerdictStatus

SIDECAR = "sidecar"  # stands for the container of a sidecar whose format is not known here
_SMALLEST_BYTES = 12  # no container's first header is shorter


class StructureCheck:
    """One clip's check. Not to be used again after `finish`.

    A `sidecar` may be of any format, which is not looked into then: a container is checked as ever, anything else is
    intact unless it is empty or ends in zeros.
    """

    def __init__(self, *, sidecar: bool = False) -> None:
        self._sidecar = sidecar
        self._head = bytearray()
        self._fed = 0
        self._parser: Parser | None = None

    def feed(self, offset: int, block: memoryview | bytes) -> None:
        """Take the bytes at `offset`. ValueError where they do not follow the block before; nothing is taken then."""
        if offset != self._fed:
            raise ValueError(f"a block for byte {offset} came where byte {self._fed} was due")
        view = memoryview(block).cast("B")
        self._fed += len(view)
        if self._parser is None:
            count = min(len(view), HEAD_BYTES - len(self._head))
            self._head += view[:count]
            if len(self._head) < HEAD_BYTES:
                return
            self._parser = self._begin()
            offset, view = offset + count, view[count:]
        if view:
            self._parser.feed(offset, view)

    def finish(self, size: int) -> Verdict:
        """The verdict on a file of `size` bytes. Fewer bytes than that make it damaged."""
        if size == 0 and not self._fed:
            return _damaged("the file is empty")
        parser = self._parser or self._begin()
        verdict = parser.finish(self._fed)
        if size != self._fed:
            return _damaged(f"only {self._fed} of its {size} bytes were read", verdict)
        if self._sidecar and verdict.status is VerdictStatus.UNRECOGNISED:
            return Verdict(status=VerdictStatus.INTACT, container=SIDECAR)
        if self._fed < _SMALLEST_BYTES:
            return _damaged(f"the recording was cut: there are {self._fed} bytes of it")
        return verdict

    def _begin(self) -> Parser:
        head = bytes(self._head)
        parser = _parser_for(head)
        parser.feed(0, memoryview(head))
        return parser


def _parser_for(head: bytes) -> Parser:
    if head[4:8] in FIRST_BOXES:
        return Mp4Parser()
    if is_avi(head):
        return AviParser()
    if is_matroska(head):
        return MatroskaParser()
    layout = packet_layout(head)
    return TsParser(layout) if layout is not None else _Unrecognised()


class _Unrecognised:
    """Any other file: nothing is known of it but whether it ends in zeros."""

    def __init__(self) -> None:
        self._zeros = ZeroTail()

    def feed(self, offset: int, block: memoryview) -> None:  # noqa: ARG002  the port's signature
        self._zeros.feed(block)

    def finish(self, size: int) -> Verdict:
        findings = Findings()
        if self._zeros.only_zeros:
            findings.damage(f"all {size} bytes of the file are zeros")
        elif self._zeros.notable:
            findings.damage(f"the last {self._zeros.run_bytes} bytes of the file are zeros")
        else:
            return Verdict(
                status=VerdictStatus.UNRECOGNISED,
                container="unknown",
                reasons=("its first bytes are those of no MP4, AVI, Matroska or MPEG-TS file",),
            )
        return findings.verdict("unknown")


def _damaged(reason: str, found: Verdict | None = None) -> Verdict:
    """A damaged verdict that adds `reason` to what was found."""
    if found is None:
        return Verdict(status=VerdictStatus.DAMAGED, container="unknown", reasons=(reason,))
    return Verdict(
        status=VerdictStatus.DAMAGED,
        container=found.container,
        reasons=(reason, *found.reasons),
        duration_ms=found.duration_ms,
        recorded_at=found.recorded_at,
    )
