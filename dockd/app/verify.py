"""Check a custody log on disk, as an outsider would: `dockd custody verify`, and read it: `dockd custody show`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from dockd.core import canonical, checkpoint, receipts, sshsig
from dockd.core.custody import MAX_LINE_BYTES
from dockd.core.custody_check import Anchor, Report, station_of, verify_log
from dockd.core.keyfiles import StationPublic, StorePublic, parse_station_pub, parse_store_pub
from dockd.core.merkle import EMPTY_ROOT
from dockd.core.sshsig import PublicKey
from dockd.errors import DockdError, VerificationFailed
from dockd.model import SignedBytes

LOG, CHECKPOINT, WITNESSED = "custody.jsonl", "checkpoint", "witnessed"
VKEY, PEM = "checkpoint.vkey", "checkpoint.pem"
_SMALL_BYTES = 1024 * 1024  # of every file but the log


class FileMissing(DockdError):
    """A file that the check needs is not there."""


class FileForbidden(DockdError):
    """A file that the check needs may not be read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CustodyPlace:
    """Where a custody log and what belongs to it are."""

    directory: Path

    @property
    def log(self) -> Path:
        """The log itself."""
        return self.directory / LOG


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckedLog:
    """The report, with what was and what was not established beside it, a sentence each."""

    log: Path
    report: Report
    key: str  # whose word it rests on, and where that key came from
    established: tuple[str, ...]
    not_checked: tuple[str, ...]
    doubts: tuple[str, ...]  # what is wrong beside the log

    @property
    def whole(self) -> bool:
        """Whether nothing wrong was found."""
        return self.report.whole and not self.doubts


def find_log(path: Path) -> CustodyPlace:
    """The log at `path`: the state directory, its custody directory, or the file. Raises FileMissing."""
    for directory in (path.parent,) if path.is_file() and path.name == LOG else (path, path / "custody"):
        if (directory / LOG).is_file():
            return CustodyPlace(directory=directory)
    if path.is_file():
        raise FileMissing(f"{path} is not called {LOG}: name the log, its custody directory or the state directory")
    _stat(path)
    raise FileMissing(f"there is no {LOG} in {path}: name the log, its custody directory or the state directory")


def verify_custody(
    place: CustodyPlace, *, against: Path | None, store_key: Path | None, station_key: Path | None
) -> CheckedLog:
    """Check the log against its checkpoint, and against what `against` (a receipt or a checkpoint) witnessed of it.

    Raises FileMissing, FileForbidden, and VerificationFailed where a key, receipt or checkpoint that was given cannot
    be used; what is wrong with the log itself is in the report.
    """
    # The checkpoint first: the log of a running station only grows.
    note = _optional(place.directory / CHECKPOINT)
    origin, public, key, not_checked = _key(place, note, station_key)
    said = _Said(origin=origin, public=public, store=_store(store_key))
    anchors: list[Anchor] = []
    doubts: list[str] = []
    witnessed = _optional(place.directory / WITNESSED)
    if witnessed is not None:
        try:
            anchors.append(said.cosigned(witnessed, place.directory / WITNESSED))
        except VerificationFailed as error:
            doubts.append(str(error))
    pem = _optional(place.directory / PEM)
    if pem is not None and pem != checkpoint.public_pem(public):
        doubts.append(f"{place.directory / PEM} is another key: what openssl says with it tells nothing of this log")
    if against is None:
        not_checked.append(
            "roll-back: that the log was not put back to an older state as a whole; give --against a receipt or a "
            "checkpoint that was kept elsewhere"
        )
    else:
        anchors.append(said.against(against))
        said.established.append(f"the log was compared with {anchors[-1].name}")
    report = verify_log(lines_of(place.log), note, origin=origin, public=public, anchors=anchors)
    return CheckedLog(
        log=place.log,
        report=report,
        key=key,
        established=tuple(dict.fromkeys(said.established)),
        not_checked=(*not_checked, *dict.fromkeys(said.not_checked)),
        doubts=tuple(doubts),
    )


def lines_of(log: Path) -> Iterator[bytes]:
    """The lines with their LF; one that is longer than an entry may be is cut. Raises FileMissing, FileForbidden."""
    try:
        with log.open("rb") as file:
            while line := file.readline(MAX_LINE_BYTES + 1):
                whole = line.endswith(b"\n") or len(line) <= MAX_LINE_BYTES
                yield line
                while not whole and (rest := file.readline(MAX_LINE_BYTES + 1)):
                    whole = rest.endswith(b"\n")
    except OSError as error:
        raise _translated(log, error) from error


