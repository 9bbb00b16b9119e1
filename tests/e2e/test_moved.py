"""A camera moved between two docks that push to one receiver, with the real programs: bytes counted at the receiver."""

import json
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from trial import Trial

MIB = 1024 * 1024
OUTSIDER = Path(__file__).parents[1] / "contract" / "outsider" / "verify_outsider.py"
NEEDED = ("openssl", "ssh-keygen", "age", "age-keygen")

pytestmark = [
    pytest.mark.timeout(400),
    pytest.mark.skipif(not all(map(shutil.which, NEEDED)), reason=f"needs {', '.join(NEEDED)}"),
]


class Docks:
    """Two stations and the receiver of the first, to which both push."""

    def __init__(self, directory, *, trusting):
        self.first, self.second = Trial(directory / "first"), Trial(directory / "second")
        self._hand_over()
        if trusting:
            self._trust()
        self.first.start_both()

    def _hand_over(self):
        """The second station pushes to the first one's receiver, and is enrolled there."""
        first, second = self.first.directory, self.second.directory
        for name in ("ca.crt", "store.pub", "recipients.txt"):
            shutil.copy(first / "station" / "keys" / name, second / "station" / "keys" / name)
        file = second / "dockd.toml"
        url = tomllib.loads((first / "dockd.toml").read_text())["store"]["archive"]["url"]
        file.write_text(re.sub(r'^url = ".*"$', f'url = "{url}"', file.read_text(), flags=re.MULTILINE))
        self.first.command(
            "receiver",
            "enrol",
            str(second / "station" / "keys" / "station.pub"),
            "--config",
            str(first / "receiver.toml"),
        )

    def _trust(self):
        """The second believes the first, and the receiver lets it ask."""
        first, second = self.first.directory, self.second.directory
        with (first / "receiver.toml").open("a") as file:
            file.write(f'\n[lookups.permit]\n"{self.id(self.second)}" = ["{self.id(self.first)}"]\n')
        trusted = second / "trusted"
        trusted.mkdir()
        shutil.copy(first / "station" / "keys" / "station.pub", trusted / f"{self.id(self.first)}.pub")
        file = second / "dockd.toml"
        file.write_text(
            file.read_text().replace(
                "[store.archive]\n",
                f'[store.archive]\ntrust_stations = ["{self.id(self.first)}"]\nstations_directory = "trusted"\n',
            )
        )

    @staticmethod
    def id(trial):
        return tomllib.loads((trial.directory / "dockd.toml").read_text())["station"]["id"]

    def received(self, trial):
        """The bytes of clips that the receiver took of a station, as its own log counts them."""
        told = (json.loads(line) for line in self.first.log("receiver").splitlines() if line.startswith("{"))
        return sum(
            line["durable"] - line["offset"]
            for line in told
            if line.get("event") == "request_answered"
            and line["method"] == "PATCH"
            and line["status"] == 204
            and line["station"] == self.id(trial)
        )

    def stored(self, trial):
        """The directories of a station's acquisitions at the store."""
        return sorted((self.first.directory / "store" / "acquisitions" / self.id(trial)).glob("*"))

    def outsider(self, trial, *others):
        """What a stranger says of a station's log and clips, given keys and the two directories."""
        words = [
            *("--station-pub", trial.directory / "station" / "keys" / "station.pub"),
            *("--store-pub", trial.directory / "station" / "keys" / "store.pub"),
            *("--custody", trial.directory / "station" / "custody"),
            *("--store", self.first.directory / "store"),
            *("--key", self.first.directory / "authority" / "working.key"),
        ]
        for other in others:
            words += ["--other-pub", other.directory / "station" / "keys" / "station.pub"]
        done = subprocess.run([sys.executable, "-I", OUTSIDER, *words], capture_output=True, text=True, check=False)
        return done.returncode, done.stdout + done.stderr

    def close(self):
        self.second.close()
        self.first.close()


@pytest.fixture(params=[True, False], ids=["trusting", "by default"])
def docks(request, tmp_path):
    made = Docks(tmp_path, trusting=request.param)
    made.trusting = request.param
    yield made
    made.close()


