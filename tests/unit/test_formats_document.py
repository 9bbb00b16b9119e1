"""docs/formats.md shows worked bytes: they are what the code makes, and what stock tools accept."""

import base64
import json
import re
import shutil
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from dockd.core import canonical, checkpoint, extensions, keyfiles, manifest, merkle, receipts, retention, sshsig
from dockd.core.challenge import range_digest
from dockd.core.custody import entry_line, previous_hash
from dockd.core.custody_check import verify_log
from dockd.core.keyfiles import StationPublic, StorePublic
from dockd.core.lifecycle import AcquisitionEvent, DeliveryEvent, DockingEvent
from dockd.core.manifest import Manifest
from dockd.core.promises import Offered
from dockd.core.retention import Terms
from dockd.core.sshsig import SigningKey
from dockd.model import CameraIdentity, Category, Named, VerdictStatus

DOCUMENT = Path(__file__).parents[2] / "docs" / "formats.md"
STATION, STORE = "11111111-1111-4111-8111-111111111111", "33333333-3333-4333-8333-333333333333"
DOCKING, CLIP = "019c15f4-2b80-7000-8000-00000000000d", "019c15f4-3350-7000-8000-00000000000a"
AT = datetime(2026, 2, 1, 6, 30, tzinfo=UTC)


def key_of(byte):
    return SigningKey(Ed25519PrivateKey.from_private_bytes(bytes([byte]) * 32))


MANIFEST_KEY, CHECKPOINT_KEY, STORE_KEY = key_of(0x11), key_of(0x22), key_of(0x33)


def the_manifest(**changes):
    values = {
        "path": b"EVIDENCE/first light.txt",
        "acquisition": CLIP,
        "station": STATION,
        "docking": DOCKING,
        "sealed_digest": "sha256:8a8daaacd2809db83b1ef3b4a78f72bef9afb88a02bfe01459605565f4751c79",
        "nonce": b"\x44" * 32,
        "recorded_at": None,
        "category": Category.EVIDENCE,
        "category_reason": "in directory EVIDENCE",
    } | changes
    return manifest.encode(
        Manifest(
            **values,
            bay=3,
            camera=CameraIdentity(serial="BC-17", model="Demo", volume_id="6A7F-01D2"),
            size_bytes=13,
            mtime_ns=1_769_925_600_123_456_789,
            duration_ms=None,
            clock_offset_ms=None,
            verdict=VerdictStatus.UNRECOGNISED,
            reasons=("not a container that is known here",),
            container="unknown",
            plaintext_digest=canonical.digest(b"First light.\n"),
            plaintext_size_bytes=13,
            sealed_size_bytes=311,
            recipients=(
                "sha256:2d36913d48da86b4ea5cf38d5f8482ba4a7972455b82db988a23ad1148f98110",
                "sha256:4734a794443e068b776ea8e9aabe37eaf12cca2073a7b0357487ff79568aa25c",
            ),
            dockd="0.1.0",
            custody_seq=2,
        )
    )


def the_second_manifest():
    return the_manifest(
        path=b"DCIM/20260201_073000_007_A17_EVD.txt",
        profile="precinct-7",
        profile_version=3,
        named=Named(
            started_at=AT,
            local="2026-02-01T07:30:00",
            time_zone="Europe/Berlin",
            sequence="007",
            officer="A17",
            category="EVD",
        ),
    )


def the_log(signed_manifest):
    where = {"bay": 3, "docking": DOCKING, "camera": "BC-17"}
    events = [
        ("station.started", {}, {"trial": False, "version": "0.1.0"}),
        ("docking.admitted", where, {}),
        ("acquisition.sealed", where | {"acquisition": CLIP}, {"manifest": canonical.digest(signed_manifest)}),
    ]
    lines, last = [], None
    for seq, (event, about, details) in enumerate(events):
        last = entry_line(
            seq=seq,
            prev=previous_hash(last),
            at=AT + timedelta(seconds=2 * seq),
            event=event,
            station=STATION,
            details=details,
            **about,
        )
        lines.append(last)
    return lines


def block_after(mark):
    """The content of the fenced block that follows a sentence of the document."""
    text = DOCUMENT.read_text()
    return re.search(r"```\w*\n(.*?)```", text[text.index(mark) :], re.DOTALL)[1]


