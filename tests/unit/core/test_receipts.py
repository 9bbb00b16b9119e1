import dataclasses
import json
from datetime import timedelta

import pytest

from dockd.core import manifest, receipts, sshsig
from dockd.core.canonical import digest
from dockd.core.receipts import VerifiedHolding, VerifiedReceipt
from dockd.core.sshsig import SigningKey
from dockd.errors import VerificationFailed
from dockd.model import SignedBytes

OTHER = "6f1e2d3c-0000-4000-8000-00000000000f"


def check_receipt(clip, signed, content, **changes):
    wanted = {"store_key": clip.store_key.public, "store": clip.store, "station": clip.station, "manifest": content}
    return receipts.verify_receipt(signed, **(wanted | changes))


def test_p01_a_receipt_says_what_the_manifest_said(clip):
    stated = clip.manifest()
    content = manifest.encode(stated)
    receipt = check_receipt(clip, clip.sign_receipt(content), content)
    assert receipt.acquisition == stated.acquisition
    assert receipt.manifest_digest == digest(content)
    assert (receipt.sealed_digest, receipt.sealed_size_bytes) == (stated.sealed_digest, stated.sealed_size_bytes)
    assert receipt.nonce == stated.nonce
    assert (receipt.witnessed_size, receipt.witnessed_root) == (5, bytes(range(32)))


@pytest.mark.parametrize("made", [VerifiedReceipt, VerifiedHolding])
def test_p01_a_verified_statement_cannot_be_made(clip, made):
    wanted = {field.name: None for field in dataclasses.fields(made)}
    with pytest.raises(TypeError):
        made(token=object(), **wanted)


def test_p01_a_verified_statement_cannot_be_altered(clip):
    for verified in (clip.receipt(), clip.holding()):
        with pytest.raises((TypeError, ValueError), match="token"):
            dataclasses.replace(verified, acquisition=OTHER)
        with pytest.raises(dataclasses.FrozenInstanceError):
            verified.acquisition = OTHER


def test_p01_a_receipt_by_another_key_is_refused(clip):
    content = manifest.encode(clip.manifest())
    with pytest.raises(VerificationFailed, match="another key"):
        check_receipt(clip, clip.sign_receipt(content, key=SigningKey.generate()), content)


def test_p01_a_holding_statement_is_no_receipt(clip):
    content = manifest.encode(clip.manifest())
    with pytest.raises(VerificationFailed):
        check_receipt(clip, clip.sign_holding(content), content)
    payload = clip.sign_holding(content).payload
    as_receipt = SignedBytes(payload=payload, signature=sshsig.sign(clip.store_key, sshsig.RECEIPT, payload))
    with pytest.raises(VerificationFailed, match="expected type 'receipt'"):
        check_receipt(clip, as_receipt, content)


@pytest.mark.parametrize("what", ["manifest", "store", "station"])
def test_p01_a_receipt_for_something_else_is_refused(clip, what):
    content = manifest.encode(clip.manifest())
    signed = clip.sign_receipt(content)
    other = manifest.encode(clip.manifest(bay=4)) if what == "manifest" else OTHER
    with pytest.raises(VerificationFailed, match="signed for another"):
        check_receipt(clip, signed, content, **{what: other})


@pytest.mark.parametrize(
    "change",
    [
        {"nonce": "02" * 32},
        {"receipt_seq": 0},
        {"sealed": {"digest": "sha256:" + "0" * 64, "size_bytes": 1300}},
        {"sealed": {"digest": "", "size_bytes": 1300}},
        {"sealed": {"digest": digest(b"sealed"), "size_bytes": 1301}},
        {"witnessed": {"size": 5}},
        {"witnessed": {"size": -5, "root": "00" * 32}},
        {"retention_until": "tomorrow"},
        {"more": 1},
    ],
)
def test_a_receipt_that_says_something_else_is_refused(clip, change):
    content = manifest.encode(clip.manifest())
    record = json.loads(clip.sign_receipt(content).payload) | change
    payload = json.dumps(record).encode()
    signed = SignedBytes(payload=payload, signature=sshsig.sign(clip.store_key, sshsig.RECEIPT, payload))
    with pytest.raises(VerificationFailed):
        check_receipt(clip, signed, content)


def test_p01_a_holding_statement_answers_its_own_nonce_only(clip):
    content = manifest.encode(clip.manifest())
    signed = clip.sign_holding(content)
    wanted = {"store_key": clip.store_key.public, "store": clip.store, "station": clip.station, "manifest": content}
    assert receipts.verify_holding(signed, **wanted, nonce=clip.nonce).nonce == clip.nonce
    with pytest.raises(VerificationFailed, match="another question"):
        receipts.verify_holding(signed, **wanted, nonce=bytes(32))


def test_p01_a_holding_statement_by_another_key_is_refused(clip):
    content = manifest.encode(clip.manifest())
    wanted = {"store_key": clip.store_key.public, "store": clip.store, "station": clip.station, "manifest": content}
    with pytest.raises(VerificationFailed, match="another key"):
        receipts.verify_holding(clip.sign_holding(content, key=SigningKey.generate()), **wanted, nonce=clip.nonce)


def test_receipts_follow_one_another(clip):
    first = clip.receipt()
    second = clip.receipt(receipt_seq=2, previous=first.payload_digest)
    receipts.check_succession(None, first)
    receipts.check_succession(first, second)


def test_a_receipt_asked_for_again_is_no_repeat(clip):
    receipts.check_succession(clip.receipt(), clip.receipt())


def test_p01_a_gap_a_repeat_and_another_history_are_alarms(clip):
    first = clip.receipt()
    other = clip.receipt(at=clip.now + timedelta(seconds=1))
    for previous, receipt in (
        (first, clip.receipt(receipt_seq=3, previous=first.payload_digest)),  # one never arrived
        (first, other),  # the same number again
        (first, clip.receipt(receipt_seq=2, previous=other.payload_digest)),  # another past
        (None, clip.receipt(receipt_seq=2, previous=first.payload_digest)),  # the first is not the first
        (None, clip.receipt(previous=first.payload_digest)),
    ):
        with pytest.raises(VerificationFailed, match="does not follow"):
            receipts.check_succession(previous, receipt)


def test_what_a_receipt_witnessed_is_read_without_a_manifest(clip):
    stated = receipts.stated_witness(clip.sign_receipt(manifest.encode(clip.manifest())).payload)
    assert (stated.store, stated.station, stated.size, stated.root) == (clip.store, clip.station, 5, bytes(range(32)))
    with pytest.raises(VerificationFailed):
        receipts.stated_witness(b"{}")
