"""A store that does not sign: all three objects are compared, at the end of the upload and right before erasing."""

import dataclasses
from datetime import timedelta

import pytest

from dockd.core import canonical
from dockd.core.confirmation import (
    Kind,
    OwnSums,
    VerifiedObjects,
    VerifiedPresence,
    parse_objects,
    to_read_back,
    verify_objects,
)
from dockd.core.findings import Question
from dockd.core.objects import Algorithm, Checksum, Piece
from dockd.core.proof import Needs, least_shown
from dockd.errors import VerificationFailed

REPLACE = dataclasses.replace
OTHER = Checksum(algorithm=Algorithm.SHA256, digest=b"\x01" * 32)
PARTS = Checksum(algorithm=Algorithm.SHA256_OF_PARTS, digest=b"\x0b" * 32, part_bytes=512)
OTHER_STATION = "6f1e2d3c-0000-4000-8000-00000000000f"


def refused(call, *words):
    with pytest.raises(VerificationFailed) as error:
        call()
    assert all(word in str(error.value) for word in words), error.value


@pytest.mark.parametrize("piece", Piece)
@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda state: REPLACE(state, size_bytes=state.size_bytes - 1), "bytes of"),
        (lambda state: REPLACE(state, size_bytes=state.size_bytes + 1), "bytes of"),
        (lambda state: REPLACE(state, checksum=OTHER), "another checksum"),
        (lambda state: REPLACE(state, checksum=PARTS), "another checksum"),
        (lambda state: REPLACE(state, checksum=None), "was not read back"),
    ],
)
def test_p01_each_of_the_three_objects_has_to_be_whole(clip, piece, change, word):
    states = clip.states()
    states[piece] = change(states[piece])
    refused(lambda: clip.objects(states=states), word, piece.value)


@pytest.mark.parametrize("piece", Piece)
def test_p01_an_object_that_is_not_there_confirms_nothing(clip, piece):
    states = clip.states()
    del states[piece]
    refused(lambda: clip.objects(states=states), "said nothing", piece.value)


def test_p01_the_stores_checksums_confirm(clip):
    made = clip.objects()
    assert made.kind is Kind.CHECKSUM
    assert made.kept_until == clip.now + timedelta(days=365)
    assert to_read_back(clip.states()) == ()
    assert made.payload_digest == canonical.digest(made.payload)


@pytest.mark.parametrize(
    ("theirs", "mine", "good"),
    [(512, 512, True), (512, 1024, False), (0, 0, False), (512, 0, False)],
)
def test_p01_a_checksum_of_parts_is_of_these_parts(clip, theirs, mine, good):
    states = clip.states(of=(Piece.SEALED,), checksum=REPLACE(PARTS, part_bytes=theirs))
    if good:
        assert clip.objects(states=states, part_bytes=mine).kind is Kind.CHECKSUM
    else:
        refused(lambda: clip.objects(states=states, part_bytes=mine), "another checksum")


def test_p01_what_was_read_back_confirms_where_it_is_the_same(clip):
    states = clip.states(of=(Piece.SEALED,), checksum=None)
    assert to_read_back(states) == (Piece.SEALED,)
    back = {Piece.SEALED: clip.own()[Piece.SEALED]}
    assert clip.objects(states=states, read_back=back).kind is Kind.READ_BACK
    for wrong in (REPLACE(back[Piece.SEALED], size_bytes=7), REPLACE(back[Piece.SEALED], digest=canonical.digest(b""))):
        refused(lambda wrong=wrong: clip.objects(states=states, read_back={Piece.SEALED: wrong}), "gave back other")
    other = {Piece.MANIFEST: clip.own()[Piece.MANIFEST]}
    refused(lambda: clip.objects(states=states, read_back=other), "was not read back")


def test_p01_what_was_read_back_does_not_outweigh_a_wrong_checksum(clip):
    states = clip.states(of=(Piece.SEALED,), checksum=OTHER)
    back = {Piece.SEALED: clip.own()[Piece.SEALED]}
    refused(lambda: clip.objects(states=states, read_back=back), "another checksum")


