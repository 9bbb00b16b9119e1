"""A second verifier of what dockd leaves behind, written from docs/formats.md alone.

It imports nothing of dockd: the standard library, and the stock tools openssl, ssh-keygen, age and age-keygen, are all
it takes. One file on purpose, for it is to be read from top to bottom and carried to another machine.

    verify_outsider.py --station-pub station.pub [--custody DIR] [--store-pub store.pub --store DIR [--key FILE]]

`--custody` is the directory with custody.jsonl, `--store` the one with acquisitions/. The keys must come from a trusted
place. Each defect is one line on standard output; the exit status is 0 where there is none, 1 where there are some.
Numbers in brackets are the sections of formats.md.
"""

from __future__ import annotations

import argparse
import base64
import binascii
import hashlib
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

MAX_LINE_BYTES = 65_535
MAX_HEADER_BYTES = 262_144
CHUNK_BYTES = 65_536
BIGGEST = 2**53 - 1
ZEROS = "0" * 64


class BadBytes(Exception):
    """Something is not in the format it should be in."""


Wrong = Callable[[str], None]


@dataclass
class Report:
    """What was found: defects, and what was left unchecked."""

    defects: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def about(self, where: str) -> Wrong:
        """What adds a defect of one thing."""
        return lambda what: self.defects.append(f"{where}: {what}")

    def defect(self, where: str, what: str) -> None:
        self.about(where)(what)


def sha256_digest(content: bytes) -> str:
    return "sha256:" + hashlib.sha256(content).hexdigest()


# --- [2] canonical JSON, and the spellings of values

HEX64 = re.compile(r"[0-9a-f]{64}")
DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", re.ASCII)
PATH = re.compile(r"(?:[/A-Za-z0-9._~-]|%[0-9A-F]{2})+")
DECIMALS = re.compile(r"0|-?[1-9][0-9]*")

Check = Callable[[object], bool]


def like(pattern: re.Pattern[str]) -> Check:
    return lambda value: isinstance(value, str) and pattern.fullmatch(value) is not None


def number_from(least: int) -> Check:
    return lambda value: type(value) is int and value >= least


def one_of(*values: object) -> Check:
    return lambda value: any(value is each or (type(value) is type(each) and value == each) for each in values)


def either(*checks: Check) -> Check:
    return lambda value: any(check(value) for check in checks)


def list_of(check: Check) -> Check:
    return lambda value: isinstance(value, list) and all(check(each) for each in value)


def shape(**keys: Check) -> Check:
    """An object with these keys and no other."""
    return lambda value: (
        isinstance(value, dict) and value.keys() == keys.keys() and all(keys[k](value[k]) for k in keys)
    )


def is_time(value: object) -> bool:
    if not like(TIME)(value):
        return False
    try:
        datetime.fromisoformat(str(value))
    except ValueError:
        return False
    return True


def is_path(value: object) -> bool:
    """Percent-encoded where it must be, and nowhere else."""
    if not like(PATH)(value):
        return False
    needless = (chr(int(code, 16)) for code in re.findall("%(..)", str(value)))
    return not any(re.fullmatch(r"[/A-Za-z0-9._~-]", character) for character in needless)


def text(value: object) -> bool:
    return isinstance(value, str)


def number(value: object) -> bool:
    return type(value) is int


DIGEST_AND_SIZE = shape(digest=like(DIGEST), size_bytes=number_from(0))
CAMERA = shape(vendor=text, product=text, serial=text, model=text, volume_id=text)

MANIFEST: dict[str, Check] = {  # [4]
    "type": one_of("manifest"),
    "v": one_of(1, 2),
    "acquisition": like(UUID),
    "station": like(UUID),
    "docking": like(UUID),
    "bay": number_from(1),
    "camera": CAMERA,
    "path": is_path,
    "size_bytes": number_from(0),
    "mtime": either(is_time, one_of(None)),
    "mtime_ns": like(DECIMALS),
    "recorded_at": either(is_time, one_of(None)),
    "recorded_at_source": one_of("container", "name", "none"),
    "duration_ms": either(number_from(0), one_of(None)),
    "clock_offset_ms": either(number, one_of(None)),
    "category": one_of("evidence", "none"),
    "category_reason": text,
    "verdict": one_of("intact", "damaged", "unrecognised"),
    "reasons": list_of(text),
    "container": text,
    "plaintext": DIGEST_AND_SIZE,
    "sealed": DIGEST_AND_SIZE,
    "recipients": list_of(like(DIGEST)),
    "dockd": text,
    "custody_seq": number_from(0),
    "nonce": like(HEX64),
    "role": one_of("clip", "sidecar"),
    "of": either(like(UUID), one_of(None)),
}
NAMED = shape(
    started_at=either(is_time, one_of(None)), local=text, time_zone=text, sequence=text, officer=text, category=text
)
MANIFEST_MAY_HAVE: dict[str, Check] = {  # [4.1]
    "profile": shape(name=lambda value: text(value) and value != "", version=number_from(1)),
    "named": either(NAMED, one_of(None)),
}
RECEIPT: dict[str, Check] = {  # [5]
    "type": one_of("receipt"),
    "v": one_of(1, 2, 3),
    "store": like(UUID),
    "station": like(UUID),
    "acquisition": like(UUID),
    "manifest": like(DIGEST),
    "sealed": DIGEST_AND_SIZE,
    "nonce": like(HEX64),
    "at": is_time,
    "receipt_seq": number_from(1),
    "previous": like(DIGEST),
    "witnessed": shape(size=number_from(0), root=like(HEX64)),
}
RULE = shape(
    category=text,
    until=one_of("date", "ended"),
    policy=like(DIGEST),
    recorded_from=one_of("manifest", "arrival"),
    recorded_at=is_time,
)
PROMISE: dict[str, Check] = {"rule": RULE, "keep_until": is_time, "delete_by": either(is_time, one_of(None))}  # [5.4]
SHARES = shape(station=like(UUID), acquisition=like(UUID), manifest=like(DIGEST), shown=like(HEX64))
RECEIPT_MAY_HAVE: dict[str, Check] = {  # [5], [5.2], [5.4]
    "retention_until": is_time,
    "shares": either(SHARES, one_of(None)),
    **PROMISE,
}
RECEIPT_KEYS = {1: {"retention_until"}, 2: {"retention_until", "shares"}, 3: {"shares", *PROMISE}}
TERMS = shape(
    until=one_of("date", "ended"), recorded_days=number_from(0), review_days=number_from(0), undo_days=number_from(0)
)
POLICY: dict[str, Check] = {  # [5.3]
    "type": one_of("policy"),
    "v": one_of(1),
    "store": like(UUID),
    "policy_seq": number_from(1),
    "at": is_time,
    "categories": lambda value: (
        isinstance(value, dict) and {"none", "evidence"} <= value.keys() and all(map(TERMS, value.values()))
    ),
}
EXTENSION: dict[str, Check] = {  # [5.5]
    "type": one_of("extension"),
    "v": one_of(1),
    "store": like(UUID),
    "station": like(UUID),
    "acquisition": like(UUID),
    "manifest": like(DIGEST),
    "receipt": like(DIGEST),
    "n": number_from(1),
    "previous": like(DIGEST),
    "at": is_time,
    **PROMISE,
}
ENTRY: dict[str, Check] = {  # [7]
    "type": one_of("custody"),
    "v": one_of(1),
    "seq": number_from(0),
    "prev": like(HEX64),
    "at": is_time,
    "event": text,
    "station": like(UUID),
    "details": lambda value: isinstance(value, dict),
}
ENTRY_MAY_HAVE: dict[str, Check] = {
    "bay": number_from(1),
    "docking": like(UUID),
    "acquisition": like(UUID),
    "camera": text,
}


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    if len({key for key, _ in pairs}) != len(pairs):
        raise BadBytes("a key stands twice in one object")
    return dict(pairs)