def kept_by_rule():
    """A clip that was recorded a day before, under a policy that is mended later."""
    plain = the_manifest(
        acquisition="019c15f4-3350-7000-8000-00000000000c",
        category=Category.NONE,
        category_reason="",
        recorded_at=AT - timedelta(days=1),
        sealed_digest="sha256:" + "99" * 32,
        nonce=b"\x77" * 32,
    )
    policies = []
    for seq, days in enumerate((20, 30), 1):
        categories = retention.usual_terms() | {"none": Terms(recorded_days=days)}
        at = AT - timedelta(days=10) + seq * timedelta(days=12)
        policies.append(retention.build_policy(store=STORE, policy_seq=seq, at=at, categories=categories))
    first, mended = (
        Offered(policy=canonical.digest(one), categories=retention.usual_terms() | {"none": Terms(recorded_days=days)})
        for one, days in zip(policies, (20, 30), strict=True)
    )
    at = AT + timedelta(days=2, seconds=30)
    stated = manifest.decode(plain)
    receipt = receipts.build_receipt(
        store=STORE,
        signed_manifest=plain,
        receipt_seq=2,
        previous="sha256:5d3fb0e50a5e5533cfe3a22cd0e6b9bccb38e0c7a850b88666f9535aeacf3b38",
        witnessed_size=3,
        witnessed_root=bytes.fromhex("5ab0663ff1212e066e1b20be5705d17c9ca29b9fa01498f47bbb971741124108"),
        at=at,
        retention_until=first.promise(stated, arrived=at, now=at),
    )
    later = at + timedelta(days=13)
    promise = mended.promise(stated, arrived=at, now=later)
    extension = extensions.build_extension(receipt=receipt, previous=None, at=later, promise=promise)
    holding = receipts.build_holding(
        store=STORE,
        signed_manifest=plain,
        nonce=b"\x88" * 32,
        at=later + timedelta(seconds=1),
        retention_until=promise,
    )
    return {
        "policy": policies[0],
        "receipt, version 3": receipt,
        "extension": extension,
        "holding, version 3": holding,
    }


def examples():
    """Every worked example, by name."""
    content = the_manifest()
    lines = the_log(content)
    frontier = merkle.Frontier()
    nodes = [node for line in lines for node in frontier.append(line)]
    head = checkpoint.Checkpoint(origin=f"dockd/{STATION}/1", size=3, root=frontier.root())
    note = checkpoint.sign(head, CHECKPOINT_KEY)
    cosigned = checkpoint.cosign(note, STORE_KEY, f"dockd-store/{STORE}", AT + timedelta(seconds=9))
    receipt = receipts.build_receipt(
        store=STORE,
        signed_manifest=content,
        receipt_seq=1,
        previous=receipts.NO_PREVIOUS,
        witnessed_size=3,
        witnessed_root=head.root,
        at=AT + timedelta(seconds=10),
        retention_until=AT + timedelta(days=3650),
    )
    holding = receipts.build_holding(
        store=STORE,
        signed_manifest=content,
        nonce=b"\x55" * 32,
        at=AT + timedelta(seconds=20),
        retention_until=AT + timedelta(days=3650),
    )
    moved = the_manifest(
        acquisition="019c3000-0000-7000-8000-00000000000b",
        station="22222222-2222-4222-8222-222222222222",
        docking="019c3000-0000-7000-8000-00000000000e",
        sealed_digest="sha256:" + "77" * 32,
        nonce=b"\x66" * 32,
    )
    sealed = base64.b64decode(block_after("In base64, to try it with stock tools:").split("'END'\n")[1].split("END")[0])
    shared = receipts.build_receipt(
        store=STORE,
        signed_manifest=moved,
        receipt_seq=1,
        previous=receipts.NO_PREVIOUS,
        witnessed_size=0,
        witnessed_root=merkle.EMPTY_ROOT,
        at=AT + timedelta(days=5),
        retention_until=AT + timedelta(days=3655),
        other=(content, range_digest(b"\x66" * 32, sealed)),
    )
    kept = kept_by_rule()
    station = StationPublic(station=STATION, manifest_key=MANIFEST_KEY.public, checkpoint_key=CHECKPOINT_KEY.public)
    return {
        "store.pub": keyfiles.format_store_pub(StorePublic(store=STORE, key=STORE_KEY.public)),
        "station.pub": keyfiles.format_station_pub(station),
        "manifest": content.decode() + "\n",
        "manifest digest": canonical.digest(content),
        "manifest, version 2": the_second_manifest().decode() + "\n",
        "manifest signature": sshsig.sign(MANIFEST_KEY, sshsig.MANIFEST, content),
        "receipt": receipt.decode() + "\n",
        "receipt digest": canonical.digest(receipt),
        "receipt signature": sshsig.sign(STORE_KEY, sshsig.RECEIPT, receipt),
        "receipt, version 2": shared.decode() + "\n",
        "holding": holding.decode() + "\n",
        **{name: payload.decode() + "\n" for name, payload in kept.items()},
        "policy digest": canonical.digest(kept["policy"]),
        "policy signature": sshsig.sign(STORE_KEY, sshsig.POLICY, kept["policy"]),
        "receipt, version 3, digest": canonical.digest(kept["receipt, version 3"]),
        "extension signature": sshsig.sign(STORE_KEY, sshsig.EXTENSION, kept["extension"]),
        "log": b"".join(line + b"\n" for line in lines).decode(),
        **{f"node {level} {index}": value.hex() for level, index, value in nodes},
        "root": head.root.hex(),
        "checkpoint": note.decode(),
        "cosignature": cosigned.removeprefix(note).decode(),
        "vkey": checkpoint.vkey(head.origin, CHECKPOINT_KEY.public),
        "pem": checkpoint.public_pem(CHECKPOINT_KEY.public).decode(),
    }


