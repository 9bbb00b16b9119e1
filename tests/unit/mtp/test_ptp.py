"""What travels in PTP's containers: worked bytes, and whatever a device may send instead."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mtp_camera import Thing

from dockd.errors import CameraRefused
from dockd.reader.mtp import ptp
from dockd.reader.mtp.usbfs import find_interface

DEVICE = bytes.fromhex("12010002000000400000000000000102030 1".replace(" ", ""))
CONFIGURATION = bytes.fromhex("0902 2700 0101 00c0 32".replace(" ", ""))
STILL_IMAGE = bytes.fromhex("0904 0000 0306 0101 00".replace(" ", ""))
BULK_IN = bytes.fromhex("0705 8102 0002 00".replace(" ", ""))
BULK_OUT = bytes.fromhex("0705 0202 0002 00".replace(" ", ""))
EVENTS = bytes.fromhex("0705 8303 1c00 06".replace(" ", ""))


def test_a_request_is_a_container():
    assert ptp.command(0x1007, 5, (1, 2, 0xFFFFFFFF)) == bytes.fromhex(
        "18000000 0100 0710 05000000 01000000 02000000 ffffffff"
    )


def test_an_object_is_described():
    info = ptp.object_info(Thing("A.MP4", b"abc", parent=7).info())
    assert (info.name, info.size_bytes, info.parent, info.folder) == ("A.MP4", 3, 7, False)
    assert ptp.object_info(Thing("DCIM").info()).folder
    assert ptp.object_info(Thing("x", b"", size=2**33).info()).size_bytes is None


@pytest.mark.parametrize(
    ("words", "seconds"),
    [
        ("20260304T050607", 1772600767),
        ("20260304T050607Z", 1772600767),
        ("20260304T050607.5", 1772600767.5),
        ("20260304T063607+0130", 1772600767),
        ("20260304T033607-0130", 1772600767),
        ("20260304T050607+9999", 1772600767),
        ("", 0),
        ("19000101T000000", 0),
        ("20261304T050607", 0),
        ("20260304T050607+", 1772600767),
        ("yesterday", 0),
    ],
)
def test_times(words, seconds):
    assert ptp.time_ns(words) == int(seconds * 10) * 10**8


def test_a_name_of_half_a_character_stays_what_it_is():
    info = ptp.object_info(Thing("\ud800.MP4", b"").info())
    assert info.name.encode("utf-8", "surrogatepass") == b"\xed\xa0\x80.MP4"


@given(st.binary(max_size=200), st.integers(0, 200))
def test_whatever_comes_is_read_or_unsound(noise, cut):
    for payload in (noise, Thing("A.MP4", b"abc").info()[:cut] + noise):
        for parse in (ptp.object_info, ptp.numbers, ptp.operations):
            try:
                parse(payload)
            except (ptp.Unsound, UnicodeError):
                continue


def test_an_array_longer_than_its_bytes_is_unsound():
    with pytest.raises(ptp.Unsound):
        ptp.numbers(struct.pack("<II", 2**32 - 1, 1))


def test_the_still_image_interface_is_found():
    place = find_interface(DEVICE + CONFIGURATION + STILL_IMAGE + EVENTS + BULK_IN + BULK_OUT)
    assert (place.interface, place.send, place.receive, place.packet_bytes) == (0, 2, 0x81, 512)


@pytest.mark.parametrize(
    "descriptors",
    [
        b"",
        DEVICE + CONFIGURATION,
        DEVICE + CONFIGURATION + STILL_IMAGE + BULK_IN,
        DEVICE + CONFIGURATION + (STILL_IMAGE + BULK_IN + BULK_OUT) * 2,
        DEVICE + CONFIGURATION + STILL_IMAGE.replace(b"\x06\x01\x01", b"\x08\x06\x50") + BULK_IN + BULK_OUT,
        DEVICE + CONFIGURATION + STILL_IMAGE + BULK_IN[:4] + b"\0\0\0" + BULK_OUT,
        DEVICE + CONFIGURATION + b"\0\0" + STILL_IMAGE + BULK_IN + BULK_OUT,
    ],
)
def test_another_device_is_refused(descriptors):
    with pytest.raises(CameraRefused):
        find_interface(descriptors)


@given(st.binary(max_size=100))
def test_descriptors_of_any_kind_end(noise):
    for descriptors in (noise, DEVICE + CONFIGURATION + STILL_IMAGE + noise):
        try:
            find_interface(descriptors)
        except CameraRefused:
            continue