def _integer(digits: str) -> int:
    value = int(digits)
    if abs(value) > BIGGEST:
        raise BadBytes(f"an integer beyond 2^53-1: {digits}")
    return value


def _no_number(spelling: str) -> object:
    raise BadBytes(f"a number that is no integer: {spelling}")


def canonical(raw: bytes, must: dict[str, Check], may: dict[str, Check] | None = None) -> dict:
    """The object in `raw`; raises BadBytes where it is not spelt as [2] says, or has other keys or values."""
    try:
        found = json.loads(
            raw.decode("utf-8"),
            object_pairs_hook=_object,
            parse_int=_integer,
            parse_float=_no_number,
            parse_constant=_no_number,
        )
        spelt = json.dumps(found, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode("utf-8")
    except (ValueError, RecursionError) as wrong:
        raise BadBytes(f"not JSON: {wrong}") from None
    if spelt != raw:
        raise BadBytes("not in canonical spelling")
    if not isinstance(found, dict):
        raise BadBytes("not a JSON object")
    known = must | (may or {})
    for key in must.keys() - found.keys():
        raise BadBytes(f"the key {key} is missing")
    for key in sorted(found):
        if key not in known:
            raise BadBytes(f"unknown key {key}")
        if not known[key](found[key]):
            raise BadBytes(f"{key} has a value that is not allowed: {found[key]!r}")
    return found


# --- [3] keys and signatures


@dataclass(frozen=True)
class Key:
    """A line of station.pub or store.pub."""

    comment: str
    openssh: str

    @property
    def owner(self) -> str:
        return self.comment.partition(":")[2]

    @property
    def raw(self) -> bytes:
        """The 32 bytes: the last field of the SSH blob."""
        return base64.b64decode(self.openssh.split()[1])[-32:]

    @property
    def pem(self) -> str:
        """The same for openssl: SubjectPublicKeyInfo of RFC 8410."""
        der = base64.b64encode(bytes.fromhex("302a300506032b6570032100") + self.raw).decode()
        return f"-----BEGIN PUBLIC KEY-----\n{der}\n-----END PUBLIC KEY-----\n"


@dataclass(frozen=True)
class Keys:
    """What a verifier was given out of band."""

    manifest: Key
    checkpoint: Key
    store: Key | None
    identity: Path | None
    others: dict[str, Key] = field(default_factory=dict)  # the manifest keys of other stations, by their ids

    @property
    def station(self) -> str:
        return self.manifest.owner


def read_keys(path: Path, *kinds: str) -> list[Key]:
    """The keys of [3.1], in the order of `kinds`; exits where the file is wrong, for nothing can be checked then."""
    lines = [line.split() for line in path.read_text().splitlines() if line.strip() and not line.startswith("#")]
    keys = [Key(comment=" ".join(comment), openssh=f"{kind} {blob}") for kind, blob, *comment in lines]
    found = [key for kind in kinds for key in keys if key.comment.startswith(f"{kind}:")]
    if len(keys) != len(kinds) or len(found) != len(kinds) or len({key.owner for key in found}) != 1:
        sys.exit(f"{path} is not a file of the keys {', '.join(kinds)} of one owner")
    if len({key.openssh for key in found}) != len(kinds):
        sys.exit(f"{path} has one key twice")
    return found


def run(*words: str, stdin: bytes = b"") -> bool:
    return subprocess.run(words, input=stdin, capture_output=True, check=False).returncode == 0


def ssh_signature_holds(key: Key, namespace: str, message: bytes, signature: Path) -> bool:
    with tempfile.TemporaryDirectory() as directory:
        allowed = Path(directory, "allowed")
        allowed.write_text(f"{key.comment} {key.openssh}\n")
        words = (
            "ssh-keygen",
            "-Y",
            "verify",
            "-f",
            str(allowed),
            "-I",
            key.comment,
            "-n",
            namespace,
            "-s",
            str(signature),
        )
        return run(*words, stdin=message)


def ed25519_holds(key: Key, message: bytes, signature: bytes) -> bool:
    with tempfile.TemporaryDirectory() as directory:
        pem, signed, proof = (Path(directory, name) for name in ("pem", "text", "signature"))
        pem.write_text(key.pem)
        signed.write_bytes(message)
        proof.write_bytes(signature)
        asked = ("-in", str(signed), "-sigfile", str(proof))
        return run("openssl", "pkeyutl", "-verify", "-pubin", "-inkey", str(pem), "-rawin", *asked)


# --- [8] the tree


class Tree:
    """The Merkle tree over lines; remembers the roots of ranges, so that many prefixes cost little more than one."""

    def __init__(self, lines: list[bytes]) -> None:
        self._leaves = [hashlib.sha256(b"\x00" + line).digest() for line in lines]
        self._known: dict[tuple[int, int], bytes] = {}

    def root(self, size: int) -> bytes:
        return self._range(0, size) if size else hashlib.sha256(b"").digest()

    def _range(self, start: int, end: int) -> bytes:
        if end - start == 1:
            return self._leaves[start]
        if (start, end) not in self._known:
            split = start + (1 << (end - start - 1).bit_length() - 1)
            both = self._range(start, split) + self._range(split, end)
            self._known[start, end] = hashlib.sha256(b"\x01" + both).digest()
        return self._known[start, end]


# --- [9] checkpoints


@dataclass(frozen=True)
class Checkpoint:
    """A signed note, taken apart."""

    text: bytes
    origin: str
    size: int
    root: bytes
    signatures: list[tuple[str, bytes]]  # name, and key id with what follows it


def parse_note(note: bytes) -> Checkpoint:
    head, gap, tail = note.partition(b"\n\n")
    signed = head + b"\n"
    try:
        origin, size, root = head.decode().split("\n")
        lines = tail.decode().split("\n")
        if not gap or lines.pop() or not lines:
            raise BadBytes("the signature lines do not end as they must")
        signatures = []
        for line in lines:
            dash, name, blob = line.split(" ")
            if dash != "\u2014":
                raise BadBytes("a signature line does not begin with an em dash")
            signatures.append((name, base64.b64decode(blob, validate=True)))
        if not DECIMALS.fullmatch(size) or size.startswith("-"):
            raise BadBytes(f"a size of {size}")
        return Checkpoint(signed, origin, int(size), base64.b64decode(root, validate=True), signatures)
    except (ValueError, binascii.Error) as wrong:
        raise BadBytes(f"not a signed note of three lines: {wrong}") from None


def key_id(name: str, kind: int, key: Key) -> bytes:
    return hashlib.sha256(name.encode() + b"\n" + bytes([kind]) + key.raw).digest()[:4]


def signatures_of(note: Checkpoint, name: str, kind: int, key: Key) -> Iterator[bytes]:
    """What stands behind the key id in the lines that are by this key."""
    return (blob[4:] for signer, blob in note.signatures if signer == name and blob[:4] == key_id(name, kind, key))


def check_note(raw: bytes, keys: Keys, log: Log | None, wrong: Wrong, *, cosigned: bool) -> Checkpoint | None:
    """Origin, signatures, and the root over the lines of the log."""
    try:
        note = parse_note(raw)
    except BadBytes as what:
        wrong(str(what))
        return None
    if not re.fullmatch(rf"dockd/{keys.station}/[1-9][0-9]*", note.origin):
        wrong(f"the origin {note.origin} is not this station's")
    signatures = list(signatures_of(note, note.origin, 0x01, keys.checkpoint))
    if not signatures or not all(ed25519_holds(keys.checkpoint, note.text, each) for each in signatures):
        wrong("forged: no signature by the station's checkpoint key, or one that does not verify")
    if cosigned and keys.store:
        check_cosignature(note, keys.store, wrong)
    if log:
        log.check_prefix(note.size, note.root, "signed", wrong)
    return note


def check_cosignature(note: Checkpoint, store: Key, wrong: Wrong) -> None:
    signatures = list(signatures_of(note, f"dockd-store/{store.owner}", 0x04, store))
    if not signatures:
        wrong("no cosignature by the store's key")
    for blob in signatures:
        message = f"cosignature/v1\ntime {int.from_bytes(blob[:8], 'big')}\n".encode() + note.text
        if not ed25519_holds(store, message, blob[8:]):
            wrong("forged: the store's cosignature does not verify")


# --- [7], [10] the log


@dataclass
class Log:
    """The lines as they stand, and the entries that could be read, by the line's place counted from 0."""

    lines: list[bytes]
    entries: dict[int, dict]

    def __post_init__(self) -> None:
        self._tree = Tree(self.lines)

    def check_prefix(self, size: int, root: bytes, how: str, wrong: Wrong) -> None:
        if size > len(self.lines):
            wrong(f"truncated or rolled back: {size} lines were {how}, the log has {len(self.lines)}")
        elif self._tree.root(size) != root:
            wrong(f"rewritten: the root over the first {size} lines of the log is not the one that was {how}")

    def seq(self, place: int) -> int:
        """The number of the entry in that line; an unreadable line counts as the one of its place."""
        return self.entries[place]["seq"] if place in self.entries else place

    def ordered(self) -> list[dict]:
        return sorted(self.entries.values(), key=lambda entry: entry["seq"])


def check_custody(directory: Path, keys: Keys, report: Report) -> Log:
    notes = {}
    for name in ("checkpoint", "witnessed"):  # before the log, which grows meanwhile
        with suppress(FileNotFoundError):
            notes[name] = (directory / name).read_bytes()
    *lines, rest = (directory / "custody.jsonl").read_bytes().split(b"\n")
    log = Log(lines, dict(readable(lines, keys, report)))
    check_order(log, report)
    check_links(log, report)
    signed = 0
    if "checkpoint" in notes:
        note = check_note(notes["checkpoint"], keys, log, report.about("checkpoint"), cosigned=False)
        signed = note.size if note else 0
    else:
        report.defect("checkpoint", "custody/checkpoint is missing")
    if rest and len(lines) < signed:
        report.defect(f"line {len(lines) + 1}", "truncated: no line end")
    elif rest:
        report.notes.append("the last line has no end: it is being written, or a power cut came; it is no entry")
    check_public_halves(
        directory, keys.checkpoint, notes.get("checkpoint", b"").split(b"\n")[0].decode(errors="replace"), report
    )
    if "witnessed" in notes and keys.store:
        check_note(notes["witnessed"], keys, log, report.about("witnessed"), cosigned=True)
    else:
        report.notes.append("roll-back was not checked by custody/witnessed: it is missing, or store.pub was not given")
    return log


def check_public_halves(directory: Path, key: Key, origin: str, report: Report) -> None:
    """The keys that stand beside the log prove nothing, but must not lead anybody astray."""
    vkey = f"{origin}+{key_id(origin, 0x01, key).hex()}+{base64.b64encode(bytes([0x01]) + key.raw).decode()}\n"
    for name, right in (("checkpoint.vkey", vkey), ("checkpoint.pem", key.pem)):
        path = directory / name
        if path.is_file() and path.read_text(errors="replace") != right:
            report.defect(name, "not the public key of the checkpoint")


def readable(lines: list[bytes], keys: Keys, report: Report) -> Iterator[tuple[int, dict]]:
    for place, line in enumerate(lines):
        wrong = report.about(f"line {place + 1}")
        if len(line) > MAX_LINE_BYTES:
            wrong(f"edited: {len(line)} bytes long")
        try:
            entry = canonical(line, ENTRY, ENTRY_MAY_HAVE)
        except BadBytes as what:
            wrong(f"edited or cut: {what}")
            continue
        if entry["station"] != keys.station:
            wrong("an entry of another station")
        yield place, entry


def check_order(log: Log, report: Report) -> None:
    """Name what is duplicated, reordered and dropped, by the numbers of the entries."""
    first: dict[int, int] = {}
    highest = -1
    for place, line in enumerate(log.lines):
        seq, wrong = log.seq(place), report.about(f"line {place + 1}")
        if seq in first:
            same = line == log.lines[first[seq]]
            wrong(f"{'duplicated:' if same else 'edited: the number of'} line {first[seq] + 1}, seq {seq}, again")
            continue
        first[seq] = place
        if seq < highest:
            wrong(f"reordered: seq {seq} stands after {highest}")
        highest = max(highest, seq)
    missing = [seq for seq in range(min(highest, 2 * len(log.lines))) if seq not in first]
    if missing:
        report.defect("log", f"dropped: no line has seq {', '.join(map(str, missing[:20]))} ({len(missing)} in all)")


def check_links(log: Log, report: Report) -> None:
    """Follow `prev` by the numbers, wherever the lines stand, so that one edit is named once and in its place."""
    places: dict[int, list[int]] = {}
    for place in range(len(log.lines)):
        places.setdefault(log.seq(place), []).append(place)
    for place, entry in log.entries.items():
        before = places.get(entry["seq"] - 1, [])
        if entry["seq"] == 0 and entry["prev"] != ZEROS:
            report.defect(f"line {place + 1}", "edited: prev of the first entry is not zeros")
        if before and entry["prev"] not in {hashlib.sha256(log.lines[each]).hexdigest() for each in before}:
            report.defect(f"line {before[0] + 1}", f"edited: line {place + 1} was written after another line")


# --- [1.2], [1.3] the sealed clip

HEADER = re.compile(
    rb"age-encryption\.org/v1\n"
    rb"((?:-> [!-~]+(?: [!-~]+)*\n(?:[A-Za-z0-9+/]{64}\n)*[A-Za-z0-9+/]{0,63}\n)+)"
    rb"--- [A-Za-z0-9+/]{43}\n"
)


def stanza_types(sealed: Path) -> list[str]:
    """The types of the stanzas in the age header."""
    with sealed.open("rb") as file:
        found = HEADER.match(file.read(MAX_HEADER_BYTES))
    if not found:
        raise BadBytes("clip.age has no age v1 header")
    return [line.split()[1].decode() for line in found[1].split(b"\n") if line.startswith(b"-> ")]


def check_sealed_clip(sealed: Path, manifest: dict, wrong: Wrong) -> None:
    said = manifest["sealed"]
    with sealed.open("rb") as file:
        digest = "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()
    if sealed.stat().st_size != said["size_bytes"]:
        wrong(f"clip.age has {sealed.stat().st_size} bytes, its manifest says {said['size_bytes']}")
    if digest != said["digest"]:
        wrong("clip.age has another digest than its manifest says")
    recipients, clip = len(manifest["recipients"]), manifest["plaintext"]["size_bytes"]
    if said["size_bytes"] != 22 + 98 * recipients + 48 + 16 + clip + 16 * max(1, -(-clip // CHUNK_BYTES)):
        wrong("the sealed length does not follow from the clip's length and the number of recipients")
    try:
        types = stanza_types(sealed)
    except BadBytes as what:
        wrong(str(what))
    else:
        if types != ["X25519"] * recipients:
            wrong(f"the age header has the stanzas {types}, its manifest names {recipients} recipients")


def check_opening(sealed: Path, manifest: dict, identity: Path, wrong: Wrong) -> None:
    """What `age -d` gives is the plaintext of the manifest, and the key's recipient is one that the manifest names."""
    public = subprocess.run(["age-keygen", "-y", identity], capture_output=True, text=True, check=True).stdout.split()
    if not {sha256_digest(each.encode()) for each in public} & set(manifest["recipients"]):
        wrong("its manifest does not name the recipient of the key that was given")
    digest, size = hashlib.sha256(), 0
    words = ["age", "-d", "-i", str(identity), str(sealed)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as age:
        while block := age.stdout.read(1 << 20):
            digest.update(block)
            size += len(block)
    if age.returncode:
        wrong("age cannot open clip.age")
    elif {"digest": "sha256:" + digest.hexdigest(), "size_bytes": size} != manifest["plaintext"]:
        wrong("what age opened is not the plaintext that the manifest states")


# --- [4], [5] what the store holds


@dataclass
class Stored:
    """A record and the digest of its bytes; None where it cannot be read."""

    manifest: dict | None
    manifest_digest: str
    receipt: dict | None
    receipt_digest: str


def read_signed(
    path: Path, key: Key, namespace: str, keys: dict[str, Check], wrong: Wrong, *, may: dict[str, Check] | None = None
) -> tuple[dict | None, str]:
    """The record and the digest of its bytes; the signature is checked over the bytes as they stand."""
    if not path.is_file():
        wrong(f"{path.name} is missing")
        return None, ""
    raw = path.read_bytes()
    if not ssh_signature_holds(key, namespace, raw, path.with_name(path.name + ".sig")):
        wrong(f"{path.name} is not signed by {key.comment}: edited, or its signature was")
    try:
        return canonical(raw, keys, may), sha256_digest(raw)
    except BadBytes as what:
        wrong(f"{path.name}: {what}")
        return None, sha256_digest(raw)


def time_of(nanoseconds: int) -> str | None:
    try:
        moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=nanoseconds // 1_000_000)
    except OverflowError:
        return None
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def check_manifest(stored: Stored, keys: Keys, log: Log | None, wrong: Wrong) -> None:
    manifest = stored.manifest
    if manifest["station"] != keys.station:
        wrong("the manifest is of another station")
    if manifest["mtime"] != time_of(int(manifest["mtime_ns"])):
        wrong("mtime and mtime_ns of the manifest do not agree")
    if (manifest["recorded_at"] is None) != (manifest["recorded_at_source"] == "none"):
        wrong("recorded_at and recorded_at_source of the manifest do not agree")
    if any((key in manifest) != (manifest["v"] == 2) for key in MANIFEST_MAY_HAVE):
        wrong("a manifest of version 2 has a profile and names, one of version 1 has neither")
    started_at = (manifest.get("named") or {}).get("started_at")
    if manifest["recorded_at_source"] != "container" and manifest["recorded_at"] != started_at:
        wrong("the start of the recording is not what the name says")
    if manifest["role"] == "clip" and manifest["of"] is not None:
        wrong("a clip that belongs to another")
    if manifest["size_bytes"] != manifest["plaintext"]["size_bytes"]:
        wrong("the file's length and that of the plaintext differ in the manifest")
    if log:
        check_sealed_entry(stored, log, wrong)


def check_sealed_entry(stored: Stored, log: Log, wrong: Wrong) -> None:
    manifest = stored.manifest
    entry = next((entry for entry in log.entries.values() if entry["seq"] == manifest["custody_seq"]), {})
    said = entry.get("details", {})
    if (entry.get("event"), entry.get("acquisition")) != ("acquisition.sealed", manifest["acquisition"]):
        wrong(f"entry {manifest['custody_seq']} of the log does not say that it was sealed")
    elif said.get("manifest") != stored.manifest_digest:
        wrong(f"entry {manifest['custody_seq']} of the log names another manifest")
    elif any(said.get(key) != manifest[key]["digest"] for key in ("plaintext", "sealed")):
        wrong(f"entry {manifest['custody_seq']} of the log names other digests than the manifest")


def check_receipt(stored: Stored, store: Key, log: Log | None, wrong: Wrong) -> None:
    receipt, manifest = stored.receipt, stored.manifest or {}
    if receipt["store"] != store.owner:
        wrong("the receipt is of another store")
    if receipt["manifest"] != stored.manifest_digest:
        wrong("the receipt names another manifest")
    if receipt.keys() & RECEIPT_MAY_HAVE.keys() != RECEIPT_KEYS[receipt["v"]]:
        wrong(f"a receipt of version {receipt['v']} has keys of another")
    for key in ("acquisition", "station", "nonce", *(() if receipt.get("shares") else ("sealed",))):
        if receipt[key] != manifest.get(key, receipt[key]):
            wrong(f"the receipt is for another {key}: {receipt[key]}")
    if log:
        witnessed = receipt["witnessed"]
        log.check_prefix(witnessed["size"], bytes.fromhex(witnessed["root"]), "witnessed in its receipt", wrong)


def check_shared(store: Path, stored: Stored, keys: Keys, report: Report, wrong: Wrong) -> tuple[Path, dict] | None:
    """[5.2]: the object of the other station, and that one's manifest; None where that cannot be read."""
    shares = stored.receipt["shares"]
    place = store / "acquisitions" / shares["station"] / shares["acquisition"]
    other = read_other(place / "manifest.json", shares, keys, report, wrong)
    if other is None:
        return None
    own = stored.manifest or other
    faults = {
        "the other manifest is of another station or acquisition": (other["station"], other["acquisition"])
        != (shares["station"], shares["acquisition"]),
        "the other clip is sealed to other recipients": sorted(own["recipients"]) != sorted(other["recipients"]),
        "the receipt is for another sealed clip than the other station's": stored.receipt["sealed"] != other["sealed"],
        "what the receipt shows of the other's clip.age is not of these bytes": not shows(stored, place / "clip.age"),
    }
    faults |= {f"the other manifest is of another {key}": own[key] != other[key] for key in BOTH}
    for fault, found in faults.items():
        if found:
            wrong(fault)
    return place / "clip.age", other


BOTH = ("camera", "plaintext", "role")


def read_other(path: Path, shares: dict, keys: Keys, report: Report, wrong: Wrong) -> dict | None:
    """The other station's manifest; None where it cannot be read."""
    if not path.is_file():
        wrong("the manifest of the other station is missing")
        return None
    raw, key = path.read_bytes(), keys.others.get(shares["station"])
    if sha256_digest(raw) != shares["manifest"]:
        wrong("the other station has another manifest than its receipt shares")
    if key is None:
        report.notes.append(f"who signed the manifest of station {shares['station']}: its keys were not given")
    elif not ssh_signature_holds(key, "manifest.v1@dockd", raw, path.with_name("manifest.json.sig")):
        wrong(f"the other manifest is not signed by {key.comment}")
    try:
        return canonical(raw, MANIFEST, MANIFEST_MAY_HAVE)
    except BadBytes as what:
        wrong(f"manifest.json of the other station: {what}")
        return None


def shows(stored: Stored, clip: Path) -> bool:
    """Whether the value that nobody could compute without the bytes is of these; an absent clip is told elsewhere."""
    shown = hashlib.sha256(bytes.fromhex(stored.receipt["nonce"]))
    if not clip.is_file():
        return True
    with clip.open("rb") as file:
        while block := file.read(1 << 20):
            shown.update(block)
    return shown.hexdigest() == stored.receipt["shares"]["shown"]


# --- [5.3] to [5.5] how long it is kept


def moment(text: str) -> datetime:
    return datetime.fromisoformat(text)


def check_promise(said: dict, stored: Stored, policies: dict[str, dict], wrong: Wrong) -> None:
    """The rule of a receipt or an extension: what it counts from, and whether the policy that it names says so."""
    rule, until, arrived = said["rule"], moment(said["keep_until"]), moment(stored.receipt["at"])
    start = (stored.manifest or {}).get("recorded_at")
    believed = start is not None and timedelta(hours=-1) <= arrived - moment(start) <= timedelta(days=90)
    wanted = ("manifest", start) if believed else ("arrival", stored.receipt["at"])
    if stored.manifest and (rule["recorded_from"], rule["recorded_at"]) != wanted:
        wrong(f"a {said['type']} counts from another start of recording than its rule says")
    if (rule["until"] == "ended") != (said["delete_by"] is None):
        wrong(f"a {said['type']} has a date where a person ends it, or none where a date does")
    elif said["delete_by"] and moment(said["delete_by"]) - until != timedelta(days=1):
        wrong(f"delete_by of a {said['type']} is not a day after keep_until")
    policy = policies.get(rule["policy"])
    if policy is None:
        wrong(f"the policy that a {said['type']} names is not there")
        return
    terms = policy["categories"].get(rule["category"])
    if terms is None or terms["until"] != rule["until"]:
        wrong(f"a {said['type']} falls under another rule than its policy has")
        return
    after = timedelta(days=terms["review_days"] + terms["undo_days"])
    least = max(moment(rule["recorded_at"]) + timedelta(days=terms["recorded_days"]), arrived + after)
    if rule["until"] == "ended":
        least = max(least, moment(said["at"]) + after)
    if until < least:
        wrong(f"a {said['type']} promises less than its policy")


def check_extensions(place: Path, stored: Stored, store: Key, policies: dict[str, dict], wrong: Wrong) -> None:
    """[5.5]: each names the receipt, its number and the one before, and none promises less than was promised."""
    files = sorted(place.glob("extension-*.json"), key=lambda path: (len(path.name), path.name))
    before, kept = "sha256:" + ZEROS, stored.receipt
    for n, path in enumerate(files, 1):
        found, digest = read_signed(path, store, "extension.v1@dockd", EXTENSION, wrong)
        if found is None:
            return
        named = (path.name, found["n"], found["previous"], found["receipt"], found["manifest"])
        if named != (f"extension-{n}.json", n, before, stored.receipt_digest, stored.receipt["manifest"]):
            wrong(f"{path.name} does not follow")
        if any(found[key] != stored.receipt[key] for key in ("store", "station", "acquisition")):
            wrong(f"{path.name} is of another acquisition")
        check_promise(found, stored, policies, wrong)
        ended = kept.get("rule", {}).get("until") == "ended" and found["rule"]["until"] != "ended"
        if ended or moment(found["keep_until"]) < moment(kept.get("keep_until") or kept["retention_until"]):
            wrong(f"{path.name} promises less than was promised before")
        before, kept = digest, found


def read_policies(directory: Path, store: Key, report: Report) -> dict[str, dict]:
    """[5.3]: the store's policies by their digests, numbered without a gap."""
    found = {}
    paths = sorted(directory.glob("policies/*.json"), key=lambda path: (len(path.name), path.name))
    for number, path in enumerate(paths, 1):
        wrong = report.about(f"policy {path.stem}")
        policy, digest = read_signed(path, store, "policy.v1@dockd", POLICY, wrong)
        if policy is None:
            continue
        if (path.stem, policy["policy_seq"], policy["store"]) != (str(number), number, store.owner):
            wrong("it is of another number or store than its name and place say")
        found[digest] = policy
    return found


def check_receipt_chain(kept: dict[str, Stored], report: Report) -> None:
    receipts = sorted((each.receipt["receipt_seq"], name) for name, each in kept.items() if each.receipt)
    expected, digest = 1, "sha256:" + ZEROS
    for seq, name in receipts:
        wrong = report.about(f"acquisition {name}")
        if seq != expected:
            wrong(f"receipt chain: receipt_seq {seq} where {expected} should follow")
        elif kept[name].receipt["previous"] != digest:
            wrong(f"receipt chain: previous of receipt {seq} is not the digest of receipt {seq - 1}")
        expected, digest = seq + 1, kept[name].receipt_digest


def the_clip(store: Path, place: Path, stored: Stored, keys: Keys, report: Report) -> tuple[Path, dict | None]:
    """Where the clip is, and the manifest that it is of: the station's own, or the other's that its receipt shares."""
    own = place / "clip.age", stored.manifest
    if not stored.receipt or not stored.receipt.get("shares"):
        return own
    other = check_shared(store, stored, keys, report, report.about(f"acquisition {place.name}"))
    return own if own[0].is_file() else other or (own[0], None)


def check_store(directory: Path, keys: Keys, log: Log | None, report: Report) -> dict[str, Stored]:
    """The station's acquisitions, by their ids, and the store's newest checkpoint of the station's log."""
    note = directory / "checkpoints" / keys.station
    if note.is_file():
        check_note(note.read_bytes(), keys, log, report.about("the store's checkpoint"), cosigned=True)
    kept: dict[str, Stored] = {}
    policies = read_policies(directory, keys.store, report)
    for place in sorted((directory / "acquisitions" / keys.station).glob("*")):
        wrong = report.about(f"acquisition {place.name}")
        stored = kept[place.name] = Stored(
            *read_signed(
                place / "manifest.json", keys.manifest, "manifest.v1@dockd", MANIFEST, wrong, may=MANIFEST_MAY_HAVE
            ),
            *read_signed(place / "receipt.json", keys.store, "receipt.v1@dockd", RECEIPT, wrong, may=RECEIPT_MAY_HAVE),
        )
        if stored.manifest:
            if stored.manifest["acquisition"] != place.name:
                wrong(f"the manifest is of another acquisition, {stored.manifest['acquisition']}")
            check_manifest(stored, keys, log, wrong)
        if stored.receipt:
            check_receipt(stored, keys.store, log, wrong)
            if "rule" in stored.receipt:
                check_promise(stored.receipt, stored, policies, wrong)
            check_extensions(place, stored, keys.store, policies, wrong)
        clip, of = the_clip(directory, place, stored, keys, report)
        if not clip.is_file():
            wrong("clip.age is missing")
        elif of:
            check_sealed_clip(clip, of, wrong)
            if keys.identity:
                check_opening(clip, of, keys.identity, wrong)
    check_receipt_chain(kept, report)
    return kept


# --- [7.2] what must stand before an erasure


def check_erasures(log: Log, kept: dict[str, Stored] | None, store: Key | None, report: Report) -> None:
    histories: dict[str, list[dict]] = {}  # the entries of each acquisition so far
    policy: dict | None = None
    for entry in log.ordered():
        acquisition = entry.get("acquisition", "")
        if entry["event"] == "policy.set":
            policy = entry["details"]
        if entry["event"] == "acquisition.warranted":
            entry = entry | {"policy in force": policy}  # noqa: PLW2901  beside what it says itself
        before = histories.setdefault(acquisition, [])
        if entry["event"] == "acquisition.erased":
            wrong = report.about(f"erasure of {acquisition} (seq {entry['seq']})")
            check_erasure(entry, before, wrong)
            stored = last(before, "stored")
            if kept is not None and store and stored and (said := dict(confirmed(before, stored)).get(store.owner)):
                check_kept(said, kept.get(acquisition), wrong)
        before.append(entry)


def last(entries: list[dict], event: str) -> dict | None:
    return next((entry for entry in reversed(entries) if entry["event"] == f"acquisition.{event}"), None)


def released(entries: list[dict], verdict: str | None) -> bool:
    """Whether a release names the verdict; one from before releases had a scope covers it, too."""
    return any(
        verdict in entry["details"].get("covers", [verdict])
        for entry in entries
        if entry["event"] == "acquisition.released"
    )


def check_erasure(erased: dict, before: list[dict], wrong: Wrong) -> None:
    """The erasure rests on the last warrant before it, and that one on entries before it."""
    warranted = last(before, "warranted")
    if not warranted:
        wrong("no acquisition.warranted before it")
        check_warrant({}, {}, before, wrong)
        return
    place = before.index(warranted)
    check_warrant(warranted, warranted["details"].get("warrant", {}), before[:place], wrong)
    after = before[place + 1 :]
    if last(after, "lapsed"):
        wrong("its warrant had lapsed")
    if last(before, "contested"):
        wrong("its two reads disagreed")
    if erased.get("camera") != warranted.get("camera"):
        wrong("it was erased from another camera than the warrant's")
    if erased.get("docking") != warranted.get("docking") and "overwritten_bytes" in erased["details"]:
        check_resumed(erased, warranted, last(after, "erasure_resumed"), before, wrong)


def check_warrant(warranted: dict, warrant: dict, before: list[dict], wrong: Wrong) -> None:
    sealed, stored, reread = (last(before, event) for event in ("sealed", "stored", "reread"))
    for event, found in (("sealed", sealed), ("stored", stored), ("reread", reread)):
        if not found:
            wrong(f"no acquisition.{event} before {'its warrant' if warranted else 'it'}")
    if not (warranted and sealed and stored and reread):
        return
    first, verdict = sealed["details"].get("plaintext"), sealed["details"].get("verdict")
    docking = warranted.get("docking")
    faults = {
        "the second read stands before the first": reread["seq"] < sealed["seq"],
        "the second read found another digest than the first": reread["details"].get("plaintext") != first,
        "the second read is of another docking than the warrant": reread.get("docking") != docking,
        "the warrant is for another docking than its entry's": warrant.get("docking") != docking,
        "the warrant is for another clip": warrant.get("acquisition") != warranted["acquisition"],
        "the warrant is for a remnant": warrant.get("remnant") != "no",
        "the warrant rests on another digest": warrant.get("plaintext") != first,
        "the warrant rests on no confirmation": not grounds(warrant),
        "too few stores had confirmed it": not enough(warranted.get("policy in force"), grounds(warrant)),
        "the warrant rests on another receipt": not confirmed(before, stored) >= grounds(warrant),
        f"the clip is {verdict}, and nobody released it": verdict != "intact" and not released(before, verdict),
    }
    for fault, found in faults.items():
        if found:
            wrong(fault)
    for entry in before:
        if entry["event"] == "delivery.confirmed" and "shares" in entry["details"]:
            check_delivery_shared(entry, before, warranted.get("policy in force"), wrong)


def check_delivery_shared(said: dict, before: list[dict], policy: dict | None, wrong: Wrong) -> None:
    """[7.2] rule 4: why another station's object could stand for the clip."""
    store, shares = said["details"]["store"], said["details"]["shares"]
    earlier = before[: before.index(said)]
    shared = [one for one in earlier if one["event"] == "delivery.shared" and one["details"].get("store") == store]
    if not shared or shared[-1]["details"].get("shares") != shares:
        wrong("it rests on another station's object, and no delivery.shared says so")
        return
    sealed, read = last(before, "sealed") or {}, earlier[: earlier.index(shared[-1])]
    plaintext = sealed.get("details", {}).get("plaintext")
    rereads = [one for one in read if one["event"] == "acquisition.reread" and one["seq"] > sealed.get("seq", 0)]
    trusted = {one["store"]: one.get("trust_stations", []) for one in (policy or {}).get("stores", [])}
    faults = {
        "the other station's object is of another plaintext": shared[-1]["details"].get("plaintext") != plaintext,
        "it was not read a second time before it was shared": not rereads,
        "the other station was not trusted when it was erased": shares["station"] not in trusted.get(store, []),
    }
    for fault, found in faults.items():
        if found:
            wrong(fault)


def grounds(warrant: dict) -> set[tuple]:
    """The stores' words that a warrant rests on, as pairs of store and digest."""
    if "confirmations" not in warrant:  # as the first version wrote it
        return {(warrant.get("store"), warrant["receipt"])} if "receipt" in warrant else set()
    return {(one.get("store"), one.get("confirmation")) for one in warrant["confirmations"]}


def enough(policy: dict | None, said: set[tuple]) -> bool:
    """Whether these stores satisfy the policy; a log from before there was one has one store."""
    if policy is None:
        return len(said) == 1
    known = {one["store"]: one for one in policy["stores"] if one["final"]}
    places = {known[store]["fallback_for"] or store for store, _ in said if store in known}
    return len(places & set(policy["counted"])) >= policy["needed"] >= 1


def confirmed(before: list[dict], stored: dict) -> set[tuple]:
    """What stood in the log as confirmed: of each store the last that was said."""
    said = {stored["details"].get("store"): stored["details"].get("receipt")}
    for entry in before:
        if entry["event"] == "delivery.confirmed":
            said[entry["details"].get("store")] = entry["details"].get("confirmation")
        elif entry["event"] == "delivery.retracted":
            said.pop(entry["details"].get("store"), None)
    return set(said.items())


def check_resumed(erased: dict, warranted: dict, resumed: dict | None, before: list[dict], wrong: Wrong) -> None:
    """A later docking overwrote what was left: only under a warrant of its own, for the same."""
    stored = last(before, "stored") or {"details": {}}
    first, second = (entry["details"].get("warrant", {}) if entry else {} for entry in (warranted, resumed))
    if not resumed or {resumed.get("docking"), second.get("docking")} != {erased.get("docking")}:
        wrong("it was erased in another docking than its warrant's, and no acquisition.erasure_resumed is of that one")
        return
    same = all(second.get(key) == first.get(key) for key in ("acquisition", "camera", "inode", "plaintext"))
    if (
        not same
        or not grounds(second)
        or not confirmed(before, stored) >= grounds(second)
        or second.get("remnant") != "yes"
    ):
        wrong("the warrant for the remnant is for something else")


def check_kept(said: str, kept: Stored | None, wrong: Wrong) -> None:
    if not kept or not kept.receipt:
        wrong("erased, and the store holds no receipt for it")
    elif kept.receipt_digest != said:
        wrong("the store's receipt is not the one that the log names")


def main() -> int:
    parser = argparse.ArgumentParser(description="verify a custody directory and a store's directory, without dockd")
    parser.add_argument("--station-pub", type=Path, required=True)
    parser.add_argument("--store-pub", type=Path)
    parser.add_argument("--custody", type=Path)
    parser.add_argument("--store", type=Path)
    parser.add_argument("--key", type=Path, help="an age identity file, to open every clip")
    parser.add_argument(
        "--other-pub", type=Path, action="append", default=[], help="station.pub of a station whose clips are shared"
    )
    asked = parser.parse_args()
    if asked.store and not asked.store_pub:
        parser.error("--store needs --store-pub")
    manifest, checkpoint = read_keys(asked.station_pub, "dockd-station", "dockd-checkpoint")
    store = read_keys(asked.store_pub, "dockd-store")[0] if asked.store_pub else None
    others = [read_keys(path, "dockd-station", "dockd-checkpoint")[0] for path in asked.other_pub]
    keys = Keys(
        manifest=manifest,
        checkpoint=checkpoint,
        store=store,
        identity=asked.key,
        others={key.owner: key for key in others},
    )
    report = Report()
    log = check_custody(asked.custody, keys, report) if asked.custody else None
    kept = check_store(asked.store, keys, log, report) if asked.store else None
    if log:
        check_erasures(log, kept, keys.store, report)
    for defect in report.defects:
        sys.stdout.write(f"defect: {defect}\n")
    for note in report.notes:
        sys.stdout.write(f"note: {note}\n")
    sys.stdout.write(f"{len(report.defects)} defects\n" if report.defects else "clean\n")
    return 1 if report.defects else 0


if __name__ == "__main__":
    sys.exit(main())
