"""Who is not let in: the unknown, the doubled, the changed and those that are more than a camera (P08)."""

from __future__ import annotations

import hashlib

import cards
import pytest

pytestmark = [pytest.mark.rig, pytest.mark.timeout(1800)]


def card(path, mp4, *, seed, volume_id=""):
    files = {"DCIM/100BCAM/CLIP0001.MP4": mp4(200_000, seed)}
    return cards.make_card(path, cards.Part(files=files, volume_id=volume_id))[0].digests


def digest_of(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_p08_an_unknown_camera_is_refused_and_then_let_in(module_dock, tmp_path, mp4):
    dock, image = module_dock, tmp_path / "card.img"
    digests = card(image, mp4, seed=1)
    before = digest_of(image)
    dock.bays.plug("1", "STRANGER", image)
    bay = dock.settled(1, "refused")
    assert "dockd camera enrol STRANGER" in bay["note"]
    assert digest_of(image) == before
    assert not dock.machine.run("systemctl list-units --plain --no-legend 'dockd-blocker@*'").out.strip()
    assert dock.machine.run("blockdev --getro /dev/sda /dev/sda1", check=True).out.split() == ["1", "1"]
    assert dock.machine.run("dockd camera enrol STRANGER --reason 'the rig'", check=True).out
    dock.wait("it is let in", lambda: dock.bay(1).get("state") != "refused")
    dock.settled(1, "ready")
    assert dock.stored("STRANGER") == {path: [digest] for path, digest in digests.items()}


def test_p08_a_keyboard_with_a_cameras_serial_is_refused(module_dock):
    dock = module_dock
    dock.enrol("KEYBOARD")
    name = dock.bays.plug_device("2", "usb-kbd", serial="KEYBOARD")
    bay = dock.settled(2, "refused")
    assert "keyboard" in bay["note"]
    dock.bays.pull(name)
    dock.wait_bay(2, "empty")


def test_p08_the_second_of_two_with_one_serial_is_refused(module_dock, tmp_path, mp4):
    dock, one, other = module_dock, tmp_path / "one.img", tmp_path / "other.img"
    digests = card(one, mp4, seed=2, volume_id="90F8-A77D")
    card(other, mp4, seed=3, volume_id="90F8-A77D")
    before = digest_of(other)
    dock.enrol("TWIN")
    with dock.receiver.away():
        dock.bays.plug("3", "TWIN", one)
        dock.wait("the first is read", lambda: dock.bay(3).get("clips_acquired") == 1)
        name = dock.bays.plug("4", "TWIN", other)
        bay = dock.settled(4, "refused")
    assert "already docked in bay 3" in bay["note"]
    assert digest_of(other) == before
    dock.settled(3, "ready")
    dock.bays.pull(name)
    assert dock.stored("TWIN") == {path: [digest] for path, digest in digests.items()}
    assert digest_of(other) == before


def test_p08_a_camera_whose_file_system_is_another_is_refused(module_dock, tmp_path, mp4):
    dock, first, second = module_dock, tmp_path / "first.img", tmp_path / "second.img"
    card(first, mp4, seed=4, volume_id="1111-1111")
    card(second, mp4, seed=5, volume_id="2222-2222")
    before = digest_of(second)
    dock.enrol("FORMATTED")
    name = dock.bays.plug("5", "FORMATTED", first)
    dock.settled(5, "ready")
    dock.bays.pull(name)
    dock.wait_bay(5, "empty")
    dock.bays.plug("5", "FORMATTED", second)
    bay = dock.settled(5, "refused")
    assert "dockd camera enrol FORMATTED" in bay["note"]
    assert digest_of(second) == before
