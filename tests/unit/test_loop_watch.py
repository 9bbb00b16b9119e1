"""What watches the event loops of all tests sees what it is there for, and nothing else."""

import asyncio
import time

import pytest

from dockd.app.clock import MachineClock
from dockd.control.notify import Nobody, keep_told
from dockd.keep import durable

pytest.importorskip("blockbuster")

LONG_S = 0.15


def work() -> None:
    until_s = time.thread_time() + LONG_S
    while time.thread_time() < until_s:
        pass


async def run_in_the_loop(call, *arguments) -> list[str]:
    """What became of the errors of one callback."""
    loop, ended, errors = asyncio.get_running_loop(), asyncio.Event(), []
    loop.set_exception_handler(lambda _, context: errors.append(str(context["exception"])))
    loop.call_soon(call, *arguments)
    loop.call_soon(ended.set)
    await ended.wait()
    return errors


async def test_a_callback_that_works_for_long_is_seen(watch):
    await run_in_the_loop(work)
    (seen,) = watch.take()
    assert "of processor time" in seen


async def test_a_callback_that_a_busy_machine_keeps_waiting_is_not(watch):
    await run_in_the_loop(time.sleep, 2 * LONG_S)
    assert not watch.take()


async def test_a_task_of_ours_that_works_for_long_is_seen(watch):
    began = asyncio.Event()

    def status() -> str:
        work()
        began.set()
        return "of long work"

    task = asyncio.create_task(keep_told(Nobody(), status, MachineClock()))
    await began.wait()
    task.cancel()
    await asyncio.wait({task})
    (seen,) = watch.take()
    assert "keep_told" in seen


async def test_a_test_s_own_coroutine_may_work_for_long_and_block(watch, tmp_path):
    work()
    durable.fsync_directory(tmp_path)
    assert not watch.take()


async def test_a_blocking_call_of_ours_is_refused_and_seen(watch, tmp_path):
    errors = await run_in_the_loop(durable.fsync_directory, tmp_path)
    assert errors == ["Blocking call to os.open"]
    (seen,) = watch.take()
    assert "fsync_directory" in seen
