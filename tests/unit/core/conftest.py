"""One clip, sealed, stored, read a second time: everything that a warrant needs, with real signatures."""

import dataclasses
from datetime import UTC, datetime, timedelta

import pytest

from dockd.core import canonical, manifest, receipts, sshsig
from dockd.core.confirmation import OwnSums, still_there, verify_objects
from dockd.core.findings import Answer, Finding, Question
from dockd.core.manifest import Manifest
from dockd.core.objects import Algorithm, Checksum, ObjectState, Piece
from dockd.core.policy import PolicyStore, StorePolicy
from dockd.core.proof import weigh
from dockd.core.sshsig import SigningKey
from dockd.core.warrant import ObjectConfirmation, SignedConfirmation
from dockd.model import (
    Acquisition,
    CacheState,
    CameraIdentity,
    Category,
    FoundFile,
    Reread,
    Sealed,
    SignedBytes,
    Verdict,
    VerdictStatus,
)

NOW = datetime(2026, 1, 31, 23, 59, 59, 123000, tzinfo=UTC)
STATION = "6f1e2d3c-0000-4000-8000-000000000001"
STORE = "6f1e2d3c-0000-4000-8000-000000000002"
ACQUISITION = "019c16f2-0000-7000-8000-000000000003"
DOCKING = "019c16f2-0000-7000-8000-000000000004"
CAMERA = CameraIdentity(serial="BC-17", model="M1", volume_id="6A7F-01D2", vendor="V", product="P")
OBJECTS = "cloud"
STORE_KEY, STATION_KEY = SigningKey.generate(), SigningKey.generate()
NONCE = b"\x07" * 32
FILE = FoundFile(path=b"DCIM/100/A \xff.MP4", size_bytes=1000, mtime_ns=1_769_903_999_123_456_789, inode=42)


def make_manifest(**changes):
    stated = Manifest(
        acquisition=ACQUISITION,
        station=STATION,
        bay=3,
        docking=DOCKING,
        camera=CAMERA,
        path=FILE.path,
        size_bytes=FILE.size_bytes,
        mtime_ns=FILE.mtime_ns,
        recorded_at=datetime(2026, 1, 31, 20, tzinfo=UTC),
        duration_ms=60_000,
        clock_offset_ms=None,
        category=Category.EVIDENCE,
        category_reason="directory EVIDENCE",
        verdict=VerdictStatus.INTACT,
        reasons=(),
        container="mp4",
        plaintext_digest=canonical.digest(b"plain"),
        plaintext_size_bytes=FILE.size_bytes,
        sealed_digest=canonical.digest(b"sealed"),
        sealed_size_bytes=1300,
        recipients=("sha256:" + "1" * 64, "sha256:" + "2" * 64),
        dockd="0.1.0",
        custody_seq=7,
        nonce=b"\x01" * 32,
    )
    return dataclasses.replace(stated, **changes)


def sign_receipt(signed_manifest, *, key=STORE_KEY, **changes):
    wanted = {
        "store": STORE,
        "receipt_seq": 1,
        "previous": receipts.NO_PREVIOUS,
        "witnessed_size": 5,
        "witnessed_root": bytes(range(32)),
        "at": NOW,
        "retention_until": NOW + timedelta(days=365),
    }
    payload = receipts.build_receipt(signed_manifest=signed_manifest, **(wanted | changes))
    return SignedBytes(payload=payload, signature=sshsig.sign(key, sshsig.RECEIPT, payload))


def sign_holding(signed_manifest, *, key=STORE_KEY, **changes):
    wanted = {"store": STORE, "nonce": NONCE, "at": NOW, "retention_until": NOW + timedelta(days=365)}
    payload = receipts.build_holding(signed_manifest=signed_manifest, **(wanted | changes))
    return SignedBytes(payload=payload, signature=sshsig.sign(key, sshsig.HOLDING, payload))


def verified_receipt(stated=None, *, store=STORE, **changes):
    content = manifest.encode(stated or make_manifest())
    return receipts.verify_receipt(
        sign_receipt(content, store=store, **changes),
        store_key=STORE_KEY.public,
        store=store,
        station=(stated or make_manifest()).station,
        manifest=content,
    )


def verified_holding(stated=None, *, store=STORE, **changes):
    content = manifest.encode(stated or make_manifest())
    return receipts.verify_holding(
        sign_holding(content, store=store, **changes),
        store_key=STORE_KEY.public,
        store=store,
        station=(stated or make_manifest()).station,
        manifest=content,
        nonce=NONCE,
    )


def make_row(stated=None, **changes):
    stated = stated or make_manifest()
    sealed = Sealed(
        file=FILE,
        plaintext_digest=stated.plaintext_digest,
        plaintext_size_bytes=stated.plaintext_size_bytes,
        sealed_digest=stated.sealed_digest,
        sealed_size_bytes=stated.sealed_size_bytes,
        verdict=Verdict(status=stated.verdict, container=stated.container, reasons=stated.reasons),
        recipients=stated.recipients,
    )
    row = Acquisition(
        acquisition=ACQUISITION,
        state="stored",
        docking=DOCKING,
        bay=3,
        camera=CAMERA,
        file=FILE,
        category=stated.category,
        category_reason=stated.category_reason,
        found_at=NOW,
        sealed=sealed,
        manifest_digest=canonical.digest(manifest.encode(stated)),
        custody_seq=stated.custody_seq,
    )
    return dataclasses.replace(row, **changes)


