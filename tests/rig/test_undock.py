"""Pulled at the worst moment: while it is read, while its clips travel, while it is erased; and docked again."""

from __future__ import annotations

import cards
import pytest
from rig.guest.bays import Reader

pytestmark = [pytest.mark.rig, pytest.mark.timeout(1800)]

MARK = b"isomavc1"  # once in each clip, at its beginning
KINDS = ("sealed", "stored", "reread", "warranted", "erasure_resumed")
SLOW = 200_000  # bytes a second: reading or erasing a card takes a quarter of a minute then


def card(path, mp4, *, seed, count=2, size_bytes=1_500_000):
    files = {f"DCIM/100BCAM/CLIP{number:04d}.MP4": mp4(size_bytes, seed + number) for number in range(count)}
    return {name: [digest] for name, digest in cards.make_card(path, cards.Part(files=files))[0].digests.items()}


def test_p02_pulled_while_it_is_read(module_dock, tmp_path, mp4):
    dock, image = module_dock, tmp_path / "card.img"
    digests = card(image, mp4, seed=100)
    dock.enrol("READ")
    name = dock.bays.plug("1", "READ", image, reader=Reader(speed=SLOW // 2))
    dock.wait("reading began", lambda: dock.bay(1).get("state") == "acquiring")
    dock.bays.pull(name)
    dock.wait_bay(1, "empty")
    dock.bays.plug("1", "READ", image)
    dock.settled(1, "ready")
    assert dock.stored("READ") == digests
    assert cards.count(image, MARK) == 0


def test_p02_pulled_while_its_clips_travel_and_docked_in_another_bay(module_dock, tmp_path, mp4):
    dock, image = module_dock, tmp_path / "card.img"
    digests = card(image, mp4, seed=200)
    dock.enrol("TRAVEL")
    with dock.receiver.away():
        name = dock.bays.plug("2", "TRAVEL", image)
        dock.wait("all is read", lambda: dock.bay(2).get("clips_acquired") == 2)
        dock.bays.pull(name)
        dock.wait_bay(2, "empty")
        assert cards.count(image, MARK) == 2, "nothing may be erased before the store has signed"
        dock.bays.plug("5", "TRAVEL", image)
    dock.settled(5, "ready")
    stored = dock.stored("TRAVEL")
    assert stored == digests, "what was read once is not pushed twice"
    assert cards.count(image, MARK) == 0


def test_p02_pulled_while_it_is_erased(module_dock, tmp_path, mp4):
    dock, image = module_dock, tmp_path / "card.img"
    digests = card(image, mp4, seed=300)
    dock.enrol("ERASE")
    name = dock.bays.plug("3", "ERASE", image, reader=Reader(speed=4_000_000))
    dock.wait("reading ended", lambda: dock.bay(3).get("clips_acquired") == 2)
    dock.bays.slow(name, SLOW)
    dock.wait_bay(3, "sanitising")
    # The first clip's beginning is overwritten: erasing is under way on the medium itself.
    dock.wait("something is overwritten", lambda: cards.count(image, MARK) < 2)
    dock.bays.pull(name)
    dock.wait_bay(3, "empty")
    dock.bays.plug("3", "ERASE", image)
    dock.settled(3, "ready")
    assert dock.stored("ERASE") == digests, "each clip whole, and once: what was left half erased is no clip"
    assert cards.count(image, MARK) == 0
    require_warrants(dock, "ERASE", erased=len(digests))
    dock.machine.run("dockd custody verify /var/lib/dockd", check=True)


def require_warrants(dock, serial, *, erased):
    """P01, from the log alone: stored, read a second time in the docking of its warrant, and only then erased.

    What a pulled cable left half erased is erased in a later docking, under a word that names the warrant of before.
    """
    found = []
    for entry in (log := [one for one in dock.custody() if one.get("camera") == serial]):
        if entry["event"] != "acquisition.erased":
            continue
        before = [one for one in log[: log.index(entry)] if one.get("acquisition") == entry["acquisition"]]
        of = {kind: [one for one in before if one["event"] == f"acquisition.{kind}"] for kind in KINDS}
        warrant, again = of["warranted"][-1], of["reread"][-1]
        assert of["stored"], str(before)
        assert again["seq"] < warrant["seq"], str(before)
        assert again["details"]["docking"] == again["docking"] == warrant["docking"], str(before)
        assert again["details"]["plaintext"] == of["sealed"][-1]["details"]["plaintext"], str(before)
        assert (of["erasure_resumed"] or [warrant])[-1]["docking"] == entry["docking"], str(before)
        found.append(entry["acquisition"])
    assert len(found) == len(set(found)) == erased, str(log)


def test_p08_swapped_between_reading_and_erasing(module_dock, tmp_path, mp4):
    """Another card with the same serial, the same volume id and the same names, of which nothing was read yet.

    It comes by way of an undocking: a card that is changed in a reader that stays is another arrival, too (unit/usb).
    """
    dock, first, second = module_dock, tmp_path / "first.img", tmp_path / "second.img"
    files = [{"DCIM/100BCAM/CLIP0001.MP4": mp4(300_000, seed)} for seed in (401, 402)]
    made = [
        cards.make_card(path, cards.Part(files=content, volume_id="1234-ABCD"))[0].digests
        for path, content in zip((first, second), files, strict=True)
    ]
    dock.enrol("SWAP")
    with dock.receiver.away():
        name = dock.bays.plug("4", "SWAP", first)
        dock.wait("all is read", lambda: dock.bay(4).get("clips_acquired") == 1)
        dock.bays.pull(name)
        dock.bays.plug("4", "SWAP", second)
    dock.settled(4, "ready")
    (path,) = made[0]
    assert sorted(dock.stored("SWAP")[path]) == sorted(digests[path] for digests in made)
    assert cards.count(second, MARK) == 0
    assert cards.count(first, MARK) == 1, "the camera that was taken away is as it was"
