"""Open one sealed clip with an identity of the evidence authority: `dockd open`. No station ever does this."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from dataclasses import dataclass
from enum import StrEnum
from typing import IO, TYPE_CHECKING

from dockd.core.sealing import Opener, parse_identity_file
from dockd.errors import DockdError, VerificationFailed
from dockd.keep.durable import temporary_beside
from dockd.model import Digest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from dockd.core.sealing import Identity

_BLOCK_BYTES = 1024 * 1024
_KEY_FILE_LIMIT_BYTES = 1024 * 1024


class OpenFault(StrEnum):
    """Where the machine, not the file, stood in the way."""

    INPUT = "input"  # the sealed file or the key file is not there, or cannot be read
    OUTPUT = "output"  # the output cannot be made there
    PERMISSION = "permission"
    FULL = "full"  # no space is left
    BROKEN = "broken"  # the medium or the file system failed


class OpenFailed(DockdError):
    """The clip was not opened, for the reason in `fault`. Nothing was written."""

    def __init__(self, message: str, *, fault: OpenFault) -> None:
        super().__init__(message)
        self.fault = fault


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenedClip:
    """What was written."""

    digest: Digest
    size_bytes: int


def open_sealed(sealed: Path, key: Path, out: Path, *, overwrite: bool = False) -> OpenedClip:
    """Open `sealed` with the identities in `key`, and put the clip at `out`, mode 0600.

    The clip gets its name only after the last chunk was verified and everything is durable; until then, and after any
    exception (KeyboardInterrupt included), `out` is as it was and no plaintext stays behind. Raises VerificationFailed
    for a wrong key or a sealed file that is not whole, OpenFailed for all else.
    """
    _check_out(out, sealed, key, overwrite=overwrite)
    identities = _read_identities(key)
    seen = hashlib.sha256()
    size_bytes = 0
    with _opened(sealed) as source:
        try:
            with temporary_beside(out, replace=overwrite) as target:
                for plaintext in _plaintext(source, sealed, identities):
                    seen.update(plaintext)
                    size_bytes += target.write(plaintext)
        except OSError as error:
            raise _output_fault(error, out) from error
    return OpenedClip(digest=Digest("sha256:" + seen.hexdigest()), size_bytes=size_bytes)


def _plaintext(source: IO[bytes], sealed: Path, identities: tuple[Identity, ...]) -> Iterator[memoryview]:
    opener = Opener(identities)
    try:
        for block in _blocks(source, sealed):
            yield opener.feed(block)
        yield opener.finish()
    except VerificationFailed as error:
        raise VerificationFailed(f"{sealed}: {error}") from error


def _blocks(source: IO[bytes], sealed: Path) -> Iterator[bytes]:
    try:
        while block := source.read(_BLOCK_BYTES):
            yield block
    except OSError as error:
        raise _input_fault(error, sealed) from error


def _opened(path: Path) -> IO[bytes]:
    try:
        return path.open("rb", buffering=0)
    except OSError as error:
        raise _input_fault(error, path) from error


def _read_identities(key: Path) -> tuple[Identity, ...]:
    with _opened(key) as file:
        content = b"".join(_limited(file, key))
    try:
        return parse_identity_file(content.decode())
    except UnicodeDecodeError as error:
        raise VerificationFailed(f"{key}: not a key file: it is not text") from error
    except VerificationFailed as error:
        raise VerificationFailed(f"{key}: {error}") from error


def _limited(file: IO[bytes], key: Path) -> Iterator[bytes]:
    total = 0
    for block in _blocks(file, key):
        total += len(block)
        if total > _KEY_FILE_LIMIT_BYTES:
            raise VerificationFailed(f"{key}: not a key file: it is longer than {_KEY_FILE_LIMIT_BYTES} bytes")
        yield block


def _check_out(out: Path, sealed: Path, key: Path, *, overwrite: bool) -> None:
    """Refuse early, before anything is read, what would end badly."""
    if not out.name:
        raise OpenFailed(f"{out} names a directory: give a file name", fault=OpenFault.OUTPUT)
    try:
        there = out.lstat()
    except FileNotFoundError:
        return
    except OSError as error:
        raise _output_fault(error, out) from error
    if not stat.S_ISREG(there.st_mode):
        raise OpenFailed(f"{out} is there and is not a regular file: choose another name", fault=OpenFault.OUTPUT)
    for ours in (sealed, key):
        if ours.exists() and ours.samefile(out):
            raise OpenFailed(f"{out} is the same file as {ours}: choose another name", fault=OpenFault.OUTPUT)
    if not overwrite:
        raise OpenFailed(f"{out} is there already: choose another name, or give --force", fault=OpenFault.OUTPUT)


def _input_fault(error: OSError, path: Path) -> OpenFailed:
    fault = {errno.EACCES: OpenFault.PERMISSION, errno.EPERM: OpenFault.PERMISSION, errno.EIO: OpenFault.BROKEN}
    return OpenFailed(
        f"cannot read {path}: {os.strerror(error.errno or errno.EIO)}",
        fault=fault.get(error.errno or errno.EIO, OpenFault.INPUT),
    )


def _output_fault(error: OSError, out: Path) -> OpenFailed:
    number = error.errno or errno.EIO
    if number in (errno.ENOSPC, errno.EDQUOT):
        return OpenFailed(
            f"no space is left in {out.parent} for {out.name}: make room, then open it again", fault=OpenFault.FULL
        )
    if number == errno.EEXIST:
        return OpenFailed(f"{out} has come to be meanwhile: nothing was overwritten", fault=OpenFault.OUTPUT)
    fault = {errno.EACCES: OpenFault.PERMISSION, errno.EPERM: OpenFault.PERMISSION, errno.EIO: OpenFault.BROKEN}
    return OpenFailed(f"cannot write {out}: {os.strerror(number)}", fault=fault.get(number, OpenFault.OUTPUT))
