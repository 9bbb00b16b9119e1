"""`dockd custody`, on a log that a real journal wrote, as an outsider meets it."""

import asyncio
import json
import shutil
from datetime import UTC, datetime, timedelta

import pytest

from dockd.cli.main import main
from dockd.core import canonical, checkpoint, keyfiles, merkle, sshsig
from dockd.core.keyfiles import StationPublic, StorePublic
from dockd.core.sshsig import SigningKey
from dockd.keep.journal import Journal
from dockd.model import SignedBytes

STATION, STORE = "6f1e2d3c-0000-4000-8000-000000000001", "6f1e2d3c-0000-4000-8000-000000000002"
ACQUISITION = "019c16f2-0000-7000-8000-000000000003"
START = datetime(2026, 1, 31, 23, 59, 59, 123000, tzinfo=UTC)
KEY, MANIFEST_KEY, STORE_KEY = SigningKey.generate(), SigningKey.generate(), SigningKey.generate()


class StillClock:
    def now(self):
        return START

    def monotonic_s(self):
        return 0.0

    async def sleep(self, delay_s):
        raise NotImplementedError


async def write_log(directory, count):
    journal = await Journal.open(directory, station=STATION, clock=StillClock(), checkpoint_key=KEY)
    for number in range(count):
        await journal.write(
            lambda tx, number=number: tx.record(
                "acquisition.sealed", bay=2, acquisition=ACQUISITION if number == 3 else None, details={"n": number}
            )
        )
    note = await journal.checkpoint()
    await journal.aclose()
    return note


@pytest.fixture(scope="session")
def written(tmp_path_factory):
    directory = tmp_path_factory.mktemp("log")
    asyncio.run(write_log(directory, 20))
    return directory


@pytest.fixture
def state(written, tmp_path):
    """The state directory of a station that logged 20 entries and was stopped."""
    return shutil.copytree(written, tmp_path / "state")


@pytest.fixture
def custody(state):
    return state / "custody"


@pytest.fixture
def run(capsys):
    def run(*words):
        code = main(["custody", *map(str, words)])
        return code, *capsys.readouterr()

    return run


def lines_of(custody):
    return (custody / "custody.jsonl").read_bytes().splitlines(keepends=True)


def change(custody, edit):
    lines = lines_of(custody)
    edit(lines)
    (custody / "custody.jsonl").write_bytes(b"".join(lines))


def root_at(lines, size):
    frontier = merkle.Frontier()
    for line in lines[:size]:
        frontier.append(line[:-1])
    return frontier.root()


def note_at(custody, size, key=KEY):
    head = checkpoint.Checkpoint(origin=f"dockd/{STATION}/1", size=size, root=root_at(lines_of(custody), size))
    return checkpoint.sign(head, key)


def put_back(custody, size):
    """The log and its checkpoint as they were at `size` entries."""
    note = note_at(custody, size)
    change(custody, lambda lines: lines.__delitem__(slice(size, None)))
    (custody / "checkpoint").write_bytes(note)


def receipt_at(custody, size, *, station=STATION, store=STORE, key=STORE_KEY):
    payload = canonical.encode(
        {
            "type": "receipt",
            "v": 1,
            "store": store,
            "station": station,
            "acquisition": ACQUISITION,
            "manifest": "sha256:" + "0" * 64,
            "sealed": {"digest": "sha256:" + "0" * 64, "size_bytes": 1},
            "nonce": "0" * 64,
            "receipt_seq": 4,
            "previous": "sha256:" + "0" * 64,
            "witnessed": {"size": size, "root": root_at(lines_of(custody), size).hex()},
            "at": canonical.format_time(START),
            "retention_until": canonical.format_time(START + timedelta(days=1)),
        }
    )
    return SignedBytes(payload=payload, signature=sshsig.sign(key, sshsig.RECEIPT, payload))


def save(directory, signed):
    path = directory / "receipt.json"
    path.write_bytes(signed.payload)
    (directory / "receipt.json.sig").write_text(signed.signature)
    return path


@pytest.fixture
def store_pub(tmp_path):
    path = tmp_path / "store.pub"
    path.write_text(keyfiles.format_store_pub(StorePublic(store=STORE, key=STORE_KEY.public)))
    return path


def station_pub(directory, checkpoint_key):
    path = directory / "station.pub"
    station = StationPublic(station=STATION, manifest_key=MANIFEST_KEY.public, checkpoint_key=checkpoint_key.public)
    path.write_text(keyfiles.format_station_pub(station))
    return path


def test_p07_a_log_as_it_was_signed_verifies_from_each_of_its_paths(state, custody, run):
    for path in (state, custody, custody / "custody.jsonl"):
        code, out, err = run("verify", path)
        assert (code, err) == (0, "")
        assert "lines       20, of which 0 not yet signed" in out
        assert "not checked roll-back" in out
        assert "not checked the station's key" in out
        assert out.endswith("Nothing wrong was found: every line, link and root is as it was signed.\n")


