"""Camera profiles: which cameras one is for, which files are clips, how they are erased. Pure records and rules.

docs/cameras.md says how a profile is written; dockd.station.cameras makes these records from such files.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from fnmatch import fnmatchcase

from dockd.core.clip_names import ClipNames
from dockd.model import MediumKind


class EraseMethod(StrEnum):
    """How a camera is sanitised. What a method claims is in docs/formats.md."""

    DELETE = "delete"  # each clip is overwritten and unlinked
    CLEAR = "clear"  # then every volume is zeroed, and gets a fresh file system like the one before
    DISCARD = "discard"  # the same, but discarded where the device really does that
    NONE = "none"  # nothing is erased: the camera does that, or a person


# --- which cameras


@dataclass(frozen=True, slots=True, kw_only=True)
class VolumeFacts:
    """What can be told of a volume without mounting it."""

    filesystem: str  # "vfat", "exfat", "ext4"
    label: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What can be told of a device from outside."""

    medium: MediumKind
    vendor_id: str = ""  # four hex digits, in lower case
    product_id: str = ""
    volumes: tuple[VolumeFacts, ...] = ()  # none of an MTP device


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """One way to know a camera: all of what it states must hold. What is empty, it does not state."""

    medium: MediumKind | None = None
    vendor_id: str = ""
    product_id: str = ""
    filesystem: str = ""
    label: str = ""  # a glob, without regard to case; of the same volume that has the file system
    must_exist: bytes = b""  # a file or directory on any volume, by its path there; holds for no MTP device

    def holds(self, facts: Facts) -> bool:
        """Whether it holds, for all that can be told from outside."""
        return (
            self.medium in (None, facts.medium)
            and not (self.must_exist and facts.medium is MediumKind.MTP)
            and self.vendor_id in ("", facts.vendor_id)
            and self.product_id in ("", facts.product_id)
            and (not (self.filesystem or self.label) or any(self._is(volume) for volume in facts.volumes))
        )

    def weight(self) -> int:
        """How much it says: a device's own numbers say more than what anybody may write on a card."""
        said = (
            (self.product_id, 16),
            (self.vendor_id, 8),
            (self.must_exist, 4),
            (self.label, 2),
            (self.filesystem, 1),
        )
        return sum(weight for value, weight in said if value)

    def _is(self, volume: VolumeFacts) -> bool:
        return self.filesystem in ("", volume.filesystem) and (
            not self.label or fnmatchcase(volume.label.lower(), self.label.lower())
        )


# --- which files


@dataclass(frozen=True, slots=True, kw_only=True)
class Pattern:
    """Files by where they lie and how they are called, without regard to the case of ASCII letters.

    A file fits if it lies in or below one of `directories` (none: anywhere), and has one of `suffixes` or fits one of
    `names` (neither: whatever it is called).
    """

    directories: tuple[str, ...] = ()  # paths in a volume; each component is a glob
    suffixes: tuple[str, ...] = ()  # with their dot
    names: tuple[str, ...] = ()  # globs for the last component

    def __bool__(self) -> bool:
        return bool(self.directories or self.suffixes or self.names)

    def fits(self, path: bytes) -> bool:
        """Whether the file at this path in its volume fits. An empty pattern fits nothing."""
        if not self:
            return False
        *above, name = path.lower().split(b"/")
        if self.directories and not any(_below(above, directory) for directory in self.directories):
            return False
        if not (self.suffixes or self.names):
            return True
        return any(name.endswith(suffix.encode().lower()) for suffix in self.suffixes) or any(
            fnmatchcase(name, glob.encode().lower()) for glob in self.names
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """How a camera marks what its officer flagged as evidence."""

    directories: tuple[str, ...] = ()  # names of directories, anywhere in the path
    name_flags: tuple[str, ...] = ()  # parts of a name, without regard to case
    categories: tuple[str, ...] = ()  # what the name states as its category
    read_only: bool = False  # the read-only attribute, or no permission to write


@dataclass(frozen=True, slots=True, kw_only=True)
class FileRules:
    """What the files of a camera are. Noise goes before sidecars, and those before clips.

    A file that none of the three names is judged by the station's `[acquire] suffixes`: no recording is passed over
    because a profile is too narrow.
    """

    clips: Pattern = Pattern()
    sidecars: Pattern = Pattern()
    noise: Pattern = Pattern()
    evidence: Evidence = Evidence()


# --- the whole


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """One kind of camera."""

    name: str  # as `[a-z0-9-]`, unique among the profiles of a station
    version: int  # of the file it came from; custody entries name it
    erase: EraseMethod = EraseMethod.DELETE
    description: str = ""  # one line, for people
    matches: tuple[Match, ...] = ()  # any of them is enough; none: no device fits
    files: FileRules = FileRules()
    names: ClipNames = field(default_factory=ClipNames)


FOLDER = Profile(
    name="folder",
    version=1,
    description="a directory with a marker, made by `dockd camera make`",
    files=FileRules(evidence=Evidence(name_flags=("_EVD",))),
)
"""What a folder with a marker is read by: its clips are those of `[acquire]`."""


def candidates(profiles: Iterable[Profile], facts: Facts) -> tuple[Profile, ...]:
    """The profiles that fit by all that can be told from outside, the one that says most about the device first."""
    holding = [(_best(profile, facts), profile) for profile in profiles]
    fitting = [(weight, profile) for weight, profile in holding if weight is not None]
    return tuple(profile for _, profile in sorted(fitting, key=lambda one: (-one[0], one[1].name)))


def asked_for(profile: Profile, facts: Facts) -> tuple[bytes, ...]:
    """The paths that have to be looked for before `fits` can answer; none where the rest already says enough."""
    matches = [match for match in profile.matches if match.holds(facts)]
    if any(not match.must_exist for match in matches):
        return ()
    return tuple(dict.fromkeys(match.must_exist for match in matches))


def fits(profile: Profile, facts: Facts, there: Collection[bytes]) -> bool:
    """Whether it is a camera of this kind, now that it is known which paths are `there`."""
    return any(match.holds(facts) and (not match.must_exist or match.must_exist in there) for match in profile.matches)


def _best(profile: Profile, facts: Facts) -> int | None:
    """The weight of the rule that says most; None where none holds."""
    return max((match.weight() for match in profile.matches if match.holds(facts)), default=None)


def _below(above: list[bytes], directory: str) -> bool:
    """Whether the directories above a file begin with this one."""
    wanted = [part for part in directory.encode().lower().split(b"/") if part]
    return len(wanted) <= len(above) and all(fnmatchcase(have, want) for have, want in zip(above, wanted, strict=False))
