"""Sealed clips: age v1 (C2SP age.md), binary, to X25519 recipients, as streams in bounded memory (docs/formats.md).

The payload is cut into chunks of 64 KiB, each under ChaCha20-Poly1305 with a nonce that counts, and that marks the
last chunk: so a cut, a swap and an appended byte all show. A file key lives in one Sealer alone; a sealing cut short is
begun anew from the clip, never resumed.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import TYPE_CHECKING, Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from dockd.core.age_header import (
    INTRODUCTION,
    Header,
    HeaderMalformed,
    Stanza,
    encode_footer,
    parse_header,
    signed_part,
)
from dockd.core.age_keys import (
    FILE_KEY_BYTES,
    Identity,
    Recipient,
    derive,
    fingerprint,
    fresh,
    parse_identity_file,
    parse_recipients_file,
)
from dockd.errors import VerificationFailed

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from dockd.model import Digest, Entropy

__all__ = [
    "CHUNK_BYTES",
    "MAX_BLOCK_BYTES",
    "Header",
    "HeaderForged",
    "HeaderMalformed",
    "Identity",
    "NoIdentityFits",
    "Opener",
    "PayloadBroken",
    "Recipient",
    "Sealer",
    "Stanza",
    "fingerprint",
    "parse_header",
    "parse_identity_file",
    "parse_recipients_file",
    "sealed_size",
]

CHUNK_BYTES = 64 * 1024
MAX_BLOCK_BYTES = 4 * 1024 * 1024
_TAG_BYTES = 16
_SEALED_CHUNK_BYTES = CHUNK_BYTES + _TAG_BYTES
_NONCE_BYTES = 16  # of the payload; from it and the file key comes the payload key
_COUNTER_BYTES = 11
_STANZA_BYTES = 98  # an X25519 stanza: "-> X25519 ", share, LF, wrapped file key, LF
_FOOTER_BYTES = 48  # "--- ", MAC, LF

Block = bytes | bytearray | memoryview


class NoIdentityFits(VerificationFailed):
    """The header is well-formed, but the file was sealed to other recipients than the identities at hand."""


class HeaderForged(VerificationFailed):
    """An identity fits, but the header's MAC is wrong: the header was changed after sealing."""


class PayloadBroken(VerificationFailed):
    """The header is right, the payload is not: changed, cut short, or longer than it was sealed.

    `verified` is what the failing call could still prove of the clip, up to the damage: for a salvage, never to be
    taken for the clip.
    """

    def __init__(self, message: str, *, verified: bytes = b"") -> None:
        super().__init__(message)
        self.verified = verified


class Aead(Protocol):
    """What chunks are sealed with. `cryptography`'s ChaCha20Poly1305 is the one in use."""

    def encrypt_into(self, nonce: Block, data: Block, associated_data: Block | None, buf: Block) -> int:
        """Write ciphertext and tag into `buf`."""

    def decrypt_into(self, nonce: Block, data: Block, associated_data: Block | None, buf: Block) -> int:
        """Write plaintext into `buf`. Raises InvalidTag."""