def test_p01_the_stations_own_bytes_have_to_be_what_was_sealed(clip):
    for piece in Piece:
        own = clip.own()
        own[piece] = OwnSums(size_bytes=own[piece].size_bytes, digest=canonical.digest(b"rotten"))
        refused(lambda own=own: verify(clip, own=own), "not what was sealed", piece.value)
        del own[piece]
        refused(lambda own=own: verify(clip, own=own), "not what was sealed", piece.value)
    refused(lambda: verify(clip, station=OTHER_STATION), "another station")


def verify(clip, **changes):
    given = {
        "own": clip.own(),
        "read_back": {},
        "store": clip.objects_store,
        "station": clip.station,
        "manifest": clip.sign_manifest(),
        "at": clip.now,
    }
    return verify_objects(clip.states(), **(given | changes))


def test_p01_the_least_of_three_retentions_counts(clip):
    soon = clip.now + timedelta(days=3)
    assert clip.objects(states=clip.states(of=(Piece.SIGNATURE,), retention_until=soon)).kept_until == soon
    assert clip.objects(states=clip.states(of=(Piece.MANIFEST,), retention_until=None)).kept_until is None


def test_p01_verified_objects_are_made_by_their_verifier_alone(clip):
    made = clip.objects()
    for one, kind in ((made, VerifiedObjects), (clip.seen(made), VerifiedPresence)):
        fields = {field.name: getattr(one, field.name) for field in dataclasses.fields(one)}
        with pytest.raises(TypeError, match="verifier alone"):
            kind(token=object(), **fields)
        with pytest.raises((TypeError, ValueError), match="token"):
            REPLACE(one, store="x")


# --- in the journal


def test_a_confirmation_is_kept_and_read_again(clip):
    for made in (
        clip.objects(),
        clip.objects(states=clip.states(of=(Piece.SEALED,), checksum=PARTS), part_bytes=512),
        clip.objects(
            states=clip.states(of=(Piece.SEALED,), checksum=None, retention_until=None, legal_hold=True, version=""),
            read_back={Piece.SEALED: clip.own()[Piece.SEALED]},
        ),
    ):
        again = parsed(clip, made.payload)
        assert again.payload == made.payload
        assert (again.kind, again.objects, again.payload_digest) == (made.kind, made.objects, made.payload_digest)


def parsed(clip, payload, **changes):
    given = {"store": clip.objects_store, "station": clip.station, "manifest": clip.sign_manifest()}
    return parse_objects(payload, **(given | changes))


def test_p01_a_kept_confirmation_is_believed_for_its_own_clip_alone(clip):
    payload = clip.objects().payload
    for change in (
        {"store": "other"},
        {"station": OTHER_STATION},
        {"manifest": clip.sign_manifest(clip.manifest(category_reason="other"))},
        {"manifest": clip.sign_manifest(clip.manifest(sealed_size_bytes=1301))},
    ):
        with pytest.raises(VerificationFailed):
            parsed(clip, payload, **change)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"size_bytes":1300', b'"size_bytes":1301'),
        (b'"checksum":{"algorithm":"sha256"', b'"checksum":{"algorithm":"sha1"'),
        (b'"read_back":false', b'"read_back":"no"'),
        (b'"v":1', b'"v":2'),
        (b'"at":', b'"more":1,"at":'),
        (b'{"acquisition"', b'{ "acquisition"'),
        (b'"version":"version of sealed"', b'"version":7'),
        (b"sha256:", b"sha256:0"),
    ],
)
def test_p01_a_confirmation_that_was_changed_in_the_journal_is_none(clip, old, new):
    payload = clip.objects().payload
    assert old in payload
    with pytest.raises(VerificationFailed):
        parsed(clip, payload.replace(old, new))


def test_p01_a_kept_confirmation_that_rests_on_nothing_is_none(clip):
    states = clip.states(of=(Piece.SEALED,), checksum=None)
    made = clip.objects(states=states, read_back={Piece.SEALED: clip.own()[Piece.SEALED]})
    refused(lambda: parsed(clip, made.payload.replace(b'"read_back":true', b'"read_back":false')), "rests on nothing")
    own = clip.own()[Piece.SEALED].digest.removeprefix("sha256:").encode()
    whole = clip.objects().payload
    refused(lambda: parsed(clip, whole.replace(b'"' + own + b'"', b'"' + b"00" * 32 + b'"')), "contradicts itself")


# --- right before erasing


