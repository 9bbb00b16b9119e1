"""Sealed clips against what is not ours: Debian's age (Go), pyrage (Rust), and the C2SP CCTV vectors."""

import base64
import hashlib
import json
import secrets
import shutil
import subprocess
import tempfile
import zlib
from collections import Counter, defaultdict
from pathlib import Path

import pyrage
import pytest

from dockd.core.age_header import encode_footer, parse_header, signed_part
from dockd.core.sealing import (
    HeaderForged,
    HeaderMalformed,
    Identity,
    NoIdentityFits,
    Opener,
    PayloadBroken,
    Recipient,
    Sealer,
    parse_identity_file,
    parse_recipients_file,
)
from dockd.errors import VerificationFailed

SIZES = (0, 1, 65_535, 65_536, 65_537, 131_072, 5_000_000)
_BLOCK = 1 << 20
_VECTORS = "cctv-age@0.2.0"
_CACHE = Path(__file__).parents[2] / ".cache"

_needs_age = pytest.mark.skipif(
    shutil.which("age") is None or shutil.which("age-keygen") is None,
    reason="Debian's age is not installed (package `age` of .ci/packages.txt)",
)


@pytest.fixture
def identities():
    """A working key and an escrow key."""
    return tuple(Identity.generate(secrets.token_bytes) for _ in range(2))


def _seal(clip, recipients):
    sealer = Sealer(recipients, secrets.token_bytes)
    sealed = bytearray(sealer.header())
    for start in range(0, max(len(clip), 1), _BLOCK):
        sealed += sealer.seal(clip[start : start + _BLOCK], final=start + _BLOCK >= len(clip))
    return bytes(sealed)


def _open(sealed, identity, block=_BLOCK):
    opener, clip = Opener([identity]), bytearray()
    for start in range(0, len(sealed), block):
        clip += opener.feed(sealed[start : start + block])
    return bytes(clip + opener.finish())


@pytest.mark.parametrize("size", SIZES)
def test_pyrage_opens_what_we_seal_and_we_what_it_seals(size, identities):
    clip = secrets.token_bytes(size)
    recipients = [identity.recipient for identity in identities]
    sealed = _seal(clip, recipients)
    theirs = pyrage.encrypt(clip, [pyrage.x25519.Recipient.from_str(recipient.text) for recipient in recipients])
    for identity in identities:
        assert pyrage.decrypt(sealed, [pyrage.x25519.Identity.from_str(identity.text)]) == clip
        assert _open(theirs, identity) == clip


def test_pyrage_and_we_spell_keys_alike():
    for _ in range(20):
        theirs = pyrage.x25519.Identity.generate()
        assert Identity.parse(str(theirs)).recipient.text == str(theirs.to_public())
        ours = Identity.generate(secrets.token_bytes)
        assert str(pyrage.x25519.Identity.from_str(ours.text).to_public()) == ours.recipient.text


@_needs_age
@pytest.mark.parametrize("size", SIZES)
def test_debians_age_opens_what_we_seal_and_we_what_it_seals(size, identities, tmp_path):
    clip, listing = tmp_path / "clip", tmp_path / "recipients.txt"
    clip.write_bytes(secrets.token_bytes(size))
    listing.write_text("# both\n" + "".join(f"{identity.recipient.text}\n" for identity in identities))
    sealed = tmp_path / "clip.age"
    sealed.write_bytes(_seal(clip.read_bytes(), parse_recipients_file(listing.read_text())))
    theirs = subprocess.run(["age", "-R", listing, clip], check=True, capture_output=True).stdout
    for identity in identities:
        key = tmp_path / "key"
        key.write_text(identity.text + "\n")
        opened = subprocess.run(["age", "-d", "-i", key, sealed], check=True, capture_output=True)
        assert opened.stdout == clip.read_bytes()
        assert _open(theirs, identity) == clip.read_bytes()


@_needs_age
def test_a_key_file_of_age_keygen_is_read(tmp_path):
    key = tmp_path / "key"
    subprocess.run(["age-keygen", "-o", key], check=True, capture_output=True)
    (identity,) = parse_identity_file(key.read_text())
    public = subprocess.run(["age-keygen", "-y", key], check=True, capture_output=True, text=True).stdout.strip()
    assert identity.recipient == Recipient.parse(public)


@_needs_age
def test_debians_age_refuses_what_we_refuse(identities, tmp_path):
    sealed = _seal(secrets.token_bytes(140_000), [identities[0].recipient])
    key, broken = tmp_path / "key", tmp_path / "broken.age"
    key.write_text(identities[0].text + "\n")
    flipped = bytearray(sealed)
    flipped[-70_000] ^= 1
    for content in (bytes(flipped), sealed[:-1], sealed[:-9_000], sealed + b"\n"):
        broken.write_bytes(content)
        assert subprocess.run(["age", "-d", "-i", key, broken], check=False, capture_output=True).returncode != 0
        with pytest.raises(PayloadBroken):
            _open(content, identities[0])


