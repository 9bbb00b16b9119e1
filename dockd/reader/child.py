"""One reader: takes requests from its socket, one at a time, until the daemon closes it.

It is sealed off before it looks at anything of the camera, and can reach the mounts that it was started with and no
others: for a fresh mount it hands what it found out to another reader (dockd.reader.carry).
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import secrets
import select
import socket
import traceback
from typing import TYPE_CHECKING, Any

from dockd import faults
from dockd.core import warrant as warrants
from dockd.core.sealing import Recipient
from dockd.errors import (
    ClipBusy,
    ClipChanged,
    ClipGone,
    ClipRefused,
    DockdError,
    EraseFailed,
    ReaderDied,
    ReaderNotStarted,
    VerificationFailed,
    WarrantRefused,
)
from dockd.model import AcquisitionId, Digest, DockingId, Epoch, FoundFile, MediumKind
from dockd.reader import carry, messages
from dockd.reader.acquire import acquire
from dockd.reader.batch import Batch
from dockd.reader.confine import confine_reader, seal_off
from dockd.reader.empty import verify_empty
from dockd.reader.erase import LeftHalfway
from dockd.reader.handover import medium_from_wire
from dockd.reader.mounted import MountedCamera
from dockd.reader.opening import open_camera
from dockd.reader.reread import reread
from dockd.reader.work import Unwanted, Work, shielded_buffer

if TYPE_CHECKING:
    from collections.abc import Callable

    from dockd.core.warrant import EraseWarrant
    from dockd.reader.carry import Carried

_SHORTAGES = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN)
_BATCH_ENTRIES = 200
_BATCH_BYTES = 32 * 1024  # one entry has at most about 14 KiB: a batch stays below the cap of a message
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def run(start: bytes, incoming_fd: int, socket_fd: int, camera_fds: tuple[int, ...], parent: int) -> int:
    """Serve one docking; returns the exit status. Called once, right after the fork, from a single-threaded program."""
    confine_reader(parent, (incoming_fd, socket_fd, *camera_fds))
    with socket.socket(fileno=socket_fd) as channel:
        fields = messages.unpack(start, None)
        link = _Link(channel, Epoch(messages.integer(fields, "epoch")))
        try:
            injected = faults.from_environment()
            if fields["kind"] == "measure":
                link.send("ready", unmet=seal_off(-1, None))
                return os.EX_OK
            given = _Given(fields, incoming_fd, camera_fds)
            unmet = seal_off(incoming_fd, given.medium, injected.tokens())
            session = _begin(given, link, injected)
            link.send("ready", unmet=unmet)
            session.serve()
        except Unwanted:
            return os.EX_OK
        except DockdError as error:
            return link.give_up(error, messages.error_to_wire(error))
        except Exception as error:  # noqa: BLE001  whatever it is, the daemon hears of it, and this reader ends
            return link.give_up(error, {"error": "ReaderDied", "message": _words(error)})
    return os.EX_OK


class _Given:
    """What the daemon says and hands over at the start. It is not the camera's: no part of that is looked at here."""

    def __init__(self, fields: dict[str, Any], incoming_fd: int, fds: tuple[int, ...]) -> None:
        self.fields = fields
        self.incoming_fd = incoming_fd
        self.carried_fd = -1
        if messages.text(fields, "carried") == "yes" and fds:
            fds, self.carried_fd = fds[:-1], fds[-1]
        self.medium = medium_from_wire(messages.table(fields, "medium"), fds)


def _begin(given: _Given, link: _Link, injected: faults.Faults) -> _Session:
    """Raises ReaderNotStarted where the machine is short of something, before anything was asked of the camera."""
    try:
        carried = None if given.carried_fd < 0 else carry.unpack(given.carried_fd)
        return _Session(link, _work(given, link, injected, carried), carried)
    except MemoryError as error:
        raise ReaderNotStarted("no reader could be started: there is not enough memory") from error
    except OSError as error:
        if error.errno not in _SHORTAGES:
            raise
        raise ReaderNotStarted(f"no reader could be started: {error.strerror}") from error


def _work(given: _Given, link: _Link, injected: faults.Faults, carried: Carried | None) -> Work:
    fields = given.fields
    rules = messages.rules_from_wire(messages.table(fields, "rules"))
    return Work(
        docking=DockingId(messages.text(fields, "docking")),
        epoch=link.epoch,
        camera=open_camera(given.medium, messages.identity_from_wire(messages.table(fields, "camera")), carried),
        incoming_fd=given.incoming_fd,
        recipients=tuple(Recipient.parse(text) for text in messages.texts(fields, "recipients")),
        rules=rules,
        buffer=shielded_buffer(rules.block_bytes),
        random=secrets.token_bytes,
        faults=injected,
        wanted=link.require_open,
        tell=link.progress,
    )