class _Said:
    """What others signed about the log, with what was and was not established about it."""

    def __init__(self, *, origin: str, public: PublicKey, store: StorePublic | None) -> None:
        self._origin = origin
        self._public = public
        self._store = store
        self.established: list[str] = []
        self.not_checked: list[str] = []

    def against(self, path: Path) -> Anchor:
        """What the file that was given says. Raises VerificationFailed."""
        content = _small(path)
        if content.lstrip()[:1] == b"{":
            return self._receipt(content, path)
        return self.cosigned(content, path)

    def cosigned(self, note: bytes, path: Path) -> Anchor:
        """What a cosigned checkpoint of this log says. Raises VerificationFailed."""
        try:
            head = checkpoint.parse_and_verify(note, self._origin, self._public)
        except VerificationFailed as error:
            raise VerificationFailed(f"{path} is no checkpoint of {self._origin}: {error}") from error
        if self._store is None:
            self.not_checked.append(f"who cosigned {path}: give --store-key store.pub for that")
        else:
            checkpoint.verify_cosignature(note, f"dockd-store/{self._store.store}", self._store.key)
            self.established.append(f"{path} is cosigned by store {self._store.store}")
        return Anchor(name=f"the checkpoint {path}", size=head.size, root=head.root)

    def _receipt(self, content: bytes, path: Path) -> Anchor:
        try:
            signed = _signed(content, path)
            stated = receipts.stated_witness(signed.payload)
            self._check_subject(signed, stated, path)
        except VerificationFailed as error:
            raise VerificationFailed(f"{path}: {error}") from error
        if stated.size == 0:
            self.not_checked.append(
                f"roll-back: receipt {stated.receipt_seq} was given before the store had witnessed the log; give "
                "--against a later one"
            )
        at = canonical.format_time(stated.at)
        # Of an empty log there is one root only, whatever a store wrote there.
        root = stated.root if stated.size else EMPTY_ROOT
        return Anchor(name=f"receipt {stated.receipt_seq} of {at} ({path})", size=stated.size, root=root)

    def _check_subject(self, signed: SignedBytes, stated: receipts.StatedWitness, path: Path) -> None:
        station = station_of(self._origin)
        if stated.station != station:
            raise VerificationFailed(f"it was given to station {stated.station}, the log is that of {station}")
        if self._store is None:
            self.not_checked.append(f"the store's signature on {path}: give --store-key store.pub for that")
            return
        if not signed.signature:
            raise VerificationFailed(f"there is no {path.name}.sig beside it with the store's signature")
        if stated.store != self._store.store:
            raise VerificationFailed(f"it is by store {stated.store}, the key given is that of {self._store.store}")
        sshsig.verify(self._store.key, sshsig.RECEIPT, signed.payload, signed.signature)
        self.established.append(f"{path} is signed by store {self._store.store}")


def _signed(content: bytes, path: Path) -> SignedBytes:
    """A receipt's bytes with their signature: from the envelope, or from the file `.sig` beside it ('' without)."""
    try:
        kind = json.loads(content).get("type")
    except (ValueError, AttributeError, RecursionError) as error:
        raise VerificationFailed("neither a receipt nor a checkpoint") from error
    if kind == "signed":
        return sshsig.signed_from_json(canonical.decode(content, type_="signed"))
    signature = _optional(path.with_name(path.name + ".sig"))
    return SignedBytes(payload=content, signature=signature.decode(errors="replace") if signature else "")


def _key(place: CustodyPlace, note: bytes | None, station_key: Path | None) -> tuple[str, PublicKey, str, list[str]]:
    """The log's name and the key that its checkpoints are signed with, whose word that is, and what is not known of it.

    Raises VerificationFailed where the log's key is not the enrolled one.
    """
    beside = _optional(place.directory / VKEY)
    if station_key is None:
        if beside is None:
            raise FileMissing(f"there is no {VKEY} beside the log: give --station-key station.pub")
        origin, public = checkpoint.parse_vkey(beside.decode(errors="replace"))
        missing = (
            f"the station's key: it was taken from {place.directory / VKEY}, beside the log itself; give --station-key "
            "station.pub, as the authority enrolled it"
        )
        return origin, public, f"{public.fingerprint}, from beside the log", [missing]
    station: StationPublic = parse_station_pub(_text(station_key))
    enrolled = station.checkpoint_key
    if beside is not None:
        origin, public = checkpoint.parse_vkey(beside.decode(errors="replace"))
    else:
        origin, public = (note or b"").split(b"\n", 1)[0].decode(errors="replace"), enrolled
    if station.station != station_of(origin) or enrolled != public:
        raise VerificationFailed(
            f"the log is {origin}, signed by {public.fingerprint}; {station_key} is of station {station.station}, "
            f"whose checkpoint key is {enrolled.fingerprint}"
        )
    return origin, public, f"{public.fingerprint}, as in {station_key}", []


def _store(path: Path | None) -> StorePublic | None:
    return None if path is None else parse_store_pub(_text(path))


def _text(path: Path) -> str:
    try:
        return _small(path).decode()
    except UnicodeDecodeError as error:
        raise VerificationFailed(f"{path} is not text") from error


def _optional(path: Path) -> bytes | None:
    try:
        return _small(path)
    except FileMissing:
        return None


def _small(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(_SMALL_BYTES + 1)
    except OSError as error:
        raise _translated(path, error) from error
    if len(content) > _SMALL_BYTES:
        raise VerificationFailed(f"{path} is too long for what it should be")
    return content


def _stat(path: Path) -> None:
    try:
        path.stat()
    except OSError as error:
        raise _translated(path, error) from error


def _translated(path: Path, error: OSError) -> DockdError:
    if isinstance(error, PermissionError):
        return FileForbidden(f"you may not read {path}: run this as root or as the user dockd")
    return FileMissing(f"{path} cannot be read: {error.strerror}")
