"""P01, condition by condition: each is broken alone, and that one reason alone is given."""

import dataclasses
from datetime import timedelta

import pytest

from dockd.core import releases, warrant
from dockd.core.canonical import digest
from dockd.core.confirmation import Kind
from dockd.core.findings import Question
from dockd.core.policy import MARGIN, EraseWhen, PolicyStore, StorePolicy
from dockd.core.remnants import remnant_name
from dockd.core.warrant import EraseWarrant, Ground, from_wire, issue, to_wire
from dockd.errors import WarrantRefused
from dockd.model import FoundFile, VerdictStatus

OTHER_ID = "019c16f2-0000-7000-8000-00000000000f"
OTHER_STORE = "6f1e2d3c-0000-4000-8000-00000000000f"
REPLACE = dataclasses.replace
NEARLY = MARGIN - timedelta(milliseconds=1)


def row(**changes):
    return lambda clip, case: {"acquisition": REPLACE(case["acquisition"], **changes)}


def file(**changes):
    """The file on the camera is another one than was read, both times as the second read saw it."""
    return lambda clip, case: {
        "acquisition": REPLACE(case["acquisition"], file=REPLACE(clip.file, **changes)),
        "reread": REPLACE(case["reread"], file=REPLACE(clip.file, **changes)),
    }


def given(**changes):
    return lambda clip, case: changes


def stated(**changes):
    """All is about a manifest that says something else, and the journal and the store agree with it."""
    return lambda clip, case: {
        "manifest": clip.manifest(**changes),
        "acquisition": clip.row(clip.manifest(**changes)),
        "confirmations": [clip.signed(clip.manifest(**changes))],
    }


def other_camera(clip):
    return REPLACE(clip.camera, volume_id="0000-0000")


