"""A verifier written from docs/formats.md alone reads what the real programs leave, and names what was tampered with.

On logs, `dockd custody verify` must come to the same verdict.
"""

import base64
import hashlib
import json
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from dockd.core import canonical, checkpoint, merkle
from dockd.core.sshsig import SigningKey

SCRIPT = Path(__file__).with_name("verify_outsider.py")
DOCUMENT = Path(__file__).parents[3] / "docs" / "formats.md"
NEEDED = ("openssl", "ssh-keygen", "age", "age-keygen")

pytestmark = pytest.mark.skipif(not all(map(shutil.which, NEEDED)), reason=f"needs {', '.join(NEEDED)}")


@dataclass
class Left:
    """A copy of what the two programs left, and the keys that a stranger is given."""

    root: Path

    @property
    def custody(self):
        return self.root / "custody"

    @property
    def log(self):
        return self.custody / "custody.jsonl"

    def lines(self):
        return self.log.read_bytes().splitlines(keepends=True)

    def entries(self):
        return [json.loads(line) for line in self.lines()]

    def change_log(self, change):
        lines = self.lines()
        change(lines)
        self.log.write_bytes(b"".join(lines))

    def places(self, event):
        return [place for place, entry in enumerate(self.entries()) if entry["event"] == f"acquisition.{event}"]

    def stored(self):
        """Directories of acquisitions in the order of their receipts."""
        found = (self.root / "store" / "acquisitions").glob("*/*")
        return sorted(found, key=lambda each: json.loads((each / "receipt.json").read_bytes())["receipt_seq"])

    def outsider(self, *, store=True, key="working.key"):
        """The script's exit code and what it said."""
        words = ("--store", self.root / "store", "--key", self.root / key) if store else ()
        done = subprocess.run(
            [
                *(sys.executable, "-I", SCRIPT, "--station-pub", self.root / "station.pub"),
                *("--store-pub", self.root / "store.pub", "--custody", self.custody, *words),
            ],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode in {0, 1}, done.stderr
        assert not done.stderr
        return done.returncode, done.stdout

    def dockd(self):
        """The exit code of `dockd custody verify` and what it said, given the same keys."""
        done = subprocess.run(
            [
                *(sys.executable, "-m", "dockd", "custody", "verify", self.custody),
                *("--station-key", self.root / "station.pub", "--store-key", self.root / "store.pub"),
            ],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode in {0, 65}, done.stderr
        return done.returncode, done.stdout + done.stderr


@pytest.fixture(scope="module")
def finished(module_trial, mp4):
    """The directory of a trial in which four clips were stored, three of them erased, and the damaged one kept."""
    trial = module_trial
    trial.start_both()
    trial.wait("the station answers", trial.status)
    trial.dock(trial.camera("BC-1", {"patrol.mp4": mp4(200_000, 1), "stop_EVD.mp4": mp4(65_536 - 540, 2)}), 1)
    trial.dock(trial.camera("BC-2", {"night.mp4": mp4(90_000, 3), "cut.mp4": mp4(90_000, 4)[:50_000]}), 2)
    trial.wait_settled(1, 2)
    witnessed = trial.directory / "station" / "custody" / "witnessed"
    trial.wait("the store cosigned most of the log", lambda: witnessed.is_file() and size_of(witnessed) > 20)
    trial.stop("station")
    trial.stop("receiver")
    return trial.directory


def size_of(note):
    return int(note.read_bytes().split(b"\n")[1])


@pytest.fixture
def left(finished, tmp_path):
    shutil.copytree(finished / "station" / "custody", tmp_path / "custody")
    for name in ("acquisitions", "checkpoints", "policies"):
        shutil.copytree(finished / "store" / name, tmp_path / "store" / name)
    for name in ("station.pub", "store.pub", "working.key", "escrow.key"):
        shutil.copy(finished / "authority" / name, tmp_path)
    return Left(tmp_path)


def test_what_the_programs_leave_is_clean_to_a_stranger(left):
    assert left.outsider() == (0, "clean\n")
    assert left.outsider(key="escrow.key") == (0, "clean\n")
    assert left.dockd()[0] == 0
    assert len(left.stored()) == 4
    assert len(left.places("erased")) == 3
    verdicts = [json.loads((each / "manifest.json").read_bytes())["verdict"] for each in left.stored()]
    assert sorted(verdicts) == ["damaged", "intact", "intact", "intact"]


def test_the_script_needs_nothing_of_dockd():
    imported = re.findall(r"^(?:import|from) (\w+)", SCRIPT.read_text(), re.MULTILINE)
    assert set(imported) <= sys.stdlib_module_names


# --- the log: each change is named, and dockd's own verifier agrees that something is wrong


def edit(lines):
    lines[9] = lines[9].replace(b'"bay":', b'"bay":1')


def edit_the_last(lines):
    lines[-1] = re.sub(rb'"size":\d+', b'"size":1', lines[-1])
    assert b'"size":1}' in lines[-1] or b'"size":1,' in lines[-1]


def edit_the_first(lines):
    lines[0] = lines[0].replace(b'"trial":true', b'"trial":false')


def drop(lines):
    del lines[9:11]


def drop_the_first(lines):
    del lines[0]


def reorder(lines):
    lines[9], lines[10] = lines[10], lines[9]


def duplicate(lines):
    lines.insert(10, lines[9])


def duplicate_at_the_end(lines):
    lines.append(lines[-1])


def cut_the_end(lines):
    del lines[-3:]


def cut_the_last_line(lines):
    lines[-1] = lines[-1][:-20]


def cut_a_line(lines):
    lines[9] = lines[9][:60] + b"\n"


def take_a_line_end(lines):
    lines[9] = lines[9][:-1]


def space_out(lines):
    lines[9] = json.dumps(json.loads(lines[9]), sort_keys=True).encode() + b"\n"


def end_with_crlf(lines):
    lines[9] = lines[9][:-1] + b"\r\n"


def sort_otherwise(lines):
    lines[9] = json.dumps(dict(reversed(json.loads(lines[9]).items())), separators=(",", ":")).encode() + b"\n"


def repeat_a_key(lines):
    lines[9] = lines[9].replace(b'{"', b'{"v":1,"', 1)


def write_a_fraction(lines):
    lines[9] = lines[9].replace(b'"seq":9', b'"seq":9.0')


def write_minus_zero(lines):
    lines[0] = lines[0].replace(b'"seq":0', b'"seq":-0')


def add_a_key(lines):
    lines[9] = lines[9].replace(b',"type"', b',"sworn":1,"type"')


def insert_a_blank_line(lines):
    lines.insert(9, b"\n")


def renumber(lines):
    lines[9] = lines[9].replace(b'"seq":9', b'"seq":8')


def name_another_station(lines):
    lines[9] = re.sub(rb'"station":"[0-9a-f]{8}', b'"station":"00000000', lines[9])


def break_a_link(lines):
    lines[9] = re.sub(rb'"prev":"[0-9a-f]{8}', b'"prev":"00000000', lines[9])


def write_anew_from(place, lines):
    """Edit a line and make every link after it anew."""
    edit(lines)
    for number in range(place + 1, len(lines)):
        entry = json.loads(lines[number])
        entry["prev"] = hashlib.sha256(lines[number - 1][:-1]).hexdigest()
        lines[number] = json.dumps(entry, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode() + b"\n"


def write_all_anew(lines):
    write_anew_from(9, lines)


LOG_TAMPERS = [
    (edit, r"line 10: edited"),
    (edit_the_first, r"line 1: edited"),
    (edit_the_last, r"checkpoint: rewritten"),
    (drop, r"log: dropped: no line has seq 9, 10 "),
    (drop_the_first, r"log: dropped: no line has seq 0 "),
    (reorder, r"line 11: reordered"),
    (duplicate, r"line 11: duplicated: line 10"),
    (duplicate_at_the_end, r"line \d+: duplicated"),
    (cut_the_end, r"checkpoint: truncated"),
    (cut_the_last_line, r"line \d+: truncated"),
    (cut_a_line, r"line 10: edited or cut"),
    (take_a_line_end, r"line 10: edited or cut"),
    (space_out, r"line 10: edited or cut: not in canonical"),
    (end_with_crlf, r"line 10: edited or cut: not in canonical"),
    (sort_otherwise, r"line 10: edited or cut: not in canonical"),
    (repeat_a_key, r"line 10: edited or cut: .*twice"),
    (write_a_fraction, r"line 10: edited or cut: .*no integer"),
    (write_minus_zero, r"line 1: edited or cut: not in canonical"),
    (add_a_key, r"line 10: edited or cut: unknown key sworn"),
    (insert_a_blank_line, r"line 10: edited or cut"),
    (renumber, r"line 10: edited: the number of line 9"),
    (name_another_station, r"line 10: an entry of another station"),
    (break_a_link, r"line 9: edited: line 10 was written after another"),
    (write_all_anew, r"checkpoint: rewritten"),
]


@pytest.mark.parametrize(("tamper", "named"), LOG_TAMPERS, ids=lambda value: getattr(value, "__name__", None))
def test_p10_a_stranger_and_dockd_both_see_a_tampered_log(left, tamper, named):
    left.change_log(tamper)
    code, said = left.outsider()
    assert code == 1
    assert re.search(f"^defect: {named}", said, re.MULTILINE), said
    assert left.dockd()[0] == 65


def test_a_line_that_is_being_written_past_the_checkpoint_is_no_defect_to_either(left):
    left.log.write_bytes(left.log.read_bytes() + left.lines()[-1][:50])
    code, said = left.outsider()
    assert (code, "note: the last line has no end" in said) == (0, True)
    assert left.dockd()[0] == 0


# --- checkpoints


def forge_the_root(note):
    lines = note.split(b"\n")
    lines[2] = base64.b64encode(bytes(32))
    return b"\n".join(lines)


def forge_the_size(note):
    lines = note.split(b"\n")
    lines[1] = b"%d" % (int(lines[1]) - 1)
    return b"\n".join(lines)


def forge_the_signature(note):
    return change_blob(note, lambda blob: blob[:-1] + bytes([blob[-1] ^ 1]), b"dockd/")


def forge_the_key_id(note):
    return change_blob(note, lambda blob: bytes(4) + blob[4:], b"dockd/")


def forge_the_origin(note):
    return re.sub(rb"dockd/[0-9a-f]{8}", b"dockd/00000000", note)


def take_the_signature(note):
    return note[: note.index("\u2014".encode())]


def change_blob(note, change, signer):
    lines = note.split(b"\n")
    for number, line in enumerate(lines):
        words = line.split(b" ")
        if words[0] == "\u2014".encode() and words[1].startswith(signer):
            words[2] = base64.b64encode(change(base64.b64decode(words[2])))
            lines[number] = b" ".join(words)
    return b"\n".join(lines)


def forge_the_cosignature(note):
    return change_blob(note, lambda blob: blob[:-1] + bytes([blob[-1] ^ 1]), b"dockd-store/")


def forge_the_time(note):
    return change_blob(note, lambda blob: blob[:11] + bytes([blob[11] ^ 1]) + blob[12:], b"dockd-store/")


def take_the_cosignature(note):
    return b"".join(line for line in note.splitlines(keepends=True) if b" dockd-store/" not in line)


@pytest.mark.parametrize("name", ["checkpoint", "witnessed"])
@pytest.mark.parametrize(
    ("forge", "named"),
    [
        (forge_the_root, "forged"),
        (forge_the_size, "forged"),
        (forge_the_signature, "forged"),
        (forge_the_key_id, "forged"),
        (forge_the_origin, "the origin"),
        (take_the_signature, "the signature lines"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_p10_both_see_a_forged_checkpoint(left, name, forge, named):
    note = left.custody / name
    note.write_bytes(forge(note.read_bytes()))
    code, said = left.outsider()
    assert code == 1
    assert re.search(f"^defect: {name}: {named}", said, re.MULTILINE), said
    assert left.dockd()[0] == 65


@pytest.mark.parametrize("forge", [forge_the_cosignature, forge_the_time, take_the_cosignature])
def test_p10_both_see_a_forged_cosignature(left, forge):
    note = left.custody / "witnessed"
    note.write_bytes(forge(note.read_bytes()))
    code, said = left.outsider()
    assert code == 1
    assert re.search(r"^defect: witnessed: .*cosignature", said, re.MULTILINE), said
    assert left.dockd()[0] == 65


@pytest.mark.parametrize("name", ["checkpoint.vkey", "checkpoint.pem"])
def test_both_see_a_public_key_that_is_not_the_logs(left, name):
    key = SigningKey.generate().public
    origin = (left.custody / "checkpoint").read_text().split("\n")[0]
    of_other = {
        "checkpoint.vkey": f"{checkpoint.vkey(origin, key)}\n".encode(),
        "checkpoint.pem": checkpoint.public_pem(key),
    }
    (left.custody / name).write_bytes(of_other[name])
    code, said = left.outsider()
    assert code == 1
    assert f"defect: {name}: not the public key" in said
    assert left.dockd()[0] == 65


def test_p10_both_see_a_log_that_was_put_back_with_its_checkpoint(left):
    """The log ends early, and the checkpoint is an older one, truly signed: only what was kept elsewhere tells."""
    size = size_of(left.custody / "witnessed")
    (left.custody / "checkpoint").write_bytes(take_the_cosignature((left.custody / "witnessed").read_bytes()))
    assert left.outsider()[0] == 0, "lines past the checkpoint are only not yet signed"
    left.log.write_bytes(b"".join(left.lines()[: size - 1]))
    code, said = left.outsider()
    assert code == 1
    assert re.search("^defect: the store's checkpoint: truncated or rolled back", said, re.MULTILINE), said
    assert left.dockd()[0] == 65


# --- what the store holds


def change_file(name, change):
    def tamper(left):
        path = left.stored()[1] / name
        path.write_bytes(change(path.read_bytes()))

    return tamper


def flip(place):
    return lambda content: content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]


def swap(*names):
    """The files of two acquisitions change places."""

    def tamper(left):
        one, other = left.stored()[1:3]
        for name in names:
            (one / name).rename(one / "aside")
            (other / name).rename(one / name)
            (one / "aside").rename(other / name)

    return tamper


def copy_over(*names):
    """One acquisition gets the files of another."""

    def tamper(left):
        one, other = left.stored()[1:3]
        for name in names:
            shutil.copy(other / name, one / name)

    return tamper


def take(*names):
    def tamper(left):
        place = left.stored()[1]
        for name in names:
            (place / name).unlink()

    return tamper


def swap_directories(left):
    one, other = left.stored()[1:3]
    aside = one.with_name("aside")
    one.rename(aside)
    other.rename(one)
    aside.rename(other)


def add_a_stanza(content):
    end = content.index(b"--- ")
    return content[:end] + b"-> X25519 " + b"A" * 43 + b"\n" + b"A" * 43 + b"\n" + content[end:]


STORE_TAMPERS = {
    "edited manifest": (change_file("manifest.json", lambda raw: raw.replace(b'"bay":', b'"bay":1')), "not signed by"),
    "manifest with a line end": (change_file("manifest.json", lambda raw: raw + b"\n"), "not in canonical spelling"),
    "manifest signature flipped": (change_file("manifest.json.sig", flip(150)), "manifest.json is not signed"),
    "manifest of another": (copy_over("manifest.json", "manifest.json.sig"), "manifest is of another acquisition"),
    "manifest missing": (take("manifest.json"), "manifest.json is missing"),
    "edited receipt": (change_file("receipt.json", lambda raw: raw.replace(b'"at":"20', b'"at":"21')), "not signed by"),
    "receipt signature missing": (take("receipt.json.sig"), "receipt.json is not signed"),
    "receipt without its signature swapped": (swap("receipt.json"), "receipt.json is not signed"),
    "swapped receipts": (swap("receipt.json", "receipt.json.sig"), "receipt is for another acquisition"),
    "receipt of another": (copy_over("receipt.json", "receipt.json.sig"), "receipt is for another nonce"),
    "receipt of another breaks the chain": (copy_over("receipt.json", "receipt.json.sig"), "receipt chain"),
    "signature of the manifest at the receipt": (
        lambda left: shutil.copy(left.stored()[1] / "manifest.json.sig", left.stored()[1] / "receipt.json.sig"),
        "receipt.json is not signed",
    ),
    "receipt missing": (take("receipt.json", "receipt.json.sig"), "receipt.json is missing"),
    "byte of the header flipped": (change_file("clip.age", flip(50)), "another digest"),
    "byte of the payload flipped": (change_file("clip.age", flip(5000)), "age cannot open"),
    "appended byte": (change_file("clip.age", lambda raw: raw + b"\0"), r"clip.age has \d+ bytes"),
    "cut clip": (change_file("clip.age", lambda raw: raw[:-1]), r"clip.age has \d+ bytes"),
    "one more stanza": (change_file("clip.age", add_a_stanza), "age header has the stanzas"),
    "armoured or foreign": (change_file("clip.age", lambda _: b"-----BEGIN AGE"), "no age v1 header"),
    "clip of another": (copy_over("clip.age"), "another digest"),
    "clip missing": (take("clip.age"), "clip.age is missing"),
    "swapped directories": (swap_directories, "manifest is of another acquisition"),
    "policy missing": (lambda left: (left.root / "store" / "policies" / "1.json").unlink(), "policy .* is not there"),
    "whole acquisition missing": (lambda left: shutil.rmtree(left.stored()[1]), "receipt chain"),
}


@pytest.mark.parametrize("what", STORE_TAMPERS)
def test_a_stranger_names_what_was_done_to_the_store(left, what):
    tamper, named = STORE_TAMPERS[what]
    tamper(left)
    code, said = left.outsider()
    assert code == 1
    assert re.search(f"^defect: acquisition .*{named}", said, re.MULTILINE), said


def test_p03_a_stranger_sees_an_erasure_whose_receipt_the_store_does_not_hold(left):
    erased = next(entry["acquisition"] for entry in left.entries() if entry["event"] == "acquisition.erased")
    (place,) = (left.root / "store" / "acquisitions").glob(f"*/{erased}")
    shutil.rmtree(place)
    code, said = left.outsider()
    assert code == 1
    assert re.search(f"^defect: erasure of {erased} .*the store holds no receipt", said, re.MULTILINE), said


# --- what must stand before an erasure


class Story:
    """The entries about one erased clip, to be told otherwise and signed anew by the station's own key."""

    def __init__(self, left, finished):
        self._left = left
        self._key = SigningKey.parse((finished / "station" / "keys" / "checkpoint.key").read_bytes())
        self.entries = left.entries()
        self.acquisition = next(e["acquisition"] for e in self.entries if e["event"] == "acquisition.erased")

    def find(self, event):
        return next(
            entry
            for entry in self.entries
            if entry["event"] == f"acquisition.{event}" and entry["acquisition"] == self.acquisition
        )

    def remove(self, event):
        self.entries.remove(self.find(event))

    def add(self, event, before, details, **changes):
        place = self.entries.index(self.find(before))
        self.entries.insert(place, self.find(before) | {"event": f"acquisition.{event}", "details": details} | changes)

    def tell(self):
        """Write the log with every link, the root and the signature right."""
        lines = []
        for seq, entry in enumerate(self.entries):
            before = hashlib.sha256(lines[-1]).hexdigest() if lines else "0" * 64
            lines.append(canonical.encode(entry | {"seq": seq, "prev": before}))
        self.sign(lines, len(lines))

    def sign(self, lines, start):
        """Write these lines, with new links from `start` on, under a new checkpoint."""
        for number in range(start, len(lines)):
            before = hashlib.sha256(lines[number - 1]).hexdigest().encode()
            lines[number] = re.sub(rb'"prev":"[0-9a-f]{64}"', b'"prev":"' + before + b'"', lines[number], count=1)
        frontier = merkle.Frontier()
        for line in lines:
            frontier.append(line)
        custody = self._left.custody
        custody.joinpath("custody.jsonl").write_bytes(b"".join(line + b"\n" for line in lines))
        origin = checkpoint.origin_of(self.entries[0]["station"], 1)
        head = checkpoint.Checkpoint(origin=origin, size=len(lines), root=frontier.root())
        custody.joinpath("checkpoint").write_bytes(checkpoint.sign(head, self._key))
        custody.joinpath("witnessed").unlink()


OTHER_DOCKING, OTHER_DIGEST = "019c15f4-2b80-7000-8000-00000000000d", "sha256:" + "7" * 64
OTHER_GROUND = {"store": "other", "kind": "receipt", "confirmation": OTHER_DIGEST, "presence": OTHER_DIGEST}


def without(event):
    return lambda story: story.remove(event)


def with_detail(event, **details):
    return lambda story: story.find(event)["details"].update(details)


def with_warrant(**changes):
    return lambda story: story.find("warranted")["details"]["warrant"].update(changes)


def with_ground(**changes):
    return lambda story: story.find("warranted")["details"]["warrant"]["confirmations"][0].update(changes)


def another_policy(**changes):
    def tell(story):
        (policy,) = (entry["details"] for entry in story.entries if entry["event"] == "policy.set")
        policy.update(changes)

    return tell


def retracted(story):
    said = next(
        one for one in story.entries if one["event"] == "delivery.confirmed" and one["acquisition"] == story.acquisition
    )
    place = story.entries.index(story.find("warranted"))
    story.entries.insert(place, said | {"event": "delivery.retracted"})


def in_another_docking(event):
    return lambda story: story.find(event).update(docking=OTHER_DOCKING)


def added(event, **details):
    return lambda story: story.add(event, "erased", details)


def read_again_too_late(story):
    reread = story.find("reread")
    story.entries.remove(reread)
    story.entries.insert(story.entries.index(story.find("erased")), reread)


def read_again_too_soon(story):
    reread = story.find("reread")
    story.entries.remove(reread)
    story.entries.insert(story.entries.index(story.find("sealed")), reread)


def resumed(**changes):
    def tell(story):
        warrant = story.find("warranted")["details"]["warrant"] | {
            "remnant": "yes",
            "docking": OTHER_DOCKING,
            "size_bytes": 0,
        }
        story.add("erasure_resumed", "erased", {"warrant": warrant | changes}, docking=OTHER_DOCKING)
        story.find("erased")["docking"] = OTHER_DOCKING

    return tell


def seen_gone(story):
    story.find("erased").update(docking=OTHER_DOCKING, details={"method": "delete", "checked": "not in the listing"})


def damaged_and_released(story):
    story.find("sealed")["details"]["verdict"] = "damaged"
    story.add("released", "warranted", {"operator": "uid 0", "reason": "seen", "covers": ["damaged"]})


def damaged_and_released_as_before_releases_had_a_scope(story):
    story.find("sealed")["details"]["verdict"] = "damaged"
    story.add("released", "warranted", {"operator": "uid 0", "reason": "seen"})


def released_for_something_else(story):
    story.find("sealed")["details"]["verdict"] = "damaged"
    story.add("released", "warranted", {"operator": "uid 0", "reason": "seen", "covers": ["unclean: in use"]})


def as_the_first_version_wrote_it(story):
    """With one store, its two statements stood in the warrant itself."""
    said = {}
    for entry in story.entries:
        if entry["event"] == "acquisition.warranted":
            warrant = entry["details"]["warrant"]
            (ground,) = warrant.pop("confirmations")
            said[entry["acquisition"]] = {"store": ground["store"], "receipt": ground["confirmation"]}
            warrant |= said[entry["acquisition"]] | {"holding": ground["presence"]}
    for entry in story.entries:
        if entry["event"] == "acquisition.stored":
            entry["details"] = said.get(entry["acquisition"], {})
    story.entries = [one for one in story.entries if not one["event"].startswith(("delivery.", "policy."))]


UNTRUE_STORIES = {
    "never sealed": (without("sealed"), "no acquisition.sealed"),
    "never stored": (without("stored"), "no acquisition.stored"),
    "never read again": (without("reread"), "no acquisition.reread"),
    "never warranted": (without("warranted"), "no acquisition.warranted"),
    "read again after the warrant": (read_again_too_late, "no acquisition.reread before its warrant"),
    "read again before it was sealed": (read_again_too_soon, "second read stands before the first"),
    "read again in another docking": (in_another_docking("reread"), "second read is of another docking"),
    "the second read found other bytes": (with_detail("reread", plaintext=OTHER_DIGEST), "second read found another"),
    "the warrant of another docking": (with_warrant(docking=OTHER_DOCKING), "another docking than its entry"),
    "the warrant on another digest": (with_warrant(plaintext=OTHER_DIGEST), "the warrant rests on another digest"),
    "the warrant on another receipt": (with_ground(confirmation=OTHER_DIGEST), "the warrant rests on another receipt"),
    "the warrant on another store's word": (with_ground(store="other"), "the warrant rests on another receipt"),
    "the warrant on nobody's word": (with_warrant(confirmations=[]), "the warrant rests on no confirmation"),
    "the warrant on what was retracted": (retracted, "the warrant rests on another receipt"),
    "the warrant for another clip": (with_warrant(acquisition=OTHER_DOCKING), "the warrant is for another clip"),
    "the warrant had lapsed": (added("lapsed", reason=""), "its warrant had lapsed"),
    "the reads disagreed": (added("contested"), "its two reads disagreed"),
    "damaged and not released": (with_detail("sealed", verdict="damaged"), "nobody released it"),
    "damaged and released for something else": (released_for_something_else, "nobody released it"),
    "erased in another docking": (in_another_docking("erased"), "no acquisition.erasure_resumed"),
    "resumed on another receipt": (resumed(confirmations=[OTHER_GROUND]), "the warrant for the remnant"),
    "resumed on nobody's word": (resumed(confirmations=[]), "the warrant for the remnant"),
    "resumed on another file": (resumed(inode="1"), "the warrant for the remnant"),
    "resumed as if it were whole": (resumed(remnant="no"), "the warrant for the remnant"),
}
TRUE_STORIES = {
    "as the first version wrote it": as_the_first_version_wrote_it,
    "as it was": lambda story: None,
    "an erasure that a later docking finished": resumed(),
    "an erasure that a later docking saw done": seen_gone,
    "a damaged clip that was released": damaged_and_released,
    "a damaged clip that was released long ago": damaged_and_released_as_before_releases_had_a_scope,
}


@pytest.mark.parametrize("what", UNTRUE_STORIES)
def test_p01_a_stranger_sees_an_erasure_without_what_must_stand_before_it(left, finished, what):
    change, named = UNTRUE_STORIES[what]
    story = Story(left, finished)
    change(story)
    story.tell()
    code, said = left.outsider(store=False)
    assert code == 1
    assert re.search(f"^defect: erasure of {story.acquisition} .*{named}", said, re.MULTILINE), said
    defects = [line for line in said.splitlines() if line.startswith("defect:")]
    assert all(f"erasure of {story.acquisition}" in line for line in defects), said


@pytest.mark.parametrize("changes", [{"needed": 2}, {"counted": ["x"]}, {"stores": []}])
def test_p01_a_stranger_counts_the_stores_that_the_policy_asks_for(left, finished, changes):
    story = Story(left, finished)
    another_policy(**changes)(story)
    story.tell()
    code, said = left.outsider(store=False)
    assert code == 1
    assert re.search(f"^defect: erasure of {story.acquisition} .*too few stores had confirmed it", said, re.MULTILINE)


@pytest.mark.parametrize("what", TRUE_STORIES)
def test_a_stranger_accepts_each_way_that_an_erasure_may_go(left, finished, what):
    story = Story(left, finished)
    TRUE_STORIES[what](story)
    story.tell()
    code, said = left.outsider(store=False)
    assert code == 0, said


# --- what a log may say: signed entries in odd spellings


ODD_ENTRIES = {
    "bay 0": (rb'"bay":\d+', b'"bay":0', 1),
    "bay as text": (rb'"bay":\d+', b'"bay":"1"', 1),
    "bay true": (rb'"bay":\d+', b'"bay":true', 1),
    "the largest integer": (rb'"bay":\d+', b'"bay":9007199254740991', 0),
    "one beyond it": (rb'"bay":\d+', b'"bay":9007199254740992', 1),
    "a docking that is UUIDv4": (rb'"docking":"[^"]*"', b'"docking":"11111111-1111-4111-8111-111111111111"', 0),
    "a docking in upper case": (rb'"docking":"[^"]*"', b'"docking":"01A1FD8C-B055-72AF-AC42-13EE56BF9EC4"', 1),
    "a day that is none": (rb'"at":"[^"]*"', b'"at":"2026-02-30T00:00:00.000Z"', 1),
    "no milliseconds": (rb'"at":"[^"]*"', b'"at":"2026-02-03T00:00:00Z"', 1),
    "a time long ago": (rb'"at":"[^"]*"', b'"at":"0001-01-01T00:00:00.000Z"', 0),
    "an event that nobody knows": (rb'"event":"[^"]*"', b'"event":"clip.praised"', 0),
    "an escape that is needed": (rb'"event":"[^"]*"', rb'"event":"\\u001f"', 0),
    "an escape in upper case": (rb'"event":"[^"]*"', rb'"event":"\\u001F"', 1),
    "an escape that is not needed": (rb'"event":"[^"]*"', rb'"event":"\\/"', 1),
    "DEL as itself": (rb'"event":"[^"]*"', b'"event":"\x7f"', 0),
    "half a surrogate pair": (rb'"event":"[^"]*"', rb'"event":"\\ud800"', 1),
    "bytes that are no UTF-8": (rb'"event":"[^"]*"', b'"event":"\xff"', 1),
    "keys in the order of code points": (rb'"details":\{[^}]*\}', '"details":{"\uff21":1,"\U0001f600":2}'.encode(), 0),
    "keys in the order of UTF-16": (rb'"details":\{[^}]*\}', '"details":{"\U0001f600":2,"\uff21":1}'.encode(), 1),
    "details null": (rb'"details":\{[^}]*\}', b'"details":null', 1),
    "a camera that is null": (rb'"camera":"[^"]*"', b'"camera":null', 1),
    "another version": (rb'"v":1', b'"v":2', 1),
}


@pytest.mark.parametrize("what", ODD_ENTRIES)
def test_a_stranger_and_dockd_agree_on_signed_entries_in_odd_spellings(left, finished, what):
    pattern, replacement, code = ODD_ENTRIES[what]
    story = Story(left, finished)
    place = next(n for n, entry in enumerate(story.entries) if entry["event"] == "docking.listed")
    lines = left.lines()
    lines[place], count = re.subn(pattern, replacement, lines[place], count=1)
    assert count == 1
    story.sign([line[:-1] for line in lines], place + 1)
    assert left.outsider(store=False)[0] == code
    assert left.dockd()[0] == 65 * code
