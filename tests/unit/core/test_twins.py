"""P01 where a store has another station's object in the place of this one's: whose word counts for what."""

import dataclasses
from datetime import timedelta

import pytest

from dockd.core import canonical, receipts, sshsig
from dockd.core.challenge import range_digest
from dockd.core.manifest import encode
from dockd.core.policy import PolicyStore, StorePolicy
from dockd.core.sshsig import SigningKey
from dockd.core.twins import VerifiedTwin, differences, shared_of, verify_twin
from dockd.core.warrant import SignedConfirmation, issue
from dockd.errors import VerificationFailed, WarrantRefused
from dockd.model import SignedBytes

OTHER, THIRD = "6f1e2d3c-0000-4000-8000-000000000011", "6f1e2d3c-0000-4000-8000-000000000012"
THEIRS = "019c16f2-0000-7000-8000-000000000013"
OTHER_KEY, THIRD_KEY = SigningKey.generate(), SigningKey.generate()
TRUSTED = {OTHER: OTHER_KEY.public}
REPLACE = dataclasses.replace

# What may not differ, each with what it is changed to and how it is told.
DIFFERENCES = {
    "station": (lambda stated: {"station": stated.station}, "this station's own"),
    "camera serial": (lambda stated: {"camera": REPLACE(stated.camera, serial="X")}, "another camera"),
    "camera model": (lambda stated: {"camera": REPLACE(stated.camera, model="X")}, "another camera"),
    "camera vendor": (lambda stated: {"camera": REPLACE(stated.camera, vendor="X")}, "another camera"),
    "camera product": (lambda stated: {"camera": REPLACE(stated.camera, product="X")}, "another camera"),
    "camera volume": (lambda stated: {"camera": REPLACE(stated.camera, volume_id="X")}, "another camera"),
    "plaintext digest": (lambda _: {"plaintext_digest": canonical.digest(b"x")}, "another plaintext"),
    "plaintext length": (lambda _: {"plaintext_size_bytes": 999}, "another plaintext"),
    "recipients": (lambda stated: {"recipients": stated.recipients[:1]}, "other recipients"),
    "more recipients": (
        lambda stated: {"recipients": (*stated.recipients, "sha256:" + "3" * 64)},
        "other recipients",
    ),
    "role": (lambda _: {"role": "sidecar"}, "another role"),
}


def theirs(clip, **changes):
    """The other station's manifest of the same clip."""
    stated = {
        "station": OTHER,
        "acquisition": THEIRS,
        "docking": "019c16f2-0000-7000-8000-000000000014",
        "bay": 9,
        "path": b"elsewhere.mp4",
        "sealed_digest": canonical.digest(b"sealed there"),
        "sealed_size_bytes": 1301,
        "nonce": b"\x09" * 32,
    }
    return clip.manifest(**(stated | changes))


def said_by(stated, key=OTHER_KEY):
    payload = encode(stated)
    return SignedBytes(payload=payload, signature=sshsig.sign(key, sshsig.MANIFEST, payload))


def twin_of(clip, trusted=TRUSTED, own=None, **changes):
    return verify_twin(said_by(theirs(clip, **changes)), trusted=trusted, own=own or clip.manifest())


# --- the manifest


def test_a_manifest_of_the_same_clip_by_a_trusted_station_is_believed(clip):
    twin = twin_of(clip)
    assert (twin.own, twin.other) == (clip.manifest(), theirs(clip))
    assert twin.shared == shared_of(theirs(clip), encode(theirs(clip)))
    turned = theirs(clip, recipients=tuple(reversed(clip.manifest().recipients)))
    assert not differences(clip.manifest(), turned)


@pytest.mark.parametrize("name", DIFFERENCES)
def test_p01_what_differs_is_no_twin(clip, name):
    change, reason = DIFFERENCES[name]
    changes = change(clip.manifest())
    (said,) = differences(clip.manifest(), theirs(clip, **changes))
    assert reason in said
    trusted = TRUSTED | {clip.station: OTHER_KEY.public}
    with pytest.raises(VerificationFailed, match=reason):
        twin_of(clip, trusted, **changes)