BROKEN = {
    "not stored yet": (row(state="uploading"), "the clip is uploading, not stored"),
    "erased before": (row(state="erased"), "the clip is erased, not stored"),
    "quarantined": (row(state="quarantined"), "the clip is quarantined, not stored"),
    "contested": (row(contested=True), "its reads disagree"),
    "damaged": (
        stated(verdict=VerdictStatus.DAMAGED, reasons=("cut off",)),
        "it is damaged, and nobody released it",
    ),
    "unrecognised": (stated(verdict=VerdictStatus.UNRECOGNISED), "it is unrecognised, and nobody released it"),
    "its camera unclean": (given(unclean="its journal was not replayed"), "its camera's file system was not clean"),
    "empty": (
        lambda clip, case: (
            stated(size_bytes=0, plaintext_size_bytes=0)(clip, case)
            | {
                "acquisition": REPLACE(
                    clip.row(clip.manifest(size_bytes=0, plaintext_size_bytes=0)),
                    file=REPLACE(clip.file, size_bytes=0),
                ),
                "reread": clip.reread(file=REPLACE(clip.file, size_bytes=0)),
            }
        ),
        "it is empty, and nobody released it",
    ),
    "receipt of another clip": (
        lambda clip, case: {
            "confirmations": [
                clip.signed(receipt=clip.receipt(REPLACE(clip.manifest(), sealed_digest=digest(b"other"))))
            ]
        },
        "archive: the receipt is for another acquisition",
    ),
    "receipt of another station": (
        lambda clip, case: {"confirmations": [clip.signed(receipt=clip.receipt(clip.manifest(station=OTHER_STORE)))]},
        "archive: the receipt is for another acquisition",
    ),
    "receipt for other manifest bytes": (
        lambda clip, case: {
            "confirmations": [clip.signed(receipt=clip.receipt(clip.manifest(category_reason="other")))]
        },
        "archive: the receipt is for another acquisition",
    ),
    "holding for other manifest bytes": (
        lambda clip, case: {
            "confirmations": [clip.signed(holding=clip.holding(clip.manifest(category_reason="other")))]
        },
        "archive: the holding statement is for another acquisition",
    ),
    "journal knows another manifest": (
        row(manifest_digest=digest(b"x")),
        "the manifest is of another acquisition or camera",
    ),
    "journal knows no manifest": (row(manifest_digest=None), "the manifest is of another acquisition or camera"),
    "holding of another clip": (
        lambda clip, case: {
            "confirmations": [clip.signed(holding=clip.holding(clip.manifest(sealed_size_bytes=1301)))]
        },
        "archive: the holding statement is for another acquisition",
    ),
    "holding by another store": (
        lambda clip, case: {"confirmations": [clip.signed(holding=clip.holding(store=OTHER_STORE))]},
        "archive: receipt and holding statement are by two stores",
    ),
    "holding too old": (
        lambda clip, case: {"now": clip.now + warrant.HOLDING_FRESH + timedelta(seconds=1)},
        "archive: what it said is not of right now",
    ),
    "clock went back": (
        lambda clip, case: {"now": clip.now - timedelta(seconds=1)},
        "archive: what it said is not of right now",
    ),
    "receipt's retention too short": (
        lambda clip, case: {
            "confirmations": [clip.signed(receipt=clip.receipt(retention_until=clip.now + timedelta(days=29)))]
        },
        "archive: it keeps the clip until",
    ),
    "holding's retention too short": (
        lambda clip, case: {
            "confirmations": [clip.signed(holding=clip.holding(retention_until=clip.now + timedelta(days=29)))]
        },
        "archive: it keeps the clip until",
    ),
    "receipt's promise over": (
        lambda clip, case: {
            "confirmations": [
                clip.signed(
                    receipt=clip.receipt(
                        at=clip.now - timedelta(days=400), retention_until=clip.now - timedelta(days=35)
                    )
                )
            ]
        },
        "archive: its promise ends",
    ),
    "receipt's promise too near its end": (
        lambda clip, case: {
            "confirmations": [
                clip.signed(
                    receipt=clip.receipt(at=clip.now - timedelta(days=40), retention_until=case["now"] + NEARLY)
                )
            ]
        },
        "archive: its promise ends",
    ),
    "holding's promise too near its end": (
        lambda clip, case: {
            "confirmations": [
                clip.signed(
                    receipt=clip.receipt(at=clip.now - timedelta(days=40)),
                    holding=clip.holding(retention_until=case["now"] + NEARLY),
                )
            ]
        },
        "archive: its promise ends",
    ),
    "second read differs": (
        lambda clip, case: {"reread": clip.reread(plaintext_digest=digest(b"other"))},
        "the second read found other bytes",
    ),
    "second read in another docking": (
        lambda clip, case: {"reread": clip.reread(docking=OTHER_ID)},
        "it was not read a second time within this docking",
    ),
    "row of another docking": (row(docking=OTHER_ID), "it was not read a second time within this docking"),
    "second read of another file": (
        lambda clip, case: {"reread": clip.reread(file=REPLACE(clip.file, inode=43))},
        "the file is not the one that was read a second time",
    ),
    "size changed": (file(size_bytes=999), "the file is not the one that was sealed"),
    "time changed": (file(mtime_ns=1), "the file is not the one that was sealed"),
    "renamed": (file(path=b"B.MP4"), "the file is not the one that was sealed"),
    "several links": (file(links=2), "the file has several links"),
    "another camera": (
        lambda clip, case: {"camera_now": other_camera(clip)},
        "another camera is in the bay",
    ),
    "row of another camera": (
        lambda clip, case: {"acquisition": clip.row(camera=other_camera(clip))},
        "the manifest is of another acquisition or camera",
    ),
    "custody entry not durable": (given(custody_durable_size=7), "its custody entry is not durable"),
    "custody entry is another": (row(custody_seq=6), "its custody entry is not durable"),
    "no custody entry": (row(custody_seq=None), "its custody entry is not durable"),
}


def test_p06_a_clip_of_an_unclean_camera_may_be_released(clip, case):
    seen = releases.grounds(VerdictStatus.INTACT, 1000, "its journal was not replayed")
    released = REPLACE(case["acquisition"], released_by="uid 0", released_for=seen)
    assert issue(**(case | {"acquisition": released, "unclean": "its journal was not replayed"}))


def test_p01_a_warrant_is_issued_where_every_condition_is_met(clip, case):
    issued = issue(**case)
    assert (issued.acquisition, issued.docking, issued.epoch) == (clip.acquisition, clip.docking, 9)
    assert (issued.camera, issued.file, issued.remnant) == (clip.camera, clip.file, False)
    (said,) = case["confirmations"]
    assert issued.grounds == (
        Ground(
            store=clip.store,
            kind=Kind.RECEIPT,
            confirmation=said.receipt.payload_digest,
            presence=said.holding.payload_digest,
        ),
    )


