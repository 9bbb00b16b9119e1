"""Pushing over TLS beside stock tools: the same files, pieces and number at once, in rounds that take turns.

`@tus/server` beside curl, which computes no checksum, and neither does our adapter there; SeaweedFS's S3 port behind
nginx beside rclone, which computes MD5s where we compute a SHA-256 of each part. Beside curl it is the time of the
PATCHes alone on both sides (for curl, the sum of what it says of its requests); beside rclone it is from the first
request to the last answer, in a program of ours that runs already, as a station does, and for rclone less what it
takes to print its version.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from ssl import create_default_context
from statistics import median

import pytest
from servers.buckets import adapter, make_bucket
from servers.nginx import doors
from servers.programs import program

from dockd.stores.s3_parts import DEFAULT_PART_BYTES

pytestmark = [pytest.mark.bench, pytest.mark.timeout(1800)]

MIB = 1024 * 1024
CLIPS = 4
CLIP_BYTES = 128 * MIB
PATCH = 64 * MIB
ROUNDS = 9
PROGRAM = Path(__file__).with_name("push_program.py")
SHARED_MEMORY = Path("/dev/shm")  # noqa: S108  in memory on purpose: the reading side is not what is measured
MEMORY_LIMIT = 64 * MIB


@pytest.fixture
def spool():
    if not SHARED_MEMORY.is_dir() or shutil.disk_usage(SHARED_MEMORY).free < 4 * CLIPS * CLIP_BYTES:
        pytest.skip(f"needs {4 * CLIPS * CLIP_BYTES // MIB} MiB free in {SHARED_MEMORY}")
    with tempfile.TemporaryDirectory(prefix="dockd-bench.", dir=SHARED_MEMORY) as directory:
        chance = random.Random(5)
        for number in range(CLIPS):
            (Path(directory) / f"clip-{number}").write_bytes(chance.randbytes(CLIP_BYTES))
        (Path(directory) / "small").write_bytes(chance.randbytes(1000))
        yield Path(directory)


def test_pushing_to_tus_server_beside_curl(tus_server, spool, tmp_path, capsys):
    """One clip, one connection, 64 MiB at a time."""
    curl = program("curl", "Debian's curl")
    whole = spool / "clip-all"
    with whole.open("wb") as file:
        for number in range(CLIPS):
            content = (spool / f"clip-{number}").read_bytes()
            file.write(content)
            (spool / f"clip-{number}").unlink()
    total = whole.stat().st_size
    pieces = _pieces(whole)
    authorization = tmp_path / "authorization"
    authorization.write_text(f"Bearer {tus_server.token}")
    given = {
        "url": tus_server.url,
        "ca_file": str(tus_server.ca_file),
        "authorization": str(authorization),
        "piece_bytes": PATCH,
        "directory": str(spool),
    }
    ours, theirs = [], []

    def our_turn():
        ours.append(_told(given))

    def their_turn():
        theirs.append(_curl(curl, tus_server, pieces, total))

    for turn in _turns(our_turn, their_turn):
        turn()
        _remove(tus_server.files)
    for one in ours:
        one["seconds"] = one["bytes_seconds"]
    _say(capsys, f"push to @tus/server, {total // MIB} MiB, PATCH of {PATCH // MIB} MiB", total, ours, curl=theirs)


def _turns(one, other):
    """Each once a round, and the other one first in the next."""
    for number in range(ROUNDS):
        yield from (one, other) if number % 2 else (other, one)


def _pieces(whole):
    found = []
    with whole.open("rb") as file:
        while block := file.read(PATCH):
            found.append(whole.with_name(f"piece-{len(found)}"))
            found[-1].write_bytes(block)
    return found


def _curl(curl, server, pieces, total):
    """One curl that sends every piece over one connection; the seconds of its requests."""
    headers = {"Tus-Resumable": "1.0.0", "Authorization": f"Bearer {server.token}"}
    asked = urllib.request.Request(server.url, method="POST", headers=headers | {"Upload-Length": str(total)})  # noqa: S310
    with urllib.request.urlopen(asked, context=create_default_context(cafile=server.ca_file)) as answer:  # noqa: S310
        url = server.url.removesuffix("/files") + answer.headers["Location"]
    words, offset = [curl, "--silent", "--show-error"], 0
    for piece in pieces:
        said = headers | {"Upload-Offset": str(offset), "Content-Type": "application/offset+octet-stream", "Expect": ""}
        words += [] if piece is pieces[0] else ["--next", "--silent", "--show-error"]
        words += ["--http1.1", "--cacert", str(server.ca_file), "--request", "PATCH", "--upload-file", str(piece)]
        words += [word for name, value in said.items() for word in ("--header", f"{name}:{value and ' '}{value}")]
        words += ["--write-out", "%{http_code} %{num_connects} %{time_total}\\n", url]
        offset += piece.stat().st_size
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    answers = [line.split() for line in done.stdout.splitlines()]
    assert [one[0] for one in answers] == ["204"] * len(pieces), done.stdout
    assert sum(int(one[1]) for one in answers) == 1, "curl opened more than one connection"
    return sum(float(one[2]) for one in answers)


def _remove(files):
    for path in files.iterdir():
        path.unlink()


@pytest.mark.parametrize("part_bytes", [DEFAULT_PART_BYTES])
async def test_pushing_to_s3_beside_rclone(seaweed, spool, capsys, part_bytes):
    """Four clips at once, each part after part; the memory is of the store, beyond a program that pushed a little."""
    rclone = program("rclone", "Debian's rclone")
    store = adapter(seaweed, "bench")
    await make_bucket(store)
    await store.aclose()
    start_s = median(_timed([rclone, "version"], {}) for _ in range(5))
    ours, theirs = [], []
    with doors(seaweed.s3_url) as nginx:
        given = {
            "url": nginx.passing,
            "ca_file": str(nginx.ca_file),
            "access_key": seaweed.access_key,
            "secret_key": seaweed.secret_key,
            "bucket": "bench",
            "piece_bytes": part_bytes,
            "directory": str(spool),
        }

        def our_turn():
            ours.append(_told(given))

        def their_turn():
            theirs.append(_rclone(rclone, given, len(theirs)) - start_s)

        for turn in _turns(our_turn, their_turn):
            turn()
    title = f"push to S3, {CLIPS} x {CLIP_BYTES // MIB} MiB at once, parts of {part_bytes // MIB} MiB"
    _say(capsys, title, CLIPS * CLIP_BYTES, ours, rclone=theirs)


def _told(given):
    tests = str(Path(__file__).parents[1])
    done = subprocess.run(
        [sys.executable, str(PROGRAM)],
        input=json.dumps(given),
        env={**os.environ, "PYTHONPATH": tests},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def _rclone(rclone, given, number):
    remote = {
        "TYPE": "s3",
        "PROVIDER": "Other",
        "ACCESS_KEY_ID": given["access_key"],
        "SECRET_ACCESS_KEY": given["secret_key"],
        "ENDPOINT": given["url"],
    }
    words = [rclone, "copy", given["directory"], f"dock:bench/rclone-{number}", "--include", "clip-*"]
    words += ["--config", "/dev/null", "--ca-cert", given["ca_file"], "--transfers", str(CLIPS)]
    words += ["--s3-upload-concurrency", "1", "--s3-upload-cutoff", "5M", "--s3-no-check-bucket"]
    words += ["--s3-chunk-size", f"{given['piece_bytes'] // MIB}M"]
    # Nothing else of our environment: it reads AWS variables too.
    return _timed(
        words, {"HOME": given["directory"], **{f"RCLONE_CONFIG_DOCK_{key}": one for key, one in remote.items()}}
    )


def _timed(words, environment):
    began_s = time.monotonic()
    done = subprocess.run(words, env=environment, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return time.monotonic() - began_s


def _say(capsys, title, total, ours, **theirs):
    ((name, others),) = theirs.items()
    seconds, grown = [one["seconds"] for one in ours], max(one["grown_bytes"] for one in ours)

    def told(each):
        return f"{total / 1e6 / median(each):.0f} MB/s ({', '.join(f'{one:.2f}' for one in each)} s)"

    with capsys.disabled():
        print(  # noqa: T201
            f"\n{title}: {told(seconds)}; {name} {told(others)}; {median(others) / median(seconds):.2f} of it by the "
            f"medians of {len(ours)} rounds; processor {median(one['cpu_seconds'] for one in ours):.2f} s; "
            f"memory {grown / MIB:.0f} MiB"
        )
    assert grown < MEMORY_LIMIT
