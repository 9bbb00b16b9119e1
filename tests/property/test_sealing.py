"""Sealing and opening are inverses, however the bytes are cut, and nothing changed opens to something else."""

import hashlib
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dockd.core import bech32
from dockd.core.sealing import CHUNK_BYTES, Identity, Opener, PayloadBroken, Sealer, parse_header, sealed_size
from dockd.errors import VerificationFailed

_IDENTITY = Identity(scalar=b"\x07" * 32)


class _Stream:
    """Entropy that repeats itself for the same seed."""

    def __init__(self, seed):
        self._seed, self._drawn = seed, 0

    def __call__(self, count, /):
        self._drawn += 1
        return hashlib.shake_256(f"{self._seed} {self._drawn}".encode()).digest(count)


# Sizes near the borders of chunks, where mistakes live.
_sizes = st.builds(
    lambda chunks, delta: max(0, chunks * CHUNK_BYTES + delta), st.integers(0, 5), st.integers(-20, 20)
) | st.integers(0, 3 * CHUNK_BYTES)


def _clip(size, seed):
    return hashlib.shake_128(str(seed).encode()).digest(size)


def _seal(clip, seed, blocks):
    sealer = Sealer([_IDENTITY.recipient], _Stream(seed))
    sealed = bytearray(sealer.header())
    start = 0
    for chunks in blocks:
        if start + chunks * CHUNK_BYTES >= len(clip):
            break
        sealed += sealer.seal(clip[start : start + chunks * CHUNK_BYTES], final=False)
        start += chunks * CHUNK_BYTES
    return bytes(sealed + sealer.seal(clip[start:], final=True))


def _open(sealed, cuts):
    opener, clip, start = Opener([_IDENTITY]), bytearray(), 0
    for end in [*sorted(cut for cut in cuts if cut < len(sealed)), len(sealed)]:
        clip += opener.feed(sealed[start:end])
        start = end
    return bytes(clip + opener.finish())


@settings(max_examples=60, deadline=None)
@given(_sizes, st.integers(), st.lists(st.integers(1, 3)), st.lists(st.integers(0, 6 * CHUNK_BYTES)))
def test_round_trip_however_it_is_cut(size, seed, blocks, cuts):
    clip = _clip(size, seed)
    sealed = _seal(clip, seed, blocks)
    assert len(sealed) == sealed_size(size, 1)
    assert sealed == _seal(clip, seed, [])
    assert _open(sealed, cuts) == clip


@settings(max_examples=60, deadline=None)
@given(_sizes, st.integers(), st.data())
def test_nothing_changed_opens(size, seed, data):
    clip = _clip(size, seed)
    sealed = bytearray(_seal(clip, seed, []))
    change = data.draw(st.sampled_from(("flip", "cut", "append", "drop")))
    place = data.draw(st.integers(0, len(sealed) - 1))
    if change == "flip":
        sealed[place] ^= data.draw(st.integers(1, 255))
    elif change == "cut":
        del sealed[place:]
    elif change == "append":
        sealed += data.draw(st.binary(min_size=1, max_size=100))
    else:
        del sealed[place]
    with pytest.raises(VerificationFailed):
        _open(bytes(sealed), [])


@settings(max_examples=40, deadline=None)
@given(_sizes, st.integers(), st.data())
def test_what_a_damaged_file_still_proves_is_a_beginning_of_the_clip(size, seed, data):
    clip = _clip(size, seed)
    sealed = bytearray(_seal(clip, seed, []))
    start = parse_header(sealed).size_bytes
    sealed[data.draw(st.integers(start, len(sealed) - 1))] ^= 1
    opener, proven = Opener([_IDENTITY]), bytearray()
    with pytest.raises(PayloadBroken) as caught:  # noqa: PT012  the damage shows in either call
        proven += opener.feed(bytes(sealed))
        proven += opener.finish()
    proven += caught.value.verified
    assert clip.startswith(bytes(proven))


@given(st.binary(max_size=300))
def test_no_bytes_make_the_header_parser_fail_in_another_way(content):
    for prefix in (b"", b"age-encryption.org/v1\n", b"age-encryption.org/v1\n-> X25519 "):
        with suppress(VerificationFailed):
            parse_header(prefix + content)


@given(st.text("abc1", min_size=1, max_size=20), st.binary(max_size=400))
def test_bech32_round_trip(prefix, content):
    text = bech32.encode(prefix, content)
    assert bech32.decode(text) == bech32.decode(text.upper()) == (prefix, content)


@given(st.binary(min_size=1, max_size=60), st.data())
def test_bech32_notices_up_to_four_wrong_characters(content, data):
    text = bech32.encode("age", content)
    tail = list(text[4:])
    for place in data.draw(st.sets(st.integers(0, len(tail) - 1), min_size=1, max_size=4)):
        tail[place] = data.draw(st.sampled_from([c for c in "qpzry9x8gf2tvdw0s3jn54khce6mua7l" if c != tail[place]]))
    if len(text) <= 90:  # the code's guarantee ends there
        with pytest.raises(ValueError, match="checksum"):
            bech32.decode("age1" + "".join(tail))
