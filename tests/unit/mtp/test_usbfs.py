"""What answers of usbfs mean, before there is a camera."""

import errno

import pytest

from dockd.errors import CameraGone, CameraNotReady
from dockd.reader.mtp.usbfs import not_opened, whole

SERIAL = bytes([8, 3]) + "X-1".encode("utf-16-le")


@pytest.mark.parametrize(
    ("number", "error"),
    [
        (errno.EACCES, CameraNotReady),  # udev has not come to it yet
        (errno.EPERM, CameraNotReady),
        (errno.EBUSY, CameraNotReady),  # some program only looks what it is
        (errno.ENODEV, CameraGone),
        (errno.ENOENT, CameraGone),
        (errno.ETIMEDOUT, CameraGone),
    ],
)
def test_a_node_that_cannot_be_opened_is_nothing_against_the_camera(number, error):
    assert isinstance(not_opened("/dev/bus/usb/001/002", OSError(number, "no")), error)


def test_a_descriptor_ends_where_it_says():
    assert whole(SERIAL, 3) == whole(SERIAL + b"more", 3) == SERIAL


@pytest.mark.parametrize("answer", [b"", SERIAL[:1], SERIAL[:-2], b"\x00" + SERIAL[1:], b"\x01" + SERIAL[1:]])
def test_p08_a_descriptor_that_was_cut_short_is_no_other_serial_number(answer):
    with pytest.raises(OSError, match="cut short"):
        whole(answer, 3)


def test_another_descriptor_is_none():
    with pytest.raises(OSError, match="cut short"):
        whole(SERIAL, 1)
