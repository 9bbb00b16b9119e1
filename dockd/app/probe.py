"""Look at a directory as a camera's reader lists it: what each file is by a profile. Nothing is written, or opened."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

from dockd.app.install import shipped_cameras
from dockd.config.load import load_station
from dockd.config.schema import Acquire
from dockd.core.profile import Facts, Profile, VolumeFacts, asked_for, candidates, fits
from dockd.errors import CameraRefused
from dockd.model import Category, FileKind, FoundFile, MediumKind, Named, Volume
from dockd.reader.client import ClipRules
from dockd.reader.listing import walk_roots
from dockd.reader.roots import FolderRoot
from dockd.reader.rules import NOISE
from dockd.stages.named import named
from dockd.station.cameras import load_profiles
from dockd.station.reload import rules_for

_FILESYSTEMS = ("vfat", "exfat", "ext4")


@dataclass(frozen=True, slots=True, kw_only=True)
class Probed:
    """One file, and what it would be."""

    file: FoundFile
    kind: str  # "clip", "sidecar", "noise", "other", "refused"
    category: Category
    reason: str
    named: Named | None
    of: bytes | None  # of a sidecar: the path of its clip


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """What a profile makes of a camera."""

    profile: Profile
    files: tuple[Probed, ...]
    others: tuple[Profile, ...]  # further profiles that fit, in the order in which they would be tried


def probe(directory: Path, *, facts: Facts, wanted: str | None, config: Path | None) -> Probe:
    """Look at `directory` by the profile that is `wanted`, else by the best that fits.

    Profiles and the rules of `[acquire]` are those of `config`; without one, those that come with dockd. Raises
    CameraRefused where no profile fits, ConfigError, OSError where the directory cannot be opened.
    """
    station = load_station(config, files=False) if config else None
    known = load_profiles(station.cameras.directory if station else shipped_cameras())
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    with closing(FolderRoot(Volume(name="", filesystem="folder", volume_id="", root_fd=fd))) as root:
        fitting = _fitting(directory, known, _with_filesystem(facts, fd))
        chosen = [one for one in known if one.name == wanted] if wanted else fitting
        if not chosen:
            raise CameraRefused(_nothing_fits(directory, known, wanted))
        rules = rules_for(station.acquire if station else Acquire(), chosen[0])
        files = tuple(_probed(root, rules))
    return Probe(profile=chosen[0], files=_paired(files), others=tuple(one for one in fitting if one != chosen[0]))


def _fitting(directory: Path, known: Sequence[Profile], facts: Facts) -> list[Profile]:
    found = []
    for profile in candidates(known, facts):
        there = [path for path in asked_for(profile, facts) if os.path.lexists(os.fsencode(directory) + b"/" + path)]
        if fits(profile, facts, there):
            found.append(profile)
    return found


def _nothing_fits(directory: Path, known: Sequence[Profile], wanted: str | None) -> str:
    names = ", ".join(one.name for one in known)
    if wanted:
        return f"there is no camera profile {wanted}: there are {names}"
    return f"no camera profile fits {directory} as far as a directory tells: choose one with --profile, of {names}"


def _with_filesystem(facts: Facts, fd: int) -> Facts:
    """A volume of the kind that is mounted there, unless the caller said more."""
    if facts.medium is not MediumKind.VOLUMES:
        return facts
    (volume,) = facts.volumes or (VolumeFacts(filesystem=""),)
    if not volume.filesystem:
        volume = replace(volume, filesystem=_mounted(fd))
    return replace(facts, volumes=(volume,))


def _mounted(fd: int) -> str:
    """What kind of file system a descriptor is on, where it is one that cameras have (proc(5), mountinfo)."""
    number = os.fstat(fd).st_dev
    device = f"{os.major(number)}:{os.minor(number)}"
    for line in Path("/proc/self/mountinfo").read_text(errors="replace").splitlines():
        before, _, after = line.partition(" - ")
        if before.split()[2] == device and after.split()[0] in _FILESYSTEMS:
            return after.split()[0]
    return ""


def _probed(root: FolderRoot, rules: ClipRules) -> Iterator[Probed]:
    for listed in walk_roots([root], rules):
        kind = listed.kind.value
        if listed.kind is FileKind.OTHER and listed.reason == NOISE:
            kind = "noise"
        is_kept = listed.kind in (FileKind.CLIP, FileKind.SIDECAR)
        yield Probed(
            file=listed.file,
            kind=kind,
            category=listed.category,
            reason=listed.reason,
            named=named(rules.names, listed.file.path) if is_kept else None,
            of=None,
        )


def _paired(files: tuple[Probed, ...]) -> tuple[Probed, ...]:
    """By path, each sidecar with its clip: the journal's rule, `keep.queries.clip_beside`."""
    clips: dict[bytes, FoundFile] = {}
    for one in sorted(files, key=lambda one: one.file.size_bytes):
        if one.kind == FileKind.CLIP.value:
            clips[_stem(one.file.path)] = one.file
    paired = (
        replace(one, of=clips[_stem(one.file.path)].path)
        if one.kind == FileKind.SIDECAR.value and _stem(one.file.path) in clips
        else one
        for one in files
    )
    return tuple(sorted(paired, key=lambda one: one.file.path))


def _stem(path: bytes) -> bytes:
    directory, slash, name = path.rpartition(b"/")
    return directory + slash + (name.rpartition(b".")[0] or name)
