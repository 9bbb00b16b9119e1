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

    def outsider(self, *more):
        """The script's exit code and what it said; `more` replaces the store and the key."""
        words = more or ("--store", self.root / "store", "--key", self.root / "working.key")
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
        """The exit code of `dockd custody verify` and what it said, given the same keys and the cosigned checkpoint."""
        done = subprocess.run(
            [
                *(sys.executable, "-m", "dockd", "custody", "verify", self.custody),
                *("--against", self.custody / "witnessed"),
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
    for name in ("acquisitions", "checkpoints"):
        shutil.copytree(finished / "store" / name, tmp_path / "store" / name)
    for name in ("station.pub", "store.pub", "working.key", "escrow.key"):
        shutil.copy(finished / "authority" / name, tmp_path)
    return Left(tmp_path)


def test_what_the_programs_leave_is_clean_to_a_stranger(left):
    assert left.outsider() == (0, "clean\n")
    assert left.outsider("--store", left.root / "store", "--key", left.root / "escrow.key") == (0, "clean\n")
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


def test_p10_both_see_a_log_that_was_put_back_with_its_checkpoint(left):
    """The log ends early, and the checkpoint is an older one, truly signed: only what was kept elsewhere tells."""
    newer = left.custody / "newer"
    shutil.copytree(left.custody, newer, ignore=shutil.ignore_patterns("newer"))
    size = size_of(left.custody / "witnessed")
    older = left.custody / "witnessed"
    (left.custody / "checkpoint").write_bytes(take_the_cosignature(older.read_bytes()))
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
