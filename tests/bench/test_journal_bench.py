"""How fast the journal writes, picks and opens. Run with `pytest -m bench -s`."""

import asyncio
import runpy
import time
from pathlib import Path

import pytest

from dockd.core.lifecycle import AcquisitionState

kit = runpy.run_path(str(Path(__file__).parents[1] / "unit" / "keep" / "conftest.py"))["kit"]
pytestmark = pytest.mark.bench


async def test_write_transactions(kit, capsys):
    journal = await kit.open()

    async def writers(count, each):
        async def one():
            for _ in range(each):
                await journal.write(lambda tx: tx.record("test.noted", details={"text": "x" * 300}))

        start = time.perf_counter()
        await asyncio.gather(*(one() for _ in range(count)))
        return count * each / (time.perf_counter() - start)

    figures = {count: await writers(count, 2000 // count) for count in (1, 2, 8, 32)}
    with capsys.disabled():
        for count, rate in figures.items():
            print(f"\n{count:3} writers: {rate:8.0f} durable transactions/s", end="")  # noqa: T201  its purpose


async def test_ten_thousand_clips(kit, capsys):
    journal = await kit.open()
    await journal.write(kit.begin)
    clips = 10_000
    start = time.perf_counter()
    for first in range(0, clips, 500):
        await journal.write(
            lambda tx, first=first: [kit.bring(tx, kit.clip(first + n), *kit.to_spooled) for n in range(500)]
        )
    brought = time.perf_counter() - start
    picks = {
        "uplink_candidates(3)": lambda tx: tx.uplink_candidates(kit.store, 3),
        "next_in": lambda tx: tx.next_in(kit.docking(), AcquisitionState.FOUND),
        "next_to_reread": lambda tx: tx.next_to_reread(kit.docking()),
        "counts": lambda tx: tx.counts(kit.docking()),
    }
    figures = {}
    for name, pick in picks.items():
        start = time.perf_counter()
        for _ in range(200):
            await journal.read(pick)
        figures[name] = (time.perf_counter() - start) / 200
    await journal.aclose()
    start = time.perf_counter()
    await kit.open()
    opened = time.perf_counter() - start
    with capsys.disabled():
        print(f"\n{clips * 3 / brought:.0f} changes/s in big transactions; opened in {opened * 1000:.0f} ms", end="")  # noqa: T201
        for name, seconds in figures.items():
            print(f"\n{name}: {seconds * 1e6:.0f} us", end="")  # noqa: T201