@pytest.mark.parametrize(
    ("trusted", "key", "reason"),
    [
        ({}, OTHER_KEY, "not signed by a station of trust_stations"),
        ({THIRD: THIRD_KEY.public}, OTHER_KEY, "not signed by a station of trust_stations"),
        (TRUSTED, THIRD_KEY, "not signed by a station of trust_stations"),
        (TRUSTED | {THIRD: THIRD_KEY.public}, THIRD_KEY, "another station than it names"),
    ],
    ids=["nobody is trusted", "another is trusted", "forged", "one speaks for another"],
)
def test_p01_a_manifest_by_nobody_who_is_trusted_is_not_believed(clip, trusted, key, reason):
    with pytest.raises(VerificationFailed, match=reason):
        verify_twin(said_by(theirs(clip), key), trusted=trusted, own=clip.manifest())


def test_p01_only_the_manifests_own_bytes_are_believed(clip):
    signed = said_by(theirs(clip))
    for wrong in (
        REPLACE(signed, payload=encode(theirs(clip, bay=8))),
        REPLACE(signed, signature=sshsig.sign(OTHER_KEY, sshsig.RECEIPT, signed.payload)),
        REPLACE(signed, signature="no signature"),
    ):
        with pytest.raises(VerificationFailed):
            verify_twin(wrong, trusted=TRUSTED, own=clip.manifest())


def test_p01_a_twin_is_made_by_its_verifier_alone(clip):
    twin = twin_of(clip)
    with pytest.raises(TypeError, match="verifier"):
        VerifiedTwin(token=object(), own=twin.own, other=twin.other, shared=twin.shared)
    with pytest.raises((TypeError, ValueError), match="token"):
        REPLACE(twin, other=clip.manifest())


# --- the store's word


def receipt(clip, stated=None, **changes):
    other = theirs(clip, **changes)
    return clip.receipt(stated, other=(encode(other), range_digest((stated or clip.manifest()).nonce, b"sealed there")))


def holding(clip, stated=None, **changes):
    return clip.holding(stated, other=encode(theirs(clip, **changes)))


def confirmed(clip, **changes):
    made = {"receipt": receipt(clip), "holding": holding(clip), "asked_at": clip.now, "twin": twin_of(clip)}
    return SignedConfirmation(**(made | changes))


def test_a_receipt_of_the_second_version_says_whose_object_it_is(clip):
    made = receipt(clip)
    assert made.shared == shared_of(theirs(clip), encode(theirs(clip)))
    assert (made.sealed_digest, made.sealed_size_bytes) == (canonical.digest(b"sealed there"), 1301)
    assert made.shown == range_digest(clip.manifest().nonce, b"sealed there")
    assert made.manifest_digest == canonical.digest(encode(clip.manifest()))
    assert clip.receipt().shared is clip.receipt().shown is None


@pytest.mark.parametrize(
    "change",
    [
        {"v": 1},
        {"v": 3},
        {"shares": None},
        {"shares": {}},
        {"manifest": canonical.digest(b"x")},
        {"acquisition": THEIRS},
        {"station": OTHER},
        {"nonce": "00" * 32},
    ],
)
def test_p01_what_is_not_this_stations_receipt_is_refused(clip, change):
    content = encode(clip.manifest())
    signed = clip.sign_receipt(content, other=(encode(theirs(clip)), b"\x01" * 32))
    record = canonical.decode(signed.payload, type_="receipt", newest=2) | change
    payload = canonical.encode(record)
    known = {"store_key": clip.store_key.public, "store": clip.store, "station": clip.station, "manifest": content}
    assert receipts.verify_receipt(signed, **known).shared
    assert receipts.stated_witness(signed.payload).size == 5  # what a verifier of logs reads
    with pytest.raises(VerificationFailed):
        receipts.verify_receipt(
            SignedBytes(payload=payload, signature=sshsig.sign(clip.store_key, sshsig.RECEIPT, payload)), **known
        )


def test_p01_without_its_shares_a_receipt_is_for_the_clips_own_object_alone(clip):
    """Version 1 with the other's digest: as a store that cheats would write it."""
    stated = REPLACE(clip.manifest(), sealed_digest=canonical.digest(b"sealed there"), sealed_size_bytes=1301)
    signed = clip.sign_receipt(encode(stated))
    record = canonical.decode(signed.payload, type_="receipt") | {"manifest": canonical.digest(encode(clip.manifest()))}
    payload = canonical.encode(record)
    with pytest.raises(VerificationFailed, match="sealed_digest"):
        receipts.verify_receipt(
            SignedBytes(payload=payload, signature=sshsig.sign(clip.store_key, sshsig.RECEIPT, payload)),
            store_key=clip.store_key.public,
            store=clip.store,
            station=clip.station,
            manifest=encode(clip.manifest()),
        )


# --- the warrant


