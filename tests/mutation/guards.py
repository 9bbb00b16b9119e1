"""The guards of P01, each taken out in turn: without any one of them, some test has to fail.

`of` names the ten guards that the promise rests on; the rest stand around them.
"""

from __future__ import annotations

import sys

from mutate import Mutation, main

RECEIPTS, WARRANT = "dockd/core/receipts.py", "dockd/core/warrant.py"
BY_RECEIPT, BY_WARRANT = ("tests/unit/core/test_receipts.py",), ("tests/unit/core/test_warrant.py",)
LIES = "tests/fault/test_lies.py"
BY_VOLUMES = ("tests/fault/station/test_volumes.py",)
QUERIES, ERASING = "dockd/keep/queries.py", "dockd/station/erasing.py"
BY_FAMILY, BY_FAMILIES = ("tests/unit/keep/test_families.py",), ("tests/fault/station/test_families.py",)
DIGEST = '        "sealed_digest": stated.sealed_digest,\n'
LENGTH = '        "sealed_size_bytes": stated.sealed_size_bytes,\n'
PURE = (*BY_RECEIPT, *BY_WARRANT)

GUARDS = (
    Mutation(
        name="receipt signature",
        file=RECEIPTS,
        text="    verify(store_key, RECEIPT, signed.payload, signed.signature)\n",
        instead="",
        tests=BY_RECEIPT,
        of="receipt signature",
    ),
    Mutation(
        name="holding signature",
        file=RECEIPTS,
        text="    verify(store_key, HOLDING, signed.payload, signed.signature)\n",
        instead="",
        tests=BY_RECEIPT,
        of="holding statement",
    ),
    Mutation(
        name="receipt nonce",
        file=RECEIPTS,
        text="    if receipt.nonce != manifests.decode(manifest).nonce:",
        instead="    if False:",
        tests=BY_RECEIPT,
        of="nonce",
    ),
    Mutation(
        name="holding nonce",
        file=RECEIPTS,
        text="    if holding.nonce != nonce:",
        instead="    if False:",
        tests=BY_RECEIPT,
        of="nonce",
    ),
    Mutation(
        name="manifest digest",
        file=RECEIPTS,
        text='        "manifest_digest": canonical.digest(manifest_bytes),\n',
        instead="",
        tests=PURE,
        of="digest",
    ),
    Mutation(
        name="sealed digest",
        file=RECEIPTS,
        text=f"{DIGEST}{LENGTH}    }}\n",
        instead=f"{LENGTH}    }}\n",
        tests=PURE,
        of="digest",
    ),
    Mutation(
        name="sealed length",
        file=RECEIPTS,
        text=f"{DIGEST}{LENGTH}    }}\n",
        instead=f"{DIGEST}    }}\n",
        tests=PURE,
        of="length",
    ),
    Mutation(
        name="receipt sequence",
        file=RECEIPTS,
        text="    if receipt.receipt_seq != wanted_seq or receipt.previous != wanted:",
        instead="    if False:",
        tests=BY_RECEIPT,
        of="receipt sequence",
    ),
    Mutation(
        name="receipt chain digest",
        file=RECEIPTS,
        text="    if receipt.receipt_seq != wanted_seq or receipt.previous != wanted:",
        instead="    if receipt.receipt_seq != wanted_seq:",
        tests=BY_RECEIPT,
        of="receipt sequence",
    ),
    Mutation(
        name="receipt sequence, when kept",
        file="dockd/stages/confirm.py",
        text="            receipts.check_succession(previous, receipt)\n",
        instead="            pass\n",
        tests=("tests/fault/test_uplink.py::test_p01_a_rolled_back_store_confirms_nothing_more",),
        of="receipt sequence",
    ),
    Mutation(
        name="retention",
        file=WARRANT,
        text="kept_until - receipt.at < min_retention",
        instead="False",
        tests=BY_WARRANT,
        of="retention",
    ),
    Mutation(
        name="retention before stored",
        file="dockd/stages/confirm.py",
        text="        enough = promised >= self.min_retention\n",
        instead="        enough = True\n",
        tests=("tests/fault/test_uplink.py::test_p01_too_short_a_retention_is_no_confirmation",),
        of="retention",
    ),
    Mutation(
        name="the bytes that a store shows",
        file="dockd/stages/challenge.py",
        text='    if hmac.compare_digest(b"".join(answered), b"".join(expected)) and len(answered) == len(expected):\n',
        instead="    if True:\n",
        tests=(f"{LIES}::test_p01_a_store_that_signs_for_bytes_it_has_dropped_is_not_believed",),
    ),
    Mutation(
        name="a checkpoint that the store forgot",
        file="dockd/stages/witness.py",
        text="    if by == store.store and old_size < known:\n",
        instead="    if False:\n",
        tests=(f"{LIES}::test_p01_a_roll_back_is_noticed_at_the_next_checkpoint",),
    ),
    Mutation(
        name="receipt for this acquisition",
        file=WARRANT,
        text="_subject(receipt) != for_this",
        instead="False",
        tests=BY_WARRANT,
    ),
    Mutation(
        name="holding for this acquisition",
        file=WARRANT,
        text="_subject(holding) != for_this",
        instead="False",
        tests=BY_WARRANT,
        of="holding statement",
    ),
    Mutation(
        name="holding of right now",
        file=WARRANT,
        text="not timedelta(0) <= now - asked_at <= HOLDING_FRESH",
        instead="False",
        tests=BY_WARRANT,
        of="holding statement",
    ),
    Mutation(
        name="camera identity",
        file=WARRANT,
        text="camera_now != manifest.camera",
        instead="False",
        tests=BY_WARRANT,
        of="camera identity",
    ),
    Mutation(
        name="the camera that is there when erased",
        file="dockd/reader/erase.py",
        text="        if camera.identify() != warrant.camera:",
        instead="        if False:",
        tests=("tests/fault/reader/test_erase.py::test_p08_another_camera_in_its_place_is_not_erased",),
        of="camera identity",
    ),
    Mutation(
        name="reread digest",
        file=WARRANT,
        text="len(digests) != 1",
        instead="False",
        tests=BY_WARRANT,
        of="reread",
    ),
    Mutation(
        name="reread within this docking",
        file=WARRANT,
        text="reread.docking != docking or row.docking != docking",
        instead="False",
        tests=BY_WARRANT,
        of="reread",
    ),
    Mutation(
        name="reread of this file",
        file=WARRANT,
        text="reread.file != row.file",
        instead="False",
        tests=BY_WARRANT,
        of="reread",
    ),
    Mutation(
        name="durable custody entry",
        file=WARRANT,
        text="manifest.custody_seq >= custody_durable_size\n",
        instead="False\n",
        tests=BY_WARRANT,
        of="durable custody entry",
    ),
    Mutation(
        name="the sync of the custody log",
        file="dockd/keep/custody_file.py",
        text="        self._faults.act(Point.MIRROR_SYNC, os.fsync, self._fd)\n",
        instead="",
        tests=("tests/fault/keep/test_journal_faults.py",),
        of="durable custody entry",
    ),
    Mutation(
        name="the warrant's own custody entry",
        file=ERASING,
        text="            await commit(stay, permits)\n",
        instead="            pass\n",
        tests=("tests/fault/station/test_station.py::test_a_camera_is_read_stored_erased_and_ready",),
        of="durable custody entry",
    ),
    Mutation(
        name="custody entry of this row",
        file=WARRANT,
        text="row.custody_seq != manifest.custody_seq",
        instead="False",
        tests=BY_WARRANT,
        of="durable custody entry",
    ),
    Mutation(
        name="an operator's release",
        file=WARRANT,
        text="is not VerdictStatus.INTACT\n        and not row.released_by",
        instead="is not VerdictStatus.INTACT\n        and False",
        tests=BY_WARRANT,
    ),
    Mutation(
        name="an operator's release of an empty clip",
        file=WARRANT,
        text="manifest.size_bytes == 0 and not row.released_by",
        instead="False",
        tests=BY_WARRANT,
    ),
    Mutation(
        name="an operator's release on an unclean camera",
        file=WARRANT,
        text="bool(unclean) and not row.released_by",
        instead="False",
        tests=BY_WARRANT,
    ),
    Mutation(
        name="holding of right now, when recorded",
        file="dockd/stages/sanitise.py",
        text="    if any(stay.clock.now() - one.asked_at > warrants.HOLDING_FRESH for one in permits):\n",
        instead="    if False:\n",
        tests=("tests/unit/test_erasing.py",),
        of="holding statement",
    ),
    Mutation(
        name="the look from a fresh mount",
        file="dockd/stages/batch.py",
        text="checked = (await stay.reader.verify_erased((name,)))[name]",
        instead='checked = ""',
        tests=BY_VOLUMES,
    ),
    Mutation(
        name="what the look from a fresh mount found",
        file="dockd/stages/listing.py",
        text="if unverified := condition.why_unverified(tx, row.acquisition):",
        instead='if unverified := "":',
        tests=BY_VOLUMES,
    ),
    Mutation(
        name="the clip that a sidecar belongs to",
        file=QUERIES,
        text="WHERE other.acquisition = own.of AND {_HINDERS})",
        instead="WHERE other.acquisition = own.of AND {_HINDERS} AND other.state IS NULL)",
        tests=BY_FAMILY,
    ),
    Mutation(
        name="the sidecars that belong to a clip",
        file=QUERIES,
        text="WHERE other.of = coalesce(own.of, own.acquisition) AND {_HINDERS})",
        instead="WHERE other.of = coalesce(own.of, own.acquisition) AND {_HINDERS} AND other.state IS NULL)",
        tests=BY_FAMILY,
    ),
    Mutation(
        name="a permit for each of a family",
        file=ERASING,
        text="return permits if len(permits) == len(group) else []",
        instead="return permits",
        tests=BY_FAMILIES,
    ),
    Mutation(
        name="a look at each of a family",
        file=ERASING,
        text="        if len(permits) > 1:",
        instead="        if False:",
        tests=BY_FAMILIES,
    ),
    Mutation(
        name="the rest of a family on a volume",
        file=ERASING,
        text="            if _clip(one) in spared:",
        instead="            if False:",
        tests=BY_FAMILIES,
    ),
    Mutation(
        name="what was refused beside a clip",
        file="dockd/stages/sanitise.py",
        text="        await _require_whole(stay, row)",
        instead="        pass",
        tests=BY_FAMILIES,
    ),
    Mutation(
        name="the state that the journal gives it",
        file=WARRANT,
        text="row.state != wanted",
        instead="False",
        tests=BY_WARRANT,
    ),
    Mutation(
        name="reads that disagree",
        file=WARRANT,
        text='        "its reads disagree": row.contested,\n',
        instead="",
        tests=BY_WARRANT,
        of="reread",
    ),
    Mutation(
        name="the reader's own second read",
        file="dockd/reader/child.py",
        text="        if not warrant.remnant and evidence not in self._reread:\n",
        instead="        if False:\n",
        tests=(
            "tests/fault/reader/test_erase.py::test_p01_nothing_is_erased_that_this_reader_did_not_itself_read_again",
        ),
        of="reread",
    ),
    Mutation(
        name="the reader's own camera",
        file=WARRANT,
        text='"the warrant is for another camera": warrant.camera != camera',
        instead='"the warrant is for another camera": False',
        tests=BY_WARRANT,
        of="camera identity",
    ),
)

if __name__ == "__main__":
    sys.exit(main(GUARDS, sys.argv[1:]))
