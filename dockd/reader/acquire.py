"""Acquire: one pass over a clip, from its medium into a durable sealed file."""

from __future__ import annotations

import dataclasses
import hashlib
from contextlib import closing
from typing import TYPE_CHECKING

from dockd.core import sealing
from dockd.media.check import StructureCheck
from dockd.model import AcquisitionId, Digest, FoundFile, Sealed, Verdict, VerdictStatus
from dockd.reader import kernel
from dockd.reader.messages import short
from dockd.reader.sealed_file import SealedFile
from dockd.reader.work import ClipReader, Pulse, Work, require_unchanged

if TYPE_CHECKING:
    from dockd.faults import Faults


def acquire(work: Work, acquisition: AcquisitionId, file: FoundFile, *, sidecar: bool = False) -> Sealed:
    """Read, hash, check and seal one clip, or a sidecar, into `<acquisition>.age` in the incoming directory.

    Raises CameraGone, ClipGone, ClipBusy, ClipChanged, ClipRefused or SpoolFull; nothing of the clip is left in the
    spool then. Plaintext is only ever in the one buffer and the sealer's. It is one thread: with the second digest on
    a thread of its own, two readers on two cores were slower by a fifth, and one alone was hardly faster.
    """
    with work.camera.clip(file) as clip:
        sealer = sealing.Sealer(work.recipients, work.random)
        kernel.shield_buffer(sealer.scratch)
        size = file.size_bytes
        sealed_size = sealing.sealed_size(size, len(work.recipients))
        reader = ClipReader(work=work, clip=clip, size_bytes=size)
        check = _GuardedCheck(work.faults, file.path, sidecar=sidecar)
        pulse = Pulse(work, acquisition, "acquire", clip, size)
        plain, sealed = hashlib.sha256(), hashlib.sha256()
        with closing(SealedFile(work.incoming_fd, acquisition, sealed_size, work.faults)) as output:
            output.open()
            sealed.update(header := sealer.header())
            output.write(header)
            for offset, block, last in reader.blocks():
                plain.update(block)
                check.feed(offset, block)
                ciphertext = sealer.seal(block, final=last)
                sealed.update(ciphertext)
                output.write(ciphertext)
                pulse.beat(offset + len(block))
            require_unchanged(clip, file)
            work.camera.require_attached()
            work.faults.at("acquire.written", file.path)
            output.finish()
            work.faults.at("acquire.finished", file.path)
    return Sealed(
        file=file,
        plaintext_digest=Digest(f"sha256:{plain.hexdigest()}"),
        plaintext_size_bytes=size,
        sealed_digest=Digest(f"sha256:{sealed.hexdigest()}"),
        sealed_size_bytes=sealed_size,
        verdict=_with_unreadable(check.finish(size), reader.unreadable_reason()),
        recipients=tuple(sealer.fingerprints),
    )


class _GuardedCheck:
    """The structure check, of which no exception may hold up the clip: it becomes the verdict."""

    def __init__(self, faults: Faults, path: bytes, *, sidecar: bool) -> None:
        self._check = StructureCheck(sidecar=sidecar)
        self._faults = faults
        self._path = path
        self._failure = ""

    def feed(self, offset: int, block: memoryview) -> None:
        if self._failure:
            return
        try:
            self._faults.at("structure", self._path, offset, offset + len(block))
            self._check.feed(offset, block)
        except Exception as error:  # noqa: BLE001  a parser met a hostile clip: whatever it raised is a verdict
            self._failure = _words(error)

    def finish(self, size_bytes: int) -> Verdict:
        if not self._failure:
            try:
                return self._check.finish(size_bytes)
            except Exception as error:  # noqa: BLE001  as above
                self._failure = _words(error)
        return Verdict(
            status=VerdictStatus.DAMAGED,
            container="unknown",
            reasons=(f"the structure check failed: {self._failure}",),
        )


def _words(error: Exception) -> str:
    return short(f"{type(error).__name__}: {error}")


def _with_unreadable(verdict: Verdict, reason: str | None) -> Verdict:
    if reason is None:
        return verdict
    return dataclasses.replace(verdict, status=VerdictStatus.DAMAGED, reasons=(reason, *verdict.reasons))