class _Link:
    """The socket to the daemon."""

    def __init__(self, channel: socket.socket, epoch: Epoch) -> None:
        self.epoch = epoch
        self._channel = channel
        self._poll = select.poll()
        self._poll.register(channel, 0)  # hang-ups are reported unasked

    def send(self, kind: str, *descriptors: int, **fields: Any) -> None:
        """Raises Unwanted where nobody listens."""
        try:
            socket.send_fds(self._channel, [messages.pack(self.epoch, kind, **fields)], descriptors)
        except OSError as error:
            raise Unwanted from error

    def receive(self) -> dict[str, Any]:
        """The next request. Raises Unwanted where none will come, ReaderDied for an old epoch."""
        try:
            message = self._channel.recv(messages.MAX_MESSAGE_BYTES + 1)
        except OSError as error:
            raise Unwanted from error
        if not message:
            raise Unwanted
        return messages.unpack(message, self.epoch)

    def require_open(self) -> None:
        """Raise Unwanted where the daemon closed its end."""
        if self._poll.poll(0):
            raise Unwanted

    def progress(self, acquisition: AcquisitionId, phase: str, done_bytes: int, size_bytes: int) -> None:
        """Say how far it is."""
        self.send("progress", acquisition=acquisition, phase=phase, done=str(done_bytes), size=str(size_bytes))

    def give_up(self, error: Exception, words: dict[str, Any]) -> int:
        """A last word, if anybody listens."""
        try:
            self.send("error", **words)
        except Unwanted:
            return os.EX_OK
        return os.EX_PROTOCOL if isinstance(error, ReaderDied) else os.EX_SOFTWARE


