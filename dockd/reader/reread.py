"""Reread: a second, independent pass over a clip, from the medium and around the page cache where that can be had."""

from __future__ import annotations

import hashlib

from dockd.model import AcquisitionId, Digest, FoundFile, Reread
from dockd.reader.work import ClipReader, Pulse, Work, require_unchanged


def reread(work: Work, acquisition: AcquisitionId, file: FoundFile) -> tuple[Reread, int]:
    """Read the clip again and say where its bytes came from. Raises as `acquire`, but for SpoolFull.

    The number beside it is the file's change time (ctime, nanoseconds) when that was done: no program can set it
    back, so an erasure can tell that nothing was written since.
    """
    with work.camera.clip(file) as clip:
        source = clip.second_read()
        reader = ClipReader(work=work, clip=clip, size_bytes=file.size_bytes, direct=source.direct)
        pulse = Pulse(work, acquisition, "reread", clip, file.size_bytes)
        plain = hashlib.sha256()
        for offset, block, _ in reader.blocks():
            plain.update(block)
            pulse.beat(offset + len(block))
            source.look(offset, len(block), direct=reader.direct)
        require_unchanged(clip, file)
        changed_ns = clip.changed_ns()
        work.camera.require_attached()
        work.faults.at("reread.done", file.path)
    again = Reread(
        docking=work.docking,
        file=file,
        plaintext_digest=Digest(f"sha256:{plain.hexdigest()}"),
        cache=source.state(direct=reader.direct),
    )
    return again, changed_ns
