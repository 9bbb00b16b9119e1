"""`dockd open`: what is at OUT is a whole clip or nothing, and every refusal says why, with its exit code."""

import contextlib
import hashlib
import secrets
import signal
import stat
import subprocess
import sys

import pytest

from dockd.app.open import OpenFailed, open_sealed
from dockd.cli.main import main
from dockd.core.sealing import Identity, Sealer
from dockd.errors import VerificationFailed

_PROGRAM = """
import signal, sys
from dockd.cli.main import main
signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell's background jobs inherit as ignored
sys.exit(main(["open", *sys.argv[1:]]))
"""


class Scene:
    """A sealed clip, the key that opens it, and a directory for the output."""

    def __init__(self, directory, size):
        identity = Identity.generate(secrets.token_bytes)
        self.clip = secrets.token_bytes(size)
        sealer = Sealer([identity.recipient], secrets.token_bytes)
        self.sealed, self.key = directory / "clip.age", directory / "working.key"
        with self.sealed.open("wb") as file:
            file.write(sealer.header())
            for start in range(0, max(size, 1), 1 << 20):
                file.write(sealer.seal(self.clip[start : start + (1 << 20)], final=start + (1 << 20) >= size))
        self.key.write_text(f"# working key\n{identity.text}\n")
        self.directory = directory / "out"
        self.directory.mkdir()
        self.out = self.directory / "clip.mp4"

    def run(self, *more, sealed=None, key=None, out=None):
        """Call the command in this very program; returns its exit code."""
        words = ["open", sealed or self.sealed, "-i", key or self.key, "-o", out or self.out, *more]
        return main([str(word) for word in words])

    def left(self):
        return sorted(path.name for path in self.directory.iterdir())


@pytest.fixture
def scene(tmp_path):
    return Scene(tmp_path, 3_000_000)


@pytest.mark.parametrize("size", [0, 1, 65_536, 2_500_000])
def test_a_clip_opens_whole_and_says_what_it_is(tmp_path, size, capsys):
    scene = Scene(tmp_path, size)
    assert scene.run() == 0
    assert scene.out.read_bytes() == scene.clip
    assert stat.S_IMODE(scene.out.stat().st_mode) == 0o600
    digest = hashlib.sha256(scene.clip).hexdigest()
    assert capsys.readouterr().out == f"{scene.out}: {size} bytes, sha256:{digest}\n"
    assert scene.left() == ["clip.mp4"]


def _flip(sealed, place):
    content = bytearray(sealed.read_bytes())
    content[place] ^= 1
    sealed.write_bytes(content)


def _other_letter(sealed, place):
    """Put another letter of base64 into the header: one stanza takes 98 bytes after the first 22."""
    content = bytearray(sealed.read_bytes())
    content[place : place + 1] = b"B" if content[place : place + 1] == b"A" else b"A"
    sealed.write_bytes(content)


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        (lambda sealed: _flip(sealed, -10), "changed or cut short"),
        (lambda sealed: _other_letter(sealed, 60), "other recipients"),
        (lambda sealed: _other_letter(sealed, 150), "MAC is wrong"),
        (lambda sealed: _flip(sealed, 1_500_000), "changed or cut short: chunk 22"),
        (lambda sealed: sealed.write_bytes(sealed.read_bytes()[:-1]), "cut short"),
        (lambda sealed: sealed.write_bytes(sealed.read_bytes()[:100]), "within its header"),
        (lambda sealed: sealed.write_bytes(sealed.read_bytes() + b"\n"), "changed"),
        (lambda sealed: sealed.write_bytes(b""), "cut short"),
        (lambda sealed: sealed.write_bytes(b"\0" * 1000), "not an age v1 file"),
    ],
)
def test_a_file_that_is_not_whole_leaves_nothing(scene, damage, complaint, capsys):
    damage(scene.sealed)
    assert scene.run() == 65
    said = capsys.readouterr().err
    assert str(scene.sealed) in said
    assert complaint in said
    assert scene.left() == []


def test_a_wrong_key_is_told_from_a_damaged_file(scene, capsys):
    scene.key.write_text(Identity.generate(secrets.token_bytes).text)
    assert scene.run() == 65
    assert "sealed to other recipients" in capsys.readouterr().err
    assert scene.left() == []


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "no identity"),
        (b"\xff\xfe", "not text"),
        (b"age15nsf9y4k28p83wth93tf7hafhvfajp45d2mge80ems45gz0c5gys3me64l\n", "line 1: this is a recipient"),
        (b"-----BEGIN OPENSSH PRIVATE KEY-----\n", "SSH"),
        (b"# " + b"x" * 2_000_000, "longer than"),
    ],
)
def test_what_is_no_key_file_is_named(scene, content, complaint, capsys):
    scene.key.write_bytes(content)
    assert scene.run() == 65
    said = capsys.readouterr().err
    assert str(scene.key) in said
    assert complaint in said


def test_a_missing_file_is_told(scene, capsys):
    assert scene.run(sealed=scene.directory / "nothing.age") == 66
    assert scene.run(key=scene.directory / "nothing.key") == 66
    assert scene.run(sealed=scene.directory) == 66
    assert scene.run(out=scene.directory / "missing" / "clip.mp4") == 73
    assert capsys.readouterr().err.count("No such file or directory") == 3
    assert scene.left() == []


