"""Bech32 against the vectors of BIP 173."""

import pytest

from dockd.core import bech32


@pytest.mark.parametrize(
    ("text", "prefix"),
    [
        ("A12UEL5L", "a"),
        ("a12uel5l", "a"),
        (
            "an83characterlonghumanreadablepartthatcontainsthenumber1andtheexcludedcharactersbio1tt5tgs",
            "an83characterlonghumanreadablepartthatcontainsthenumber1andtheexcludedcharactersbio",
        ),
        ("?1ezyfcl", "?"),
    ],
)
def test_reads_what_bip_173_calls_valid(text, prefix):
    assert bech32.decode(text) == (prefix, b"")
    assert bech32.encode(prefix, b"") == text.lower()


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("\x201nwldj5", "printable"),
        ("\x7f1axkwrx", "printable"),
        ("\x801eym55h", "printable"),
        ("pzry9x0s0muk", "prefix"),
        ("1pzry9x0s0muk", "prefix"),
        ("x1b4n0q5v", "32"),
        ("li1dgmt3", "checksum"),
        ("de1lg7wt\xff", "32"),
        ("A1G7SGD8", "checksum"),
        ("10a06t8", "prefix"),
        ("1qzzfhee", "prefix"),
        ("A12uEL5L", "mixed"),
        ("", "prefix"),
    ],
)
def test_refuses_what_bip_173_calls_invalid(text, complaint):
    with pytest.raises(ValueError, match=complaint):
        bech32.decode(text)


def test_has_no_limit_of_90_characters():
    content = bytes(range(256)) * 5
    text = bech32.encode("age", content)
    assert len(text) > 2000
    assert bech32.decode(text) == ("age", content)


def test_refuses_padding_that_is_not_zero_and_a_whole_group_of_it():
    # Five-bit groups of our own, under a right checksum: 1 byte needs two groups, the second with two zero bits.
    with_set_bits = _checksummed("age", [31, 31])
    with_a_group_too_many = _checksummed("age", [31, 28, 0])
    assert bech32.decode(_checksummed("age", [31, 28])) == ("age", b"\xff")
    for text in (with_set_bits, with_a_group_too_many):
        with pytest.raises(ValueError, match="padding"):
            bech32.decode(text)


def _checksummed(prefix, groups):
    remainder = bech32._polymod([*bech32._expand(prefix), *groups, 0, 0, 0, 0, 0, 0]) ^ 1
    groups = [*groups, *((remainder >> 5 * (5 - place)) & 31 for place in range(6))]
    return prefix + "1" + "".join(bech32._ALPHABET[group] for group in groups)
