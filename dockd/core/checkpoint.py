"""Checkpoints: the custody log's signed head, as C2SP signed notes (signed-note, tlog-checkpoint, tlog-cosignature)."""

from __future__ import annotations

import base64
import hashlib
import struct
from dataclasses import dataclass
from datetime import datetime

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from dockd.core.sshsig import PublicKey, SigningKey
from dockd.errors import VerificationFailed
from dockd.model import StationId

_ED25519 = 0x01
_COSIGNATURE = 0x04
_DASH = "— "
_KEY_ID_BYTES, _TIME_BYTES, _SIGNATURE_BYTES, _ROOT_BYTES, _KEY_BYTES = 4, 8, 64, 32, 32
_MAX_NOTE_BYTES = 16 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """The head of a log: how many entries it has, and their Merkle root."""

    origin: str
    size: int
    root: bytes  # 32 bytes


def origin_of(station: StationId, generation: int) -> str:
    """A log's name, which is also the name of the key that signs its checkpoints."""
    return f"dockd/{station}/{generation}"


def sign(checkpoint: Checkpoint, key: SigningKey) -> bytes:
    """The signed note."""
    text = _text(checkpoint)
    signature = _key_id(checkpoint.origin, _ED25519, key.public) + key.sign_raw(text)
    return text + b"\n" + _signature_line(checkpoint.origin, signature)


def parse_and_verify(note: bytes, origin: str, public: PublicKey) -> Checkpoint:
    """The checkpoint of a note that carries this key's signature. Raises VerificationFailed.

    Lines by other keys, cosignatures among them, are passed over, as the note format has it.
    """
    text, lines = _split(note)
    key_id = _key_id(origin, _ED25519, public)
    signatures = [blob for name, blob in lines if name == origin and blob[:_KEY_ID_BYTES] == key_id]
    if not signatures:
        raise VerificationFailed(f"the checkpoint carries no signature by {origin}")
    for blob in signatures:
        public.verify_raw(blob[_KEY_ID_BYTES:], text)
    return _parse(text, origin)


def cosign(note: bytes, key: SigningKey, name: str, at: datetime) -> bytes:
    """The note with one more line: `name` saw this checkpoint at `at` (cosignature/v1).

    The caller has verified the note, and that it extends what `name` cosigned before.
    """
    text, _ = _split(note)
    seconds = int(at.timestamp())
    signature = key.sign_raw(_cosigned(text, seconds))
    blob = _key_id(name, _COSIGNATURE, key.public) + struct.pack(">Q", seconds) + signature
    return note + _signature_line(name, blob)


def verify_cosignature(note: bytes, name: str, public: PublicKey) -> int:
    """When `name` cosigned the note, in seconds since 1970. Raises VerificationFailed."""
    text, lines = _split(note)
    key_id = _key_id(name, _COSIGNATURE, public)
    for line_name, blob in lines:
        if line_name == name and blob[:_KEY_ID_BYTES] == key_id:
            if len(blob) != _KEY_ID_BYTES + _TIME_BYTES + _SIGNATURE_BYTES:
                raise VerificationFailed(f"the cosignature by {name} has the wrong length")
            (seconds,) = struct.unpack_from(">Q", blob, _KEY_ID_BYTES)
            public.verify_raw(blob[_KEY_ID_BYTES + _TIME_BYTES :], _cosigned(text, seconds))
            return int(seconds)
    raise VerificationFailed(f"the checkpoint carries no cosignature by {name}")


def vkey(name: str, public: PublicKey) -> str:
    """The note verifier key: `name+id+base64`."""
    key_id = _key_id(name, _ED25519, public).hex()
    return f"{name}+{key_id}+{base64.b64encode(bytes([_ED25519]) + public.raw).decode()}"


def parse_vkey(text: str) -> tuple[str, PublicKey]:
    """The inverse. Raises VerificationFailed."""
    try:
        name, key_id, encoded = text.strip().split("+", 2)
        blob = base64.b64decode(encoded, validate=True)
    except ValueError as error:
        raise VerificationFailed(f"not a note verifier key: {error}") from error
    public = PublicKey(raw=blob[1:])
    if blob[:1] != bytes([_ED25519]) or len(public.raw) != _KEY_BYTES:
        raise VerificationFailed("not a note verifier key of Ed25519")
    if _key_id(name, _ED25519, public).hex() != key_id:
        raise VerificationFailed("not a note verifier key: its key id does not fit its key")
    return name, public


def public_pem(public: PublicKey) -> bytes:
    """The key as openssl reads it (SubjectPublicKeyInfo)."""
    return Ed25519PublicKey.from_public_bytes(public.raw).public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def _text(checkpoint: Checkpoint) -> bytes:
    return f"{checkpoint.origin}\n{checkpoint.size}\n{base64.b64encode(checkpoint.root).decode()}\n".encode()


def _parse(text: bytes, origin: str) -> Checkpoint:
    try:
        lines = text.decode().split("\n")
        root = base64.b64decode(lines[2], validate=True) if len(lines) == 4 else b""  # noqa: PLR2004  the last is empty
        size = int(lines[1]) if lines[1:] else -1
    except ValueError as error:
        raise VerificationFailed(f"not a checkpoint: {error}") from error
    if len(root) != _ROOT_BYTES or size < 0 or lines[1] != str(size):
        raise VerificationFailed("not a checkpoint: expected a log's name, its size, and a root of 32 bytes")
    if lines[0] != origin:
        raise VerificationFailed(f"a checkpoint of {lines[0]!r}, not of {origin}")
    return Checkpoint(origin=origin, size=size, root=root)


def _split(note: bytes) -> tuple[bytes, list[tuple[str, bytes]]]:
    """The signed text, with its last LF, and the signature lines as (name, key id and signature)."""
    if len(note) > _MAX_NOTE_BYTES or not note.endswith(b"\n"):
        raise VerificationFailed("not a signed note: too long, or cut off")
    text, gap, rest = note.rpartition(b"\n\n")
    if not gap:
        raise VerificationFailed("not a signed note: it has no signatures")
    try:
        return text + b"\n", [_signature(line) for line in rest.decode().removesuffix("\n").split("\n")]
    except ValueError as error:
        raise VerificationFailed(f"not a signed note: {error}") from error


def _signature(line: str) -> tuple[str, bytes]:
    name, _, encoded = line.removeprefix(_DASH).partition(" ")
    blob = base64.b64decode(encoded, validate=True)
    if not line.startswith(_DASH) or not name or len(blob) <= _KEY_ID_BYTES:
        raise ValueError(f"{line!r} is no signature line")
    return name, blob


def _cosigned(text: bytes, seconds: int) -> bytes:
    return f"cosignature/v1\ntime {seconds}\n".encode() + text


def _signature_line(name: str, blob: bytes) -> bytes:
    return f"{_DASH}{name} {base64.b64encode(blob).decode()}\n".encode()


def _key_id(name: str, algorithm: int, public: PublicKey) -> bytes:
    return hashlib.sha256(name.encode() + b"\n" + bytes([algorithm]) + public.raw).digest()[:_KEY_ID_BYTES]