def test_an_existing_output_stands_unless_forced(scene, capsys):
    scene.out.write_bytes(b"mine")
    assert scene.run() == 73
    assert "--force" in capsys.readouterr().err
    assert scene.out.read_bytes() == b"mine"
    assert scene.run("--force") == 0
    assert scene.out.read_bytes() == scene.clip


def test_with_force_a_failed_opening_keeps_the_old_output(scene):
    scene.out.write_bytes(b"mine")
    _flip(scene.sealed, -1)
    assert scene.run("--force") == 65
    assert scene.out.read_bytes() == b"mine"
    assert scene.left() == ["clip.mp4"]


def test_no_input_is_ever_overwritten(scene, capsys):
    before = scene.sealed.read_bytes(), scene.key.read_bytes()
    assert scene.run("--force", out=scene.sealed) == 73
    assert scene.run("--force", out=scene.key) == 73
    assert (scene.sealed.read_bytes(), scene.key.read_bytes()) == before
    assert capsys.readouterr().err.count("same file") == 2


def test_what_is_no_regular_file_is_never_replaced(scene):
    (scene.directory / "link").symlink_to(scene.sealed)
    for out in (scene.directory, scene.directory / "link", "/dev/null", "/"):
        assert scene.run("--force", out=out) == 73
    assert scene.left() == ["link"]


def test_a_pipe_is_not_offered(scene, capsys):
    assert scene.run(out="-") == 64
    assert "not offered" in capsys.readouterr().err


def test_an_output_that_appears_meanwhile_is_not_overwritten(scene):
    # The library call, with a sealed file that makes the output appear while it is being read: a pipe.
    child = subprocess.Popen(
        [sys.executable, "-c", _PROGRAM, "/dev/stdin", "-i", scene.key, "-o", scene.out],
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    content = scene.sealed.read_bytes()
    child.stdin.write(content[:2_000_000])  # more than a pipe holds: it is at work when this returns
    scene.out.write_bytes(b"theirs")
    _, said = child.communicate(content[2_000_000:], timeout=60)
    assert child.returncode == 73
    assert b"nothing was overwritten" in said
    assert scene.out.read_bytes() == b"theirs"
    assert scene.left() == ["clip.mp4"]


def _press(child, number):
    """Signal it, and again where it is still there much later.

    A signal that falls between Python's last look and a read that blocks is seen only when the read returns, which
    reads of files always do, but this one, from a pipe that the test holds open, does not.
    """
    for _ in range(5):
        child.send_signal(number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(10)
            return


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_p02_interrupted_it_leaves_nothing(scene, number):
    with subprocess.Popen(
        [sys.executable, "-c", _PROGRAM, "/dev/stdin", "-i", scene.key, "-o", scene.out],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as child:
        # More than a pipe holds, so that it is at work, and waits for the rest, when this returns.
        child.stdin.write(scene.sealed.read_bytes()[:2_000_000])
        child.stdin.flush()
        assert len(scene.left()) == 1
        _press(child, number)
        assert child.returncode == 128 + number
        assert scene.left() == []


def _without_privilege(*words):
    """Run as root without root's way around file modes; as anybody else, plainly."""
    drop = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"]
    if subprocess.run([*drop, "true"], check=False, capture_output=True).returncode != 0:
        drop = []
    return subprocess.run(
        [*drop, sys.executable, "-c", _PROGRAM, *words], check=False, capture_output=True, text=True, timeout=60
    )


def test_no_permission_is_told_for_each_file(scene):
    for path, mode in ((scene.sealed, 0o600), (scene.key, 0o600), (scene.directory, 0o700)):
        path.chmod(0o500 if path == scene.directory else 0)
        try:
            ended = _without_privilege(scene.sealed, "-i", scene.key, "-o", scene.out)
        finally:
            path.chmod(mode)
        assert ended.returncode == 77, ended.stderr
        assert "Permission denied" in ended.stderr
        assert ended.stderr.count("\n") == 1
    assert scene.left() == []


def test_p02_a_full_disk_is_told_and_nothing_stays(scene):
    on_small_disk = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]
    mount = f"mount -t tmpfs -o size=1m small {scene.directory} && "
    if subprocess.run([*on_small_disk, mount + "true"], check=False, capture_output=True).returncode != 0:
        pytest.skip("this machine lets nobody mount a small tmpfs in a namespace of its own")
    listing = f'"$@"; code=$?; ls -A {scene.directory}; exit $code'
    program = [sys.executable, "-c", _PROGRAM, scene.sealed, "-i", scene.key, "-o", scene.out]
    ended = subprocess.run(
        [*on_small_disk, mount + listing, "sh", *program],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.returncode == 75, ended.stderr
    assert "no space is left" in ended.stderr
    assert ended.stderr.count("\n") == 1
    assert ended.stdout == ""


def test_help_has_an_example_and_the_exit_codes(capsys):
    assert main(["open", "--help"]) == 0
    said = capsys.readouterr().out
    assert "Example: dockd open" in said
    assert "130" in said


def test_a_missing_option_is_a_usage_error(scene, capsys):
    assert main(["open", str(scene.sealed), "-i", str(scene.key)]) == 64
    assert "-o" in capsys.readouterr().err


def test_the_call_underneath_raises_for_others_to_translate(scene):
    with pytest.raises(OpenFailed):
        open_sealed(scene.directory / "nothing", scene.key, scene.out)
    _flip(scene.sealed, -1)
    with pytest.raises(VerificationFailed):
        open_sealed(scene.sealed, scene.key, scene.out)
