"""What goes wrong around a station: the store, the disk, signals, configurations, hands in its files. Real programs."""

import json
import os
import signal
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

pytestmark = pytest.mark.timeout(300)

MIB = 1024 * 1024
STOP_S = 5.0

needs_mount = pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small file system needs root")


@contextmanager
def small_disk(place: Path, size: str):
    """A file system of its own at `place`, which goes with everything on it."""
    place.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size},mode=0700", "none", place], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", place], check=True)


def configure(trial, text: str) -> None:
    with (trial.directory / "dockd.toml").open("a") as file:
        file.write(text)


def on_camera(camera: Path) -> list[str]:
    return sorted(path.name for path in camera.rglob("*.mp4"))


def ended(trial, program: subprocess.Popen, code: int) -> str:
    """That a program ended by itself as it should, with one sentence; returns it."""
    assert program.wait(30) == code, trial.log("station")[-3000:]
    said = trial.log("station")
    assert "Traceback" not in said
    sentences = [line for line in said.splitlines() if line.startswith("dockd: ")]
    return sentences[-1]


def wait_reachable(trial) -> None:
    trial.wait(
        "the store was reached", lambda: (trial.status() or {"stores": [{}]})["stores"][0].get("state") == "reachable"
    )


def acquiring(trial) -> bool:
    """Whether a clip is being read; False too while the station does not answer."""
    return trial.status() is not None and any(clip["state"] == "acquiring" for clip in trial.clips())


def test_p01_a_receiver_that_starts_late_and_goes_away_is_waited_for(trial, mp4):
    camera = trial.camera("CAM1", {"A.mp4": mp4(3 * MIB, 1), "B.mp4": mp4(3 * MIB, 2)})
    trial.start("station")
    trial.wait("the station answers", trial.status)
    docked = trial.dock(camera, 1)
    trial.wait("both clips are read", lambda: (trial.bay(1) or {}).get("clips_acquired") == 2)
    bay = trial.wait("the bay says why it waits", lambda: (bay := trial.bay(1)) and bay["note"] and bay)
    status = trial.status()
    assert (bay["state"], bay["note"]) == ("delivering", "waits for the store, which is unreachable")
    assert (status["stores"][0]["state"], status["stores"][0]["waiting"]) == ("unreachable", 2)
    assert "cannot be reached" in status["stores"][0]["note"]
    assert status["held"] == [], "no person has to decide"
    assert on_camera(docked) == ["A.mp4", "B.mp4"]
    trial.start("receiver")
    status = trial.wait_settled(1)
    assert (status["bays"][0]["state"], status["bays"][0]["note"]) == ("ready", "")
    assert status["stores"][0]["note"] == ""
    assert on_camera(docked) == []


@needs_mount
def test_p02_a_clip_larger_than_the_spool_waits_for_a_larger_one(trial, mp4):
    configure(trial, "\n[spool]\nreserve_bytes = 1000000\n")
    clips = {f"{number}.mp4": mp4(MIB, number) for number in range(3)} | {"BIG.mp4": mp4(12 * MIB, 9)}
    spool = trial.directory / "station" / "spool"
    with small_disk(spool, "8m"):
        trial.start_both()
        wait_reachable(trial)
        docked = trial.dock(trial.camera("CAM1", clips), 1)
        trial.wait("what fits was erased", lambda: (trial.bay(1) or {}).get("clips_erased") == 3)
        bay = trial.wait("it says what it waits for", lambda: (bay := trial.bay(1)) and bay["note"] and bay)
        assert "clips that need a larger spool" in bay["note"]
        assert on_camera(docked) == ["BIG.mp4"]
        (big,) = [clip for clip in trial.clips() if clip["state"] == "needs_spool"]
        subprocess.run(["mount", "-o", "remount,size=64m", spool], check=True)
        config = str(trial.directory / "dockd.toml")
        trial.command("clips", "retry", big["acquisition"], "--reason", "a larger disk", "--config", config)
        trial.wait("it is ready", lambda: trial.bay(1)["state"] == "ready")
        trial.stop("station")
    assert len(trial.sealed()) == 4


