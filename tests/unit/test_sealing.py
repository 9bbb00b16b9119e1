"""The sealed clip: sizes, order of calls, the check of each chunk, bounded memory, and the worked bytes in the docs."""

import base64
import hashlib
import re
import secrets
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from dockd.core import sealing
from dockd.core.sealing import (
    CHUNK_BYTES,
    MAX_BLOCK_BYTES,
    HeaderForged,
    HeaderMalformed,
    Identity,
    NoIdentityFits,
    Opener,
    PayloadBroken,
    Sealer,
    parse_header,
    sealed_size,
)
from dockd.errors import VerificationFailed

SIZES = (0, 1, 65_535, 65_536, 65_537, 131_072, 131_073, MAX_BLOCK_BYTES, MAX_BLOCK_BYTES + 1)
_IDENTITIES = tuple(Identity(scalar=bytes([number]) * 32) for number in (1, 2))
_RECIPIENTS = tuple(identity.recipient for identity in _IDENTITIES)
_REPOSITORY = Path(__file__).parents[2]


def seal(clip, recipients=_RECIPIENTS, block=1 << 20):
    sealer = Sealer(recipients, secrets.token_bytes)
    sealed = bytearray(sealer.header())
    for start in range(0, max(len(clip), 1), block):
        sealed += sealer.seal(clip[start : start + block], final=start + block >= len(clip))
    return bytes(sealed)


def open_(sealed, identities=_IDENTITIES[:1], block=1 << 20):
    opener = Opener(identities)
    clip = b"".join(bytes(opener.feed(sealed[start : start + block])) for start in range(0, len(sealed), block))
    return clip + bytes(opener.finish())


@pytest.mark.parametrize("size", SIZES)
def test_what_is_sealed_opens_and_has_the_announced_size(size):
    clip = secrets.token_bytes(size)
    sealed = seal(clip)
    assert len(sealed) == sealed_size(size, 2)
    assert open_(sealed) == clip
    assert open_(sealed, _IDENTITIES[1:], block=65_537) == clip


@pytest.mark.parametrize("recipients", [1, 2, 5, 20])
def test_the_size_is_exact_for_any_number_of_recipients(recipients):
    made = [Identity.generate(secrets.token_bytes).recipient for _ in range(recipients)]
    sealed = seal(b"clip", made)
    assert len(sealed) == sealed_size(4, recipients)
    header = parse_header(sealed)
    assert len(header.stanzas) == recipients
    assert {stanza.type for stanza in header.stanzas} == {"X25519"}


def test_p03_sealing_twice_shares_no_key_and_no_bytes():
    first, second = seal(bytes(200_000)), seal(bytes(200_000))
    header = len(first) - 200_000 - 4 * 16
    assert first[header:] != second[header:]
    assert not {stanza.body for stanza in parse_header(first).stanzas} & {s.body for s in parse_header(second).stanzas}


def test_p03_a_stranger_opens_nothing():
    with pytest.raises(NoIdentityFits, match="other recipients"):
        open_(seal(b"clip"), (Identity.generate(secrets.token_bytes),))


def test_the_sealer_tells_fingerprints_in_stanza_order():
    sealer = Sealer(_RECIPIENTS, secrets.token_bytes)
    assert sealer.fingerprints == tuple(recipient.fingerprint for recipient in _RECIPIENTS)
    first, second = parse_header(sealer.header()).stanzas
    assert _IDENTITIES[0].unwrap(first) is not None
    assert _IDENTITIES[0].unwrap(second) is None


@pytest.mark.parametrize(
    ("wrong", "complaint"),
    [
        (lambda s: s.seal(b"", final=True), "header comes first"),
        (lambda s: (s.header(), s.header()), "before"),
        (lambda s: (s.header(), s.seal(b"x", final=False)), "multiple"),
        (lambda s: (s.header(), s.seal(bytes(MAX_BLOCK_BYTES + 1), final=True)), "at most"),
        (lambda s: (s.header(), s.seal(b"", final=True), s.seal(b"x", final=True)), "ended"),
        (lambda s: (s.header(), s.seal(bytes(CHUNK_BYTES), final=False), s.seal(b"", final=True)), "must not be empty"),
    ],
)
def test_a_wrong_use_is_refused(wrong, complaint):
    with pytest.raises(ValueError, match=complaint):
        wrong(Sealer(_RECIPIENTS, secrets.token_bytes))


@pytest.mark.parametrize("recipients", [(), _RECIPIENTS[:1] * 2])
def test_nobody_and_the_same_twice_are_no_recipients(recipients):
    with pytest.raises(ValueError, match="none twice"):
        Sealer(recipients, secrets.token_bytes)


