"""What is a clip, what belongs to one, and which were flagged as evidence: by names, and by the read-only attribute."""

from __future__ import annotations

from dataclasses import dataclass, field

from dockd.core.clip_names import ClipNames, read_name
from dockd.core.marker import MARKER_NAME
from dockd.core.profile import FOLDER, FileRules
from dockd.core.remnants import remnant_of
from dockd.model import Category, FileKind, FoundFile, ListedFile

NOISE = "noise, by its profile"


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipRules:
    """The rules of one docking: the station's, and those of the camera's profile. Paths are those in a volume.

    Suffixes with their dot. Names are compared without regard to the case of ASCII letters.
    """

    suffixes: tuple[str, ...]
    evidence_directories: tuple[str, ...]
    max_depth: int  # directories below the root, one in the other
    max_files: int  # entries of one camera, directories included
    block_bytes: int  # of one read: a multiple of 64 KiB, up to 4 MiB
    files: FileRules = FOLDER.files
    names: ClipNames = field(default_factory=ClipNames)

    def judge(self, file: FoundFile, path: bytes, *, read_only: bool = False) -> ListedFile:
        """A regular file, with what it is. `path` is its path in its volume."""
        kind = self.kind(path)
        if kind is FileKind.OTHER:
            return ListedFile(file=file, kind=kind, reason=NOISE if self.files.noise.fits(path) else "")
        category, reason = self.category(path, read_only=read_only)
        return ListedFile(file=file, kind=kind, category=category, reason=reason)

    def kind(self, path: bytes) -> FileKind:
        """CLIP, SIDECAR or OTHER, for a regular file."""
        if path == MARKER_NAME or remnant_of(path) or self.files.noise.fits(path):
            return FileKind.OTHER
        if self.files.sidecars.fits(path):
            return FileKind.SIDECAR
        return FileKind.CLIP if self.files.clips.fits(path) or self._recording(path) else FileKind.OTHER

    def category(self, path: bytes, *, read_only: bool = False) -> tuple[Category, str]:
        """The category of a clip, and why."""
        evidence = self.files.evidence
        *directories, name = path.split(b"/")
        flagged = {text.encode().lower() for text in (*self.evidence_directories, *evidence.directories)}
        for directory in directories:
            if directory.lower() in flagged:
                return Category.EVIDENCE, f"in the directory {directory.decode(errors='backslashreplace')}"
        for flag in evidence.name_flags:
            if flag.encode().lower() in name.lower():
                return Category.EVIDENCE, f"its name is marked {flag}"
        stated = read_name(self.names, path).category
        if stated and stated.lower() in {text.lower() for text in evidence.categories}:
            return Category.EVIDENCE, f"its name states the category {stated}"
        if read_only and evidence.read_only:
            return Category.EVIDENCE, "the camera made it read-only"
        return Category.NONE, ""

    def _recording(self, path: bytes) -> bool:
        """Whether the station takes it for a recording, whatever its profile knows."""
        name = path.rpartition(b"/")[2].lower()
        return any(name.endswith(text.encode().lower()) for text in self.suffixes)
