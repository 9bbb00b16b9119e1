"""What a tus store keeps in the journal, the names of its objects, and what its answers mean."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import parse_qs, urlencode

from dockd.core.objects import Piece
from dockd.core.transfer import Call, RetryClass, classify
from dockd.errors import UploadLost
from dockd.model import AcquisitionId
from dockd.stores.wire import Answer, Judgement, sentence

_FILES = {Piece.SEALED: "clip.age", Piece.MANIFEST: "manifest.json", Piece.SIGNATURE: "manifest.json.sig"}

# These servers look at requests and credentials, and never at a manifest: what they refuse condemns no clip.
_MEANINGS: Mapping[tuple[Call, int], RetryClass] = {
    (Call.REGISTER, 400): RetryClass.UNUSABLE,
    (Call.REGISTER, 403): RetryClass.UNUSABLE,
    (Call.REGISTER, 409): RetryClass.LATER,
    (Call.OFFSET, 403): RetryClass.UNUSABLE,
    (Call.APPEND, 403): RetryClass.UNUSABLE,
    (Call.READ, 403): RetryClass.UNUSABLE,
    (Call.READ, 405): RetryClass.REFUSED,  # it gives nothing back
    (Call.READ, 501): RetryClass.REFUSED,
}


def judge_tus(call: Call, answer: Answer) -> Judgement:
    """What an answer means. A tus server shows itself by the Tus-Resumable header, not by what it writes."""
    own_words = answer.headers.get("tus-resumable") == "1.0.0" or call in (Call.OFFSET, Call.LOOK)
    found = _MEANINGS.get((call, answer.status)) or classify(call, answer.status, own_words=own_words)
    plain = answer.headers.get("content-type", "text/plain").startswith("text/plain")
    said = answer.body.decode(errors="replace").strip() if own_words and plain else ""
    return Judgement(found=found, words=sentence(call, answer.status, said))


@dataclass(frozen=True, slots=True, kw_only=True)
class Upload:
    """One upload, as the journal keeps it: its path on the server, and what to expect of it."""

    path: str
    acquisition: AcquisitionId
    size_bytes: int
    name: str = ""  # of the object that it becomes, where the server files it by a name of ours; empty: it does not

    def text(self) -> str:
        """The words for the journal."""
        fields = {"acquisition": self.acquisition, "size": self.size_bytes, "name": self.name}
        return f"{self.path}#{urlencode(fields, safe='/')}"

    def beside(self, piece: Piece) -> str:
        """The name of another object of this acquisition; empty where the server names them."""
        return f"{self.name.rpartition('/')[0]}/{_FILES[piece]}" if self.name else ""


def parse_upload(text: str) -> Upload:
    """The upload out of the journal's words. Raises UploadLost where they are none of this kind of store."""
    path, _, fields = text.partition("#")
    found = parse_qs(fields, keep_blank_values=True)
    try:
        upload = Upload(
            path=path,
            acquisition=AcquisitionId(found["acquisition"][0]),
            size_bytes=int(found["size"][0]),
            name=found["name"][0],
        )
    except (KeyError, ValueError) as error:
        raise UploadLost("the upload was made at a store of another kind") from error
    if not path.startswith("/"):
        raise UploadLost("the upload's address is no path on a server")
    return upload


def format_addresses(addresses: Mapping[Piece, str]) -> str:
    """The three objects' addresses for the journal: a path of an upload each, or a name of an object."""
    return json.dumps({piece.value: address for piece, address in addresses.items()}, sort_keys=True)


def parse_addresses(objects: str) -> dict[Piece, str]:
    """The three addresses. Raises UploadLost where the words are none of this kind of store."""
    try:
        found = json.loads(objects)
        return {piece: str(found[piece.value]) for piece in Piece}
    except (ValueError, KeyError, TypeError) as error:
        raise UploadLost("the objects were made at a store of another kind") from error


def sealed_name(acquisition: AcquisitionId, random: bytes) -> str:
    """A name that no other attempt has: what a server damaged stands aside, and is never written over."""
    return f"{acquisition}/{random.hex()}/{_FILES[Piece.SEALED]}"


def metadata(acquisition: AcquisitionId, piece: Piece) -> dict[str, str]:
    """Upload-Metadata, for people who look at the server."""
    return {
        "filename": f"{acquisition}.{_FILES[piece]}",
        "filetype": "application/octet-stream",
        "acquisition": acquisition,
        "kind": piece.value,
    }