def sealed_size(plaintext_size: int, recipients: int) -> int:
    """The exact length in bytes of a clip of `plaintext_size` bytes sealed to so many X25519 recipients."""
    chunks = max(1, -(-plaintext_size // CHUNK_BYTES))
    header = len(INTRODUCTION) + recipients * _STANZA_BYTES + _FOOTER_BYTES
    return header + _NONCE_BYTES + plaintext_size + chunks * _TAG_BYTES


class Sealer:
    """Seals one clip. `header()` once, then `seal()` block by block, the last with `final=True`.

    Randomness is drawn in this order: file key (16 bytes), a share for each recipient (32), payload nonce (16).
    A wrong use raises ValueError. After any exception, cancellation included, the Sealer refuses further work: a nonce
    must never be used again for other bytes. `scratch` is its one buffer that holds plaintext (lock it in memory).
    """

    __slots__ = ("_cipher", "_counter", "_ended", "_fingerprints", "_header", "_output", "_started", "scratch")

    def __init__(
        self,
        recipients: Sequence[Recipient],
        random: Entropy,
        *,
        cipher: Callable[[bytes], Aead] = ChaCha20Poly1305,
    ) -> None:
        if not recipients or len(set(recipients)) != len(recipients):
            raise ValueError("a clip is sealed to at least one recipient, and to none twice")
        file_key = fresh(random, FILE_KEY_BYTES)
        signed = signed_part(tuple(recipient.wrap(file_key, random) for recipient in recipients))
        nonce = fresh(random, _NONCE_BYTES)
        self._header = signed + encode_footer(_header_mac(file_key, signed)) + nonce
        self._cipher = cipher(_payload_key(file_key, nonce))
        self._fingerprints = tuple(recipient.fingerprint for recipient in recipients)
        self._counter = 0
        self._output = bytearray()
        self._started = False
        self._ended = False
        self.scratch = bytearray(CHUNK_BYTES)

    @property
    def fingerprints(self) -> tuple[Digest, ...]:
        """The recipients' fingerprints, in stanza order."""
        return self._fingerprints

    def header(self) -> bytes:
        """Header and payload nonce: the file's first bytes. Once only."""
        if self._started:
            raise ValueError("the header was handed out before")
        self._started = True
        return self._header

    def seal(self, block: Block, *, final: bool) -> memoryview:
        """The next bytes of the file, in a view that is good until the next call.

        `block` is a multiple of CHUNK_BYTES, at most MAX_BLOCK_BYTES; the final one may have any length up to that, but
        may be empty only where the clip is. Each chunk was opened again and compared before this returns; raises
        VerificationFailed where it was not what was sealed (a memory or processor at fault).
        """
        source = memoryview(block)
        size = source.nbytes
        self._check_use(size, final=final)
        chunks = -(-size // CHUNK_BYTES) or int(final)
        self._ended = True  # until this call is through
        needed = size + chunks * _TAG_BYTES
        if len(self._output) < needed:
            self._output = bytearray(needed)
        output = memoryview(self._output)
        position = 0
        for index in range(chunks):
            chunk = source[index * CHUNK_BYTES : (index + 1) * CHUNK_BYTES]
            target = output[position : position + len(chunk) + _TAG_BYTES]
            nonce = _chunk_nonce(self._counter, final=final and index == chunks - 1)
            self._cipher.encrypt_into(nonce, chunk, None, target)
            self._open_again(nonce, chunk, target)
            self._counter += 1
            position += len(target)
        self._ended = final
        return output[:position].toreadonly()

    def _check_use(self, size: int, *, final: bool) -> None:
        if not self._started:
            raise ValueError("the header comes first")
        if self._ended:
            raise ValueError("this sealing has ended")
        if size > MAX_BLOCK_BYTES:
            raise ValueError(f"a block has at most {MAX_BLOCK_BYTES} bytes, not {size}")
        if size % CHUNK_BYTES and not final:
            raise ValueError(f"a block that is not the last is a multiple of {CHUNK_BYTES} bytes, not {size}")
        if final and not size and self._counter:
            raise ValueError("the last block of a clip that is not empty must not be empty")

    def _open_again(self, nonce: bytes, chunk: memoryview, sealed: memoryview) -> None:
        opened = memoryview(self.scratch)[: len(chunk)]
        try:
            self._cipher.decrypt_into(nonce, sealed, None, opened)
        except InvalidTag:
            same = False
        else:
            # bytearray compares by memcmp, memoryview element by element: 30 times slower.
            same = self.scratch == chunk if len(chunk) == CHUNK_BYTES else opened == chunk
        if not same:
            raise VerificationFailed(
                f"sealed chunk {self._counter} does not open to what was sealed: check this machine's memory"
            )


class Opener:
    """Opens one sealed file. `feed()` its bytes in blocks of any size, then `finish()`.

    Both return verified plaintext, in a view good until the next call; but only `finish()` says that the file is
    whole, so plaintext belongs in a temporary file until then. Raises HeaderMalformed, NoIdentityFits, HeaderForged
    or PayloadBroken (all VerificationFailed); after any exception it refuses further work with ValueError.
    """

    __slots__ = ("_cipher", "_counter", "_ended", "_held", "_identities", "_output", "header")

    def __init__(self, identities: Sequence[Identity]) -> None:
        if not identities:
            raise ValueError("nothing opens without an identity")
        self._identities = tuple(identities)
        self._cipher: ChaCha20Poly1305 | None = None
        self._held = bytearray()  # the header's bytes, later at most one sealed chunk: the last one is known by the end
        self._output = bytearray()
        self._counter = 0
        self._ended = False
        self.header: Header | None = None

    def feed(self, block: Block) -> memoryview:
        """The plaintext of every chunk that these bytes complete and prove not to be the last. May be empty."""
        self._begin_call()
        source = memoryview(block)
        if self._cipher is None:
            source = self._start(source)
        plaintext = self._open_chunks(source) if self._cipher is not None else memoryview(b"")
        self._ended = False
        return plaintext

    def finish(self) -> memoryview:
        """The last chunk's plaintext. Returns only where the file is whole and nothing follows its end."""
        self._begin_call()
        if self.header is None:
            raise HeaderMalformed("the age file is cut short within its header")
        if self._cipher is None:
            raise HeaderMalformed("the age file is cut short within its payload nonce")
        size = len(self._held)
        if size < _TAG_BYTES:
            raise PayloadBroken("the sealed file is cut short: its last chunk is missing or incomplete")
        if size == _TAG_BYTES and self._counter:
            raise PayloadBroken("the sealed file ends with an empty chunk, which no writer makes: it was changed")
        output = memoryview(bytearray(size - _TAG_BYTES))
        self._open(memoryview(self._held), output, final=True)
        return output.toreadonly()

    def _begin_call(self) -> None:
        if self._ended:
            raise ValueError("this opening has ended")
        self._ended = True  # until the call is through

    def _start(self, source: memoryview) -> memoryview:
        """Collect header and nonce; what follows them is returned, and the cipher stands."""
        self._held += source
        if self.header is None:
            header = parse_header(self._held)
            if header is None:
                return memoryview(b"")
            file_key = self._unwrap(header)
            signed = bytes(self._held[: header.signed_bytes])
            if not hmac.compare_digest(_header_mac(file_key, signed), header.mac):
                raise HeaderForged("the sealed file's header was changed after sealing: its MAC is wrong")
            self.header = header
        end = self.header.size_bytes + _NONCE_BYTES
        if len(self._held) < end:
            return memoryview(b"")
        nonce = bytes(self._held[self.header.size_bytes : end])
        self._cipher = ChaCha20Poly1305(_payload_key(self._unwrap(self.header), nonce))
        rest = memoryview(bytes(self._held[end:]))
        self._held.clear()
        return rest

    def _unwrap(self, header: Header) -> bytes:
        for stanza in header.stanzas:
            for identity in self._identities:
                file_key = identity.unwrap(stanza)
                if file_key is not None:
                    return file_key
        raise NoIdentityFits(
            f"none of the {len(self._identities)} identities opens this file: it was sealed to other recipients"
        )

    def _open_chunks(self, source: memoryview) -> memoryview:
        room = (len(self._held) + source.nbytes) // _SEALED_CHUNK_BYTES * CHUNK_BYTES
        if len(self._output) < room:
            self._output = bytearray(room)
        output = memoryview(self._output)
        position = 0
        if self._held:
            missing = _SEALED_CHUNK_BYTES - len(self._held)
            self._held += source[:missing]
            source = source[missing:]
            if not source:
                return output[:0]
            self._open(memoryview(bytes(self._held)), output[:CHUNK_BYTES], final=False)
            self._held.clear()
            position = CHUNK_BYTES
        try:
            while len(source) > _SEALED_CHUNK_BYTES:
                chunk, source = source[:_SEALED_CHUNK_BYTES], source[_SEALED_CHUNK_BYTES:]
                self._open(chunk, output[position : position + CHUNK_BYTES], final=False)
                position += CHUNK_BYTES
        except PayloadBroken as broken:
            broken.verified = bytes(output[:position]) + broken.verified
            raise
        self._held += source
        return output[:position].toreadonly()

    def _open(self, sealed: memoryview, output: memoryview, *, final: bool) -> None:
        if self._cipher is None:
            raise ValueError("the header comes first")
        try:
            self._cipher.decrypt_into(_chunk_nonce(self._counter, final=final), sealed, None, output)
        except InvalidTag:
            raise _damage(self._cipher, self._counter, sealed, final=final) from None
        self._counter += 1


def _damage(cipher: ChaCha20Poly1305, counter: int, sealed: memoryview, *, final: bool) -> PayloadBroken:
    """What is wrong with a chunk. One that opens with the other mark is sound, but not where the file ends."""
    try:
        plaintext = cipher.decrypt(_chunk_nonce(counter, final=not final), sealed, None)
    except InvalidTag:
        return PayloadBroken(f"the sealed file was changed or cut short: chunk {counter} does not open")
    if final:
        if len(plaintext) < CHUNK_BYTES:
            plaintext = b""  # no writer makes a short chunk that is not the last: nothing of it is to be trusted
        message = f"the sealed file is cut short: it ends after chunk {counter}, which is not its last"
    else:
        message = f"the sealed file was changed: bytes follow its end, which is chunk {counter}"
    return PayloadBroken(message, verified=plaintext)


def _header_mac(file_key: bytes, signed: bytes) -> bytes:
    return hmac.digest(derive(file_key, salt=b"", info=b"header"), signed, hashlib.sha256)


def _payload_key(file_key: bytes, nonce: bytes) -> bytes:
    return derive(file_key, salt=nonce, info=b"payload")


def _chunk_nonce(counter: int, *, final: bool) -> bytes:
    return counter.to_bytes(_COUNTER_BYTES, "big") + (b"\x01" if final else b"\x00")
