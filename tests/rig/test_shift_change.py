"""The end of a shift: a dock full of cameras within a second, behind two hubs, of which one is pulled with its four."""

from __future__ import annotations

import cards
import pytest

pytestmark = [pytest.mark.rig, pytest.mark.timeout(1800)]

BAYS = {9: "7.1", 10: "7.2", 11: "7.3", 12: "7.4", 13: "8.1", 14: "8.2", 15: "8.3", 16: "8.4"}
MARK = b"isomavc1"


def test_p09_eight_cameras_behind_two_hubs_of_which_one_is_pulled(module_dock, tmp_path, mp4):
    dock, images, digests = module_dock, {}, {}
    for bay in BAYS:
        images[bay] = tmp_path / f"{bay}.img"
        files = {f"DCIM/100BCAM/CLIP{number:04d}.MP4": mp4(150_000, 10 * bay + number) for number in range(2)}
        made = cards.make_card(images[bay], cards.Part(files=files, size_bytes=48 * cards.MIB))[0]
        digests[bay] = {path: [digest] for path, digest in made.digests.items()}
        dock.enrol(f"SHIFT{bay}")
    hubs = {port: dock.bays.plug_device(port, "usb-hub", ports=4) for port in ("7", "8")}
    dock.machine.run("udevadm settle")
    names = {}
    with dock.receiver.away():
        with dock.machine.stopped():  # all at once, however long it takes this machine
            for bay, port in BAYS.items():
                names[bay] = dock.bays.plug(port, f"SHIFT{bay}", images[bay])
        for bay in BAYS:
            dock.wait(f"bay {bay} is read", lambda at=bay: dock.bay(at).get("clips_acquired") == 2)
        dock.bays.pull(hubs["7"], *(names[bay] for bay in range(9, 13)))
        for bay in range(9, 13):
            dock.wait_bay(bay, "empty")
            assert cards.count(images[bay], MARK) == 2
    for bay in range(13, 17):
        dock.settled(bay, "ready")
    dock.bays.plug_device("7", "usb-hub", ports=4)
    for bay in range(9, 13):
        dock.bays.plug(BAYS[bay], f"SHIFT{bay}", images[bay])
    for bay in range(9, 13):
        dock.settled(bay, "ready")
    for bay in BAYS:
        assert dock.stored(f"SHIFT{bay}") == digests[bay]
        assert cards.count(images[bay], MARK) == 0
    dock.machine.run("dockd custody verify /var/lib/dockd", check=True)