@needs_mount
def test_p02_a_full_state_disk_ends_the_station_in_a_sentence_and_a_restart_goes_on(trial, mp4):
    state = trial.directory / "station"
    kept = state.rename(trial.directory / "made")
    configure(trial, '\n[spool]\ndirectory = "spool"\n')
    (trial.directory / "spool").mkdir()
    with small_disk(state, "12m"):
        subprocess.run(["cp", "-a", f"{kept}/.", state], check=True)
        trial.start_both()
        wait_reachable(trial)
        camera = trial.camera("CAM1", {f"{number}.mp4": mp4(100_000, number) for number in range(12)})
        subprocess.run(["sh", "-c", f"cat /dev/zero > {state}/filler"], check=False, stderr=subprocess.DEVNULL)
        station = trial._programs["station"]
        docked = trial.dock(camera, 1)
        assert "the disk is full: make room on it" in ended(trial, station, 70)
        assert len(on_camera(docked)) == 12
        (state / "filler").unlink()
        trial.start("station")
        assert trial.wait_settled(1)["bays"][0]["state"] == "ready"
        assert len(trial.opened()) == 12
        trial.stop("station")
        trial.command("custody", "verify", str(state))


def test_a_stop_waits_for_no_hung_reader_and_a_second_signal_ends_at_once(trial, mp4, monkeypatch):
    monkeypatch.setenv("DOCKD_FAULTS", "hang@read:HANG")
    trial.start_both()
    wait_reachable(trial)
    docked = trial.dock(trial.camera("CAM1", {"HANG.mp4": mp4(MIB, 1), "A.mp4": mp4(MIB, 2)}), 1)
    trial.wait("the reader hangs", lambda: acquiring(trial))
    assert trial.stop("station") < STOP_S
    station = trial.start("station")
    trial.wait("the reader hangs again", lambda: acquiring(trial))
    trial._programs["receiver"].send_signal(signal.SIGSTOP)  # a store that answers nothing holds no stop up either
    station.send_signal(signal.SIGTERM)
    trial.wait(
        "the first signal was heard", lambda: trial.log("station").count('"stopping"') == 2
    )  # two at once are one
    began = time.monotonic()
    station.send_signal(signal.SIGTERM)
    assert station.wait(20) in (0, 128 + signal.SIGTERM)
    assert time.monotonic() - began < STOP_S
    trial._programs["receiver"].send_signal(signal.SIGCONT)
    monkeypatch.delenv("DOCKD_FAULTS")
    trial.start("station")
    trial.wait("it is ready", lambda: (trial.bay(1) or {}).get("state") == "ready")
    assert on_camera(docked) == []


def test_a_changed_configuration_is_taken_over_or_refused_and_told(trial, mp4):
    trial.start_both()
    wait_reachable(trial)
    config = trial.directory / "dockd.toml"
    good = config.read_text()

    def alarms() -> str:
        return " ".join(trial.status()["alarms"])

    for text, words in [
        (good + "\n[[[", "is no TOML"),
        (good + "\n[acquire]\nfoo = 1\n", "acquire.foo: found an unknown key"),
        (
            good.replace("[store.archive]\n", "[store.archive]\nslots = 5\n"),
            "store.archive.slots changed",
        ),
    ]:
        config.write_text(text)
        trial.wait(words, lambda words=words: words in alarms())
    config.write_text(good + '\n[acquire]\nsuffixes = [".xyz"]\n')
    trial.wait("the alarm was cleared", lambda: not alarms())
    docked = trial.dock(trial.camera("CAM1", {"A.xyz": mp4(MIB, 1), "B.mp4": mp4(MIB, 2)}), 1)
    status = trial.wait_settled(1)
    assert (status["bays"][0]["state"], status["bays"][0]["clips_erased"], status["bays"][0]["others"]) == (
        "ready",
        1,
        1,
    )
    assert on_camera(docked) == ["B.mp4"]


def edited(lines: list[bytes]) -> list[bytes]:
    return [lines[0].replace(b'"station.started"', b'"station.stopped"'), *lines[1:]]


