"""What travels in PTP's containers (ISO 15740, USB still image class 1.0 section 7; MTP 1.1). Pure.

Nothing that a device sends is believed before its length was compared with what is there.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from enum import IntEnum

HEADER = struct.Struct("<IHHI")  # length of the whole, type, code, transaction
ROOT = 0xFFFFFFFF  # as the parent in GetObjectHandles: what lies in no folder
ANY = 0  # as a format
SPECIAL_HANDLES = (0, 0xFFFFFFFF)  # no object has these; DeleteObject takes the second for all objects
FOLDER = 0x3001  # the format "association"
UNKNOWN_SIZE = 0xFFFFFFFF  # in ObjectInfo: 4 GiB or more
OBJECT_SIZE = 0xDC04  # the MTP property with 64 bits

_INFO = struct.Struct("<IHHIHIIIIIIIHII")  # ObjectInfo up to its texts
_MAX_ZONE = timedelta(hours=24)


class Kind(IntEnum):
    """Of a container."""

    COMMAND = 1
    DATA = 2  # its payload
    RESPONSE = 3


class Operation(IntEnum):
    """What is asked. Nothing else is ever sent: of these only DELETE_OBJECT changes anything."""

    GET_DEVICE_INFO = 0x1001
    OPEN_SESSION = 0x1002
    CLOSE_SESSION = 0x1003
    GET_STORAGE_IDS = 0x1004
    GET_OBJECT_HANDLES = 0x1007
    GET_OBJECT_INFO = 0x1008
    DELETE_OBJECT = 0x100B
    GET_PARTIAL_OBJECT = 0x101B
    GET_OBJECT_PROP_VALUE = 0x9803
    GET_PARTIAL_OBJECT_64 = 0x95C1  # Android's


class Code(IntEnum):
    """Responses that mean something of their own here."""

    OK = 0x2001
    INVALID_OBJECT_HANDLE = 0x2009
    OBJECT_WRITE_PROTECTED = 0x200D
    STORE_READ_ONLY = 0x200E
    ACCESS_DENIED = 0x200F
    STORE_NOT_AVAILABLE = 0x2013
    INVALID_PARENT_OBJECT = 0x201A
    SESSION_ALREADY_OPEN = 0x201E


class Unsound(Exception):
    """What the device sent is not what the standard allows. The sentence says where."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectInfo:
    """What a device says of one object."""

    storage: int
    folder: bool
    size_bytes: int | None  # None: 4 GiB or more, to be asked for
    parent: int  # 0: it lies in no folder
    protected: bool
    name: str
    mtime_ns: int  # 0 where it states none


def command(operation: int, transaction: int, parameters: tuple[int, ...]) -> bytes:
    """The container of a request."""
    payload = struct.pack(f"<{len(parameters)}I", *parameters)
    return HEADER.pack(HEADER.size + len(payload), Kind.COMMAND, operation, transaction) + payload


def numbers(payload: bytes, *, width: int = 4) -> tuple[int, ...]:
    """An array: how many, then each. Raises Unsound."""
    count = int.from_bytes(payload[:4], "little")
    end = 4 + count * width
    if len(payload) < max(4, end):
        raise Unsound(f"an array of {count} numbers in {len(payload)} bytes")
    return struct.unpack_from(f"<{count}{'I' if width == 4 else 'H'}", payload, 4)  # noqa: PLR2004  bytes of a number


def operations(payload: bytes) -> frozenset[int]:
    """What a device says that it can do, from DeviceInfo. Raises Unsound."""
    _, offset = _text(payload, 8)  # after version, vendor extension and its version: the extension's description
    return frozenset(numbers(payload[offset + 2 :], width=2))


def object_info(payload: bytes) -> ObjectInfo:
    """One ObjectInfo. Raises Unsound."""
    if len(payload) < _INFO.size:
        raise Unsound(f"the description of an object has {len(payload)} bytes")
    storage, format_, protection, size, *_, parent, _, _, _ = _INFO.unpack_from(payload)
    name, offset = _text(payload, _INFO.size)
    captured, offset = _text(payload, offset) if offset < len(payload) else ("", offset)
    modified, _ = _text(payload, offset) if offset < len(payload) else ("", offset)
    return ObjectInfo(
        storage=storage,
        folder=format_ == FOLDER,  # of whatever kind: an album holds objects, too
        size_bytes=None if size == UNKNOWN_SIZE else size,
        parent=parent if parent != ROOT else 0,
        protected=protection != 0,
        name=name,
        mtime_ns=time_ns(modified) or time_ns(captured),
    )


def time_ns(text: str) -> int:
    """A PTP time, `YYYYMMDDThhmmss[.s][Z|+hhmm|-hhmm]`, in nanoseconds; without a zone as if in UTC. 0 for none."""
    zone: timezone = UTC
    for sign in "+-":
        text, _, offset = text.partition(sign)
        if len(offset) == len("hhmm") and offset.isdecimal():
            shift = timedelta(hours=int(offset[:2]), minutes=int(offset[2:]))
            zone = timezone(shift if sign == "+" else -shift) if shift < _MAX_ZONE else UTC
    whole, _, fraction = text.rstrip("Z").partition(".")
    try:
        moment = datetime.strptime(whole, "%Y%m%dT%H%M%S").replace(tzinfo=zone)
    except ValueError:
        return 0
    since = moment - datetime(1970, 1, 1, tzinfo=UTC)
    tenths = int(fraction[:1]) if fraction[:1].isdecimal() and fraction.isascii() else 0
    nanoseconds = (since.days * 86400 + since.seconds) * 10**9 + tenths * 10**8
    return max(0, nanoseconds)


def _text(payload: bytes, offset: int) -> tuple[str, int]:
    """A text at an offset, and the offset after it: one byte for its length in characters, then UTF-16. Ends in NUL."""
    if offset >= len(payload):
        raise Unsound("a text after the end")
    end = offset + 1 + 2 * payload[offset]
    if end > len(payload):
        raise Unsound("a text that goes on after the end")
    return payload[offset + 1 : end].decode("utf-16-le", "surrogatepass").split("\0", 1)[0], end
