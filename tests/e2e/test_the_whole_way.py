"""From docked cameras to empty ones, with the real programs."""

import hashlib
import json
import shutil
import subprocess

import pytest

pytestmark = pytest.mark.timeout(300)

MIB = 1024 * 1024


def digests(clips: dict[str, dict[str, bytes]]) -> dict[str, str]:
    return {
        f"{serial}:DCIM/{name}": hashlib.sha256(content).hexdigest()
        for serial, files in clips.items()
        for name, content in files.items()
    }


def test_p01_cameras_end_empty_and_every_clip_opens_to_the_same_digest(trial, mp4):
    clips = {
        f"CAM{bay}": {f"{number:03d}/CLIP{number}.mp4": mp4(3 * MIB + number, bay * 10 + number) for number in range(3)}
        for bay in (1, 2, 3)
    }
    cameras = [trial.camera(serial, files) for serial, files in clips.items()]
    (cameras[0] / "DCIM" / "notes.txt").write_text("not a clip")
    trial.start_both()
    docked = [trial.dock(camera, bay) for bay, camera in enumerate(cameras, 1)]
    status = trial.wait_settled(1, 2, 3)
    assert [bay["state"] for bay in status["bays"][:4]] == ["ready", "ready", "ready", "empty"]
    assert status["trial"] is True
    for camera, files in zip(docked, clips.values(), strict=True):
        assert not list(camera.rglob("*.mp4")), "a clip is left"
        assert len(files) == 3
    assert (docked[0] / "DCIM" / "notes.txt").read_text() == "not a clip"
    assert trial.opened() == digests(clips)
    assert trial.opened("escrow.key") == digests(clips)
    assert trial.stop("station") < 5
    assert trial.stop("receiver") < 5
    trial.command("custody", "verify", str(trial.directory / "station" / "custody"))
    check_order(trial.custody())


def test_stock_age_and_ssh_keygen_suffice_years_later(trial, mp4, tmp_path):
    age = shutil.which("age")
    if age is None:
        pytest.skip("Debian's age is not installed")
    clips = {"CAM1": {"CLIP1.mp4": mp4(MIB, 1)}}
    trial.start_both()
    trial.dock(trial.camera("CAM1", clips["CAM1"]), 1)
    trial.wait_settled(1)
    (sealed,) = trial.sealed()
    out = tmp_path / "clip.mp4"
    subprocess.run([age, "-d", "-i", trial.directory / "authority" / "working.key", "-o", out, sealed], check=True)
    assert hashlib.sha256(out.read_bytes()).hexdigest() == digests(clips)["CAM1:DCIM/CLIP1.mp4"]
    signers = tmp_path / "signers"
    station = (trial.directory / "authority" / "station.pub").read_text().splitlines()[0]
    store = (trial.directory / "authority" / "store.pub").read_text().strip()
    signers.write_text(f"station {station}\nstore {store}\n")
    for who, namespace, name in (
        ("station", "manifest.v1@dockd", "manifest.json"),
        ("store", "receipt.v1@dockd", "receipt.json"),
    ):
        check = ["ssh-keygen", "-Y", "verify", "-f", signers, "-I", who, "-n", namespace]
        subprocess.run(
            [*check, "-s", sealed.parent / f"{name}.sig"],
            input=(sealed.parent / name).read_bytes(),
            check=True,
        )
    manifest = json.loads((sealed.parent / "manifest.json").read_bytes())
    assert manifest["sealed"]["digest"] == "sha256:" + hashlib.sha256(sealed.read_bytes()).hexdigest()


def test_p06_a_damaged_clip_is_stored_and_waits_for_a_person(trial, mp4):
    whole = mp4(MIB, 5)
    camera = trial.camera("CAM1", {"WHOLE.mp4": whole, "CUT.mp4": whole[: MIB // 2], "ODD.mp4": b"no container" * 99})
    trial.start_both()
    docked = trial.dock(camera, 1)
    status = trial.wait_settled(1)
    assert status["bays"][0]["state"] == "attention"
    assert sorted(path.name for path in docked.rglob("*.mp4")) == ["CUT.mp4", "ODD.mp4"]
    assert len(trial.sealed()) == 3
    held = {clip["path"]: clip["acquisition"] for clip in status["held"]}
    assert set(held) == {"DCIM/CUT.mp4", "DCIM/ODD.mp4"}
    config = ("--config", str(trial.directory / "dockd.toml"))
    for clip in held.values():
        trial.command("clips", "release", clip, "--reason", "seen by a test", *config)
    trial.wait("the camera was ready", lambda: (trial.bay(1) or {}).get("state") == "ready")
    assert not list(docked.rglob("*.mp4"))
    released = [entry for entry in trial.custody() if entry["event"] == "acquisition.released"]
    assert [entry["details"]["reason"] for entry in released] == ["seen by a test"] * 2
    trial.command("clips", "release", "0191e3a0-7c3e-7000-8000-00000000002a", "--reason", "x", *config, code=64)


def test_p08_a_folder_that_is_no_camera_and_a_twin_are_never_touched(trial, mp4):
    own = trial.directory / "holiday"
    own.mkdir()
    (own / "BEACH.mp4").write_bytes(mp4(1000, 1))
    twin = trial.camera("CAM1", {"CLIP.mp4": mp4(1000, 2)})
    twin = twin.rename(twin.with_name("twin"))
    first = trial.camera("CAM1", {"CLIP.mp4": mp4(MIB, 3)})
    trial.start_both()
    trial.dock(own, 1)
    trial.wait_settled(1)
    assert "dockd camera make" in trial.bay(1)["note"]
    trial.dock(first, 2)
    trial.wait_settled(2)
    trial.dock(twin, 3)
    trial.wait_settled(3)
    assert trial.bay(3)["state"] == "refused"
    assert "already docked in bay 2" in trial.bay(3)["note"]
    assert (trial.directory / "bays" / "1" / "holiday" / "BEACH.mp4").read_bytes() == mp4(1000, 1)
    assert (trial.directory / "bays" / "3" / "twin" / "DCIM" / "CLIP.mp4").read_bytes() == mp4(1000, 2)


def test_a_camera_taken_out_early_goes_on_in_another_bay(trial, mp4):
    clips = {"CAM1": {f"CLIP{number}.mp4": mp4(4 * MIB, number) for number in range(6)}}
    camera = trial.camera("CAM1", clips["CAM1"])
    trial.start_both()
    docked = trial.dock(camera, 1)
    trial.wait("one clip was read", lambda: (trial.bay(1) or {}).get("clips_acquired", 0) >= 1)
    docked = docked.rename(trial.directory / "bays" / "5" / "CAM1")
    trial.wait("the camera was ready", lambda: (trial.bay(5) or {}).get("state") == "ready")
    assert trial.bay(1)["state"] == "empty"
    assert not list(docked.rglob("*.mp4"))
    assert trial.opened() == digests(clips)
    check_order(trial.custody())


def check_order(entries: list[dict]) -> None:
    """Nothing is erased before the entries that allow it."""
    seen: dict[str, list[str]] = {}
    for entry in entries:
        if "acquisition" in entry:
            seen.setdefault(entry["acquisition"], []).append(entry["event"].removeprefix("acquisition."))
    for events in seen.values():
        if "erased" in events:
            end = events.index("erased")
            for needed in ("sealed", "registered", "stored", "reread", "warranted"):
                assert needed in events[:end], events
            assert events.count("erased") == 1
