"""Bech32 (BIP 173) as age uses it: the same alphabet and checksum, without the limit of 90 characters."""

from __future__ import annotations

_ALPHABET = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
_VALUES = {character: value for value, character in enumerate(_ALPHABET)}
_GENERATOR = (0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)
_CHECKSUM_LENGTH = 6
_FIRST_PRINTABLE, _LAST_PRINTABLE = 33, 126


def encode(prefix: str, content: bytes) -> str:
    """The lower-case text of `content` under `prefix`."""
    values = _regroup(content, 8, 5, pad=True)
    remainder = _polymod([*_expand(prefix), *values, *bytes(_CHECKSUM_LENGTH)]) ^ 1
    checksum = [(remainder >> 5 * (_CHECKSUM_LENGTH - 1 - place)) & 31 for place in range(_CHECKSUM_LENGTH)]
    return prefix + "1" + "".join(_ALPHABET[value] for value in [*values, *checksum])


def decode(text: str) -> tuple[str, bytes]:
    """Prefix (lower case) and content. Raises ValueError, which never repeats the text: it may be a secret."""
    if text not in (text.lower(), text.upper()):
        raise ValueError("upper and lower case are mixed")
    text = text.lower()
    prefix, separator, tail = text.rpartition("1")
    if not separator or not prefix:
        raise ValueError("no prefix before a '1'")
    if any(not _FIRST_PRINTABLE <= ord(character) <= _LAST_PRINTABLE for character in prefix):
        raise ValueError("a character in the prefix is not printable ASCII")
    if len(tail) < _CHECKSUM_LENGTH:
        raise ValueError("too short for a checksum")
    try:
        values = [_VALUES[character] for character in tail]
    except KeyError:
        raise ValueError("a character is not one of bech32's 32") from None
    if _polymod([*_expand(prefix), *values]) != 1:
        raise ValueError("the checksum is wrong: look for a typing error")
    return prefix, bytes(_regroup(bytes(values[:-_CHECKSUM_LENGTH]), 5, 8, pad=False))


def _expand(prefix: str) -> list[int]:
    codes = prefix.encode("ascii")
    return [*(code >> 5 for code in codes), 0, *(code & 31 for code in codes)]


def _polymod(values: list[int]) -> int:
    remainder = 1
    for value in values:
        top = remainder >> 25
        remainder = (remainder & 0x1FFFFFF) << 5 ^ value
        for place, term in enumerate(_GENERATOR):
            if top >> place & 1:
                remainder ^= term
    return remainder


def _regroup(content: bytes, width: int, new_width: int, *, pad: bool) -> list[int]:
    """Cut a string of bits anew. When unpacking (`pad` false), left-over bits must be fewer than a group, and zero."""
    held, held_bits, groups = 0, 0, []
    for value in content:
        held = held << width | value
        held_bits += width
        while held_bits >= new_width:
            held_bits -= new_width
            groups.append(held >> held_bits)
            held &= (1 << held_bits) - 1
    if pad:
        if held_bits:
            groups.append(held << (new_width - held_bits))
    elif held_bits >= width or held:
        raise ValueError("the padding is not minimal and zero")
    return groups