def test_an_empty_block_that_is_not_the_last_adds_nothing():
    sealer = Sealer(_RECIPIENTS, secrets.token_bytes)
    sealed = sealer.header() + bytes(sealer.seal(b"", final=False)) + bytes(sealer.seal(b"clip", final=True))
    assert open_(sealed) == b"clip"


class _FaultyCipher:
    """ChaCha20-Poly1305 on a machine whose memory flips a bit, in the n-th chunk sealed or opened."""

    def __init__(self, key, *, in_sealed=None, in_opened=None):
        self._cipher = ChaCha20Poly1305(key)
        self._in_sealed, self._in_opened = in_sealed, in_opened
        self._sealed = self._opened = 0

    def encrypt_into(self, nonce, data, associated_data, buf):
        count = self._cipher.encrypt_into(nonce, data, associated_data, buf)
        if self._sealed == self._in_sealed:
            buf[count // 2] ^= 1
        self._sealed += 1
        return count

    def decrypt_into(self, nonce, data, associated_data, buf):
        count = self._cipher.decrypt_into(nonce, data, associated_data, buf)
        if self._opened == self._in_opened:
            buf[count // 2] ^= 1
        self._opened += 1
        return count


@pytest.mark.parametrize("fault", [{"in_sealed": 0}, {"in_sealed": 3}, {"in_opened": 1}, {"in_opened": 3}])
def test_p02_a_chunk_that_does_not_open_again_never_leaves(fault):
    sealer = Sealer(_RECIPIENTS, secrets.token_bytes, cipher=lambda key: _FaultyCipher(key, **fault))
    sealer.header()
    with pytest.raises(VerificationFailed, match=f"chunk {next(iter(fault.values()))} does not open"):
        sealer.seal(bytes(3 * CHUNK_BYTES + 5), final=True)
    # No nonce serves again, not even for the same block.
    with pytest.raises(ValueError, match="ended"):
        sealer.seal(bytes(3 * CHUNK_BYTES + 5), final=True)


def test_a_flipped_bit_anywhere_is_noticed_and_where_is_told():
    sealed = bytearray(seal(bytes(100), _RECIPIENTS))
    size = parse_header(sealed).size_bytes
    for place in range(len(sealed)):
        sealed[place] ^= 1
        # A wrapped file key that does not open looks like somebody else's: so does a share.
        expected = (HeaderMalformed, HeaderForged, NoIdentityFits) if place < size else PayloadBroken
        with pytest.raises(expected):
            open_(bytes(sealed))
        sealed[place] ^= 1
    assert open_(bytes(sealed)) == bytes(100)


def test_every_cut_is_noticed():
    sealed = seal(bytes(100))
    for length in range(len(sealed)):
        with pytest.raises((HeaderMalformed, PayloadBroken)):
            open_(sealed[:length])


def test_cuts_and_additions_at_chunk_borders_are_named():
    sealed = seal(secrets.token_bytes(3 * CHUNK_BYTES))
    start, chunk = parse_header(sealed).size_bytes + 16, CHUNK_BYTES + 16
    with pytest.raises(PayloadBroken, match="cut short: it ends after chunk 1") as caught:
        open_(sealed[: start + 2 * chunk])
    assert len(caught.value.verified) == CHUNK_BYTES
    with pytest.raises(PayloadBroken, match="bytes follow its end, which is chunk 2"):
        open_(sealed + b"\0")
    with pytest.raises(PayloadBroken, match="missing or incomplete"):
        open_(sealed[:start])
    swapped = sealed[:start] + sealed[start + chunk : start + 2 * chunk] + sealed[start : start + chunk]
    with pytest.raises(PayloadBroken, match="chunk 0 does not open"):
        open_(swapped + sealed[start + 2 * chunk :])


def test_two_sealed_clips_in_a_row_are_not_one():
    with pytest.raises(PayloadBroken):
        open_(seal(b"one") + seal(b"two"))


def test_an_opening_that_failed_or_ended_goes_no_further():
    opener = Opener(_IDENTITIES)
    with pytest.raises(HeaderMalformed):
        opener.feed(b"not age")
    with pytest.raises(ValueError, match="ended"):
        opener.feed(b"")
    with pytest.raises(ValueError, match="identity"):
        Opener(())


def test_a_header_is_known_from_its_last_byte_on():
    sealed = seal(b"clip")
    header = parse_header(sealed)
    for length in range(header.size_bytes):
        assert parse_header(sealed[:length]) is None
    assert parse_header(bytearray(sealed[: header.size_bytes])) == header
    assert parse_header(memoryview(sealed)) == header


def test_a_header_without_end_is_refused_in_bounded_memory():
    line = b"-> grease " + b"x" * 1000 + b"\n\n"
    prefix = b"age-encryption.org/v1\n" + line * 300
    with pytest.raises(HeaderMalformed, match="longer than"):
        parse_header(prefix)
    opener = Opener(_IDENTITIES)
    with pytest.raises(HeaderMalformed, match="longer than"):  # noqa: PT012  any of the calls may be the one
        for start in range(0, len(prefix), 4096):
            opener.feed(prefix[start : start + 4096])


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"PK\x03\x04", "not an age v1 file"),
        (b"age-encryption.org/v2\n", "not an age v1 file"),
        (b"-----BEGIN AGE ENCRYPTED FILE-----\nYWdl", "armored"),
        (b"age-encryption.org/v1\n--- " + b"A" * 43 + b"\n", "no recipient"),
        (b"age-encryption.org/v1\n-> X25519 short\nAAAA\n", "base64|share"),
    ],
)
def test_what_is_no_sealed_clip_is_named(content, complaint):
    with pytest.raises(HeaderMalformed, match=complaint):
        Opener(_IDENTITIES).feed(content)


