"""PTP transactions: one request, perhaps data, one response. Whatever fails on the way ends the session."""

from __future__ import annotations

import errno
from contextlib import suppress
from typing import TYPE_CHECKING, TypeVar

from dockd.reader.camera import GONE
from dockd.reader.mtp.ptp import (
    ANY,
    HEADER,
    OBJECT_SIZE,
    ROOT,
    SPECIAL_HANDLES,
    Code,
    Kind,
    ObjectInfo,
    Operation,
    Unsound,
    command,
    numbers,
    object_info,
    operations,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from dockd.reader.mtp.pipe import Pipe

    Take = Callable[[memoryview, int], None]  # a piece of a data phase, and how long the whole is

_T = TypeVar("_T")

MAX_HANDLES_BYTES = 4 + 4 * 1024 * 1024  # of one folder: a million objects
MAX_DATASET_BYTES = 64 * 1024
MAX_OFFSET_32 = 0xFFFFFFFF
_SESSION = 1
_MAX_EMPTY = 4  # transfers without a byte before the response: one ends each data phase of whole packets
_LAST_TRANSACTION = 0xFFFFFFFE


class Refusal(Exception):
    """The device answered that it will not, or cannot. Nothing was changed then; the session goes on."""

    def __init__(self, operation: int, code: int) -> None:
        super().__init__(f"it answers 0x{code:04X} to {Operation(operation).name}")
        self.code = code


class Session:
    """One session at a time over one pipe. Raises OSError where the device is gone, or does not keep to the standard.

    ENODEV: it is gone. EIO: this transaction failed; the next one begins a new session.
    """

    def __init__(self, pipe: Pipe) -> None:
        self._pipe = pipe
        self._transaction = 0
        self._open = False
        self._operations: frozenset[int] = frozenset()
        self._broken = False  # a transfer failed: nobody knows what the device will send next

    def renew(self) -> None:
        """Close the session, if there is one, and begin another: what the device remembers of the old one ends."""
        if self._open:
            self._open = False
            try:
                self._run(Operation.CLOSE_SESSION)
            except Refusal:
                pass
            except OSError as error:
                if error.errno != errno.EIO:
                    raise
        self._begin()

    def close(self) -> None:
        """End the session, if the device still listens."""
        if self._open:
            self._open = False
            with suppress(Refusal, OSError):
                self._run(Operation.CLOSE_SESSION)

    def supports(self, operation: Operation) -> bool:
        """Whether the device says that it can do that."""
        self._require_session()
        return operation in self._operations

    def storages(self) -> tuple[int, ...]:
        """Those that have a medium."""
        payload = self._ask(Operation.GET_STORAGE_IDS, limit=MAX_DATASET_BYTES)
        return tuple(sorted(one for one in _sound(numbers, payload) if one & 0xFFFF))

    def children(self, storage: int, parent: int) -> tuple[int, ...]:
        """The handles of what lies in a folder (0: in none). Raises Refusal."""
        payload = self._ask(Operation.GET_OBJECT_HANDLES, storage, ANY, parent or ROOT, limit=MAX_HANDLES_BYTES)
        return _sound(numbers, payload)

    def info(self, handle: int) -> ObjectInfo:
        """What the device says of an object. Raises Refusal."""
        return _sound(object_info, self._ask(Operation.GET_OBJECT_INFO, handle, limit=MAX_DATASET_BYTES))

    def long_size(self, handle: int) -> int | None:
        """The size of an object of 4 GiB or more; None where the device does not state it."""
        if not self.supports(Operation.GET_OBJECT_PROP_VALUE):
            return None
        try:
            payload = self._ask(Operation.GET_OBJECT_PROP_VALUE, handle, OBJECT_SIZE, limit=MAX_DATASET_BYTES)
        except Refusal:
            return None
        return int.from_bytes(payload, "little") if len(payload) == 8 else None  # noqa: PLR2004  bytes of 64 bits

    def reads_at(self, offset: int) -> bool:
        """Whether a part of an object can be had that begins there."""
        return self.supports(Operation.GET_PARTIAL_OBJECT_64) or (
            offset <= MAX_OFFSET_32 and self.supports(Operation.GET_PARTIAL_OBJECT)
        )

    def read(self, handle: int, offset: int, view: memoryview) -> int:
        """Some bytes of an object. Raises Refusal."""
        if self.supports(Operation.GET_PARTIAL_OBJECT_64):
            low, high = offset & MAX_OFFSET_32, offset >> 32
            return self._read(Operation.GET_PARTIAL_OBJECT_64, (handle, low, high, len(view)), view)
        if not self.reads_at(offset):
            raise OSError(errno.EIO, "the camera gives no part of a file from there")
        return self._read(Operation.GET_PARTIAL_OBJECT, (handle, offset, len(view)), view)

    def delete(self, handle: int) -> None:
        """Delete one object. Raises Refusal. After an OSError it may be gone or not."""
        if handle in SPECIAL_HANDLES:
            raise ValueError("that is no object")
        self._require_session()
        self._run(Operation.DELETE_OBJECT, (handle, ANY))

    # --- transactions

    def _begin(self) -> None:
        if self._broken:
            self._pipe.restart()
            self._broken = False
        self._transaction = 0
        try:
            self._run(Operation.OPEN_SESSION, (_SESSION,))
        except Refusal as refusal:
            if refusal.code != Code.SESSION_ALREADY_OPEN:
                raise OSError(errno.EIO, f"no session: {refusal}") from refusal
            self._run_closed()
        self._open = True
        payload = self._ask_once(Operation.GET_DEVICE_INFO, (), MAX_DATASET_BYTES)
        self._operations = _sound(operations, payload)

    def _run_closed(self) -> None:
        """A program before this one left its session open: close it, and begin."""
        try:
            self._run(Operation.CLOSE_SESSION)
            self._transaction = 0
            self._run(Operation.OPEN_SESSION, (_SESSION,))
        except Refusal as refusal:
            raise OSError(errno.EIO, f"no session: {refusal}") from refusal

    def _require_session(self) -> None:
        if not self._open:
            self._begin()

    def _ask(self, operation: Operation, *parameters: int, limit: int) -> bytes:
        """What a request brings, of at most `limit` bytes. Once more where a transfer failed. Raises Refusal."""
        try:
            return self._ask_once(operation, parameters, limit)
        except OSError as error:
            if error.errno != errno.EIO:
                raise
        return self._ask_once(operation, parameters, limit)

    def _ask_once(self, operation: Operation, parameters: tuple[int, ...], limit: int) -> bytes:
        self._require_session()
        answer = bytearray()

        def take(piece: memoryview, total: int) -> None:
            if total > limit:
                raise OSError(errno.EIO, f"{total} bytes come for {operation.name}")
            answer.extend(piece)

        self._run(operation, parameters, take)
        return bytes(answer)

    def _read(self, operation: Operation, parameters: tuple[int, ...], view: memoryview) -> int:
        self._require_session()
        done = 0

        def take(piece: memoryview, total: int) -> None:
            nonlocal done
            if total > len(view):
                raise OSError(errno.EIO, f"{total} bytes come where {len(view)} were asked for")
            view[done : done + len(piece)] = piece
            done += len(piece)

        self._run(operation, parameters, take)
        return done

    def _run(self, operation: Operation, parameters: tuple[int, ...] = (), take: Take | None = None) -> None:
        """One transaction. Raises Refusal where the device refuses it."""
        transaction = self._transaction
        self._transaction = transaction + 1 if transaction < _LAST_TRANSACTION else 1
        try:
            self._pipe.send(command(operation, transaction, parameters))
            kind, code, rest, piece = self._container(transaction)
            if kind == Kind.DATA and take is not None and code == operation:
                self._data(rest, piece, take)
                kind, code, rest, piece = self._container(transaction)
            _require(kind == Kind.RESPONSE and rest == len(piece), f"kind {kind} answers {operation.name}")
        except (OSError, Unsound) as error:
            raise self._failed(error) from error
        if code != Code.OK:
            raise Refusal(operation, code)

    def _container(self, transaction: int) -> tuple[int, int, int, memoryview]:
        """The next one: its kind, its code, how many bytes follow the header, and those that came with it."""
        for _ in range(_MAX_EMPTY):
            piece = self._pipe.receive(self._pipe.packet_bytes)
            if len(piece):
                break
        if len(piece) < HEADER.size:
            raise Unsound(f"a container of {len(piece)} bytes")
        length, kind, code, number = HEADER.unpack_from(piece)
        if length < len(piece) or number != transaction:
            raise Unsound(f"a container of {length} bytes for transaction {number}, and {len(piece)} bytes came")
        return kind, code, length - HEADER.size, piece[HEADER.size :]

    def _data(self, total: int, piece: memoryview, take: Take) -> None:
        """A data phase of `total` bytes, the first of which came with its header."""
        take(piece, total)
        rest, packet = total - len(piece), self._pipe.packet_bytes
        while rest:
            piece = self._pipe.receive(-(-rest // packet) * packet)
            if not 0 < len(piece) <= rest:
                raise Unsound(f"{len(piece)} bytes came where {rest} are to come")
            take(piece, total)
            rest -= len(piece)

    def _failed(self, error: OSError | Unsound) -> OSError:
        """What it means that a transaction failed: the device is gone, or silent, or the next one starts afresh."""
        self._open, self._broken = False, True
        if isinstance(error, OSError) and error.errno == errno.ETIMEDOUT:
            return OSError(errno.ESHUTDOWN, "the camera does not answer")
        if isinstance(error, OSError) and error.errno in GONE:
            return error
        try:
            self._pipe.descriptor()
        except OSError as gone:
            return OSError(errno.ENODEV, f"the camera does not answer: {gone.strerror}")
        return OSError(errno.EIO, str(error.strerror if isinstance(error, OSError) else error))


def _require(sound: bool, words: str) -> None:
    if not sound:
        raise Unsound(words)


def _sound(parse: Callable[[bytes], _T], payload: bytes) -> _T:
    try:
        return parse(payload)
    except (Unsound, UnicodeError) as error:
        raise OSError(errno.EIO, f"the camera contradicts itself: {error}") from error
