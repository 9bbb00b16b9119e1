"""What the journal keeps of an upload to an Axis content destination, and of the objects that it became."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from dockd.core import canonical
from dockd.core.fields import Fields
from dockd.core.objects import Piece
from dockd.errors import UploadLost, VerificationFailed
from dockd.model import AcquisitionId


@dataclass(frozen=True, slots=True, kw_only=True)
class Upload:
    """An upload. None of it is secret."""

    acquisition: AcquisitionId
    container: str
    name: str
    size_bytes: int
    least_bytes: int  # of a piece; 0: the clip goes in one PUT
    metadata: Mapping[str, str]

    def encode(self) -> str:
        """One line of JSON, the same for the same record."""
        return canonical.encode(
            {
                "type": "axis-upload",
                "v": 1,
                "acquisition": self.acquisition,
                "container": self.container,
                "name": self.name,
                "size_bytes": self.size_bytes,
                "least_bytes": self.least_bytes,
                "metadata": dict(self.metadata),
            }
        ).decode()


@dataclass(frozen=True, slots=True, kw_only=True)
class Objects:
    """A finished acquisition: a container, and an object's name and size for each piece."""

    acquisition: AcquisitionId
    container: str
    pieces: Mapping[Piece, tuple[str, int]]

    def encode(self) -> str:
        """One line of JSON, the same for the same record."""
        pieces = {piece.value: {"name": name, "size_bytes": size} for piece, (name, size) in self.pieces.items()}
        return canonical.encode(
            {
                "type": "axis-objects",
                "v": 1,
                "acquisition": self.acquisition,
                "container": self.container,
                "pieces": pieces,
            }
        ).decode()


def parse_upload(text: str) -> Upload:
    """The record out of the journal. Raises UploadLost where it is none."""
    try:
        fields = Fields(canonical.decode(text.encode(), type_="axis-upload"), "axis-upload")
        metadata = fields.mapping("metadata")
        found = Upload(
            acquisition=AcquisitionId(fields.uuid("acquisition")),
            container=fields.text("container"),
            name=fields.text("name"),
            size_bytes=fields.count("size_bytes"),
            least_bytes=fields.count("least_bytes"),
            metadata={key: str(value) for key, value in metadata.items()},
        )
        fields.end()
    except VerificationFailed as error:
        raise UploadLost(f"the journalled upload is none of this store: {error}") from error
    return found


def parse_objects(text: str) -> Objects:
    """The record out of the journal. Raises UploadLost where it is none."""
    try:
        fields = Fields(canonical.decode(text.encode(), type_="axis-objects"), "axis-objects")
        pieces = fields.inner("pieces")
        found = {}
        for piece in Piece:
            one = pieces.inner(piece.value)
            found[piece] = (one.text("name"), one.count("size_bytes"))
            one.end()
        objects = Objects(
            acquisition=AcquisitionId(fields.uuid("acquisition")), container=fields.text("container"), pieces=found
        )
        pieces.end()
        fields.end()
    except VerificationFailed as error:
        raise UploadLost(f"the journalled objects are none of this store: {error}") from error
    return objects
