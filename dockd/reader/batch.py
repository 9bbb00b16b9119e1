"""Erasing from volumes: remember where the clips lie, erase them one by one, and look there again from a new mount."""

from __future__ import annotations

import os
from array import array
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from dockd.core.canonical import encode_path
from dockd.core.remnants import remnant_name
from dockd.errors import CameraGone, EraseFailed, FilesystemUnclear
from dockd.model import MediumKind
from dockd.reader.carry import PlannedClip
from dockd.reader.mounted import MountedCamera, open_below
from dockd.reader.places import Places, places
from dockd.reader.roots import VolumeRoot
from dockd.reader.work import Pulse

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from dockd.filesystems import Extent
    from dockd.model import AcquisitionId, FoundFile
    from dockd.reader.work import Work

MAX_EXTENTS = 1 << 19  # of all clips together: 8 MiB of memory
_STEP_BYTES = 8 * 1024 * 1024  # read between two looks at whether anybody still waits


def places_of(clip: PlannedClip) -> Iterator[Extent]:
    """Where a clip lies, or lay."""
    return zip(clip.extents[::2], clip.extents[1::2], strict=True)


@dataclass(slots=True, kw_only=True)
class Batch:
    """What one reader is to erase together. Everything in it is of one camera with volumes."""

    work: Work
    camera: MountedCamera
    clips: dict[AcquisitionId, PlannedClip] = field(default_factory=dict)
    _extents: int = 0
    _generation: int = -1  # of the descriptors that `_places` look through
    _places: dict[bytes, Places] = field(default_factory=dict)
    _directories: dict[bytes, list[Extent]] = field(default_factory=dict)

    def begin(self) -> None:
        """Forget the plan before. Raises EraseFailed on a writable volume: what it would say could change at once."""
        self._require_read_only()
        self.clips.clear()
        self._extents = 0

    def plan(self, acquisition: AcquisitionId, file: FoundFile) -> str:
        """Remember where a file lies. Returns why that cannot be told; "" where it is known.

        Raises CameraGone and, for a file that is not the one listed, what opening a clip raises.
        """
        root, inner = self._split(file.path)
        with self.camera.clip(file) as clip:
            try:
                extents = self._collect(self.at(root).of_clip(clip, inner))
            except FilesystemUnclear as unclear:
                return str(unclear)
        self.clips[acquisition] = PlannedClip(
            root=root.name,
            path=inner,
            shown=encode_path(file.path),
            extents=extents,
            generation=self.camera.generation,
        )
        return ""

    def require_coherent(self) -> None:
        """Raise EraseFailed where the files of a volume may share blocks: erasing one could change another."""
        for root in self.volumes():
            try:
                reason = self.at(root).contradiction()
            except FilesystemUnclear as unclear:
                reason = str(unclear)
            if reason:
                where = f"volume {root.volume.name}: " if root.volume.name else ""
                raise EraseFailed(f"nothing may be erased from a file system that contradicts itself: {where}{reason}")

    def unaccounted(self) -> str:
        """Why a volume holds more than the planned files, or may; "" where every block is accounted for."""
        for root in self.volumes():
            where = f"volume {root.volume.name}: " if root.volume.name else ""
            if root.volume.dirty:
                return f"{where}{root.volume.dirty}"
            paths = {clip.path for clip in self.clips.values() if clip.root == root.name}
            try:
                reason = self.at(root).unaccounted(paths)
            except FilesystemUnclear as unclear:
                reason = str(unclear)
            if reason:
                return where + reason
        return ""

    def require_planned(self, acquisition: AcquisitionId) -> None:
        """Raise EraseFailed for a clip of which nobody could tell afterwards whether it is gone."""
        if acquisition not in self.clips:
            raise EraseFailed("not erased: it is not known where on its volume the clip lies")

    def erased(self, acquisition: AcquisitionId) -> None:
        """It was erased through the descriptors of now."""
        clip = self.clips[acquisition]
        clip.generation, clip.erased = self.camera.generation, True

    def verify(self, acquisition: AcquisitionId) -> str:
        """Look anew for a clip that was erased. What was established, in words.

        Raises EraseFailed where anything of it is left, or the volume was not taken anew and read-only since.
        """
        clip = self.clips.get(acquisition)
        if clip is None or not clip.erased:
            raise EraseFailed("this reader did not erase that clip")
        self._require_read_only()
        if clip.generation == self.camera.generation:
            raise EraseFailed("the volume was not mounted anew since the clip was erased")
        with self.unclear_is_failure(clip.shown):
            self._require_unnamed(clip, (clip.path, _beside(clip.path, remnant_name(acquisition))))
            size, reused = self._require_zeros(acquisition, clip)
        now = f", but for {reused} that a directory took since" if reused else ""
        return (
            f"mounted anew and read-only, its directory shows neither the clip nor its remnant, and its {size} bytes "
            f"on the block device are zeros{now}"
        )

    def require_fresh(self) -> None:
        """Raise EraseFailed unless the volumes were taken anew since the plan was made, and are read-only."""
        self._require_read_only()
        if any(clip.generation == self.camera.generation for clip in self.clips.values()):
            raise EraseFailed("the volume was not mounted anew since its clips were erased")

    def old_places(self, root: bytes) -> Iterator[Extent]:
        """Where the clips of the plan lay on one volume."""
        for clip in self.clips.values():
            if clip.root == root:
                yield from places_of(clip)

    # --- looking

    def _require_unnamed(self, clip: PlannedClip, names: tuple[bytes, bytes]) -> None:
        root = self._root(clip.root)
        directory_fd = open_below(root, clip.path.rpartition(b"/")[0])
        try:
            with os.scandir(directory_fd) as entries:
                last = {name.rpartition(b"/")[2] for name in names}
                seen = any(os.fsencode(entry.name) in last for entry in entries)
        finally:
            os.close(directory_fd)
        self.camera.require_attached()  # a mount whose device is gone lists as empty
        if seen or any(self.at(root).named(name) for name in names):
            raise EraseFailed(f"{clip.shown} is still in its directory after the volume was mounted anew")

    def _require_zeros(self, acquisition: AcquisitionId, clip: PlannedClip) -> tuple[int, int]:
        """How many bytes its old places have, and how many of them a directory took since."""
        root, done, reused = self._root(clip.root), 0, 0
        size = sum(clip.extents[1::2])
        pulse = Pulse(self.work, acquisition, "verify", None, size)
        for offset, length in places_of(clip):
            for at in range(offset, offset + length, _STEP_BYTES):
                step = min(_STEP_BYTES, offset + length - at)
                self.work.faults.at("verify", clip.path, done, done + step)
                for found in root.device.other_than_zero(at, step):
                    if not self._of_a_directory(root, found):
                        raise EraseFailed(f"{clip.shown} is still on the medium, at byte {found[0]} of its device")
                    reused += found[1]
                done += step
                pulse.tell(done)
        return size, reused

    def _of_a_directory(self, root: VolumeRoot, place: Extent) -> bool:
        if root.name not in self._directories:
            self._directories[root.name] = list(self.at(root).of_directories())
        return covered(place, self._directories[root.name])

    @contextmanager
    def unclear_is_failure(self, what: str) -> Iterator[None]:
        """What cannot be looked at is not gone."""
        try:
            yield
        except FilesystemUnclear as unclear:
            raise EraseFailed(f"{what} cannot be looked for: {unclear}") from unclear
        except OSError as error:
            self.camera.require_attached()
            raise EraseFailed(f"{what} cannot be looked for: {error.strerror or error}") from error

    # --- the volumes

    def at(self, root: VolumeRoot) -> Places:
        """What there is to know of a volume, as it is since it was taken."""
        if self._generation != self.camera.generation:
            self._generation = self.camera.generation
            self._places.clear()
            self._directories.clear()
        if root.name not in self._places:
            self._places[root.name] = places(root)
        return self._places[root.name]

    def volumes(self) -> list[VolumeRoot]:
        """All of them. Raises CameraGone while the camera is let go of, EraseFailed for a camera of another kind."""
        if self.camera.kind is not MediumKind.VOLUMES:
            raise EraseFailed("this camera has no volumes of its own")
        return [root for root in self.camera.roots if isinstance(root, VolumeRoot)]

    def _root(self, name: bytes) -> VolumeRoot:
        for root in self.volumes():
            if root.name == name:
                return root
        raise CameraGone("a volume of the camera is gone")

    def _split(self, path: bytes) -> tuple[VolumeRoot, bytes]:
        root, inner = self.camera.split(path)
        return self._root(root.name), inner

    def _require_read_only(self) -> None:
        for root in self.volumes():
            if root.writable:
                raise EraseFailed("the volume is writable: what it shows now proves nothing")

    def _collect(self, extents: Iterable[Extent]) -> array[int]:
        kept = array("Q")
        for extent in extents:
            if self._extents >= MAX_EXTENTS:
                raise FilesystemUnclear(f"the clips lie in more than {MAX_EXTENTS} pieces")
            self._extents += 1
            kept.extend(extent)
        return kept


def covered(place: Extent, by: Iterable[Extent]) -> bool:
    """Whether all of a stretch lies in others, which may follow each other in any order."""
    left = [place]
    for offset, length in by:
        left = [rest for one in left for rest in _without(one, offset, offset + length)]
    return not left


def _without(one: Extent, begin: int, end: int) -> Iterator[Extent]:
    first, after = one[0], one[0] + one[1]
    if end <= first or after <= begin:
        yield one
        return
    if first < begin:
        yield first, begin - first
    if end < after:
        yield end, after - end


def _beside(path: bytes, name: bytes) -> bytes:
    return path[: len(path) - len(path.rpartition(b"/")[2])] + name