@pytest.fixture
def shared(clip, case):
    """The arguments of a warrant that rests on the other's object."""
    listed = PolicyStore(
        store=clip.store, name="archive", min_retention=timedelta(days=30), trust_stations=frozenset({OTHER})
    )
    return case | {"policy": StorePolicy([listed]), "confirmations": [confirmed(clip)]}


def refused(case, **changes):
    with pytest.raises(WarrantRefused) as error:
        issue(**(case | changes))
    return error.value.reasons


def test_p01_a_warrant_may_rest_on_the_object_of_a_trusted_station(clip, shared):
    (ground,) = issue(**shared).grounds
    assert ground.confirmation == receipt(clip).payload_digest


def test_p01_it_may_where_the_clip_itself_was_sent_later(clip, shared):
    """The receipt stands, and what the store says right now is about the clip's own object."""
    assert issue(**(shared | {"confirmations": [confirmed(clip, holding=clip.holding())]}))


def test_p01_a_station_that_is_not_listed_for_that_store_is_no_ground(clip, shared, case):
    unlisted = PolicyStore(store=clip.store, name="archive", trust_stations=frozenset({THIRD}))
    for policy in (case["policy"], StorePolicy([unlisted])):
        (reason,) = refused(shared, policy=policy)
        assert f"station {OTHER}, which is not one of its trust_stations" in reason


def test_p01_without_the_other_manifest_there_is_no_ground(clip, shared):
    said = " ".join(refused(shared, confirmations=[confirmed(clip, twin=None)]))
    assert "was not verified" in said
    assert "the receipt is for another acquisition" in said
    assert "the holding statement is for another acquisition" in said


TWISTED = {
    "receipt for another object of that station": (
        lambda clip: {"receipt": receipt(clip, sealed_digest=canonical.digest(b"x"))},
        "archive: the receipt is for another acquisition",
    ),
    "receipt for another length": (
        lambda clip: {"receipt": receipt(clip, sealed_size_bytes=1302)},
        "archive: the receipt is for another acquisition",
    ),
    "receipt of another acquisition of this station": (
        lambda clip: {"receipt": receipt(clip, clip.manifest(acquisition=THEIRS))},
        "archive: the receipt is for another acquisition",
    ),
    "receipt for another manifest of this station": (
        lambda clip: {"receipt": receipt(clip, clip.manifest(bay=4))},
        "archive: the receipt is for another acquisition",
    ),
    "holding of another object of that station": (
        lambda clip: {"holding": holding(clip, sealed_digest=canonical.digest(b"x"))},
        "archive: the holding statement is for another acquisition",
    ),
    "holding for another manifest of this station": (
        lambda clip: {"holding": holding(clip, clip.manifest(bay=4))},
        "archive: the holding statement is for another acquisition",
    ),
    "compared with another clip of this station": (
        lambda clip: {"twin": twin_of(clip, own=clip.manifest(bay=4))},
        "archive: the other station's object was compared with another clip",
    ),
}


@pytest.mark.parametrize("name", TWISTED)
def test_p01_each_thing_that_does_not_fit_alone_is_named_alone(clip, shared, name):
    change, reason = TWISTED[name]
    assert refused(shared, confirmations=[confirmed(clip, **change(clip))]) == (reason,)


@pytest.mark.parametrize("name", sorted(set(DIFFERENCES) - {"station"}))
def test_p01_a_twin_of_another_clip_is_refused_by_the_warrant_too(clip, shared, name):
    """As if it had been verified against something else than it was said to be."""
    changes = DIFFERENCES[name][0](clip.manifest())
    own = REPLACE(clip.manifest(), **{key: value for key, value in changes.items() if key != "acquisition"})
    twisted = twin_of(clip, own=own, **changes)
    said = {
        "twin": twisted,
        "receipt": receipt(clip, **changes),
        "holding": holding(clip, **changes),
    }
    reasons = refused(shared, confirmations=[confirmed(clip, **said)])
    assert any(DIFFERENCES[name][1] in reason for reason in reasons)


def test_p01_what_the_second_read_found_has_to_be_what_the_other_states(clip, shared):
    reread = REPLACE(shared["reread"], plaintext_digest=canonical.digest(b"x"))
    assert refused(shared, reread=reread) == ("the second read found other bytes",)


def test_the_policy_in_the_log_names_who_is_trusted(clip, shared):
    (store,) = shared["policy"].described()["stores"]
    assert store["trust_stations"] == [OTHER]
    (store,) = StorePolicy([PolicyStore(store=clip.store, name="archive")]).described()["stores"]
    assert "trust_stations" not in store
