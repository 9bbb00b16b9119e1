"""The uplink's cap: set by an operator, entered, kept over a restart, shown; and what a start makes of an outage."""

import asyncio
import contextlib
import json
from datetime import datetime, timedelta

import pytest

from dockd.cli.render import cap_words, uplink_line
from dockd.keep.rebuild import open_journal
from dockd.station.daemon import _away
from dockd.station.operations import Operations
from dockd.station.snapshot import to_json


async def started(station):
    """A way to ask a station that runs by now."""
    await station.start()
    async with asyncio.timeout(60):
        while station.daemon._group is None:
            await asyncio.sleep(0.01)
    await station.snapshot()
    operations = Operations(station.daemon._sources(), station.daemon._operator_decided)

    async def ask(operation, **arguments):
        return [answer async for answer in operations.answer(operation, arguments, "pat")]

    return ask


async def entries(station, event):
    lines = await station.journal.read(lambda tx: tx.lines(0, 10_000))
    return [one["details"] for one in map(json.loads, lines) if one["event"] == event]


async def test_p07_an_operator_sets_a_cap_and_takes_it_back(station):
    ask = await started(station)
    (status,) = await ask("status")
    assert (status["uplink"]["cap_bytes_s"], status["uplink"]["max_in_flight"]) == (None, 8)
    (answer,) = await ask("cap", rate="5 Mbit/s", for_s=7200, reason="radio exercise")
    assert (answer["decision"], answer["operator"]) == ("cap set", "pat")
    assert cap_words(answer).startswith("cap 5 Mbit/s by pat until ")
    assert cap_words(answer).endswith(", then no cap")
    (status,) = await ask("status")
    uplink = status["uplink"]
    assert (uplink["cap_bytes_s"], uplink["cap_by"], uplink["cap_then_bytes_s"]) == (625_000, "pat", None)
    left = datetime.fromisoformat(uplink["cap_changes_at"]) - datetime.fromisoformat(status["at"])
    assert timedelta(minutes=118) < left <= timedelta(hours=2)
    assert uplink_line(uplink).startswith("uplink  0 uploads of 8, cap 5 Mbit/s by pat until ")
    (entered,) = await entries(station, "uplink.cap_set")
    assert (entered["operator"], entered["bytes_per_s"], entered["reason"]) == ("pat", 625_000, "radio exercise")
    await ask("cap", rate="none", for_s=None, reason="")
    assert (await station.snapshot()).uplink.cap_bytes_s is None
    assert (await station.snapshot()).uplink.cap_by == "pat"
    (answer,) = await ask("cap", rate=None, for_s=None, reason="")
    assert (answer["decision"], cap_words(answer)) == ("cap cleared", "no cap")
    assert await entries(station, "uplink.cap_cleared") == [{"operator": "pat", "reason": ""}]


@pytest.mark.parametrize(
    "arguments",
    [
        {"rate": "fast"},
        {"rate": "1 kbit/s"},
        {"rate": "5 Mbit/s", "for_s": 0},
        {"rate": "5 Mbit/s", "for_s": "2h"},
        {"rate": None, "for_s": 60},
        {"rate": "5 Mbit/s", "reason": 5},
    ],
)
async def test_a_cap_that_makes_no_sense_changes_nothing(station, arguments):
    ask = await started(station)
    with pytest.raises(LookupError):
        await ask("cap", **arguments)
    assert not await entries(station, "uplink.cap_set")
    assert not await entries(station, "uplink.cap_cleared")
    assert (await station.snapshot()).uplink.cap_by == ""


async def test_a_cap_outlives_a_restart(station):
    ask = await started(station)
    await ask("cap", rate="800 kB/s", for_s=None, reason="")
    await station.stop()
    await started(station)
    snapshot = await station.snapshot()
    assert (snapshot.uplink.cap_bytes_s, snapshot.uplink.cap_by) == (800_000, "pat")
    assert to_json(snapshot)["uplink"]["cap_changes_at"] is None


async def test_only_an_end_that_nobody_asked_for_is_an_outage(station, mp4):
    await station.start()
    station.camera(1, {"A.mp4": mp4(50_000, 1)})
    await station.until_states(bay1="ready")
    at = station.clock.now() + timedelta(minutes=10)
    away = await station.journal.read(lambda tx: _away(tx, at))
    assert timedelta(minutes=9) < away <= timedelta(minutes=11), "as if the power had gone now"
    await station.stop()
    journal = await open_journal(station.directory / "state", station.spool, station.origins())
    async with contextlib.aclosing(journal):
        events = await journal.read(lambda tx: [json.loads(line)["event"] for line in tx.lines(tx.size - 3, 3)])
        assert "station.stopped" in events
        assert await journal.read(lambda tx: _away(tx, at)) == timedelta()
