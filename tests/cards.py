"""Make images of camera cards without mounting anything: FAT, exFAT and ext4, bare or partitioned, full or dirty.

Needs dosfstools and mtools, exfatprogs, e2fsprogs. Files are given as `{"DCIM/100/CLIP.MP4": bytes}`.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import struct
import subprocess
import tempfile
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import exfat_writer

MIB = 1024 * 1024
FILLER = exfat_writer.FILLER
_TYPES = {"vfat": 0x0C, "exfat": 0x07, "ext4": 0x83}  # of MBR partitions
_SECTOR = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One file system to be made."""

    kind: str = "vfat"  # "vfat", "exfat", "ext4"
    files: Mapping[str, bytes] = field(default_factory=dict)
    size_bytes: int = 64 * MIB
    label: str = "BODYCAM"
    volume_id: str = ""  # "1234-ABCD", of ext4 a UUID; "": the tool makes one up
    cluster_bytes: int = 0  # 0: the tool chooses; of ext4 the block
    fat_bits: int = 32  # of vfat
    read_only: Collection[str] = ()  # files with the read-only attribute (vfat, exfat)
    chained: Collection[str] = ()  # exfat: files whose clusters lie apart
    full: bool = False  # the last free cluster is taken by FILLER; of ext4 some blocks stay
    dirty: bool = False  # marked as never let go cleanly


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """Where it lies on the card, and the SHA-256 (hex) of each of its files."""

    kind: str
    offset: int
    size_bytes: int
    digests: dict[str, str]


