"""What is a clip, and which clips were flagged as evidence: decided by names alone."""

from __future__ import annotations

from dataclasses import dataclass

from dockd.core.marker import MARKER_NAME
from dockd.model import Category, FileKind

_FLAG = b"_EVD"  # cameras put it into the name of a recording whose evidence button was pressed


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipRules:
    """The rules of one docking. Suffixes with their dot, compared without regard to case."""

    suffixes: tuple[str, ...]
    evidence_directories: tuple[str, ...]
    max_depth: int  # directories below the root, one in the other
    max_files: int  # entries of one camera, directories included
    block_bytes: int  # of one read: a multiple of 64 KiB, up to 4 MiB

    def kind(self, path: bytes) -> FileKind:
        """CLIP or OTHER, for a regular file."""
        if path == MARKER_NAME:
            return FileKind.OTHER
        _, dot, suffix = path.rpartition(b"/")[2].rpartition(b".")
        known = {text.encode().lower() for text in self.suffixes}
        return FileKind.CLIP if (dot + suffix).lower() in known and dot else FileKind.OTHER

    def category(self, path: bytes) -> tuple[Category, str]:
        """The category of a clip, and why."""
        *directories, name = path.split(b"/")
        flagged = {text.encode().lower() for text in self.evidence_directories}
        for directory in directories:
            if directory.lower() in flagged:
                return Category.EVIDENCE, f"in the directory {directory.decode(errors='backslashreplace')}"
        if _FLAG in name.upper():
            return Category.EVIDENCE, "its name is marked _EVD"
        return Category.NONE, ""
