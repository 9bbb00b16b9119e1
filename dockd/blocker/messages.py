"""What is said between the write blocker and its peer: one JSON object a datagram, descriptors beside the answer."""

from __future__ import annotations

import array
import json
import re
import socket
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

VERSION = 1
LIMIT_BYTES = 16 * 1024
VERBS = ("read", "write", "make")
METHODS = ("clear", "discard")
FILESYSTEMS = ("vfat", "exfat", "ext4")
KINDS = ("busy", "gone", "refused", "io", "discard_unsupported", "unmountable")

_DEVICE = re.compile(r"[a-z][a-z0-9]{1,31}")
_DESCRIPTORS = 2


class BlockerError(Exception):
    """The write blocker cannot, or will not. `kind` is one of KINDS; the sentence is for a person."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One volume, named in every way that can be checked anew, and what is to happen to it."""

    verb: str
    device: str  # the kernel's name: "sda1"
    diskseq: int  # of its disk: never the same twice until the next boot
    port: str  # "<controller>/<devpath>"
    serial: str  # as the USB device states it; "" where it states none
    filesystem: str
    method: str = ""  # of "make"
    like: Mapping[str, str | int] = field(default_factory=dict)  # of "make": dockd.filesystems' Superblock.like
    blank: bool = False  # of "make": only a volume that begins with zeros, as one whose clearing was cut short does

    def encode(self) -> bytes:
        """The datagram."""
        return _datagram({"v": VERSION, **asdict(self)})

    @classmethod
    def decode(cls, datagram: bytes) -> Request:
        """The request, each field of the right kind. Raises BlockerError."""
        fields = _object(datagram)
        if fields.pop("v", None) != VERSION:
            raise BlockerError("refused", "the request is of another version")
        try:
            request = cls(**fields)
        except TypeError as error:
            raise BlockerError("refused", "the request has other fields than this version has") from error
        request._check()
        return request

    def _check(self) -> None:
        texts = (self.verb, self.device, self.port, self.serial, self.filesystem, self.method)
        like = self.like
        valid = (
            all(isinstance(text, str) for text in texts)
            and type(self.diskseq) is int
            and self.verb in VERBS
            and _DEVICE.fullmatch(self.device) is not None
            and self.filesystem in FILESYSTEMS
            and (self.method in METHODS if self.verb == "make" else not self.method)
            and isinstance(like, Mapping)
            and all(type(value) in (str, int) for value in like.values())
            and type(self.blank) is bool
        )
        if not valid:
            raise BlockerError("refused", "the request does not make sense")


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What came of a request."""

    ok: bool
    read_only: bool = True
    done: str = ""  # what "make" did, in words
    error: str = ""  # one of KINDS
    message: str = ""

    def encode(self) -> bytes:
        """The datagram."""
        return _datagram(asdict(self))

    @classmethod
    def decode(cls, datagram: bytes) -> Answer:
        """The answer. Raises BlockerError where it is none."""
        fields = _object(datagram)
        try:
            answer = cls(**fields)
        except TypeError as error:
            raise BlockerError("io", "the write blocker answers in another version") from error
        if answer.error and answer.error not in KINDS:
            raise BlockerError("io", f"the write blocker answers {answer.error!r}")
        return answer


def send(connection: socket.socket, answer: Answer, descriptors: tuple[int, ...] = ()) -> None:
    """Send an answer; the peer gets duplicates of the descriptors. An OSError passes through."""
    socket.send_fds(connection, [answer.encode()], list(descriptors))


def receive(connection: socket.socket) -> tuple[bytes, tuple[int, ...]]:
    """One datagram, empty at the peer's end, and the descriptors that came with it. An OSError passes through."""
    # socket.recv_fds of Python 3.11 forgets its flags: the descriptors would outlive an exec.
    room = socket.CMSG_SPACE(_DESCRIPTORS * array.array("i").itemsize)
    datagram, ancillary, flags, _ = connection.recvmsg(LIMIT_BYTES, room, socket.MSG_CMSG_CLOEXEC)
    descriptors = array.array("i")
    for level, kind, content in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            descriptors.frombytes(content[: len(content) - len(content) % descriptors.itemsize])
    if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
        datagram = b"?"  # is no object, and is refused as such
    return datagram, tuple(descriptors)


def _datagram(fields: dict[str, Any]) -> bytes:
    return json.dumps(fields, sort_keys=True).encode()


def _object(datagram: bytes) -> dict[str, Any]:
    try:
        fields = json.loads(datagram)
    except (ValueError, RecursionError) as error:
        raise BlockerError("refused", "this is no JSON") from error
    if not isinstance(fields, dict):
        raise BlockerError("refused", "this is no JSON object")
    return fields
