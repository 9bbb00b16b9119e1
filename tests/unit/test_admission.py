"""Who may be docked, from records alone."""

from __future__ import annotations

import pytest

from dockd.core.admission import Enrolment, admit
from dockd.errors import CameraNotEnrolled, CameraRefused, CameraTwice
from dockd.model import BayNumber, CameraIdentity

BY_SERIAL = Enrolment(profile=None, volume_seen=None)


def camera(serial="X012345", volume="1234-ABCD"):
    return CameraIdentity(serial=serial, model="BODYCAM", volume_id=volume)


def test_an_enrolled_camera_is_admitted_beside_others():
    admit(camera(), BY_SERIAL, [(BayNumber(2), camera("OTHER"))])


def test_p08_a_camera_that_nobody_enrolled_is_refused_and_the_command_is_named():
    with pytest.raises(CameraNotEnrolled, match="`dockd camera enrol X012345` admits it"):
        admit(camera(), None, [])


def test_p08_a_camera_with_another_file_system_than_last_time_is_refused():
    with pytest.raises(CameraNotEnrolled, match=r"had the file system 0000-0001 .* has 1234-ABCD now"):
        admit(camera(), Enrolment(profile=None, volume_seen="0000-0001"), [])
    admit(camera(), Enrolment(profile="generic-dcim", volume_seen="1234-ABCD"), [])


@pytest.mark.parametrize("nameless", [camera(serial=""), camera(volume="")])
def test_p08_a_camera_that_does_not_name_itself_is_refused(nameless):
    with pytest.raises(CameraRefused, match="names no serial or no volume id"):
        admit(nameless, BY_SERIAL, [])


def test_p08_two_with_one_serial_are_never_read_together():
    with pytest.raises(CameraTwice, match="already docked in bay 7"):
        admit(camera(), BY_SERIAL, [(BayNumber(7), camera())])