def test_the_worked_bytes_in_the_docs_are_what_the_writer_makes():
    section = (_REPOSITORY / "docs" / "formats.md").read_text().split("### 1.5")[1].split("\n## ")[0]
    values = dict(re.findall(r"^([a-z][A-Za-z0-9, ]+?)\s+hex ([0-9a-f]+)", section, re.MULTILINE))
    texts = re.findall(r"^(?:identity|recipient|fingerprint) \d\s+(AGE\S+|age1\S+|sha256\S+)", section, re.MULTILINE)
    identities = [Identity(scalar=bytes.fromhex(values[f"identity {number}"])) for number in (1, 2)]
    assert texts == [t for i in identities for t in (i.text, i.recipient.text, i.recipient.fingerprint)]

    drawn = iter(bytes.fromhex(values[name]) for name in ("file key", "scalar e, 1", "scalar e, 2", "payload nonce N"))
    sealer = Sealer([identity.recipient for identity in identities], lambda _count: next(drawn))
    sealed = sealer.header() + bytes(sealer.seal(b"First light.\n", final=True))
    assert hashlib.sha256(sealed).hexdigest() in section
    assert sealed == base64.b64decode(re.search(r"<<'END'\n(.*?)END", section, re.DOTALL)[1])
    assert sealed[:266].decode() in section
    assert sealed[266:282].hex() in section
    assert sealed[282:].hex() in section
    file_key = bytes.fromhex(values["file key"])
    assert sealing._payload_key(file_key, sealed[266:282]).hex() == values["payload key P"]
    assert sealing.derive(file_key, salt=b"", info=b"header").hex() == values["header key H"]


_STREAM = """
import os, resource, secrets, sys
from dockd.core.sealing import Identity, Opener, Sealer, sealed_size

def peak_kib():  # of this program alone; getrusage's figure begins with what the parent had
    return int(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1])

path, block = sys.argv[1], 1 << 20
identity = Identity.generate(secrets.token_bytes)
sealer, opener = Sealer([identity.recipient], secrets.token_bytes), Opener([identity])
size = os.stat(path).st_size
buffer = memoryview(bytearray(block))
before = peak_kib()
opened = 0
sealed_bytes = len(header := sealer.header())
opener.feed(header)
with open(path, "rb", buffering=0) as clip:
    done = 0
    while done < size:
        count = clip.readinto(buffer)
        done += count
        sealed = sealer.seal(buffer[:count], final=done == size)
        sealed_bytes += len(sealed)
        plaintext = opener.feed(sealed)
        opened += len(plaintext)
        assert not plaintext or plaintext[0] == plaintext[-1] == 0
opened += len(opener.finish())
assert opened == size and sealed_bytes == sealed_size(size, 1), (opened, sealed_bytes)
print(peak_kib() - before)
"""


def _growth_kib(directory, size):
    """Peak memory that sealing and opening a sparse file of `size` bytes adds to a fresh interpreter."""
    clip = directory / "sparse.mp4"
    with clip.open("wb") as file:
        file.truncate(size)
    output = subprocess.run(
        [sys.executable, "-c", _STREAM, str(clip)], check=True, capture_output=True, text=True, timeout=170
    ).stdout
    return int(output)


def test_p10_memory_does_not_grow_with_the_clip(tmp_path):
    small, large = _growth_kib(tmp_path, 16 << 20), _growth_kib(tmp_path, 256 << 20)
    assert large < 24 * 1024
    assert large - small < 4 * 1024


@pytest.mark.bench
def test_p10_five_gib_in_bounded_memory(tmp_path):
    assert _growth_kib(tmp_path, 5 << 30) < 24 * 1024