EXAMPLES = examples()


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_document_shows_what_the_code_makes(name):
    assert EXAMPLES[name] in DOCUMENT.read_text()


def test_p07_the_log_in_the_document_verifies():
    lines = block_after("The whole log is these three lines:").encode().splitlines(keepends=True)
    note = block_after("Its checkpoint, `custody/checkpoint`:").encode()
    report = verify_log(lines, note, origin=f"dockd/{STATION}/1", public=CHECKPOINT_KEY.public)
    assert report.whole
    assert report.unsigned == 0


def test_the_document_names_every_field():
    text = DOCUMENT.read_text()
    for name in ("manifest", "manifest, version 2", "receipt", "receipt, version 2", "holding"):
        stated = json.loads(EXAMPLES[name])
        for key in (*stated, *stated.get("named", ()), *stated.get("shares", ())):
            assert f"`{key}`" in text, key
    for line in EXAMPLES["log"].splitlines():
        for key in json.loads(line):
            assert f"`{key}`" in text, key


def test_the_document_names_every_event_of_the_tables():
    text = DOCUMENT.read_text()
    for event in AcquisitionEvent:
        assert f"`acquisition.{event.value}`" in text, event
    for event in DeliveryEvent:
        assert f"`delivery.{event.value}`" in text, event
    for event in DockingEvent:
        assert f"`docking.{event.value}`" in text, event


@pytest.mark.skipif(shutil.which("bash") is None or shutil.which("openssl") is None, reason="needs bash and openssl")
def test_p07_the_commands_in_the_document_check_the_examples_with_stock_tools(tmp_path):
    if shutil.which("ssh-keygen") is None:
        pytest.skip("ssh-keygen is not installed")
    files = {
        "custody/custody.jsonl": EXAMPLES["log"],
        "custody/checkpoint": EXAMPLES["checkpoint"] + EXAMPLES["cosignature"],
        "custody/checkpoint.pem": EXAMPLES["pem"],
        "manifest.json": EXAMPLES["manifest"].removesuffix("\n"),
        "manifest.json.sig": EXAMPLES["manifest signature"],
        "receipt.json": EXAMPLES["receipt"].removesuffix("\n"),
        "receipt.json.sig": EXAMPLES["receipt signature"],
        "store.pub": EXAMPLES["store.pub"],
        "station.pub": EXAMPLES["station.pub"],
    }
    tmp_path.joinpath("custody").mkdir()
    for name, content in files.items():
        tmp_path.joinpath(name).write_text(content)
    script = "\n".join(
        block_after(mark)
        for mark in (
            "A manifest, with the station's key:",
            "A receipt, with the store's key:",
            "The signature of a checkpoint, with `custody/checkpoint.pem`:",
            "The links of the log, one line after the other:",
        )
    )
    command = ["bash", "-euo", "pipefail", "-c", script]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count('Good "') == 2
    assert "Signature Verified Successfully" in done.stdout
    assert "3 lines, every link holds" in done.stdout

    log = tmp_path / "custody" / "custody.jsonl"
    log.write_text(EXAMPLES["log"].replace('"bay":3', '"bay":4', 1))
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, "line 3: prev is not the hash of line 2" in done.stdout) == (1, True)


def test_p07_the_program_in_the_document_computes_the_root(tmp_path):
    tmp_path.joinpath("custody").mkdir()
    tmp_path.joinpath("custody/custody.jsonl").write_text(EXAMPLES["log"] + "not yet signed\n")
    tmp_path.joinpath("custody/checkpoint").write_text(EXAMPLES["checkpoint"])
    program = block_after("The root, with nothing but Python's standard library")
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == EXAMPLES["checkpoint"].splitlines()[2] + "\n"


def test_the_signed_root_in_the_document_is_the_root():
    root = base64.b64decode(EXAMPLES["checkpoint"].splitlines()[2])
    assert root.hex() == EXAMPLES["root"]
