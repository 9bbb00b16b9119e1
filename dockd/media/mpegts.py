"""MPEG transport streams (ISO/IEC 13818-1): packets of 188 bytes, or of 192 with a time stamp before each (M2TS).

Checked: the sync byte of every packet, that the file ends at the end of a packet, and that it does not end in zeros.
Not checked: continuity counters, tables, coded pictures. A stream that was cut exactly between two packets cannot be
told from a shorter recording.
"""

from __future__ import annotations

from dataclasses import dataclass

from dockd.media.findings import Findings
from dockd.media.zeros import ZeroTail
from dockd.model import Verdict

HEAD_BYTES = 1024  # enough to see five packets
_SYNC = b"\x47"
_SURE_PACKETS = 4  # from so many on, one damaged sync byte does not hide what the file is


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """How packets lie: their length, and where in them the sync byte is."""

    packet_bytes: int
    sync_at: int


_LAYOUTS = (Layout(packet_bytes=188, sync_at=0), Layout(packet_bytes=192, sync_at=4))


def packet_layout(head: bytes) -> Layout | None:
    """Which layout the first bytes of a file have; None where it is no transport stream."""
    for layout in _LAYOUTS:
        syncs = head[layout.sync_at :: layout.packet_bytes]
        good = syncs.count(_SYNC)
        if good and good >= len(syncs) - (len(syncs) >= _SURE_PACKETS):
            return layout
    return None


class TsParser:
    """Push parser of one file."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._zeros = ZeroTail()
        self._lost = 0
        self._first_lost = 0

    def feed(self, offset: int, block: memoryview) -> None:
        """Take the bytes at `offset`. Looks at the sync bytes, and no others but for zeros at the end."""
        self._zeros.feed(block)
        packet, at = self._layout.packet_bytes, self._layout.sync_at
        first = (at - offset) % packet
        syncs = bytes(block[first::packet])
        lost = len(syncs) - syncs.count(_SYNC)
        if lost and not self._lost:
            index = len(syncs) - len(syncs.lstrip(_SYNC))
            self._first_lost = offset + first + index * packet
        self._lost += lost

    def finish(self, size: int) -> Verdict:
        """The verdict. `size` is the number of bytes that were fed."""
        findings = Findings()
        packets, rest = divmod(size, self._layout.packet_bytes)
        if self._zeros.notable:
            findings.damage(f"the last {self._zeros.run_bytes} bytes of the file are zeros")
        if self._lost:
            findings.damage(
                f"{self._lost} of {packets + bool(rest)} packets do not begin as packets do, "
                f"the first at byte {self._first_lost}"
            )
        if rest:
            findings.damage(f"the recording was cut: {rest} bytes of its last packet are there")
        return findings.verdict("mpeg-ts")
