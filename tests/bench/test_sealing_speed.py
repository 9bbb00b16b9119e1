"""How fast clips are sealed and opened, next to Debian's age and to plain SHA-256 on the same machine in the same run."""

import hashlib
import os
import secrets
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import pytest

from dockd.core.sealing import Identity, Opener, Sealer

pytestmark = pytest.mark.bench

_SIZE = 512 << 20
_BLOCK = 1 << 20
_ROUNDS = 3


@pytest.fixture(scope="module")
def ground():
    """A directory in memory where there is one, so that the disk is not what is measured, with a clip in it."""
    memory = Path("/dev/shm")  # noqa: S108  only this directory of our own inside it is used
    room = memory.is_dir() and shutil.disk_usage(memory).free > 4 * _SIZE
    with tempfile.TemporaryDirectory(prefix="dockd-bench-", dir=memory if room else None) as made:
        block = secrets.token_bytes(_BLOCK)
        with (Path(made) / "clip").open("wb") as file:
            for _ in range(_SIZE // _BLOCK):
                file.write(block)
        yield Path(made)


@pytest.fixture(scope="module")
def identities():
    return tuple(Identity.generate(secrets.token_bytes) for _ in range(2))


def _seal(source, target, recipients, *, hashed=False):
    sealer, buffer = Sealer(recipients, secrets.token_bytes), memoryview(bytearray(_BLOCK))
    plain, cipher = hashlib.sha256(), hashlib.sha256()
    size, done = os.stat(source).st_size, 0
    with open(source, "rb", buffering=0) as clip, open(target, "wb", buffering=0) as sealed:
        sealed.write(sealer.header())
        while done < size:
            count = clip.readinto(buffer)
            done += count
            block = sealer.seal(buffer[:count], final=done == size)
            if hashed:
                plain.update(buffer[:count])
                cipher.update(block)
            sealed.write(block)


def _open(source, target, identity):
    opener = Opener([identity])
    with open(source, "rb", buffering=0) as sealed, open(target, "wb", buffering=0) as clip:
        while block := sealed.read(_BLOCK):
            clip.write(opener.feed(block))
        clip.write(opener.finish())


def _hash(source):
    seen = hashlib.sha256()
    with open(source, "rb", buffering=0) as clip:
        while block := clip.read(_BLOCK):
            seen.update(block)


def _run(*words):
    subprocess.run(words, check=True, capture_output=True)


def _best(**candidates):
    """Seconds of the best of some rounds for each candidate, the rounds interleaved: noise hits all alike."""
    best = dict.fromkeys(candidates, float("inf"))
    for _ in range(_ROUNDS):
        for name, call in candidates.items():
            start = time.perf_counter()
            call()
            best[name] = min(best[name], time.perf_counter() - start)
    return best


@pytest.mark.skipif(
    shutil.which("age") is None, reason="Debian's age is not installed: there is nothing to compare with"
)
def test_sealing_and_opening_against_debians_age(ground, identities, record_property, capsys):
    clip, ours, theirs, opened = (ground / name for name in ("clip", "ours.age", "theirs.age", "opened"))
    recipients = [identity.recipient for identity in identities]
    key = ground / "key"
    key.write_text(identities[0].text)
    to_both = [word for recipient in recipients for word in ("-r", recipient.text)]
    best = _best(
        seal=lambda: _seal(clip, ours, recipients),
        seal_and_hash_both=lambda: _seal(clip, ours, recipients, hashed=True),
        age_seal=lambda: _run("age", *to_both, "-o", theirs, clip),
        open=lambda: _open(theirs, opened, identities[0]),
        age_open=lambda: _run("age", "-d", "-i", key, "-o", opened, ours),
        sha256=lambda: _hash(clip),
    )
    rates = {name: round(_SIZE / seconds / 1e6) for name, seconds in best.items()}
    ratios = {
        "seal/age": best["age_seal"] / best["seal"],
        "open/age": best["age_open"] / best["open"],
        "seal/sha256": best["sha256"] / best["seal"],
    }
    for name, value in (rates | ratios).items():
        record_property(name, value)
    with capsys.disabled():
        print(f"\nMB/s {rates}; ratios { {name: round(value, 2) for name, value in ratios.items()} }")  # noqa: T201  the result
    # Our chunks are opened again before they leave, age's are not; even so we must not be the slower one.
    assert ratios["seal/age"] > 1
    assert ratios["open/age"] > 1