@pytest.mark.parametrize("name", BROKEN)
def test_p01_each_broken_condition_alone_is_named_alone(clip, case, name):
    change, reason = BROKEN[name]
    with pytest.raises(WarrantRefused) as refused:
        issue(**(case | change(clip, case)))
    assert len(refused.value.reasons) == 1, refused.value.reasons
    assert refused.value.reasons[0].startswith(reason)


def test_p01_what_was_not_sealed_has_no_warrant(clip, case):
    with pytest.raises(WarrantRefused) as refused:
        issue(**(case | {"acquisition": clip.row(sealed=None)}))
    assert set(refused.value.reasons) == {
        "the second read found other bytes",
        "the file is not the one that was sealed",
    }


def test_p01_all_broken_conditions_are_named_at_once(clip, case):
    with pytest.raises(WarrantRefused) as refused:
        issue(
            **case
            | {
                "acquisition": clip.row(state="uploading", contested=True),
                "camera_now": other_camera(clip),
                "custody_durable_size": 0,
            }
        )
    assert len(refused.value.reasons) == 4


def test_p06_an_operator_can_release_a_damaged_clip(clip, case):
    damaged = stated(verdict=VerdictStatus.DAMAGED, reasons=("cut off",))(clip, case)
    damaged["acquisition"] = REPLACE(damaged["acquisition"], released_by="uid 1000", released_for=("damaged",))
    assert issue(**(case | damaged)).acquisition == clip.acquisition


@pytest.mark.parametrize(
    ("seen", "later", "reason"),
    [
        (("damaged",), {"unclean": "it is marked as in use"}, "its camera's file system was not clean"),
        (("damaged", "unclean: it is marked as in use"), {"unclean": "its journal was not replayed"}, "its camera's"),
        (("unclean: it is marked as in use", "empty"), {"unclean": "it is marked as in use"}, "it is damaged"),
        ((), {}, "it is damaged"),
    ],
)
def test_p06_a_release_covers_what_was_seen_and_nothing_else(clip, case, seen, later, reason):
    damaged = stated(verdict=VerdictStatus.DAMAGED, reasons=("cut off",))(clip, case)
    damaged["acquisition"] = REPLACE(damaged["acquisition"], released_by="uid 1000", released_for=seen)
    (said,) = refused(case, damaged | later)
    assert said.startswith(reason)


def test_p01_a_warrant_cannot_be_made_or_altered(clip, case):
    issued = issue(**case)
    fields = {field.name: getattr(issued, field.name) for field in dataclasses.fields(issued)}
    with pytest.raises(TypeError, match="issued, not made"):
        EraseWarrant(token=object(), **fields)
    with pytest.raises((TypeError, ValueError), match="token"):
        REPLACE(issued, file=clip.file)


# --- to the reader


def read(record, clip, **changes):
    wanted = {"docking": clip.docking, "epoch": 9, "camera": clip.camera}
    return from_wire(record, **(wanted | changes))


def test_p01_a_warrant_passes_to_its_reader(clip, case):
    issued = issue(**case)
    assert read(to_wire(issued), clip) == issued


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"docking": OTHER_ID}, "the warrant is of another docking"),
        ({"epoch": 10}, "the warrant is of another docking"),
        ({"epoch": 8}, "the warrant is of another docking"),
        ({"camera": None}, "the warrant is for another camera"),
    ],
)
def test_p01_a_reader_of_another_docking_refuses_it(clip, case, changes, reason):
    with pytest.raises(WarrantRefused) as refused:
        read(to_wire(issue(**case)), clip, **changes)
    assert refused.value.reasons == (reason,)


@pytest.mark.parametrize(
    "change",
    [
        {"acquisition": "x"},
        {"epoch": "9"},
        {"epoch": True},
        {"mtime_ns": "x"},
        {"plaintext": "md5:0"},
        {"path": 7},
        {"camera": {}},
        {"more": 1},
        {"confirmations": []},
        {"confirmations": [{}]},
        {"confirmations": {"store": "archive"}},
        {"confirmations": [{"store": "a", "kind": "word", "confirmation": "sha256:" + "1" * 64, "presence": "x"}]},
        {"remnant": "yes"},
    ],
)
def test_p01_what_is_no_warrant_is_refused(clip, case, change):
    with pytest.raises(WarrantRefused):
        read(to_wire(issue(**case)) | change, clip)
    for key in to_wire(issue(**case)):
        record = to_wire(issue(**case))
        del record[key]
        with pytest.raises(WarrantRefused):
            read(record, clip)


