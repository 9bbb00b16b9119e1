"""What systemd is told, and when: a clock turned by hand, a socket of systemd's kind."""

import asyncio
import socket

import pytest

from dockd.control.notify import Nobody, Systemd, keep_told, service_manager


class Listener:
    def __init__(self, watchdog_s=0.0):
        self.watchdog_s = watchdog_s
        self.heard = []

    def tell(self, *lines):
        self.heard.append(lines)


class HandClock:
    """Each sleep lasts until the test lets it end."""

    def __init__(self):
        self.slept = []
        self.turns = asyncio.Semaphore(0)
        self.waiting = asyncio.Event()

    async def sleep(self, delay_s):
        self.slept.append(delay_s)
        self.waiting.set()
        await self.turns.acquire()

    async def turn(self):
        await self.waiting.wait()
        self.waiting.clear()
        self.turns.release()


async def told(manager, statuses, turns):
    clock, shown = HandClock(), iter(statuses)
    task = asyncio.create_task(keep_told(manager, lambda: next(shown), clock))
    for _ in range(turns):
        await clock.turn()
    await clock.waiting.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    return clock.slept


async def test_systemd_hears_that_it_is_ready_alive_and_stopping():
    manager = Listener(watchdog_s=16)
    slept = await told(manager, ["a", "a", "b"], 2)
    assert slept == [8, 8, 8]
    assert manager.heard == [
        ("READY=1", "STATUS=a"),
        ("WATCHDOG=1",),
        ("WATCHDOG=1", "STATUS=b"),
        ("STOPPING=1", "STATUS=stopping"),
    ]


async def test_without_a_watchdog_only_news_is_told():
    manager = Listener()
    slept = await told(manager, ["a", "a", "b"], 2)
    assert slept == [10, 10, 10]
    assert manager.heard[1:-1] == [("STATUS=b",)]


@pytest.mark.parametrize("abstract", [False, True])
def test_a_datagram_arrives_at_both_kinds_of_sockets(tmp_path, abstract):
    address = f"dockd-test-{tmp_path}" if abstract else str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind("\0" + address if abstract else address)
        listener.settimeout(5)
        environment = {"NOTIFY_SOCKET": "@" + address if abstract else address, "WATCHDOG_USEC": "30000000"}
        manager = service_manager(environment, pid=7)
        assert manager.watchdog_s == 30
        manager.tell("READY=1", "STATUS=x")
        assert listener.recv(100) == b"READY=1\nSTATUS=x"


def test_nobody_listening_is_no_error(tmp_path):
    Systemd(str(tmp_path / "nothing"), watchdog_s=1).tell("READY=1")
    Nobody().tell("READY=1")


@pytest.mark.parametrize("address", ["", "@", "/", "vsock:2:1", "relative"])
def test_what_is_no_address_is_nobody(address):
    assert isinstance(service_manager({"NOTIFY_SOCKET": address}, pid=7), Nobody)
    assert isinstance(service_manager({}, pid=7), Nobody)


@pytest.mark.parametrize(
    ("usec", "pid", "expected"), [("", "7", 0), ("x", "7", 0), ("5", "8", 0), ("1500000", "7", 1.5)]
)
def test_a_watchdog_of_another_program_is_not_fed(usec, pid, expected):
    environment = {"NOTIFY_SOCKET": "/run/x", "WATCHDOG_USEC": usec, "WATCHDOG_PID": pid}
    assert service_manager(environment, pid=7).watchdog_s == expected
