"""Ed25519 keys in OpenSSH's forms, and SSHSIG signatures over bytes (OpenSSH's PROTOCOL.sshsig).

`ssh-keygen -Y verify` checks what is signed here, and this module checks what `ssh-keygen -Y sign` signs.
"""

from __future__ import annotations

import base64
import hashlib
import struct
from dataclasses import dataclass
from typing import Any, Self

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from dockd.errors import VerificationFailed
from dockd.model import SignedBytes

MANIFEST = "manifest.v1@dockd"
RECEIPT = "receipt.v1@dockd"
HOLDING = "holding.v1@dockd"
SESSION = "session.v1@dockd"
LOSSES = "losses.v1@dockd"
POLICY = "policy.v1@dockd"
EXTENSION = "extension.v1@dockd"

_MAGIC = b"SSHSIG"
_VERSION = 1
_KEY_TYPE = b"ssh-ed25519"
_HASHES = {b"sha512": hashlib.sha512, b"sha256": hashlib.sha256}
_BEGIN, _END = "-----BEGIN SSH SIGNATURE-----", "-----END SSH SIGNATURE-----"
_LINE = 70  # as ssh-keygen folds it
_RAW_KEY_BYTES, _RAW_SIGNATURE_BYTES = 32, 64


@dataclass(frozen=True, slots=True, kw_only=True)
class PublicKey:
    """An Ed25519 public key. Equal keys are equal whatever their comment."""

    raw: bytes  # 32 bytes

    @classmethod
    def parse(cls, line: str) -> Self:
        """From an OpenSSH public key line; its comment is not kept. Raises VerificationFailed."""
        try:
            return cls(raw=_raw_key(line))
        except ValueError as error:
            raise VerificationFailed(f"not an OpenSSH Ed25519 public key: {error}") from error

    def line(self, comment: str) -> str:
        """The OpenSSH public key line, without a line end."""
        return f"{_KEY_TYPE.decode()} {base64.b64encode(self.blob).decode()} {comment}"

    @property
    def blob(self) -> bytes:
        """The key as SSH's wire has it."""
        return _string(_KEY_TYPE) + _string(self.raw)

    @property
    def fingerprint(self) -> str:
        """As `ssh-keygen -l` shows it."""
        return "SHA256:" + base64.b64encode(hashlib.sha256(self.blob).digest()).decode().rstrip("=")

    def verify_raw(self, signature: bytes, message: bytes) -> None:
        """Check a bare Ed25519 signature (RFC 8032). Raises VerificationFailed."""
        try:
            Ed25519PublicKey.from_public_bytes(self.raw).verify(signature, message)
        except (InvalidSignature, ValueError) as error:
            raise VerificationFailed(f"the signature was not made by the key {self.fingerprint}") from error


class SigningKey:
    """An Ed25519 private key. Never printed: its repr shows the public fingerprint."""

    def __init__(self, private: Ed25519PrivateKey) -> None:
        self._private = private
        self.public = PublicKey(raw=private.public_key().public_bytes_raw())

    @classmethod
    def generate(cls) -> Self:
        """A fresh key, from the operating system's randomness."""
        return cls(Ed25519PrivateKey.generate())

    @classmethod
    def parse(cls, pem: bytes) -> Self:
        """From an unencrypted OpenSSH private key file. Raises VerificationFailed, silent about the content."""
        try:
            private = serialization.load_ssh_private_key(pem, password=None)
        except (ValueError, TypeError, UnsupportedAlgorithm):
            raise VerificationFailed("not an unencrypted OpenSSH private key") from None
        if not isinstance(private, Ed25519PrivateKey):
            raise VerificationFailed("not an Ed25519 key")
        return cls(private)

    def private_pem(self) -> bytes:
        """The OpenSSH private key file, unencrypted."""
        return self._private.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
        )

    def sign_raw(self, message: bytes) -> bytes:
        """A bare Ed25519 signature (RFC 8032)."""
        return self._private.sign(message)

    def __repr__(self) -> str:
        return f"<SigningKey {self.public.fingerprint}>"


def sign(key: SigningKey, namespace: str, message: bytes) -> str:
    """An armoured SSHSIG over `message`, by SHA-512, ending in a line end."""
    name = namespace.encode()
    body = _string(name) + _string(b"") + _string(b"sha512")
    signed = _MAGIC + body + _string(hashlib.sha512(message).digest())
    signature = _string(_KEY_TYPE) + _string(key.sign_raw(signed))
    blob = _MAGIC + struct.pack(">I", _VERSION) + _string(key.public.blob) + body + _string(signature)
    text = base64.b64encode(blob).decode()
    lines = [text[at : at + _LINE] for at in range(0, len(text), _LINE)]
    return "\n".join([_BEGIN, *lines, _END, ""])


