"""Default deny: a camera that does not carry its own enrolment waits for an operator's word."""

import dataclasses

import pytest

from dockd.core.profile import Profile
from dockd.devices.folder import FolderSource
from dockd.station.operations import Operations


class Unenrolled(FolderSource):
    """Folders whose marker is nobody's word, with a volume id that a test may change."""

    volume = "1234-ABCD"

    async def identify(self, plugged):
        candidate = await super().identify(plugged)
        identity = dataclasses.replace(candidate.identity, volume_id=self.volume)
        profiles = (Profile(name="special", version=1), *candidate.profiles)
        return dataclasses.replace(candidate, identity=identity, profiles=profiles, enrolled=False)

    async def attach(self, plugged, candidate):
        attached = await super().attach(plugged, await super().identify(plugged))
        attached._identity = candidate.identity
        attached.read_by = candidate.profiles[0].name
        self.attached = attached
        return attached


@pytest.fixture
async def docked(station, mp4):
    """A station with one camera that nobody enrolled; its source; and a way to ask it as the CLI does."""
    source = Unenrolled(station.bays)
    await station.start(sources=(source,))
    station.camera(1, {"A.mp4": mp4(50_000, 1)})
    bays = await station.until_states(bay1="refused")
    assert "`dockd camera enrol CAM1` admits it" in bays[1].note
    operations = Operations(station.daemon._sources(), station.daemon._operator_decided)

    async def ask(operation, **arguments):
        return [answer async for answer in operations.answer(operation, arguments, "pat")]

    return station, source, ask


async def test_p08_nothing_of_an_unknown_camera_is_read_until_it_is_enrolled(docked):
    station, _, ask = docked
    assert not await station.rows()
    assert (station.bays[1] / "CAM1" / "A.mp4").exists()
    (answer,) = await ask("enrol", serial="CAM1", reason="issued")
    assert (answer["serial"], answer["decision"], answer["operator"]) == ("CAM1", "enrolled", "pat")
    assert [record["serial"] for record in await ask("cameras")] == ["CAM1"]
    await station.until_row(lambda row: row.camera.serial == "CAM1")
    assert "camera.enrolled" in await station.events()


async def test_a_profile_admits_all_its_cameras_and_no_other_profile_reads_them(docked):
    station, source, ask = docked
    await ask("enrol", profile="folder")
    await station.until_row(lambda row: row.camera.serial == "CAM1")
    assert source.attached.read_by == "folder"


async def test_p08_a_camera_formatted_elsewhere_is_refused_until_it_is_enrolled_again(docked, mp4):
    station, source, ask = docked
    await ask("enrol", serial="CAM1")
    await station.until_row(lambda row: row.camera.serial == "CAM1")
    source.volume = "9999-0000"
    camera = (station.bays[1] / "CAM1").rename(station.directory / "away")
    await station.until_states(bay1="empty")
    camera.rename(station.bays[2] / "CAM1")
    bays = await station.until_states(bay2="refused")
    assert "had the file system 1234-ABCD" in bays[2].note
    await ask("enrol", serial="CAM1", reason="formatted by the workshop")
    await station.until_row(lambda row: row.camera.volume_id == "9999-0000")


async def test_what_is_not_enrolled_cannot_be_forgotten(docked):
    _, _, ask = docked
    with pytest.raises(LookupError, match="camera list"):
        await ask("forget", serial="CAM9")
    await ask("enrol", serial="CAM9")
    await ask("forget", serial="CAM9")
    assert not await ask("cameras")
    with pytest.raises(LookupError, match="a serial or a profile"):
        await ask("enrol")
