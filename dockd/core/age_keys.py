"""age's X25519 recipients and identities: their text, their files, and how each wraps a file key (C2SP age.md)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from dockd.core import bech32
from dockd.core.age_header import (
    ARMOUR,
    INTRODUCTION,
    KEY_BYTES,
    X25519,
    HeaderMalformed,
    Stanza,
    decode_base64,
    encode_base64,
)
from dockd.core.canonical import digest
from dockd.errors import VerificationFailed

if TYPE_CHECKING:
    from collections.abc import Callable

    from dockd.model import Digest, Entropy

FILE_KEY_BYTES = 16
_WRAP_NONCE = bytes(12)  # safe: each wrapping key is used once
_WRAP_INFO = b"age-encryption.org/v1/X25519"
_RECIPIENT_PREFIX = "age"
_IDENTITY_PREFIX = "age-secret-key-"
_KIND = TypeVar("_KIND", "Recipient", "Identity")


def fingerprint(recipient: str) -> Digest:
    """The digest of a recipient's text (`age1...`): the name under which manifests and allow-lists know it."""
    return digest(recipient.encode())


def derive(secret: bytes, *, salt: bytes, info: bytes) -> bytes:
    """32 bytes by HKDF-SHA-256 (RFC 5869)."""
    return HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=salt, info=info).derive(secret)


def fresh(random: Entropy, count: int) -> bytes:
    """Exactly `count` random bytes. Raises ValueError where the source gave another number."""
    content = random(count)
    if len(content) != count:
        raise ValueError(f"the source of randomness gave {len(content)} bytes instead of {count}")
    return content


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipient:
    """A public key to seal to."""

    point: bytes

    @classmethod
    def parse(cls, text: str) -> Recipient:
        """From `age1...`. Raises VerificationFailed with what is wrong."""
        if text.startswith("AGE-SECRET-KEY-"):
            raise VerificationFailed("this is an identity (a secret key), where a recipient (age1...) is wanted")
        if text.startswith(("age1pq1", "age1tag1", "age1tagpq1")):
            raise VerificationFailed("only X25519 recipients (age1..., 62 characters) are supported so far")
        point = _decode(text, _RECIPIENT_PREFIX, "recipient", "age1")
        if text != text.lower():
            raise VerificationFailed("not an age recipient: it is written in upper case")
        try:
            # Points of low order give zero with any scalar: whoever sealed to one would seal to everybody.
            X25519PrivateKey.from_private_bytes(bytes(KEY_BYTES)).exchange(X25519PublicKey.from_public_bytes(point))
        except ValueError as error:
            raise VerificationFailed("not an age recipient: its point is of low order, no secret key has it") from error
        return cls(point=point)

    @property
    def text(self) -> str:
        """`age1` and 58 characters."""
        return bech32.encode(_RECIPIENT_PREFIX, self.point)

    @property
    def fingerprint(self) -> Digest:
        """The digest of `text`."""
        return fingerprint(self.text)

    def wrap(self, file_key: bytes, random: Entropy) -> Stanza:
        """The file key for this recipient, under a fresh share of 32 random bytes."""
        ephemeral = X25519PrivateKey.from_private_bytes(fresh(random, KEY_BYTES))
        share = ephemeral.public_key().public_bytes_raw()
        secret = ephemeral.exchange(X25519PublicKey.from_public_bytes(self.point))
        wrapping = derive(secret, salt=share + self.point, info=_WRAP_INFO)
        body = ChaCha20Poly1305(wrapping).encrypt(_WRAP_NONCE, file_key, None)
        return Stanza(type=X25519, args=(encode_base64(share).decode(),), body=body)


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """A secret key that opens what was sealed to its recipient. Never shown by repr()."""

    scalar: bytes = field(repr=False)

    @classmethod
    def generate(cls, random: Entropy) -> Identity:
        """A new one, of 32 random bytes."""
        return cls(scalar=fresh(random, KEY_BYTES))

    @classmethod
    def parse(cls, text: str) -> Identity:
        """From `AGE-SECRET-KEY-1...`. Raises VerificationFailed, whose text never repeats the secret."""
        if text.startswith("age1"):
            raise VerificationFailed("this is a recipient (a public key), where an identity is wanted")
        if text.startswith(("AGE-SECRET-KEY-PQ-", "AGE-PLUGIN-")):
            raise VerificationFailed("only X25519 identities (AGE-SECRET-KEY-1...) are supported so far")
        scalar = _decode(text, _IDENTITY_PREFIX, "identity", "AGE-SECRET-KEY-1")
        if text != text.upper():
            raise VerificationFailed("not an age identity: it is written in lower case")
        return cls(scalar=scalar)

    @property
    def text(self) -> str:
        """`AGE-SECRET-KEY-1` and 58 characters: a secret."""
        return bech32.encode(_IDENTITY_PREFIX, self.scalar).upper()

    @property
    def recipient(self) -> Recipient:
        """Its public side."""
        return Recipient(point=X25519PrivateKey.from_private_bytes(self.scalar).public_key().public_bytes_raw())

    def unwrap(self, stanza: Stanza) -> bytes | None:
        """The file key, or None where the stanza is for somebody else. Raises HeaderMalformed for a low-order share."""
        if stanza.type != X25519:
            return None
        share = decode_base64(stanza.args[0].encode())
        try:
            secret = X25519PrivateKey.from_private_bytes(self.scalar).exchange(X25519PublicKey.from_public_bytes(share))
        except ValueError as error:
            raise HeaderMalformed("the age header holds a share of low order") from error
        wrapping = derive(secret, salt=share + self.recipient.point, info=_WRAP_INFO)
        try:
            return ChaCha20Poly1305(wrapping).decrypt(_WRAP_NONCE, stanza.body, None)
        except InvalidTag:
            return None