def test_p07_a_custody_file_that_was_edited_by_hand_stops_the_station(trial, mp4):
    trial.start_both()
    wait_reachable(trial)
    trial.dock(trial.camera("CAM1", {"A.mp4": mp4(MIB, 1)}), 1)
    trial.wait_settled(1)
    trial.stop("station")
    log = trial.directory / "station" / "custody" / "custody.jsonl"
    good = log.read_bytes()
    for harm in (edited, lambda lines: lines[:2] + lines[3:], lambda lines: lines[:2] + lines[1:]):
        log.write_bytes(b"".join(harm(good.splitlines(keepends=True))))
        said = ended(trial, trial.start("station"), 70)
        assert "is not the one that the journal has" in said
        assert "line " in trial.command("custody", "verify", str(trial.directory / "station"), code=65)
    log.write_bytes(good)
    checkpoint = log.with_name("checkpoint")
    checkpoint.unlink()
    trial.start("station")
    trial.wait(
        "it tells of the lost checkpoint",
        lambda: "checkpoint was gone" in " ".join((trial.status() or {"alarms": []})["alarms"]),
    )
    trial.stop("station")
    trial.command("custody", "verify", str(trial.directory / "station"))


def test_p01_a_lost_journal_is_rebuilt_and_nothing_erased_until_the_store_accepts_the_new_log(trial, mp4):
    trial.start_both()
    wait_reachable(trial)
    trial.stop("station")
    journal = trial.directory / "station" / "journal.sqlite"
    good = journal.read_bytes()
    journal.write_bytes(good[: len(good) // 2])
    trial.start("station")
    trial.wait("the station answers", trial.status)
    assert len(list(journal.parent.glob("journal.sqlite.corrupt-*"))) == 1
    docked = trial.dock(trial.camera("CAM1", {"A.mp4": mp4(MIB, 1)}), 1)
    trial.wait("it is read", lambda: trial.bay(1)["clips_acquired"] == 1)
    alarms = trial.wait("an alarm", lambda: trial.status()["alarms"])
    assert "accept-log" in " ".join(alarms)
    assert on_camera(docked) == ["A.mp4"]
    station = json.loads((journal.parent / "custody" / "custody.jsonl").read_bytes().split(b"\n", 1)[0])["station"]
    config = str(trial.directory / "receiver.toml")
    trial.command("receiver", "accept-log", station, "--generation", "2", "--config", config)
    trial.wait("it is ready", lambda: trial.bay(1)["state"] == "ready")
    assert on_camera(docked) == []
    trial.stop("station")
    trial.command("custody", "verify", str(journal.parent))


def test_p01_a_station_that_is_not_enrolled_waits_says_so_and_goes_on(trial, mp4):
    trial.start("receiver")
    (enrolled,) = (trial.directory / "store" / "stations").iterdir()
    away = enrolled.rename(trial.directory / "station.pub")
    trial.start("station")
    trial.wait("the station answers", trial.status)
    docked = trial.dock(trial.camera("CAM1", {"A.mp4": mp4(MIB, 1)}), 1)
    trial.wait("status says why", lambda: "is not enrolled here" in trial.status()["stores"][0]["note"])
    trial.wait("the clip waits", lambda: trial.bay(1)["clips_acquired"] == 1)
    assert on_camera(docked) == ["A.mp4"]
    trial.command("receiver", "enrol", str(away), "--config", str(trial.directory / "receiver.toml"))
    assert trial.wait_settled(1)["bays"][0]["state"] == "ready"


@pytest.mark.parametrize("wrong", ["store key", "certificate"])
def test_p01_a_store_that_is_another_is_an_alarm_and_nothing_is_erased(trial, trial_in, tmp_path, mp4, wrong):
    other = trial_in(tmp_path / "other")
    keys = trial.directory / "station" / "keys"
    if wrong == "store key":
        (keys / "store.pub").write_bytes((other.directory / "authority" / "store.pub").read_bytes())
        words = "is not the pinned one"
    else:
        (keys / "ca.crt").write_bytes((other.directory / "station" / "keys" / "ca.crt").read_bytes())
        words = "certificate does not fit"
    trial.start_both()
    trial.wait("the station answers", trial.status)
    docked = trial.dock(trial.camera("CAM1", {"A.mp4": mp4(MIB, 1)}), 1)
    status = trial.wait(
        "the alarm", lambda: (now := trial.status()) and now["bays"][0]["clips_acquired"] and now["alarms"] and now
    )
    assert status["stores"][0]["state"] == "untrusted"
    assert words in status["stores"][0]["note"]
    assert sum(words in alarm for alarm in status["alarms"]) == 1
    assert status["bays"][0]["clips_stored"] == 0
    assert on_camera(docked) == ["A.mp4"]
    assert trial.sealed() == []
