"""Policies, rules and extensions as a stranger reads them: the store's own bytes, and what was done to them."""

import importlib.util
import json
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from contract.evidence import STATION, STORE, Clip, Keys

from dockd.core import canonical, extensions, receipts, retention, sshsig
from dockd.core.manifest import decode
from dockd.core.promises import Offered
from dockd.core.retention import Terms

_SPEC = importlib.util.spec_from_file_location("verify_outsider", Path(__file__).with_name("verify_outsider.py"))
A = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.fixture(scope="module")
def outsider():
    made = importlib.util.module_from_spec(_SPEC)
    sys.modules[_SPEC.name] = made  # its dataclasses look themselves up
    _SPEC.loader.exec_module(made)
    yield made
    del sys.modules[_SPEC.name]


class Place:
    """One acquisition of a store: its receipt under policy 1, and its extension under policy 2."""

    def __init__(self, directory):
        self.keys, self.directory = Keys(), directory
        self.clip = Clip(self.keys, recorded_at=A - timedelta(days=1))
        self.acquisition = directory / "acquisitions" / STATION / self.clip.acquisition
        self.acquisition.mkdir(parents=True)
        (directory / "policies").mkdir()
        offered = [self._policy(number, days) for number, days in enumerate((20, 30), 1)]
        stated = decode(self.clip.manifest.payload)
        self.receipt = receipts.build_receipt(
            store=STORE,
            signed_manifest=self.clip.manifest.payload,
            receipt_seq=1,
            previous=receipts.NO_PREVIOUS,
            witnessed_size=0,
            witnessed_root=bytes(32),
            at=A,
            retention_until=offered[0].promise(stated, arrived=A, now=A),
        )
        self.extension = extensions.build_extension(
            receipt=self.receipt, previous=None, at=A, promise=offered[1].promise(stated, arrived=A, now=A)
        )
        self.keep("extension-1.json", self.extension)

    def _policy(self, number, days):
        categories = retention.usual_terms() | {"none": Terms(recorded_days=days)}
        payload = retention.build_policy(store=STORE, policy_seq=number, at=A, categories=categories)
        self._write(self.directory / "policies" / f"{number}.json", sshsig.POLICY, payload)
        return Offered(policy=canonical.digest(payload), categories=categories)

    def keep(self, name, payload):
        self._write(self.acquisition / name, sshsig.EXTENSION, payload)

    def _write(self, path, namespace, payload):
        path.write_bytes(payload)
        path.with_name(path.name + ".sig").write_text(sshsig.sign(self.keys.store, namespace, payload))

    def defects(self, outsider, **receipt):
        key = outsider.Key(comment=f"dockd-store:{STORE}", openssh=self.keys.store.public.line("").strip())
        report = outsider.Report()
        policies = outsider.read_policies(self.directory, key, report)
        stored = outsider.Stored(
            json.loads(self.clip.manifest.payload),
            canonical.digest(self.clip.manifest.payload),
            json.loads(self.receipt) | receipt,
            canonical.digest(self.receipt),
        )
        outsider.check_promise(stored.receipt, stored, policies, report.about("it"))
        outsider.check_extensions(self.acquisition, stored, key, policies, report.about("it"))
        return report.defects


@pytest.fixture
def place(tmp_path):
    return Place(tmp_path)


def test_what_a_store_promises_is_clean_to_a_stranger(outsider, place):
    assert place.defects(outsider) == []


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"n": 2}, "does not follow"),
        ({"previous": canonical.digest(b"")}, "does not follow"),
        ({"receipt": canonical.digest(b"")}, "does not follow"),
        ({"keep_until": "2026-03-02T12:00:00.000Z"}, "promises less than was promised before"),
        ({"keep_until": "2026-03-25T12:00:00.000Z"}, "promises less than its policy"),
        ({"delete_by": "2026-05-02T12:00:00.000Z"}, "delete_by"),
        ({"station": STORE}, "another acquisition"),
    ],
)
def test_a_stranger_sees_an_extension_that_is_none(outsider, place, change, named):
    record = json.loads(place.extension) | change
    place.keep("extension-1.json", json.dumps(record, sort_keys=True, separators=(",", ":")).encode())
    assert any(named in defect for defect in place.defects(outsider))


def test_a_stranger_sees_an_extension_that_was_edited_or_left_out(outsider, place):
    (place.acquisition / "extension-1.json").rename(place.acquisition / "extension-2.json")
    (place.acquisition / "extension-1.json.sig").rename(place.acquisition / "extension-2.json.sig")
    assert any("does not follow" in defect for defect in place.defects(outsider))
    (place.acquisition / "extension-2.json").write_bytes(place.extension + b" ")
    assert any("is not signed" in defect for defect in place.defects(outsider))


@pytest.mark.parametrize(
    ("receipt", "named"),
    [
        ({"keep_until": "2026-03-14T12:00:00.000Z"}, "promises less than its policy"),
        ({"at": "2026-01-01T00:00:00.000Z"}, "another start of recording"),
        ({"delete_by": None}, "a date where a person ends it, or none"),
    ],
)
def test_a_stranger_sees_a_receipt_that_says_less_than_its_rule(outsider, place, receipt, named):
    assert any(named in defect for defect in place.defects(outsider, **receipt))


def test_a_stranger_sees_that_a_policy_is_missing_or_has_another_number(outsider, place):
    policies = place.directory / "policies"
    (policies / "1.json").rename(policies / "3.json")
    (policies / "1.json.sig").rename(policies / "3.json.sig")
    assert any("another number" in defect for defect in place.defects(outsider))
    (policies / "3.json").unlink()
    assert any("is not there" in defect for defect in place.defects(outsider))