def parse_identity_file(text: str) -> tuple[Identity, ...]:
    """The identities of a key file as `age-keygen` writes it: one a line, `#` comments and blank lines between.

    Raises VerificationFailed with the number of the bad line, or where there is none at all.
    """
    if text.startswith((INTRODUCTION.decode().rstrip(), ARMOUR.decode())):
        raise VerificationFailed("this key file is itself sealed with age: open it with `age -d` first")
    if text.startswith("-----BEGIN"):
        raise VerificationFailed("this is not a key file of age: it looks like an SSH or PEM key")
    return _parse_lines(text, Identity.parse, "identity")


def parse_recipients_file(text: str) -> tuple[Recipient, ...]:
    """The recipients of a list that `age -R` reads as well: one a line, `#` comments and blank lines between.

    Raises VerificationFailed with the number of the bad line, for a recipient that stands twice (two keys were meant,
    one would be sealed to), or where there is none at all.
    """
    return _parse_lines(text, Recipient.parse, "recipient")


def _parse_lines(text: str, parse: Callable[[str], _KIND], kind: str) -> tuple[_KIND, ...]:
    seen: dict[_KIND, int] = {}
    for number, raw in enumerate(text.split("\n"), start=1):
        line = raw.strip()
        if not line or line.startswith("#"):
            continue
        try:
            key = parse(line)
        except VerificationFailed as error:
            raise VerificationFailed(f"line {number}: {error}") from error
        if key in seen:
            raise VerificationFailed(f"line {number}: the same {kind} as in line {seen[key]}")
        seen[key] = number
    if not seen:
        raise VerificationFailed(f"there is no {kind} in it")
    return tuple(seen)


def _decode(text: str, prefix: str, kind: str, beginning: str) -> bytes:
    try:
        found, content = bech32.decode(text)
    except ValueError as error:
        raise VerificationFailed(f"not an age {kind} ({beginning}...): {error}") from error
    if found != prefix:
        raise VerificationFailed(f"not an age {kind}: it does not begin with {beginning}")
    if len(content) != KEY_BYTES:
        raise VerificationFailed(f"not an age {kind}: it holds {len(content)} bytes instead of {KEY_BYTES}")
    return content