def make_card(path: Path, *parts: Part, partitioned: bool = True) -> tuple[Made, ...]:
    """Make `path` anew: with an MBR and up to four partitions, or bare with one file system."""
    assert len(parts) == 1 if not partitioned else 1 <= len(parts) <= 4
    path.unlink(missing_ok=True)
    offset, made = MIB if partitioned else 0, []
    for part in parts:
        assert part.size_bytes % MIB == 0, "whole MiB"
        with tempfile.TemporaryDirectory(dir=path.parent) as beside:
            image = Path(beside) / "volume"
            digests = make_volume(image, part, hidden_sectors=offset // _SECTOR)
            _copy(image, path, offset)
        made.append(Made(kind=part.kind, offset=offset, size_bytes=part.size_bytes, digests=digests))
        offset += part.size_bytes
    with path.open("r+b") as card:
        card.truncate(offset)
        if partitioned:
            card.seek(440)
            card.write(struct.pack("<IH", 0x0D0C0D0C, 0) + b"".join(map(_row, made)).ljust(64, b"\0") + b"\x55\xaa")
    return tuple(made)


def make_volume(path: Path, part: Part, *, hidden_sectors: int = 0) -> dict[str, str]:
    """Make one bare file system in `path`. Returns the digests."""
    with path.open("wb") as image:
        image.truncate(part.size_bytes)
    with tempfile.TemporaryDirectory(dir=path.parent) as staged:
        for name, content in part.files.items():
            file = Path(staged) / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
        maker = {"vfat": _make_vfat, "exfat": _make_exfat, "ext4": _make_ext4}[part.kind]
        filler = maker(path, part, Path(staged), hidden_sectors)
    files = {**part.files, FILLER: filler} if part.full else part.files
    if part.dirty:
        _soil(path, part)
    return {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}


def count(path: Path, needle: bytes, *, most: int = 1 << 30) -> int:
    """How often `needle` stands anywhere in an image, holes passed over quickly enough for small cards."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as view:
        found, at = 0, view.find(needle)
        while at >= 0 and found < most:
            found += 1
            at = view.find(needle, at + len(needle))
        return found


# --- one maker each: they return the filler


def _make_vfat(path: Path, part: Part, staged: Path, hidden_sectors: int) -> bytes:
    words = ["mkfs.vfat", "-F", str(part.fat_bits), "-n", part.label, "-h", str(hidden_sectors)]
    if part.volume_id:
        words += ["-i", part.volume_id.replace("-", "")]
    if part.cluster_bytes:
        words += ["-s", str(part.cluster_bytes // _SECTOR)]
    _run(*words, str(path))
    above = [str(child) for child in sorted(staged.iterdir())]
    if above:
        _run("mcopy", "-s", "-m", "-i", str(path), *above, "::")
    for name in part.read_only:
        _run("mattrib", "-i", str(path), "+r", f"::{name}")
    if not part.full:
        return b""
    if not (staged / "DCIM").exists():
        _run("mmd", "-i", str(path), "::DCIM")
    free = _run("mdir", "-i", str(path), "::").strip().splitlines()[-1].replace("bytes free", "")
    filler = b"\x5a" * int("".join(free.split()))
    (staged / "filler").write_bytes(filler)
    _run("mcopy", "-i", str(path), str(staged / "filler"), f"::{FILLER}")
    return filler


def _make_exfat(path: Path, part: Part, staged: Path, hidden_sectors: int) -> bytes:
    words = ["mkfs.exfat", "-L", part.label]
    if part.cluster_bytes:
        words += ["-c", str(part.cluster_bytes)]
    _run(*words, str(path))
    if part.volume_id:
        _run("tune.exfat", "-I", "0x" + part.volume_id.replace("-", ""), str(path))
    return exfat_writer.fill(path, part.files, chained=part.chained, read_only=part.read_only, full=part.full)


def _make_ext4(path: Path, part: Part, staged: Path, hidden_sectors: int) -> bytes:
    words = ["mke2fs", "-q", "-F", "-t", "ext4", "-L", part.label, "-d", str(staged), "-E", "root_owner=0:0"]
    if part.volume_id:
        words += ["-U", part.volume_id]
    if part.cluster_bytes:
        words += ["-b", str(part.cluster_bytes)]
    _run(*words, str(path))
    if not part.full:
        return b""
    if not (staged / "DCIM").exists():
        _run("debugfs", "-w", "-R", "mkdir DCIM", str(path))
    stated = dict(line.split(":", 1) for line in _run("dumpe2fs", "-h", str(path)).splitlines() if ":" in line)
    blocks = int(stated["Free blocks"]) - 8  # for the filler's own index
    filler = b"\x5a" * (blocks * int(stated["Block size"]))
    (staged / "filler").write_bytes(filler)
    _run("debugfs", "-w", "-R", f"write {staged / 'filler'} {FILLER}", str(path))
    return filler


def _soil(path: Path, part: Part) -> None:
    """Set what its file system sets while it is mounted writable."""
    if part.kind == "ext4":
        _run("debugfs", "-w", "-R", "feature needs_recovery", str(path))
        return
    with path.open("r+b") as image:
        if part.kind == "exfat":
            _alter(image, 106, lambda flags: flags | 2)
            return
        _alter(image, 0x41 if part.fat_bits == 32 else 0x25, lambda state: state | 1)
        if part.fat_bits == 12:
            return
        width = part.fat_bits // 8
        image.seek(14)
        fat = struct.unpack("<H", image.read(2))[0] * _SECTOR
        _alter(image, fat + 2 * width - 1, lambda top: top & ~(0x08 if width == 4 else 0x80))


def _alter(image, offset: int, change) -> None:
    image.seek(offset)
    byte = image.read(1)[0]
    image.seek(offset)
    image.write(bytes([change(byte)]))


# --- the card around them


def _row(made: Made) -> bytes:
    first, sectors = made.offset // _SECTOR, made.size_bytes // _SECTOR
    return struct.pack("<B3sB3sII", 0, b"\xfe\xff\xff", _TYPES[made.kind], b"\xfe\xff\xff", first, sectors)


def _copy(image: Path, card: Path, offset: int) -> None:
    """The blocks that hold something, so that the card stays sparse."""
    with image.open("rb") as source, card.open("r+b" if card.exists() else "wb") as target:
        target.truncate(max(offset + image.stat().st_size, card.stat().st_size))
        at = 0
        while True:
            block = source.read(MIB)
            if not block:
                return
            if block.count(0) != len(block):
                target.seek(offset + at)
                target.write(block)
            at += len(block)


def _run(*words: str) -> str:
    environment = {**os.environ, "MTOOLS_SKIP_CHECK": "1", "MTOOLSRC": "/dev/null", "LC_ALL": "C.UTF-8"}
    done = subprocess.run(words, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, f"{' '.join(words)}: {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout
