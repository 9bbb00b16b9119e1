"""Statements that say which rule a clip falls under, and those that promise more later."""

import dataclasses
import json
from datetime import timedelta

import pytest

from dockd.core import extensions, manifest, receipts, retention, sshsig
from dockd.core.canonical import digest
from dockd.core.extensions import VerifiedExtension
from dockd.core.retention import RecordedFrom, Terms, Until
from dockd.errors import VerificationFailed
from dockd.model import SignedBytes

NONE, EVIDENCE, LONGER = Terms(), Terms(until=Until.ENDED), Terms(recorded_days=60)
POLICY = digest(b"policy")
DAY = timedelta(days=1)


def promise(clip, terms=NONE, *, now=None, policy=POLICY):
    stated, _ = manifest.recorded(clip.manifest())
    return retention.promise(
        policy=policy, category="none", terms=terms, stated=stated, arrived=clip.now, now=now or clip.now
    )


def ruled(clip, terms=NONE, **changes):
    return clip.receipt(retention_until=promise(clip, terms), **changes)


def resigned(clip, signed, namespace, change):
    payload = json.dumps(json.loads(signed.payload) | change).encode()
    return SignedBytes(payload=payload, signature=sshsig.sign(clip.store_key, namespace, payload))


def test_a_receipt_of_version_3_says_its_rule_and_when_the_clip_may_go(clip):
    found = ruled(clip)
    stated = clip.manifest().recorded_at
    assert (found.rule.category, found.rule.until, found.rule.policy) == ("none", Until.DATE, POLICY)
    assert (found.rule.recorded_from, found.rule.recorded_at) == (RecordedFrom.MANIFEST, stated)
    assert (found.kept_until, found.delete_by) == (stated + 30 * DAY, stated + 31 * DAY)
    assert found.shared is None


def test_receipts_of_versions_1_and_2_give_their_date_alike(clip):
    assert clip.receipt().kept_until == clip.now + 365 * DAY
    assert (clip.receipt().rule, clip.receipt().delete_by) == (None, None)
    assert clip.holding().kept_until == clip.now + 365 * DAY


def test_a_receipt_of_version_3_may_be_of_another_station_s_object(clip):
    other = manifest.encode(clip.manifest(station="6f1e2d3c-0000-4000-8000-00000000000f", sealed_size_bytes=1301))
    found = ruled(clip, other=(other, bytes(32)))
    assert (found.shared.manifest_digest, found.sealed_size_bytes) == (digest(other), 1301)
    holding = clip.holding(retention_until=promise(clip), other=other)
    assert (holding.shared, holding.rule) == (found.shared, found.rule)


@pytest.mark.parametrize(
    "change",
    [
        {"delete_by": None},
        {"delete_by": "2026-03-02T20:00:00.000Z"},
        {"keep_until": "2026-03-02T20:00:00.001Z"},
        {"keep_until": "9999-12-31T23:59:59.999Z"},
        {"rule": {}},
        {"retention_until": "2027-01-31T23:59:59.123Z"},
        {"v": 2},
        {"v": 4},
        {"shares": {}},
    ],
)
def test_a_receipt_whose_rule_and_dates_contradict_is_refused(clip, change):
    content = manifest.encode(clip.manifest())
    signed = clip.sign_receipt(content, retention_until=promise(clip))
    with pytest.raises(VerificationFailed):
        receipts.verify_receipt(
            resigned(clip, signed, sshsig.RECEIPT, change),
            store_key=clip.store_key.public,
            store=clip.store,
            station=clip.manifest().station,
            manifest=content,
        )


@pytest.mark.parametrize(
    "change",
    [
        {"recorded_at": "2026-01-30T20:00:00.000Z"},
        {"recorded_from": "arrival"},
        {"recorded_from": "camera"},
        {"until": "ended"},
        {"policy": "sha256:"},
        {"more": 1},
    ],
)
def test_a_receipt_counts_from_what_the_manifest_states(clip, change):
    content = manifest.encode(clip.manifest())
    signed = clip.sign_receipt(content, retention_until=promise(clip))
    rule = json.loads(signed.payload)["rule"] | change
    with pytest.raises(VerificationFailed):
        receipts.verify_receipt(
            resigned(clip, signed, sshsig.RECEIPT, {"rule": rule}),
            store_key=clip.store_key.public,
            store=clip.store,
            station=clip.manifest().station,
            manifest=content,
        )


def test_a_holding_statement_counts_from_what_the_manifest_states(clip):
    made = promise(clip)
    wrong = dataclasses.replace(made, rule=dataclasses.replace(made.rule, recorded_at=clip.now))
    with pytest.raises(VerificationFailed, match="start of recording"):
        clip.holding(retention_until=wrong)


def policy_of(clip, **categories):
    payload = retention.build_policy(
        store=clip.store, policy_seq=1, at=clip.now, categories={"none": NONE, "evidence": EVIDENCE} | categories
    )
    signed = SignedBytes(payload=payload, signature=sshsig.sign(clip.store_key, sshsig.POLICY, payload))
    return retention.verify_policy(signed, store_key=clip.store_key.public, store=clip.store)


def test_a_receipt_that_promises_less_than_the_policy_it_names_is_noticed(clip):
    policy = policy_of(clip)
    honest = promise(clip, policy=policy.payload_digest)
    receipts.check_rule(clip.receipt(retention_until=honest), policy)
    receipts.check_rule(clip.receipt(), policy)  # of version 1: it names none
    less = dataclasses.replace(honest, keep_until=honest.keep_until - DAY, delete_by=honest.delete_by - DAY)
    ended = promise(clip, EVIDENCE, policy=policy.payload_digest)
    for wrong, what in ((less, "kept until"), (ended, "kept until date"), (promise(clip), "another policy")):
        with pytest.raises(VerificationFailed, match=what):
            receipts.check_rule(clip.receipt(retention_until=wrong), policy)


class Chain:
    """A receipt and its extensions."""

    def __init__(self, clip, **receipt):
        self.clip = clip
        self.content = manifest.encode(clip.manifest())
        self.signed = clip.sign_receipt(self.content, **receipt)
        self.receipt = clip.receipt(**receipt)

    def sign(self, promise, previous=None, *, namespace=sshsig.EXTENSION):
        payload = extensions.build_extension(
            receipt=self.signed.payload, previous=previous and previous.payload, at=self.clip.now, promise=promise
        )
        return SignedBytes(payload=payload, signature=sshsig.sign(self.clip.store_key, namespace, payload))

    def verify(self, signed, previous=None, **changes):
        wanted = {"store_key": self.clip.store_key.public, "receipt": self.receipt, "manifest": self.content}
        return extensions.verify_extension(signed, previous=previous, **(wanted | changes))


def test_extensions_chain_to_their_receipt_and_to_each_other(clip):
    chain = Chain(clip, retention_until=promise(clip))
    first = chain.sign(promise(clip, LONGER))
    one = chain.verify(first)
    assert (one.n, one.receipt, one.kept_until) == (1, chain.receipt.payload_digest, promise(clip, LONGER).keep_until)
    second = chain.sign(promise(clip, Terms(recorded_days=90)), first)
    two = chain.verify(second, one)
    assert (two.n, two.kept_until > one.kept_until) == (2, True)
    for signed, previous in ((second, None), (first, one), (second, two)):
        with pytest.raises(VerificationFailed):
            chain.verify(signed, previous)


@pytest.mark.parametrize("given", ["date", "promise"])
def test_a_receipt_of_any_version_can_be_extended(clip, given):
    until = {"date": clip.now + 20 * DAY, "promise": promise(clip, Terms(recorded_days=20))}[given]
    chain = Chain(clip, retention_until=until)
    assert chain.verify(chain.sign(promise(clip))).kept_until == promise(clip).keep_until


def test_p01_an_extension_that_promises_less_is_none(clip):
    chain = Chain(clip, retention_until=promise(clip, LONGER))
    with pytest.raises(VerificationFailed, match="less"):
        chain.verify(chain.sign(promise(clip)))
    ended = Chain(clip, retention_until=promise(clip, EVIDENCE))
    with pytest.raises(VerificationFailed, match="less"):
        ended.verify(ended.sign(promise(clip, LONGER)))
    assert chain.verify(chain.sign(promise(clip, EVIDENCE, now=clip.now + 90 * DAY))).delete_by is None


@pytest.mark.parametrize("namespace", [sshsig.RECEIPT, sshsig.HOLDING, sshsig.POLICY])
def test_p01_an_extension_is_signed_in_its_own_namespace(clip, namespace):
    chain = Chain(clip, retention_until=promise(clip))
    with pytest.raises(VerificationFailed, match="is for"):
        chain.verify(chain.sign(promise(clip, LONGER), namespace=namespace))


@pytest.mark.parametrize("key", ["store", "station", "acquisition", "manifest", "receipt", "previous", "n", "more"])
def test_p01_an_extension_of_something_else_is_refused(clip, key):
    chain = Chain(clip, retention_until=promise(clip))
    other = {"n": 2, "more": 1}.get(key, "6f1e2d3c-0000-4000-8000-00000000000f")
    if key in {"manifest", "receipt", "previous"}:
        other = digest(b"another")
    with pytest.raises(VerificationFailed):
        chain.verify(resigned(clip, chain.sign(promise(clip, LONGER)), sshsig.EXTENSION, {key: other}))


def test_an_extension_counts_from_the_receipt_s_own_arrival(clip):
    chain = Chain(clip, retention_until=promise(clip))
    made = promise(clip, LONGER)
    for wrong in ({"recorded_at": clip.now}, {"recorded_from": RecordedFrom.ARRIVAL, "recorded_at": clip.now + DAY}):
        with pytest.raises(VerificationFailed, match="start of recording"):
            chain.verify(chain.sign(dataclasses.replace(made, rule=dataclasses.replace(made.rule, **wrong))))


def test_p01_a_verified_extension_cannot_be_made(clip):
    wanted = {field.name: None for field in dataclasses.fields(VerifiedExtension)}
    with pytest.raises(TypeError):
        VerifiedExtension(token=object(), **wanted)
    chain = Chain(clip, retention_until=promise(clip))
    with pytest.raises((TypeError, ValueError), match="token"):
        dataclasses.replace(chain.verify(chain.sign(promise(clip, LONGER))), n=9)


def test_p01_what_counts_is_the_least_of_the_promises_and_of_what_a_person_ends_the_newest_floor(clip):
    def kept(receipt, holding, extension=None):
        return extensions.kept_until(receipt, extension, holding) - clip.now

    def holding(terms, now=None):
        return clip.holding(retention_until=promise(clip, terms, now=now))

    start = clip.manifest().recorded_at - clip.now
    assert kept(ruled(clip), holding(LONGER)) == start + 30 * DAY
    assert kept(ruled(clip, LONGER), holding(NONE)) == start + 30 * DAY
    chain = Chain(clip, retention_until=promise(clip))
    extension = chain.verify(chain.sign(promise(clip, LONGER)))
    assert kept(ruled(clip), holding(LONGER), extension) == start + 60 * DAY
    much_later = clip.now + 400 * DAY
    assert kept(ruled(clip, EVIDENCE), holding(EVIDENCE, much_later)) == 414 * DAY
    assert kept(ruled(clip), holding(EVIDENCE, much_later)) == start + 30 * DAY
    assert kept(ruled(clip, EVIDENCE), clip.holding(retention_until=clip.now + DAY)) == DAY
    assert kept(clip.receipt(), clip.holding(retention_until=clip.now + DAY)) == DAY