def make_reread(**changes):
    reread = Reread(
        docking=DOCKING, file=FILE, plaintext_digest=make_manifest().plaintext_digest, cache=CacheState.DROPPED
    )
    return dataclasses.replace(reread, **changes)


def signed(stated=None, **changes):
    """The word of a store that signs."""
    made = {
        "receipt": changes.get("receipt") or verified_receipt(stated),
        "holding": changes.get("holding") or verified_holding(stated),
        "asked_at": changes.get("asked_at") or NOW,
    }
    return SignedConfirmation(**made)


def sign_manifest(stated=None):
    content = manifest.encode(stated or make_manifest())
    return SignedBytes(payload=content, signature=sshsig.sign(STATION_KEY, sshsig.MANIFEST, content))


def own_sums(stated=None, *, part_bytes=0):
    """What the station knows of the three objects; the sealed bytes are told by their digest alone."""
    stated = stated or make_manifest()
    said = sign_manifest(stated)
    made = {
        piece: OwnSums(size_bytes=len(content), digest=canonical.digest(content))
        for piece, content in ((Piece.MANIFEST, said.payload), (Piece.SIGNATURE, said.signature.encode()))
    }
    made[Piece.SEALED] = OwnSums(
        size_bytes=stated.sealed_size_bytes,
        digest=stated.sealed_digest,
        part_bytes=part_bytes,
        of_parts=b"\x0b" * 32 if part_bytes else b"",
    )
    return made


def object_states(stated=None, *, of=(), **changes):
    """What an honest store says of them; `changes` to all, or to those named in `of`."""
    states = {
        piece: ObjectState(
            size_bytes=sums.size_bytes,
            version=f"version of {piece.value}",
            checksum=Checksum(algorithm=Algorithm.SHA256, digest=bytes.fromhex(sums.digest.removeprefix("sha256:"))),
            retention_until=NOW + timedelta(days=365),
        )
        for piece, sums in own_sums(stated).items()
    }
    return {
        piece: dataclasses.replace(state, **changes) if piece in (of or Piece) else state
        for piece, state in states.items()
    }


def verified_objects(stated=None, *, states=None, read_back=None, store=OBJECTS, at=NOW, part_bytes=0):
    return verify_objects(
        states or object_states(stated),
        own=own_sums(stated, part_bytes=part_bytes),
        read_back=read_back or {},
        store=store,
        station=(stated or make_manifest()).station,
        manifest=sign_manifest(stated),
        at=at,
    )


def looked_at(stated=None, *, objects=None, states=None, asked_at=NOW, findings=None, **changes):
    """The word of a store that does not sign."""
    objects = objects or verified_objects(stated, **changes)
    findings = proven() if findings is None else findings
    return ObjectConfirmation(
        objects=objects, presence=seen(objects, states, findings), asked_at=asked_at, findings=findings
    )


def proven(*missing, no=()):
    """What a trial finds of a store that does all that is asked, but for this."""
    return tuple(
        Finding(question=one, answer=Answer.NO if one in no else Answer.YES, claimed=None, detail="tried")
        for one in Question
        if one not in missing
    )


def seen(objects, states=None, findings=None, shown=None):
    """The look right before erasing, after all bytes came back the same."""
    now = states or {piece: one.state for piece, one in objects.objects.items()}
    verdict = weigh(None, proven() if findings is None else findings, signs=False)
    whole = {piece: one.state.size_bytes for piece, one in objects.objects.items()}
    return still_there(objects, now, verdict=verdict, shown=whole if shown is None else shown, at=objects.at)


def make_case():
    """The arguments of a warrant that is due."""
    return {
        "acquisition": make_row(),
        "manifest": make_manifest(),
        "confirmations": [signed()],
        "policy": StorePolicy([PolicyStore(store=STORE, name="archive", min_retention=timedelta(days=30))]),
        "reread": make_reread(),
        "docking": DOCKING,
        "epoch": 9,
        "camera_now": CAMERA,
        "custody_durable_size": 8,
        "now": NOW + timedelta(seconds=2),
    }


class Clip:
    """The builders above, for tests: importlib mode lets no test import its conftest."""

    now, station, store, acquisition, docking = NOW, STATION, STORE, ACQUISITION, DOCKING
    camera, file, nonce, store_key = CAMERA, FILE, NONCE, STORE_KEY
    manifest = staticmethod(make_manifest)
    sign_receipt = staticmethod(sign_receipt)
    sign_holding = staticmethod(sign_holding)
    receipt = staticmethod(verified_receipt)
    holding = staticmethod(verified_holding)
    signed = staticmethod(signed)
    sign_manifest = staticmethod(sign_manifest)
    own = staticmethod(own_sums)
    states = staticmethod(object_states)
    objects = staticmethod(verified_objects)
    looked_at = staticmethod(looked_at)
    proven = staticmethod(proven)
    seen = staticmethod(seen)
    objects_store = OBJECTS
    row = staticmethod(make_row)
    reread = staticmethod(make_reread)
    case = staticmethod(make_case)


@pytest.fixture
def case():
    return make_case()


@pytest.fixture(scope="session")
def clip():
    return Clip
