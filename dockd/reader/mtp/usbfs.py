"""The pipe of a real device: Linux's usbfs, by ioctl on its node (linux/usbdevice_fs.h). No library between.

The descriptor stands for one arrival of one device: once that is unplugged, every call says ENODEV for ever.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import platform
import time
from contextlib import suppress
from dataclasses import dataclass

from dockd.errors import CameraGone, CameraNotReady, CameraRefused, DockdError
from dockd.reader.work import shielded_buffer

TRANSFER_MS = 30_000  # that a device may be silent: a slow card, or a big folder
CONTROL_MS = 5_000
_NODE = "/dev/bus/usb/{bus:03d}/{device:03d}"
_MAX_DESCRIPTORS = 64 * 1024
_STILL_IMAGE = (6, 1, 1)  # class, subclass and protocol of PTP and MTP
_DEVICE, _INTERFACE, _ENDPOINT = 1, 4, 5  # types of descriptors
_TEXT = 3
_BULK = 2
_FROM_DEVICE = 0x80
_GET_DESCRIPTOR, _GET_STATUS, _RESET = 6, 0x67, 0x66
_CLASS_OF_INTERFACE = 0x21
_DEVICE_BYTES = 18
_PIECE = 128 * 1024  # of one bulk transfer: the kernel has to find that much memory in one piece
_BUSY = 0x2019  # in the answer to the class request Get Device Status
_STATUS_BYTES = 32
_RESTART_S = 5.0
_RESTART_PAUSE_S = 0.1
_DRAIN_MS = 300


class _Control(ctypes.Structure):
    _fields_ = (
        ("request_type", ctypes.c_uint8),
        ("request", ctypes.c_uint8),
        ("value", ctypes.c_uint16),
        ("index", ctypes.c_uint16),
        ("length", ctypes.c_uint16),
        ("timeout_ms", ctypes.c_uint32),
        ("content", ctypes.c_void_p),
    )


class _Bulk(ctypes.Structure):
    _fields_ = (
        ("endpoint", ctypes.c_uint),
        ("length", ctypes.c_uint),
        ("timeout_ms", ctypes.c_uint),
        ("content", ctypes.c_void_p),
    )


def _number(direction: int, number: int, size: int) -> int:
    """_IOC of the generic layout, that of x86 and ARM."""
    return direction << 30 | size << 16 | ord("U") << 8 | number


_CONTROL = _number(3, 0, ctypes.sizeof(_Control))
_BULK_TRANSFER = _number(3, 2, ctypes.sizeof(_Bulk))
_CLAIM = _number(2, 15, 4)
_RELEASE = _number(2, 16, 4)
_CLEAR_HALT = _number(2, 21, 4)
_ORDINARY = ("x86_64", "aarch64", "armv7l", "i686", "riscv64")


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where the still image interface of a device is."""

    interface: int
    send: int  # bulk endpoints
    receive: int
    packet_bytes: int