def test_p01_what_is_still_there_is_stated_anew(clip):
    made = clip.objects()
    longer = clip.states(retention_until=clip.now + timedelta(days=900))
    found = clip.seen(made, longer)
    assert found.confirmation == made.payload_digest
    assert found.kept_until == clip.now + timedelta(days=900)
    assert clip.seen(made).payload_digest != found.payload_digest


@pytest.mark.parametrize("piece", Piece)
@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"size_bytes": 7}, "length"),
        ({"version": "2"}, "version"),
        ({"version": ""}, "version"),
        ({"checksum": OTHER}, "checksum"),
        ({"checksum": None}, "checksum"),
        ({"retention_until": None}, "shorter"),
    ],
)
def test_p01_an_object_that_changed_is_not_there_any_more(clip, piece, change, word):
    made = clip.objects()
    refused(lambda: clip.seen(made, clip.states(of=(piece,), **change)), word, piece.value)


def test_p01_a_retention_that_was_shortened_is_noticed(clip):
    made = clip.objects()
    shorter = clip.states(of=(Piece.SEALED,), retention_until=clip.now + timedelta(days=364))
    refused(lambda: clip.seen(made, shorter), "shorter")
    states = clip.states()
    del states[Piece.SIGNATURE]
    refused(lambda: clip.seen(made, states), "nothing of the signature")


UNPROVEN = (Question.WRONG_CHECKSUM, Question.CHECKSUM_BACK)


@pytest.mark.parametrize("piece", Piece)
@pytest.mark.parametrize("version", ["", "an ETag", "a version"])
def test_p01_no_version_stands_for_the_bytes(clip, piece, version):
    states = clip.states(of=(piece,), checksum=None, version=version)
    made = clip.objects(states=states, read_back={piece: clip.own()[piece]})
    whole = {one: made.objects[one].state.size_bytes for one in Piece}
    for shown in ({**whole, piece: 0}, {**whole, piece: whole[piece] - 1}):
        refused(lambda shown=shown: clip.seen(made, shown=shown), "nothing but its bytes", piece.value)
    assert clip.seen(made, shown=whole).needs is Needs.CHECKSUM  # of the two others


@pytest.mark.parametrize("lacking", [UNPROVEN, UNPROVEN[:1], UNPROVEN[1:]])
def test_p01_a_confirmation_by_a_checksum_that_is_believed_no_more_is_judged_by_its_bytes(clip, lacking):
    """Also one that an earlier dockd kept in its journal."""
    made = parsed(clip, clip.objects().payload)
    unstated = clip.states(checksum=None)
    whole = {piece: one.state.size_bytes for piece, one in made.objects.items()}
    for findings in (clip.proven(*lacking), clip.proven(no=lacking)):
        found = clip.seen(made, unstated, findings, whole)
        assert (found.confirmation, found.needs) == (made.payload_digest, Needs.BYTES)
        for piece in Piece:
            less = {**whole, piece: whole[piece] - 1}
            refused(lambda less=less, findings=findings: clip.seen(made, unstated, findings, less), "but its bytes")


def test_p01_a_believed_checksum_does_not_do_without_a_sample(clip):
    for piece in Piece:
        made = clip.objects()
        whole = {one: made.objects[one].state.size_bytes for one in Piece}
        refused(lambda made=made, whole=whole, one=piece: clip.seen(made, shown={**whole, one: 0}), "but its bytes")


def test_p01_what_was_read_back_at_first_is_judged_by_its_bytes_although_a_checksum_is_believed_by_now(clip):
    stated = clip.manifest(sealed_size_bytes=3 << 20)
    own = clip.own(stated)
    unstated = clip.states(stated, of=(Piece.SEALED,), checksum=None)
    made = clip.objects(stated, states=unstated, read_back={Piece.SEALED: own[Piece.SEALED]})
    whole = {piece: one.size_bytes for piece, one in own.items()}
    sample = {**whole, Piece.SEALED: least_shown(3 << 20, Needs.CHECKSUM)}
    refused(lambda: clip.seen(made, clip.states(stated), shown=sample), "nothing but its bytes")
    assert clip.seen(made, clip.states(stated), shown=whole).needs is Needs.CHECKSUM
    assert clip.seen(clip.objects(stated), shown=sample).needs is Needs.CHECKSUM