# --- the rest of an erasure that was interrupted


def remnant(clip, **changes):
    path = b"DCIM/100/" + remnant_name(clip.acquisition)
    return REPLACE(FoundFile(path=path, size_bytes=1000, mtime_ns=5, inode=42), **changes)


def interrupted(clip, case):
    return case | {"acquisition": clip.row(state="warranted", docking=OTHER_ID), "remnant": remnant(clip)}


def test_p01_the_rest_of_an_interrupted_erasure_may_go(clip, case):
    issued = issue(**interrupted(clip, case))
    assert issued.remnant
    assert issued.file == remnant(clip)
    assert read(to_wire(issued), clip) == issued
    for size_bytes in (0, 512):  # emptied; or its last block had to make room for the remnant's name
        assert issue(**(interrupted(clip, case) | {"remnant": remnant(clip, size_bytes=size_bytes)})).remnant


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"path": b"DCIM/100/A.MP4"}, "the remnant bears another name"),
        ({"path": remnant_name(OTHER_ID)}, "the remnant bears another name"),
        ({"inode": 43}, "the remnant is another file"),
        ({"links": 2}, "the remnant is another file"),
        ({"size_bytes": 500}, "the remnant has another size"),
        ({"size_bytes": 1001}, "the remnant has another size"),
    ],
)
def test_p01_what_is_no_remnant_of_that_erasure_stays(clip, case, change, reason):
    with pytest.raises(WarrantRefused) as refused:
        issue(**(interrupted(clip, case) | {"remnant": remnant(clip, **change)}))
    assert refused.value.reasons == (reason,)


def test_p01_a_clip_that_was_never_warranted_has_no_remnant(clip, case):
    with pytest.raises(WarrantRefused) as refused:
        issue(**(case | {"remnant": remnant(clip)}))
    assert refused.value.reasons == ("the clip is stored, not warranted",)


# --- several stores, some of which do not sign


def with_objects(clip, *confirmations, when=EraseWhen.ALL, **changes):
    """A policy over the store that signs, one that does not, and one that does not count."""
    cloud = REPLACE(PolicyStore(store=clip.objects_store, name="cloud", min_retention=timedelta(days=30)), **changes)
    stores = [
        PolicyStore(store=clip.store, name="archive", min_retention=timedelta(days=30)),
        cloud,
        PolicyStore(store="edge", name="edge", final=False),
    ]
    return {"policy": StorePolicy(stores, when), "confirmations": confirmations}


def test_p01_a_warrant_rests_on_all_that_confirmed(clip, case):
    issued = issue(**case | with_objects(clip, clip.signed(), clip.looked_at()))
    assert [(ground.store, ground.kind) for ground in issued.grounds] == [
        (clip.store, Kind.RECEIPT),
        (clip.objects_store, Kind.CHECKSUM),
    ]
    assert read(to_wire(issued), clip) == issued


def refused(case, change):
    with pytest.raises(WarrantRefused) as error:
        issue(**(case | change))
    return error.value.reasons


def test_p01_a_store_that_said_nothing_is_missed(clip, case):
    for said in ([clip.signed()], [clip.signed(), clip.signed()]):
        (reason,) = refused(case, with_objects(clip, *said))
        assert reason == "what has to confirm it is archive, cloud, and nothing is there of cloud"
    (reason,) = refused(case, with_objects(clip))
    assert reason.endswith("nothing is there of archive, cloud")


def test_p01_what_does_not_count_is_no_ground(clip, case):
    edge = clip.looked_at(store="edge")
    assert "its word does not count" in refused(case, with_objects(clip, edge, when=EraseWhen.ANY))[0]
    issued = issue(**case | with_objects(clip, edge, clip.signed(), when=EraseWhen.ANY))
    assert [ground.store for ground in issued.grounds] == [clip.store]
    stranger = clip.looked_at(store="stranger")
    assert "its word does not count" in refused(case, with_objects(clip, stranger, when=EraseWhen.ANY))[0]


def test_p01_a_fallback_that_is_final_stands_for_its_primary_and_no_more(clip, case):
    change = with_objects(clip, clip.looked_at(), fallback_for=clip.store)
    assert issue(**case | change).grounds[0].store == clip.objects_store
    change = with_objects(clip, clip.looked_at(), fallback_for=clip.store, final=False)
    assert "its word does not count" in refused(case, change)[0]