def test_p01_a_camera_that_moved_is_erased_on_a_receipt_of_its_own_station(docks, mp4):
    """A damaged clip stays on its camera at the first dock, where it was stored; the second one erases it."""
    first, second = docks.first, docks.second
    camera = first.camera("CAM1", {"WHOLE.mp4": mp4(MIB, 1), "CUT.mp4": mp4(5 * MIB, 2)[: 3 * MIB]})
    first.wait("the station answers", first.status)
    docked = first.dock(camera, 1)
    assert first.wait_settled(1)["bays"][0]["state"] == "attention"
    assert [path.name for path in docked.rglob("*.mp4")] == ["CUT.mp4"]
    before = docks.received(first)
    assert before > 4 * MIB

    second.start("station")
    second.wait("the station answers", second.status)
    moved = docked.rename(second.directory / "bays" / "2" / "CAM1")
    status = second.wait_settled(2)
    assert status["bays"][1]["state"] == "attention"
    (held,) = status["held"]
    second.command(
        *("clips", "release", held["acquisition"], "--reason", "seen by a test"),
        *("--config", str(second.directory / "dockd.toml")),
    )
    second.wait("the camera was ready", lambda: (second.bay(2) or {}).get("state") == "ready")
    assert not list(moved.rglob("*.mp4"))
    witnessed = second.directory / "station" / "custody" / "witnessed"
    second.wait("the store cosigned the log", lambda: witnessed.is_file() and _size_of(witnessed) > 10)
    for trial, name in ((second, "station"), (first, "station"), (first, "receiver")):
        trial.stop(name)

    sealed_bytes = docks.received(second)
    (place,) = docks.stored(second)
    receipt = json.loads((place / "receipt.json").read_bytes())
    assert receipt["station"] == docks.id(second)
    assert receipt["receipt_seq"] == 1
    events = [entry["event"] for entry in second.custody() if entry.get("acquisition") == held["acquisition"]]
    if docks.trusting:
        assert sealed_bytes == 0
        assert not (place / "clip.age").exists()
        theirs = docks.stored(first)[
            [path.name for path in docks.stored(first)].index(receipt["shares"]["acquisition"])
        ]
        assert json.loads((theirs / "manifest.json").read_bytes())["path"] == "DCIM/CUT.mp4"
        assert events.index("acquisition.reread") < events.index("delivery.shared") < events.index("acquisition.erased")
    else:
        assert sealed_bytes == (place / "clip.age").stat().st_size > 3 * MIB
        assert receipt.get("shares") is None
        assert "delivery.shared" not in events
    assert docks.received(first) == before
    warrants = [entry for entry in second.custody() if entry["event"] == "acquisition.warranted"]
    assert len(warrants) == 1
    second.command("custody", "verify", str(second.directory / "station" / "custody"))
    assert docks.outsider(second, first) == (0, "clean\n")
    assert docks.outsider(first) == (0, "clean\n")
    if docks.trusting:
        _tamper(docks, place, theirs)


def _tamper(docks, place, theirs):
    """A stranger names what is wrong with the other's object, its manifest, and the receipt that rests on it."""
    first, second = docks.first, docks.second
    code, said = docks.outsider(second)
    assert code == 0
    assert "who signed the manifest" in said
    clip, manifest = theirs / "clip.age", theirs / "manifest.json"
    clip.chmod(0o600)
    content, stated = clip.read_bytes(), manifest.read_bytes()
    clip.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    code, said = docks.outsider(second, first)
    assert code == 1
    assert "another digest" in said
    assert "what the receipt shows" in said
    clip.write_bytes(content)
    for change, words in (
        (stated.replace(b'"serial":"CAM1"', b'"serial":"CAM2"'), "another manifest than its receipt shares"),
        (b"{}", "manifest.json"),
    ):
        manifest.write_bytes(change)
        code, said = docks.outsider(second, first)
        assert code == 1
        assert words in said
    manifest.write_bytes(stated)
    clip.unlink()
    code, said = docks.outsider(second, first)
    assert (code, "clip.age is missing" in said) == (1, True)
    assert place.is_dir()


def _size_of(note):
    return int(note.read_bytes().split(b"\n")[1])
