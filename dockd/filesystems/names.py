"""File names as Linux shows them on a mount with utf8, iocharset=utf8, codepage=437, shortname=mixed."""

from __future__ import annotations

_HIGH, _LOW, _END = range(0xD800, 0xDC00), range(0xDC00, 0xE000), 0
_LOWER_BASE, _LOWER_EXTENSION = 0x08, 0x10
_ESCAPED = 0x05  # for a first byte 0xE5, which marks deleted entries
_BASE_BYTES = 8


def from_utf16(units: bytes) -> bytes:
    """UTF-16 (little endian), up to a NUL. Like the kernel, it leaves out halves of surrogate pairs."""
    end = next((at for at in range(0, len(units) - 1, 2) if not units[at] and not units[at + 1]), len(units) & ~1)
    units = units[:end]
    try:
        return units.decode("utf-16-le").encode()
    except UnicodeDecodeError:
        return _with_halves(units)


def _with_halves(units: bytes) -> bytes:
    """The kernel's way (fs/nls/nls_base.c, utf16s_to_utf8s): a half without its other one is left out."""
    codes = [int.from_bytes(units[at : at + 2], "little") for at in range(0, len(units), 2)]
    text, at = [], 0
    while at < len(codes):
        code = codes[at]
        at += 1
        if code in _LOW:
            continue
        if code in _HIGH:
            if at == len(codes):
                break
            if codes[at] not in _LOW:
                continue
            code = 0x10000 + ((code & 0x3FF) << 10) + (codes[at] & 0x3FF)
            at += 1
        text.append(chr(code))
    return "".join(text).encode()


def from_short(name: bytes, case: int) -> bytes:
    """The eleven bytes of a FAT entry; `case` is the byte that says which half is shown in lower case."""
    if name[0] == _ESCAPED:
        name = b"\xe5" + name[1:]
    base = _half(name[:_BASE_BYTES], lower=bool(case & _LOWER_BASE))
    extension = _half(name[_BASE_BYTES:], lower=bool(case & _LOWER_EXTENSION))
    return (base + "." + extension if extension else base).encode()


def _half(part: bytes, *, lower: bool) -> str:
    text = part.split(b"\0")[0].rstrip(b" ").decode("cp437")
    return "".join(_lower(character) for character in text) if lower else text


def _lower(character: str) -> str:
    small = character.lower()
    try:
        small.encode("cp437")
    except UnicodeEncodeError:
        return character  # the code page has only the capital
    return small