OBJECTS_BROKEN = {
    "of another clip": (
        lambda clip: clip.looked_at(clip.manifest(sealed_size_bytes=1301)),
        "cloud: the objects are of another acquisition",
    ),
    "of other manifest bytes": (
        lambda clip: clip.looked_at(clip.manifest(category_reason="other")),
        "cloud: the objects are of another acquisition",
    ),
    "of another station": (
        lambda clip: clip.looked_at(clip.manifest(station=OTHER_STORE)),
        "cloud: the objects are of another acquisition",
    ),
    "seen too long ago": (
        lambda clip: clip.looked_at(asked_at=clip.now - warrant.HOLDING_FRESH),
        "cloud: what it said is not of right now",
    ),
    "seen in the future": (
        lambda clip: clip.looked_at(asked_at=clip.now + timedelta(hours=1)),
        "cloud: what it said is not of right now",
    ),
    "kept too short": (
        lambda clip: clip.looked_at(
            objects=clip.objects(states=clip.states(retention_until=clip.now + timedelta(days=29)))
        ),
        "cloud: it keeps the clip until",
    ),
    "not promised to be kept": (
        lambda clip: clip.looked_at(objects=clip.objects(states=clip.states(retention_until=None))),
        "cloud: it does not promise to keep the clip",
    ),
    "promised only now": (
        lambda clip: clip.looked_at(
            objects=clip.objects(states=clip.states(retention_until=None)), states=clip.states()
        ),
        "cloud: it does not promise to keep the clip",
    ),
    "locked until a year ago": (
        lambda clip: clip.looked_at(
            objects=clip.objects(
                at=clip.now - timedelta(days=500), states=clip.states(retention_until=clip.now - timedelta(days=365))
            )
        ),
        "cloud: its promise ends",
    ),
    "locked for hardly longer": (
        lambda clip: clip.looked_at(
            objects=clip.objects(
                at=clip.now - timedelta(days=500), states=clip.states(retention_until=clip.now + NEARLY)
            )
        ),
        "cloud: its promise ends",
    ),
    "seen of something else": (
        lambda clip: REPLACE(clip.looked_at(), objects=clip.objects(at=clip.now - timedelta(days=1))),
        "cloud: what was seen right now is of other objects",
    ),
    "seen at another store": (
        lambda clip: REPLACE(clip.looked_at(), presence=clip.looked_at(store="edge").presence),
        "cloud: what was seen right now is of other objects",
    ),
    **{
        f"found of it: {word}": (
            lambda clip, missing=missing, no=no: REPLACE(clip.looked_at(), findings=clip.proven(*missing, no=no)),
            f"cloud: {word}",
        )
        for missing, no, word in (
            ((), (Question.READ_BACK,), "it gave nothing back"),
            ((), (Question.LOCKED,), "no lock was seen to hold"),
            ((Question.LOCKED,), (), "its lock was not tried yet"),
            ((), (Question.CHECKSUM_BACK,), "its bytes were not read back right now"),
            ((Question.WRONG_CHECKSUM,), (), "its bytes were not read back right now"),
        )
    },
}


@pytest.mark.parametrize("name", OBJECTS_BROKEN)
def test_p01_each_broken_condition_of_objects_alone_is_named_alone(clip, case, name):
    make, reason = OBJECTS_BROKEN[name]
    (said,) = refused(case, with_objects(clip, clip.signed(), make(clip)))
    assert said.startswith(reason)
    # Where one of the two is enough, the other one is.
    issued = issue(**case | with_objects(clip, make(clip), clip.signed(), when=EraseWhen.ANY))
    assert [ground.store for ground in issued.grounds] == [clip.store]


def test_p01_no_policy_outweighs_what_speaks_against_the_clip_itself(clip, case):
    change = with_objects(clip, clip.signed(), clip.looked_at(), when=EraseWhen.ANY)
    change["acquisition"] = REPLACE(case["acquisition"], contested=True)
    assert refused(case, change) == ("its reads disagree",)


def test_p01_a_store_that_need_not_promise_anything_may_confirm(clip, case):
    said = clip.looked_at(objects=clip.objects(states=clip.states(retention_until=None)))
    assert issue(**case | with_objects(clip, clip.signed(), said, min_retention=timedelta(0)))
