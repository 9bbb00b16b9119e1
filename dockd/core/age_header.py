"""The header of an age v1 file (C2SP age.md): read strictly, written in the one canonical spelling. No keys here."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass

from dockd.errors import VerificationFailed

INTRODUCTION = b"age-encryption.org/v1\n"
ARMOUR = b"-----BEGIN AGE ENCRYPTED FILE-----"
X25519 = "X25519"
SCRYPT = "scrypt"
HEADER_LIMIT_BYTES = 256 * 1024  # age names no limit; ours bounds what a hostile file makes us hold
KEY_BYTES = 32  # an X25519 share, and a wrapped file key: 16 bytes and a 16-byte tag
_STANZA = b"-> "
_FOOTER = b"---"
_COLUMNS = 64
_FIRST_VISIBLE, _LAST_VISIBLE = 33, 126


class HeaderMalformed(VerificationFailed):
    """The file is no age v1 file, or its header breaks a rule of the format."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stanza:
    """The file key wrapped for one recipient. `type` and `args` are visible ASCII."""

    type: str
    args: tuple[str, ...]
    body: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """A whole header that parsed. `signed_bytes` of its `size_bytes` are under the MAC."""

    stanzas: tuple[Stanza, ...]
    mac: bytes
    size_bytes: int
    signed_bytes: int


def encode_base64(content: bytes) -> bytes:
    """Base64 without padding."""
    return base64.b64encode(content).rstrip(b"=")


def decode_base64(text: bytes) -> bytes:
    """The inverse of encode_base64. Raises HeaderMalformed for every other spelling of the same bytes."""
    try:
        content = base64.b64decode(text + b"=" * (-len(text) % 4), validate=True)
    except binascii.Error as error:
        raise HeaderMalformed(f"the age header holds bad base64: {error}") from error
    if encode_base64(content) != text:
        raise HeaderMalformed("the age header holds base64 that is not canonical")
    return content


def encode_stanza(stanza: Stanza) -> bytes:
    """Argument line and body lines; the last body line is always shorter than 64 columns, empty if need be."""
    body = encode_base64(stanza.body)
    lines = [body[start : start + _COLUMNS] for start in range(0, len(body) + 1, _COLUMNS)]
    return _STANZA + " ".join((stanza.type, *stanza.args)).encode() + b"\n" + b"".join(line + b"\n" for line in lines)


def encode_footer(mac: bytes) -> bytes:
    """What follows the bytes under the MAC, which end with the three dashes."""
    return b" " + encode_base64(mac) + b"\n"


def signed_part(stanzas: tuple[Stanza, ...]) -> bytes:
    """The bytes that the header MAC covers."""
    return INTRODUCTION + b"".join(encode_stanza(stanza) for stanza in stanzas) + _FOOTER


def parse_header(prefix: bytes | bytearray | memoryview) -> Header | None:
    """The header at the start of a sealed file, or None where more bytes are needed to tell.

    Raises HeaderMalformed as soon as no continuation could make it right. The MAC is not checked: that takes the
    file key. Every X25519 stanza has the shape it must have.
    """
    content = bytes(prefix[: HEADER_LIMIT_BYTES + 1])
    if not content.startswith(INTRODUCTION[: len(content)]):
        if content.startswith(ARMOUR):
            raise HeaderMalformed("the age file is ASCII-armored: remove the armor first (`age -d` reads both)")
        raise HeaderMalformed("this is not an age v1 file: it does not begin with 'age-encryption.org/v1'")
    try:
        return _parse_lines(_Lines(content, len(INTRODUCTION)))
    except _NeedMore:
        if len(content) > HEADER_LIMIT_BYTES:
            raise HeaderMalformed(f"the age header is longer than {HEADER_LIMIT_BYTES} bytes") from None
        return None


class _NeedMore(Exception):
    """The bytes end before the header does."""


class _Lines:
    """The complete lines of a header, one by one."""

    __slots__ = ("_content", "position")

    def __init__(self, content: bytes, position: int) -> None:
        self._content = content
        self.position = position

    def take(self) -> bytes:
        end = self._content.find(b"\n", self.position)
        if end < 0:
            raise _NeedMore
        line = self._content[self.position : end]
        self.position = end + 1
        return line


def _parse_lines(lines: _Lines) -> Header:
    stanzas: list[Stanza] = []
    while True:
        start = lines.position
        line = lines.take()
        if line.startswith(_STANZA):
            stanzas.append(_parse_stanza(line, lines))
        elif line.startswith(_FOOTER + b" "):
            mac = decode_base64(line[len(_FOOTER) + 1 :])
            if len(mac) != KEY_BYTES:
                raise HeaderMalformed(f"the age header's MAC has {len(mac)} bytes instead of {KEY_BYTES}")
            break
        else:
            raise HeaderMalformed("the age header holds a line that is neither a stanza nor the MAC")
    if not stanzas:
        raise HeaderMalformed("the age header names no recipient")
    if len(stanzas) > 1 and any(stanza.type == SCRYPT for stanza in stanzas):
        raise HeaderMalformed("the age header mixes a passphrase with other recipients")
    return Header(stanzas=tuple(stanzas), mac=mac, size_bytes=lines.position, signed_bytes=start + len(_FOOTER))


def _parse_stanza(line: bytes, lines: _Lines) -> Stanza:
    words = line[len(_STANZA) :].split(b" ")
    if not all(word and all(_FIRST_VISIBLE <= byte <= _LAST_VISIBLE for byte in word) for word in words):
        raise HeaderMalformed("the age header holds a stanza with an empty or invisible argument")
    body = bytearray()
    while True:
        columns = lines.take()
        if len(columns) > _COLUMNS:
            raise HeaderMalformed(f"the age header holds a stanza line of more than {_COLUMNS} columns")
        body += decode_base64(columns)
        if len(columns) < _COLUMNS:
            break
    type_, *args = (word.decode("ascii") for word in words)
    stanza = Stanza(type=type_, args=tuple(args), body=bytes(body))
    if type_ == X25519:
        _check_x25519(stanza)
    return stanza


def _check_x25519(stanza: Stanza) -> None:
    if len(stanza.args) != 1 or len(decode_base64(stanza.args[0].encode())) != KEY_BYTES:
        raise HeaderMalformed("the age header holds an X25519 stanza without exactly one share of 32 bytes")
    if len(stanza.body) != KEY_BYTES:
        raise HeaderMalformed("the age header holds an X25519 stanza whose wrapped file key is not 32 bytes")