def test_lines_past_the_checkpoint_are_not_yet_signed(custody, run):
    (custody / "checkpoint").write_bytes(note_at(custody, 15))
    code, out, _ = run("verify", custody)
    assert code == 0
    assert "20, of which 5 not yet signed" in out


@pytest.mark.parametrize(
    ("edit", "expected"),
    [
        (lambda lines: lines.__setitem__(4, lines[4].replace(b'"bay":2', b'"bay":3')), "line 5: it was edited"),
        (lambda lines: lines.__delitem__(4), "line 5: dropped: entry 4 is missing before it"),
        (lambda lines: lines.insert(9, lines[4]), "line 10: duplicated: it claims to be entry 4"),
        (lambda lines: lines.insert(9, lines.pop(4)), "line 10: out of order: it holds entry 4"),
        (lambda lines: lines.__delitem__(slice(12, None)), "line 13: truncated: the log ends after line 12"),
        (lambda lines: lines.append(lines.pop()[:40]), "line 20: it is cut off within what was signed"),
        (lambda lines: lines.append(lines.pop().replace(b'"n":19', b'"n":18')), "line 20: the first 20 lines are not"),
        (lambda lines: lines.clear(), "line 1: truncated: the log ends after line 0"),
    ],
)
def test_p07_a_changed_log_is_told_line_by_line(custody, run, edit, expected):
    change(custody, edit)
    code, out, _ = run("verify", custody)
    assert code == 65
    assert "NOT AS IT WAS SIGNED" in out
    assert f"  {expected}" in out


def test_p07_roll_back_shows_against_a_receipt(custody, run, tmp_path, store_pub):
    receipt = save(tmp_path, receipt_at(custody, 18))
    code, out, _ = run("verify", custody, "--against", receipt, "--store-key", store_pub)
    assert code == 0
    assert "the log was compared with receipt 4" in out
    assert f"receipt.json is signed by store {STORE}" in out
    assert "roll-back" not in out
    put_back(custody, 10)
    assert run("verify", custody)[0] == 0
    code, out, _ = run("verify", custody, "--against", receipt)
    assert code == 65
    assert "line 11: truncated: the log ends after line 10, receipt 4" in out
    assert "not checked the store's signature" in out


def test_a_receipt_may_come_as_the_signed_envelope(custody, run, tmp_path, store_pub):
    path = tmp_path / "answer.json"
    path.write_bytes(canonical.encode(sshsig.signed_to_json(receipt_at(custody, 18))))
    assert run("verify", custody, "--against", path, "--store-key", store_pub)[0] == 0


def test_p07_roll_back_shows_against_a_cosigned_checkpoint(custody, run, tmp_path, store_pub):
    path = tmp_path / "kept-elsewhere"
    path.write_bytes(checkpoint.cosign(note_at(custody, 18), STORE_KEY, f"dockd-store/{STORE}", START))
    code, out, _ = run("verify", custody, "--against", path, "--store-key", store_pub)
    assert (code, f"is cosigned by store {STORE}" in out) == (0, True)
    put_back(custody, 10)
    assert run("verify", custody, "--against", path)[0] == 65


def test_p07_roll_back_shows_by_the_witnessed_checkpoint_beside_the_log(custody, run):
    (custody / "witnessed").write_bytes(note_at(custody, 18))
    assert run("verify", custody)[0] == 0
    put_back(custody, 10)
    code, out, _ = run("verify", custody)
    assert (code, "witnessed has 18 entries" in out) == (65, True)


def test_p07_given_the_stores_key_the_witnessed_checkpoint_must_be_cosigned(custody, run, store_pub):
    note = note_at(custody, 18)
    (custody / "witnessed").write_bytes(checkpoint.cosign(note, STORE_KEY, f"dockd-store/{STORE}", START))
    code, out, _ = run("verify", custody, "--store-key", store_pub)
    assert (code, f"witnessed is cosigned by store {STORE}" in out) == (0, True)
    for forged in (note, checkpoint.cosign(note, KEY, f"dockd-store/{STORE}", START)):
        (custody / "witnessed").write_bytes(forged)
        assert run("verify", custody, "--store-key", store_pub)[0] == 65
        code, out, _ = run("verify", custody)
        assert (code, "not checked who cosigned" in out) == (0, True)


def test_a_key_for_openssl_that_is_not_the_logs_is_told(custody, run):
    (custody / "checkpoint.pem").write_bytes(checkpoint.public_pem(MANIFEST_KEY.public))
    code, out, _ = run("verify", custody)
    assert (code, "checkpoint.pem is another key" in out) == (65, True)


@pytest.mark.parametrize("generation", ["0", "01", "x", "1/2", ""])
def test_a_log_of_no_generation_is_refused(custody, run, generation):
    origin = f"dockd/{STATION}/{generation}"
    (custody / "checkpoint.vkey").write_text(checkpoint.vkey(origin, KEY.public) + "\n")
    code, _, err = run("verify", custody)
    assert (code, "not the name of a custody log" in err) == (65, True)


