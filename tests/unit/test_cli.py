"""The command line's frame: help with an example everywhere, exit codes after sysexits, sentences, no tracebacks."""

import argparse
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from dockd import __version__
from dockd.app.certificate import self_signed
from dockd.cli import main as cli
from dockd.errors import (
    ConfigError,
    DaemonUnreachable,
    DockdError,
    JournalError,
    RequestRefused,
    SpoolFull,
    StoreUnreachable,
    VerificationFailed,
)

REPOSITORY = Path(__file__).parents[2]
COMMANDS = {
    *(
        "demo",
        "init",
        "run",
        "receiver",
        "receiver enrol",
        "receiver accept-log",
        "receiver uploads",
        "receiver promises",
    ),
    "receiver scrub",
    *("camera", "camera make", "status"),
    *("store", "store accept-rollback", "store accept-loss", "store lost", "uplink", "uplink cap"),
    *("clips", "clips release", "clips retry", "custody", "custody verify", "custody show"),
    *("bays", "bays list", "bays learn", "camera enrol", "camera forget", "camera list", "camera probe"),
    *("doctor", "open", "check-config", "install-system", "version"),
}


def walk(parser, name=""):
    """Every parser below `parser`, under the words that lead to it."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for word, inner in action.choices.items():
                yield (
                    f"{name} {word}".strip(),
                    inner,
                    dict(zip(action.choices, action._choices_actions, strict=True))[word],
                )
                yield from walk(inner, f"{name} {word}".strip())


def everything():
    return list(walk(cli.build_parser()))


def test_all_commands_are_there():
    assert {name for name, _, _ in everything()} == COMMANDS


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_has_help_with_an_example(name):
    parser, line = {found: (parser, line) for found, parser, line in everything()}[name]
    assert line.help, "no line in the list of commands"
    assert parser.description, "no description"
    assert (parser.epilog or "").startswith("Example"), "no example"
    examples = [text for text in parser.epilog.splitlines() if f"dockd {name} " in f"{text} "]
    assert examples, "an example of something else"
    shown = parser.format_help()
    for text in examples:
        assert text in shown, "the example cannot be pasted: it was wrapped"
    for action in parser._actions:
        if not isinstance(action, argparse._SubParsersAction):
            assert action.help, f"{action.dest} is not explained"


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_help_exits_with_0_also_where_other_commands_are_not_loaded(name, capsys):
    assert cli.main([*name.split(), "--help"]) == 0
    assert "\nExample" in capsys.readouterr().out


# --- exit codes


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["nonsense"],
        ["version", "surplus"],
        ["init"],
        ["init", "authority"],
        ["init", "nonsense", "x"],
        ["init", "a", "b", "c"],
        ["init", "x", "--listen", "nowhere"],
        ["init", "x", "--ca", "y"],
        ["init", "authority", "x", "--listen", "h:1"],
        ["init", "receiver", "x"],
        ["init", "station", "x", "--receiver", "https://h:1"],
        ["camera"],
        ["camera", "make", "x"],
        ["check-config"],
        ["status", "--json", "--watch"],
        ["receiver", "enrol"],
        ["receiver", "enrol", "x", "--config", "y", "--directory", "z"],
    ],
)
def test_wrong_usage_is_64_and_writes_nothing(words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main(words) == 64
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (VerificationFailed("x"), 65),
        (DaemonUnreachable("x"), 69),
        (StoreUnreachable("x"), 69),
        (JournalError("x"), 70),
        (DockdError("x"), 70),
        (SpoolFull("x"), 75),
        (RequestRefused("x", kind="retry"), 75),
        (RequestRefused("x", kind="usage"), 64),
        (ConfigError("x"), 78),
        (PermissionError(13, "Permission denied", "/f"), 77),
        (FileNotFoundError(2, "No such file or directory", "/f"), 73),
        (KeyboardInterrupt(), 130),
    ],
)
def test_each_error_has_its_exit_code_and_one_sentence(error, code, capsys):
    def handler(_args):
        raise error

    assert cli._run(argparse.Namespace(handler=handler)) == code
    said = capsys.readouterr().err
    assert "Traceback" not in said
    assert said.count("\n") <= 1


def test_every_exit_code_is_documented():
    text = (REPOSITORY / "docs" / "operations.md").read_text()
    for code in (
        *(cli.OK, cli.USAGE, cli.INVALID, cli.UNREACHABLE, cli.FAILED, cli.CANNOT_MAKE, cli.LATER, cli.FORBIDDEN),
        *(cli.CONFIGURATION, cli.INTERRUPTED),
    ):
        assert f"| {code} |" in text


def test_a_configuration_that_cannot_be_used_is_78_with_every_mistake(tmp_path, capsys):
    file = tmp_path / "dockd.toml"
    file.write_text("trail = true\n[log]\nlevel = 3\n")
    for words in (["check-config", file], ["run", "--config", file], ["status", "--config", file]):
        assert cli.main([str(word) for word in words]) == 78
        said = capsys.readouterr().err
        for key in ("trail", "log.level", "station", "keys", "bays", "seal", "store"):
            assert f"  {file}: {key}: found " in said


def test_no_daemon_is_69(tmp_path, capsys):
    assert cli.main(["init", str(tmp_path / "set")]) == 0
    capsys.readouterr()
    for words in (["status"], ["status", "--json"], ["clips"]):
        assert cli.main([*words, "--config", str(tmp_path / "set" / "dockd.toml")]) == 69
        said = capsys.readouterr()
        assert said.out == ""
        assert "no daemon answers" in said.err


def test_p03_a_set_that_is_no_trial_any_more_does_not_run(tmp_path, capsys):
    assert cli.main(["init", str(tmp_path)]) == 0
    file = tmp_path / "dockd.toml"
    file.write_text(file.read_text().replace("trial = true", ""))
    capsys.readouterr()
    assert cli.main(["run", "--config", str(file)]) == 78
    said = capsys.readouterr().err
    for secret in ("authority/working.key", "authority/escrow.key", "store/keys/store.key"):
        assert str(tmp_path / secret) in said
    assert not (tmp_path / "station" / "custody").exists(), "it began to work"


def test_who_stops_reading_is_no_error(tmp_path):
    ended = subprocess.run(
        ["bash", "-c", 'set -o pipefail; "$0" -m dockd --help | head -c 1 >/dev/null', sys.executable],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.stderr == ""


# --- the commands of set-up, as they are typed


def test_set_up_for_production_as_it_is_documented(tmp_path, capsys):
    authority, receiver, station = (str(tmp_path / name) for name in ("authority", "receiver", "station"))
    assert cli.main(["init", "authority", authority]) == 0
    recipients = f"{authority}/recipients.txt"
    words = ["init", "receiver", receiver, "--listen", "127.0.0.1:8443", "--recipients", recipients]
    assert cli.main(words) == 0
    at_receiver = capsys.readouterr().out
    handed = ["--ca", f"{receiver}/store/keys/tls.crt", "--store-key", f"{receiver}/store/keys/store.pub"]
    words = ["init", "station", station, "--receiver", "https://127.0.0.1:8443", *handed, "--recipients", recipients]
    assert cli.main(words) == 0
    at_station = capsys.readouterr().out
    words = ["receiver", "enrol", f"{station}/keys/station.pub", "--config", f"{receiver}/receiver.toml"]
    assert cli.main(words) == 0
    at_enrolment = capsys.readouterr().out

    fingerprints = [word.strip(".,:") for word in at_station.split() if word.startswith("SHA256:")]
    manifest, checkpoint, store = fingerprints
    assert manifest in at_enrolment
    assert checkpoint in at_enrolment
    assert store in at_receiver
    assert cli.main(words) == 0, "enrolling again changes nothing"
    for file in (f"{receiver}/receiver.toml", f"{station}/dockd.toml"):
        assert cli.main(["check-config", file]) == 0


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (timedelta(days=-800), ["expired on"]),
        (timedelta(days=3), ["is not valid before"]),
        (timedelta(days=-710), ["expires on"]),
        (timedelta(), []),
    ],
)
def test_a_certificate_that_is_of_no_use_now_or_soon_is_named(tmp_path, capsys, made, words):
    set_ = tmp_path / "set"
    assert cli.main(["init", str(set_)]) == 0
    certificate, key = self_signed(("127.0.0.1",), datetime.now(UTC) + made)
    tls = set_ / "store" / "keys"
    (tls / "tls.crt").write_bytes(certificate)
    (tls / "tls.key").write_bytes(key)
    (set_ / "station" / "keys" / "ca.crt").write_bytes(certificate)
    capsys.readouterr()
    for file, named in (("dockd.toml", "store.archive.ca_file"), ("receiver.toml", "receiver.tls_cert")):
        assert cli.main(["check-config", str(set_ / file)]) == 0
        said = capsys.readouterr().err
        assert bool(said) == bool(words)
        for word in (*words, *([named] if words else [])):
            assert word in said


def test_a_new_authority_beside_an_expired_one_is_enough(tmp_path, capsys):
    set_ = tmp_path / "set"
    assert cli.main(["init", str(set_)]) == 0
    pinned = set_ / "station" / "keys" / "ca.crt"
    old, _ = self_signed(("127.0.0.1",), datetime.now(UTC) - timedelta(days=800))
    pinned.write_bytes(old + pinned.read_bytes())
    capsys.readouterr()
    assert cli.main(["check-config", str(set_ / "dockd.toml")]) == 0
    assert capsys.readouterr().err == ""


def test_enrolling_by_directory_and_what_is_no_station(tmp_path, capsys):
    set_ = tmp_path / "set"
    assert cli.main(["init", str(set_)]) == 0
    pub = str(set_ / "authority" / "station.pub")
    assert cli.main(["receiver", "enrol", pub, "--directory", str(tmp_path / "other")]) == 73
    assert not (tmp_path / "other").exists(), "a slip of the pen makes no store"
    (tmp_path / "other").mkdir()
    assert cli.main(["receiver", "enrol", pub, "--directory", str(tmp_path / "other")]) == 0
    (stored,) = (tmp_path / "other" / "stations").iterdir()
    assert stored.read_text() == Path(pub).read_text()
    assert cli.main(["receiver", "enrol", str(set_ / "authority" / "store.pub"), "--directory", str(tmp_path)]) == 65
    assert cli.main(["receiver", "enrol", str(tmp_path / "none"), "--directory", str(tmp_path)]) == 73
    assert cli.main(["receiver", "enrol", pub, "--config", str(tmp_path / "none")]) == 78


def test_init_says_what_to_do_next_in_words_to_paste(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [str(tmp_path / "a b" / "dockd")])
    assert cli.main(["init", "my set"]) == 0
    said = capsys.readouterr().out
    program = f"'{tmp_path}/a b/dockd'"
    assert f"  {program} receiver --config '{tmp_path}/my set/receiver.toml'\n" in said
    assert f"  {program} run --config '{tmp_path}/my set/dockd.toml'\n" in said
    assert cli.main(["init", "my set"]) == 78
    assert "nothing is ever overwritten" in capsys.readouterr().err


def test_camera_make(tmp_path, capsys):
    folder = tmp_path / "camera"
    assert cli.main(["camera", "make", str(folder), "--serial", "X1", "--model", "M 2"]) == 0
    marker = (folder / "dockd-camera.toml").read_bytes()
    assert b'serial = "X1"' in marker
    assert b'model = "M 2"' in marker
    assert cli.main(["camera", "make", str(folder), "--serial", "X2"]) == 64
    assert (folder / "dockd-camera.toml").read_bytes() == marker
    assert cli.main(["camera", "make", str(tmp_path / "new"), "--serial", "no good"]) == 64
    assert not (tmp_path / "new").exists()
    (tmp_path / "file").write_text("")
    assert cli.main(["camera", "make", str(tmp_path / "file"), "--serial", "X1"]) == 73
    capsys.readouterr()


def test_a_folder_with_files_of_its_own_keeps_them(tmp_path):
    (tmp_path / "a.mp4").write_text("mine")
    assert cli.main(["camera", "make", str(tmp_path), "--serial", "X1"]) == 0
    assert (tmp_path / "a.mp4").read_text() == "mine"


# --- version


def test_version_is_fast_because_it_loads_little():
    code = "import sys; from dockd.cli.main import main; main(['version']); print(*sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    version, modules = done.stdout.splitlines()
    assert version.startswith(f"dockd {__version__} ")
    heavy = {"httpx", "pydantic", "rich", "starlette", "cryptography", "asyncio", "sqlite3", "structlog", "watchdog"}
    assert not heavy & set(modules.split())


def test_version_as_an_option(capsys):
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"dockd {__version__}\n"


# --- what the repository says of the commands


def test_the_readme_has_the_two_commands_each_in_a_block_of_its_own():
    text = (REPOSITORY / "README.md").read_text()
    for command in (
        "python3 -m venv .venv && .venv/bin/pip install -q -e . && .venv/bin/dockd demo",
        "python3 -m venv .venv && .venv/bin/pip install -q -e '.[test]' && .venv/bin/pytest",
    ):
        assert text.count(f"```sh\n{command}\n```\n") == 1


def test_json_is_only_promised_where_it_is_documented():
    documented = (REPOSITORY / "docs" / "status.md").read_text() + (REPOSITORY / "docs" / "formats.md").read_text()
    for name, parser, _ in everything():
        if any("--json" in action.option_strings for action in parser._actions):
            assert f"dockd {name} --json" in documented, name