class _Session:
    """The requests of one docking."""

    def __init__(self, link: _Link, work: Work, carried: Carried | None) -> None:
        self._link = link
        self._work = work
        self._batch = Batch(work=work, camera=work.camera) if isinstance(work.camera, MountedCamera) else None
        # What was read a second time, by this reader or the one that it took over from, and its change time then.
        self._reread: dict[bytes, int] = {}
        if carried is not None:
            self._require_batch().clips.update(carried.clips)
            self._reread.update(carried.reread)
        self._requests: dict[str, Callable[[dict[str, Any]], None]] = {
            "list": self._list,
            "acquire": self._acquire,
            "reread": self._second_read,
            "check": self._check,
            "erase": self._erase,
            "plan": self._plan,
            "plan_files": self._plan_files,
            "account": self._account,
            "let_go": self._let_go,
            "verify": self._verify,
            "verify_empty": self._verify_empty,
        }

    def serve(self) -> None:
        """Answer until the socket is closed. Raises Unwanted then, and whatever ends a reader."""
        while True:
            fields = self._link.receive()
            request = self._requests.get(messages.text(fields, "kind"))
            if request is None:
                raise ReaderDied(f"no request is called {fields['kind']!r}")
            try:
                request(fields)
            except (ReaderDied, VerificationFailed):
                raise
            except DockdError as error:
                self._link.send("error", **messages.error_to_wire(error))
            except OSError as error:
                self._link.send("error", **messages.error_to_wire(self._work.camera.translate(error, b"the clip")))

    def _list(self, _: dict[str, Any]) -> None:
        batch: list[dict[str, Any]] = []
        size = 0
        for listed in self._work.camera.walk(self._work.rules):
            self._work.faults.at("list", listed.file.path)
            entry = messages.listed_to_wire(listed)
            length = len(json.dumps(entry))
            if batch and (size + length > _BATCH_BYTES or len(batch) == _BATCH_ENTRIES):
                self._link.send("entries", entries=batch)
                batch, size = [], 0
            batch.append(entry)
            size += length
        self._link.send("entries", entries=batch)
        self._link.send("done")

    def _acquire(self, fields: dict[str, Any]) -> None:
        acquisition, file = _subject(fields)
        sealed = acquire(self._work, acquisition, file, sidecar=bool(messages.integer(fields, "sidecar")))
        self._link.send("sealed", acquisition=acquisition, sealed=messages.sealed_to_wire(sealed))

    def _second_read(self, fields: dict[str, Any]) -> None:
        acquisition, file = _subject(fields)
        again, changed_ns = reread(self._work, acquisition, file)
        self._reread[_evidence(acquisition, file, again.plaintext_digest)] = changed_ns
        self._link.send("reread", acquisition=acquisition, reread=messages.reread_to_wire(again))

    def _erase(self, fields: dict[str, Any]) -> None:
        warrant = self._warrant(messages.table(fields, "warrant"))
        evidence = _evidence(warrant.acquisition, warrant.file, warrant.plaintext_digest)
        together = self._batch if self._batch and self._batch.camera.kind is MediumKind.VOLUMES else None
        if together:
            together.require_planned(warrant.acquisition)
        erasure = self._work.camera.erase(self._work, warrant, self._reread.get(evidence))
        self._reread.pop(evidence, None)
        if together:
            together.erased(warrant.acquisition)
        self._link.send("erased", acquisition=warrant.acquisition, erasure=messages.erasure_to_wire(erasure))

    def _check(self, fields: dict[str, Any]) -> None:
        """Whether what a warrant is for could be erased now, as far as that can be seen with nothing touched."""
        warrant = self._warrant(messages.table(fields, "warrant"))
        camera = self._work.camera
        if isinstance(camera, MountedCamera):
            with camera.clip(warrant.file, to_erase=True) as clip:
                evidence = _evidence(warrant.acquisition, warrant.file, warrant.plaintext_digest)
                if not warrant.remnant and clip.changed_ns() != self._reread[evidence]:
                    raise ClipChanged("the clip was touched after its second read")
        else:
            with camera.clip(warrant.file):
                camera.require_attached()
        self._link.send("checked", acquisition=warrant.acquisition)

    # --- of volumes, erased together

    def _plan(self, _: dict[str, Any]) -> None:
        self._require_batch().begin()
        self._link.send("planned", unclear={})

    def _plan_files(self, fields: dict[str, Any]) -> None:
        unclear = {}
        for one in fields.get("files", ()):
            acquisition, file = _subject(one)
            try:
                reason = self._require_batch().plan(acquisition, file)
            except (ClipBusy, ClipChanged, ClipGone, ClipRefused) as error:
                reason = str(error)
            if reason:
                unclear[acquisition] = messages.short(reason)
        self._link.send("planned", unclear=unclear)

    def _account(self, _: dict[str, Any]) -> None:
        self._require_batch().require_coherent()
        self._link.send("accounted", unaccounted=messages.short(self._require_batch().unaccounted()))

    def _let_go(self, _: dict[str, Any]) -> None:
        batch = self._require_batch()
        batch.camera.let_go(self._work.faults)
        carried = carry.Carried(
            volumes=batch.camera.volumes,
            generation=batch.camera.generation,
            reread=self._reread,
            clips=batch.clips,
        )
        self._link.send("let_go", carry.pack(carried))

    def _verify(self, fields: dict[str, Any]) -> None:
        acquisition = AcquisitionId(messages.text(fields, "acquisition"))
        checked = self._require_batch().verify(acquisition)
        self._link.send("verified", acquisition=acquisition, checked=messages.short(checked))

    def _verify_empty(self, fields: dict[str, Any]) -> None:
        checked = verify_empty(self._require_batch(), messages.text(fields, "method"))
        self._link.send("empty", checked=messages.short(checked))

    def _require_batch(self) -> Batch:
        if self._batch is None:
            raise EraseFailed("this camera has no volumes")
        return self._batch

    def _warrant(self, record: dict[str, Any]) -> EraseWarrant:
        """The warrant, if this reader itself knows that it fits. Raises EraseFailed, with nothing touched."""
        work = self._work
        try:
            warrant = warrants.from_wire(record, docking=work.docking, epoch=work.epoch, camera=work.camera.identity)
        except WarrantRefused as refusal:
            raise EraseFailed(str(refusal)) from refusal
        evidence = _evidence(warrant.acquisition, warrant.file, warrant.plaintext_digest)
        if not warrant.remnant and evidence not in self._reread:
            raise EraseFailed(
                "not erased: this reader did not itself read that file a second time and find that digest"
            )
        return warrant


def _subject(fields: dict[str, Any]) -> tuple[AcquisitionId, FoundFile]:
    acquisition = messages.text(fields, "acquisition")
    if not _UUID.fullmatch(acquisition):
        raise ReaderDied("an acquisition's id is no UUID")
    return AcquisitionId(acquisition), messages.file_from_wire(messages.table(fields, "file"))


def _evidence(acquisition: AcquisitionId, file: FoundFile, digest: Digest) -> bytes:
    """Stands for one second read, of that very file, with that result."""
    return hashlib.sha256(repr((acquisition, file, digest)).encode()).digest()


def _words(error: Exception) -> str:
    if isinstance(error, LeftHalfway):
        return messages.short(str(error))
    where = traceback.extract_tb(error.__traceback__)[-1]
    return messages.short(f"{type(error).__name__} in {where.name}, line {where.lineno}: {error}")
