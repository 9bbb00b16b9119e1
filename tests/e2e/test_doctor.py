"""`dockd doctor` with the real programs, and a store of our own."""

import json

import pytest

from dockd.reader.confine import ITEMS

pytestmark = pytest.mark.timeout(300)


def test_the_doctor_finds_a_sound_receiver_and_one_that_is_away(trial):
    config = str(trial.directory / "dockd.toml")
    trial.start_both()
    trial.wait(
        "the store reached", lambda: (trial.status() or {"stores": [{}]})["stores"][0].get("state") == "reachable"
    )
    told = trial.command("doctor", "--json", "--config", config).splitlines()
    confinement, report = (json.loads(line) for line in told)
    assert confinement["wrong"] == []
    assert {one["item"]: one["holds"] for one in confinement["items"]} == dict.fromkeys(ITEMS, True)
    assert trial.status()["confinement"] == dict.fromkeys(ITEMS, "holds")
    assert report["name"] == "archive"
    assert (report["place"], report["wrong"], report["out_of_reach"]) == (None, [], False)
    assert {one["answer"] for one in report["findings"]} == {"yes"}
    trial.stop("station")
    said = trial.command("doctor", "--config", config)  # now from the configuration
    assert "it says that it lacks it" in said
    assert "readers: what the program that looks at cameras is kept from" in said
    assert "A clip is confirmed by its signed receipt." in said
    trial.stop("receiver")
    assert "Nothing is sent to it" in trial.command("doctor", "--config", config, code=69)
