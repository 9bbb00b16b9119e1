"""udev's events on the event loop, with a netlink socket of the test's own."""

import asyncio
import errno
import os
from contextlib import suppress
from types import SimpleNamespace

import pytest

from dockd.devices.usb.monitor import MAX_NOTED, Monitor


class FakeNetlink:
    """A pipe that is readable, and the answers of `poll`."""

    def __init__(self, *answers) -> None:
        self.answers = list(answers)
        self.read, self.write = os.pipe()
        os.set_blocking(self.read, False)
        os.write(self.write, b"x")

    def fileno(self) -> int:
        return self.read

    def poll(self, timeout):
        assert timeout == 0
        answer = self.answers.pop(0) if self.answers else None
        if not self.answers:
            with suppress(BlockingIOError):
                os.read(self.read, 1)
        if isinstance(answer, OSError):
            raise answer
        return answer

    def close(self) -> None:
        os.close(self.read)
        os.close(self.write)


def event(action, path):
    return SimpleNamespace(action=action, sys_path=path)


@pytest.mark.parametrize(
    ("answers", "left"),
    [
        ((event("add", "/a"), event("remove", "/b"), event("change", "/c")), {"/b"}),
        ((OSError(errno.ENOBUFS, "No buffer space available"),), set()),
    ],
)
async def test_events_wake_and_say_what_left_and_so_does_their_loss(answers, left):
    wake, netlink = asyncio.Event(), FakeNetlink(*answers)
    monitor = Monitor(wake, netlink)
    async with asyncio.timeout(20):
        await wake.wait()
    assert monitor.left() == left
    assert monitor.left() == set()
    monitor.close()
    netlink.close()


async def test_what_left_is_noted_up_to_a_bound():
    many = [event("remove", f"/{number}") for number in range(2 * MAX_NOTED)]
    wake, netlink = asyncio.Event(), FakeNetlink(*many)
    monitor = Monitor(wake, netlink)
    async with asyncio.timeout(20):
        while netlink.answers:
            await wake.wait()
            wake.clear()
    assert MAX_NOTED < len(monitor.left()) <= MAX_NOTED + 1
    monitor.close()
    netlink.close()