# --- the C2SP CCTV vectors

# What a vector calls a failure, in our words.
_FAILURES = {
    HeaderMalformed: "header failure",
    HeaderForged: "HMAC failure",
    NoIdentityFits: "no match",
    PayloadBroken: "payload failure",
}
_DUMP = (
    "import * as v from 'cctv-age'; const o = {};"
    "for (const k of Object.keys(v)) if (v[k] instanceof Uint8Array) o[k] = Buffer.from(v[k]).toString('base64');"
    "process.stdout.write(JSON.stringify(o));"
)


@pytest.fixture(scope="session")
def vectors():
    """Name -> (fields, age file) of every vector, installed into .cache/ once."""
    home = _CACHE / _VECTORS
    if not home.is_dir():
        _install(home)
    dump = subprocess.run(
        ["node", "--input-type=module", "-e", _DUMP], cwd=home, check=True, capture_output=True, timeout=60
    ).stdout
    return {name: _parse(base64.b64decode(content)) for name, content in json.loads(dump).items()}


def _install(home):
    if shutil.which("npm") is None or shutil.which("node") is None:
        pytest.skip(f"npm and node are not installed: they fetch the C2SP age vectors ({_VECTORS})")
    _CACHE.mkdir(exist_ok=True)
    fresh = Path(tempfile.mkdtemp(prefix="cctv-age-", dir=_CACHE))
    try:
        made = subprocess.run(
            ["npm", "install", "--prefix", fresh, "--ignore-scripts", "--no-audit", "--no-fund", _VECTORS],
            check=False,
            capture_output=True,
            text=True,
            timeout=120,
        )
        if made.returncode != 0:
            pytest.skip(f"npm could not fetch {_VECTORS}: {made.stderr.strip().splitlines()[:1]}")
        # Renamed when complete, so that test runs beside this one see all or nothing.
        try:
            fresh.rename(home)
        except OSError:
            if not home.is_dir():
                raise
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def _parse(content):
    head, _, body = content.partition(b"\n\n")
    fields = defaultdict(list)
    for line in head.decode().splitlines():
        key, _, value = line.partition(": ")
        fields[key].append(value)
    if fields["compressed"]:
        assert fields["compressed"] == ["zlib"]
        body = zlib.decompress(body)
    return fields, body


def _not_ours(fields):
    """Why a vector's expectation does not apply to dockd, or None. Each such file must still be refused."""
    if fields["armored"]:
        return "armor"  # dockd neither writes nor reads ASCII armor: a sealed clip is binary
    if fields["passphrase"] and not fields["identity"]:
        return "scrypt"  # dockd seals to keys, never to passphrases
    if any(not identity.startswith("AGE-SECRET-KEY-1") for identity in fields["identity"]):
        return "hybrid"  # post-quantum identities come later
    return None


def _outcome(body, identities, block):
    released = hashlib.sha256()
    opener = Opener(identities)
    try:
        for start in range(0, len(body), block):
            released.update(opener.feed(body[start : start + block]))
        released.update(opener.finish())
    except tuple(_FAILURES) as error:
        released.update(getattr(error, "verified", b""))
        return _FAILURES[type(error)], released.hexdigest()
    return "success", released.hexdigest()


def test_the_cctv_vectors_end_as_they_say(vectors):
    applied, left_out, wrong = Counter(), Counter(), []
    stranger = Identity.generate(secrets.token_bytes)
    for name, (fields, body) in sorted(vectors.items()):
        reason = _not_ours(fields)
        if reason is not None:
            left_out[reason] += 1
            with pytest.raises(VerificationFailed):
                _open(body, stranger)
            continue
        (expected,) = fields["expect"]
        identities = [Identity.parse(identity) for identity in fields["identity"]] or [stranger]
        for block in (len(body) or 1, 65_552, 1_000, *([1] if len(body) < 3_000 else [])):
            outcome, released = _outcome(body, identities, block)
            # Not a byte of plaintext more or fewer than the vector allows, failures included.
            if outcome != expected or (fields["payload"] and fields["payload"] != [released]):
                wrong.append((name, block, expected, outcome))
        applied[expected] += 1
    assert wrong == []
    assert set(left_out) == {"armor", "scrypt", "hybrid"}
    assert set(applied) == {"success", "no match", "HMAC failure", "header failure", "payload failure"}
    assert applied["success"] >= 14
    assert applied.total() >= 68, (applied, left_out)
    assert applied.total() + left_out.total() == len(vectors)


def test_headers_of_the_vectors_survive_parsing_and_writing(vectors):
    survived = 0
    for fields, body in vectors.values():
        if fields["armored"] or "header failure" in fields["expect"]:
            continue
        header = parse_header(body)
        assert signed_part(header.stanzas) + encode_footer(header.mac) == body[: header.size_bytes]
        survived += 1
    assert survived >= 40