class UsbPipe:
    """A still image interface, claimed. No other program reaches it until it is closed, or this one ends."""

    def __init__(self, fd: int) -> None:
        """Take over a node's descriptor. Raises OSError, CameraRefused; it is closed then."""
        self._fd = fd
        self._buffer = shielded_buffer(_PIECE)  # clips pass through it
        self._address = ctypes.addressof(ctypes.c_char.from_buffer(self._buffer))
        self._open = True
        try:
            descriptors = os.pread(fd, _MAX_DESCRIPTORS, 0)
            self._place = find_interface(descriptors)
            self.packet_bytes = self._place.packet_bytes
            self._claim()
        except BaseException:
            self._open = False
            os.close(fd)
            raise

    @classmethod
    def at(cls, bus: int, device: int) -> UsbPipe:
        """The device with this address. Raises CameraRefused, CameraNotReady, CameraGone."""
        if platform.machine() not in _ORDINARY:
            raise CameraRefused(f"MTP cameras are not read on {platform.machine()}: its ioctls are unknown")
        path = node_of(bus, device)
        try:
            return cls(os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW))
        except OSError as error:
            raise not_opened(path, error) from error

    def send(self, content: bytes) -> None:
        """One bulk transfer to the device."""
        self._buffer[: len(content)] = content
        if self._bulk(self._place.send, len(content)) != len(content):
            raise OSError(errno.EPROTO, "a request was cut short")

    def receive(self, size: int) -> memoryview:
        """One bulk transfer from the device, of 128 KiB at most."""
        want = min(size, _PIECE // self.packet_bytes * self.packet_bytes)
        return memoryview(self._buffer)[: self._bulk(self._place.receive, want)]

    def descriptor(self) -> bytes:
        """The device descriptor, asked of the device anew."""
        return whole(self._ask(_FROM_DEVICE, _GET_DESCRIPTOR, _DEVICE << 8, 0, _DEVICE_BYTES), _DEVICE)

    def serial(self) -> str:
        """The serial number, in the first language that the device has."""
        index = self.descriptor()[16]
        if not index:
            return ""
        languages = whole(self._ask(_FROM_DEVICE, _GET_DESCRIPTOR, _TEXT << 8, 0, 255), _TEXT)
        language = int.from_bytes(languages[2:4], "little")
        text = whole(self._ask(_FROM_DEVICE, _GET_DESCRIPTOR, _TEXT << 8 | index, language, 255), _TEXT)
        return text[2:].decode("utf-16-le", "replace")

    def restart(self) -> None:
        """Device Reset, and wait while it is busy; clear stalls, and drop what still comes.

        Some devices know neither of the two class requests: they stall them, or answer nothing.
        """
        until_s = time.monotonic() + _RESTART_S
        with suppress(BrokenPipeError):
            self._ask(_CLASS_OF_INTERFACE, _RESET, 0, self._place.interface, 0)
            while self._busy() and time.monotonic() < until_s:
                time.sleep(_RESTART_PAUSE_S)  # the reader has nothing else to do
        until_s = time.monotonic() + _RESTART_S
        for endpoint in (self._place.send, self._place.receive):
            self._call(_CLEAR_HALT, ctypes.c_uint(endpoint))
        with suppress(TimeoutError):
            while time.monotonic() < until_s:
                self._bulk(self._place.receive, _PIECE // self.packet_bytes * self.packet_bytes, _DRAIN_MS)

    def close(self) -> None:
        """Give the interface back."""
        if self._open:
            self._open = False
            os.close(self._fd)  # the kernel gives back what it claimed

    def _busy(self) -> bool:
        status = self._ask(_CLASS_OF_INTERFACE | _FROM_DEVICE, _GET_STATUS, 0, self._place.interface, _STATUS_BYTES)
        return int.from_bytes(status[2:4], "little") == _BUSY

    def _claim(self) -> None:
        self._call(_CLAIM, ctypes.c_uint(self._place.interface))

    def _bulk(self, endpoint: int, length: int, timeout_ms: int = TRANSFER_MS) -> int:
        request = _Bulk(endpoint=endpoint, length=length, timeout_ms=timeout_ms, content=self._address)
        return self._call(_BULK_TRANSFER, request)

    def _ask(self, request_type: int, request: int, value: int, index: int, length: int) -> bytes:
        """A control transfer."""
        answer = ctypes.create_string_buffer(max(1, length))
        control = _Control(
            request_type=request_type,
            request=request,
            value=value,
            index=index,
            length=length,
            timeout_ms=CONTROL_MS,
            content=ctypes.addressof(answer),
        )
        count = self._call(_CONTROL, control)
        return answer.raw[:count]

    def _call(self, number: int, argument: ctypes.Structure | ctypes.c_uint) -> int:
        if not self._open:
            raise OSError(errno.ENODEV, "the camera was let go")
        count: int = fcntl.ioctl(self._fd, number, argument)  # of what is longer than a number, if it is writable
        return count


def node_of(bus: int, device: int) -> str:
    """Where udev puts the device with this address."""
    return _NODE.format(bus=bus, device=device)


def not_opened(path: str, error: OSError) -> DockdError:
    """What it means that a node cannot be opened, or its interface not be claimed.

    That udev has not come to it yet, or that somebody else looks at it, says nothing against the camera.
    """
    if isinstance(error, PermissionError):
        return CameraNotReady(f"{path} may not be opened: udev has to give it to the group dockd")
    if error.errno == errno.EBUSY:
        return CameraNotReady("another program holds the camera: end it, or keep it off by udev")
    return CameraGone(f"the camera left its bay: {error.strerror}")


def whole(answer: bytes, kind: int) -> bytes:
    """A descriptor of this type, without what came after it. Raises OSError where it was cut short, or is another.

    A serial number of which a part came would be another camera's.
    """
    if len(answer) < 2 or not 2 <= answer[0] <= len(answer) or answer[1] != kind:  # noqa: PLR2004  USB 2.0, 9.6
        raise OSError(errno.EPROTO, "a descriptor was cut short")
    return answer[: answer[0]]


def find_interface(descriptors: bytes) -> Place:
    """The one still image interface, from the descriptors of a device. Raises CameraRefused.

    The first configuration's alternate setting 0: what the device has on when it arrives.
    """
    found: list[tuple[int, dict[bool, tuple[int, int]]]] = []
    ours, offset = False, 0
    while offset + 2 <= len(descriptors):
        length, kind = descriptors[offset], descriptors[offset + 1]
        one = descriptors[offset : offset + length]
        if length < 2 or len(one) < length:  # noqa: PLR2004  its own length and kind
            break
        if kind == _INTERFACE and length >= 9:  # noqa: PLR2004  bytes of it (USB 2.0, 9.6.5)
            ours = tuple(one[5:8]) == _STILL_IMAGE and one[3] == 0
            if ours:
                found.append((one[2], {}))
        elif kind == _ENDPOINT and ours and length >= 7 and one[3] & 3 == _BULK:  # noqa: PLR2004  as above, 9.6.6
            size = int.from_bytes(one[4:6], "little") & 0x7FF
            found[-1][1].setdefault(bool(one[2] & _FROM_DEVICE), (one[2], size))
        offset += length
    complete = [(interface, ends) for interface, ends in found if set(ends) == {False, True} and all(ends[True])]
    if len(complete) != 1:
        raise CameraRefused(f"the device has {len(complete)} still image interfaces that can be used, not one")
    interface, ends = complete[0]
    return Place(interface=interface, send=ends[False][0], receive=ends[True][0], packet_bytes=ends[True][1])