def verify(public: PublicKey, namespace: str, message: bytes, signature: str) -> None:
    """Check an armoured SSHSIG by exactly this key in exactly this namespace. Raises VerificationFailed."""
    try:
        key, name, algorithm, raw = _signature_parts(signature)
    except ValueError as error:
        raise VerificationFailed(f"not a usable signature: {error}") from error
    if name != namespace.encode():
        raise VerificationFailed(f"the signature is for {name.decode(errors='replace')!r}, not for {namespace!r}")
    if key != public.blob:
        raise VerificationFailed(f"the signature is by another key than {public.fingerprint}")
    body = _string(name) + _string(b"") + _string(algorithm)
    public.verify_raw(raw, _MAGIC + body + _string(_HASHES[algorithm](message).digest()))


def signed_to_json(signed: SignedBytes) -> dict[str, Any]:
    """The envelope that carries exact bytes and their signature over HTTP."""
    payload = base64.b64encode(signed.payload).decode()
    return {"type": "signed", "v": 1, "payload": payload, "signature": signed.signature}


def signed_from_json(record: dict[str, Any]) -> SignedBytes:
    """The inverse; nothing is verified yet. Raises VerificationFailed for what is no envelope."""
    payload, signature = record.get("payload"), record.get("signature")
    kind = record.get("type"), record.get("v"), set(record) == {"type", "v", "payload", "signature"}
    if kind != ("signed", 1, True) or not isinstance(payload, str) or not isinstance(signature, str):
        raise VerificationFailed("not a signed envelope: expected type 'signed', v 1, payload and signature")
    try:
        return SignedBytes(payload=base64.b64decode(payload, validate=True), signature=signature)
    except ValueError as error:
        raise VerificationFailed(f"not a signed envelope: {error}") from error


def _raw_key(line: str) -> bytes:
    words = line.split()
    if len(words) < 2 or words[0] != _KEY_TYPE.decode():  # noqa: PLR2004  a type and a key
        raise ValueError("expected 'ssh-ed25519 AAAA... comment'")
    blob = _Blob(base64.b64decode(words[1], validate=True))
    key_type, raw = blob.string(), blob.string()
    blob.end()
    if key_type != _KEY_TYPE or len(raw) != _RAW_KEY_BYTES:
        raise ValueError("not an Ed25519 key")
    return raw


def _signature_parts(signature: str) -> tuple[bytes, bytes, bytes, bytes]:
    """Key, namespace, hash algorithm and bare signature. Raises ValueError."""
    blob = _Blob(_unarmour(signature))
    if blob.take(len(_MAGIC)) != _MAGIC or blob.number() != _VERSION:
        raise ValueError("not an SSHSIG of version 1")
    key, name, reserved, algorithm, inner = (blob.string() for _ in range(5))
    blob.end()
    part = _Blob(inner)
    kind, raw = part.string(), part.string()
    part.end()
    if reserved or algorithm not in _HASHES or kind != _KEY_TYPE or len(raw) != _RAW_SIGNATURE_BYTES:
        raise ValueError("not an Ed25519 SSHSIG by SHA-512 or SHA-256")
    return key, name, algorithm, raw


def _unarmour(signature: str) -> bytes:
    lines = signature.strip().splitlines()
    if len(lines) < 3 or lines[0] != _BEGIN or lines[-1] != _END:  # noqa: PLR2004  two marks and something between
        raise ValueError("the armour is broken")
    text = "".join(line.strip() for line in lines[1:-1])
    try:
        content = base64.b64decode(text, validate=True)
    except ValueError as error:
        raise ValueError("the armour is broken") from error
    if base64.b64encode(content).decode() != text:  # bits after the last byte: another spelling of the same signature
        raise ValueError("the armour is broken")
    return content


def _string(content: bytes) -> bytes:
    """SSH's string (RFC 4251, section 5)."""
    return struct.pack(">I", len(content)) + content


class _Blob:
    """Reads SSH's wire form. Raises ValueError where it ends too soon, or too late."""

    def __init__(self, content: bytes) -> None:
        self._rest = content

    def take(self, count: int) -> bytes:
        if count > len(self._rest):
            raise ValueError("it ends too soon")
        taken, self._rest = self._rest[:count], self._rest[count:]
        return taken

    def number(self) -> int:
        return int(struct.unpack(">I", self.take(4))[0])

    def string(self) -> bytes:
        return self.take(self.number())

    def end(self) -> None:
        if self._rest:
            raise ValueError("something follows it")