@pytest.mark.parametrize(
    ("forge", "reason"),
    [
        ({"station": STORE}, "it was given to station"),
        ({"store": STATION}, "it is by store"),
        ({"key": KEY}, "the signature is by another key"),
    ],
)
def test_a_receipt_that_is_not_for_this_log_is_refused(custody, run, store_pub, forge, reason):
    receipt = save(store_pub.parent, receipt_at(custody, 18, **forge))
    code, _, err = run("verify", custody, "--against", receipt, "--store-key", store_pub)
    assert (code, reason in err) == (65, True)


def test_a_receipt_without_its_signature_is_refused_where_it_is_to_be_checked(custody, run, tmp_path, store_pub):
    receipt = save(tmp_path, receipt_at(custody, 18))
    receipt.with_name("receipt.json.sig").unlink()
    assert run("verify", custody, "--against", receipt)[0] == 0
    code, _, err = run("verify", custody, "--against", receipt, "--store-key", store_pub)
    assert (code, "no receipt.json.sig beside it" in err) == (65, True)


def test_a_receipt_that_witnessed_nothing_does_not_show_roll_back(custody, run, tmp_path):
    code, out, _ = run("verify", custody, "--against", save(tmp_path, receipt_at(custody, 0)))
    assert code == 0
    assert "not checked roll-back: receipt 4 was given before the store had witnessed the log" in out


@pytest.mark.parametrize("content", [b"", b"{}", b"{", b"[]", b"nonsense", b'{"type":"receipt","v":1}'])
def test_what_is_neither_receipt_nor_checkpoint_is_refused(custody, run, tmp_path, content):
    path = tmp_path / "against"
    path.write_bytes(content)
    code, _, err = run("verify", custody, "--against", path)
    assert code == 65
    assert str(path) in err


def test_p07_the_enrolled_key_is_what_counts(custody, run, tmp_path):
    code, out, _ = run("verify", custody, "--station-key", station_pub(tmp_path, KEY))
    assert code == 0
    assert "the station's key" not in out
    code, _, err = run("verify", custody, "--station-key", station_pub(tmp_path, SigningKey.generate()))
    assert (code, "whose checkpoint key is" in err) == (65, True)


def test_the_enrolled_key_stands_in_for_a_missing_one(custody, run, tmp_path):
    (custody / "checkpoint.vkey").unlink()
    code, _, err = run("verify", custody)
    assert (code, "give --station-key station.pub" in err) == (66, True)
    assert run("verify", custody, "--station-key", station_pub(tmp_path, KEY))[0] == 0


def test_a_missing_or_foreign_checkpoint_is_told(custody, run):
    (custody / "checkpoint").write_bytes(note_at(custody, 20, key=MANIFEST_KEY))
    code, out, _ = run("verify", custody)
    assert (code, "the checkpoint does not verify" in out) == (65, True)
    (custody / "checkpoint").unlink()
    code, out, _ = run("verify", custody)
    assert (code, "there is no checkpoint beside the log" in out) == (65, True)


def test_a_path_without_a_log_is_told(tmp_path, run):
    assert run("verify", tmp_path)[0] == 66
    assert run("verify", tmp_path / "nowhere")[0] == 66
    assert run("show", tmp_path)[0] == 66
    other = tmp_path / "other.jsonl"
    other.write_text("")
    assert run("verify", other)[0] == 66


def test_without_a_path_the_configuration_says_where(tmp_path, run):
    code, _, err = run("verify", "--config", tmp_path / "dockd.toml")
    assert (code, "dockd.toml" in err) == (78, True)


def test_show_prints_entries(custody, run):
    code, out, _ = run("show", custody)
    lines = out.splitlines()
    assert (code, len(lines)) == (0, 20)
    assert lines[3].split() == ["3", "2026-01-31T23:59:59.123Z", "acquisition.sealed", "bay", "2", ACQUISITION, "n=3"]


def test_show_prints_one_acquisition(custody, run):
    code, out, _ = run("show", custody, "--acquisition", ACQUISITION)
    assert (code, len(out.splitlines())) == (0, 1)


def test_show_prints_the_lines_as_they_stand(custody, run):
    _, out, _ = run("show", custody, "--json")
    assert out.encode() == b"".join(lines_of(custody))
    assert json.loads(out.splitlines()[0])["seq"] == 0


def test_show_names_what_is_no_entry_and_moves_no_cursor(custody, run):
    def edit(lines):
        lines[1] = "\x1b[2J\u202e\n".encode()
        lines[2] = lines[2].replace(b'"n":2', '"n":"\u202e\u009b2J"'.encode())

    change(custody, edit)
    code, out, err = run("show", custody)
    assert code == 65
    assert "line 2 is no custody entry" in err
    assert "n=\\u202e\\u009b2J" in out
    assert not {"\x1b", "\u202e", "\u009b"} & set(out + err)
