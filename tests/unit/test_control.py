import asyncio
import json
import os
import resource
import socket
import stat

import pytest
from structlog.testing import capture_logs

from dockd.control.client import ask
from dockd.control.server import bind, serve
from dockd.errors import DaemonUnreachable, IllegalTransition, RequestRefused, SpoolFull


class Api:
    """Answers by the operation's name."""

    def __init__(self):
        self.operators = []

    async def answer(self, operation, arguments, operator):
        self.operators.append(operator)
        match operation:
            case "count":
                for number in range(arguments["to"]):
                    yield {"number": number, "text": "x" * 2000}
            case "illegal":
                raise IllegalTransition("not allowed in state found")
            case "later":
                raise SpoolFull("no room")
            case _:
                raise LookupError(f"there is no operation {operation!r}")


@pytest.fixture
async def api(tmp_path):
    api = Api()
    api.path = tmp_path / ("deep" * 40) / "control.sock"
    task = asyncio.create_task(serve(bind(api.path), api))
    yield api
    task.cancel()
    await asyncio.wait([task])


async def collect(path, operation, **arguments):
    return await asyncio.to_thread(lambda: list(ask(path, operation, **arguments)))


async def test_answers_stream_through_a_path_longer_than_a_socket_address(api):
    answers = await collect(api.path, "count", to=3000)
    assert [answer["number"] for answer in answers] == list(range(3000))


async def test_the_kernel_names_the_operator_and_only_the_group_may_ask(api):
    await collect(api.path, "count", to=1)
    assert api.operators[0].endswith(f"uid {os.getuid()})") or api.operators[0] == f"uid {os.getuid()}"
    assert stat.S_IMODE(api.path.stat().st_mode) == 0o660


@pytest.mark.parametrize(("operation", "kind"), [("illegal", "fatal"), ("later", "retry"), ("dance", "usage")])
async def test_what_fails_is_an_answer_and_the_next_request_works(api, operation, kind):
    with pytest.raises(RequestRefused) as refused:
        await collect(api.path, operation)
    assert refused.value.kind == kind
    assert len(await collect(api.path, "count", to=2)) == 2


RUBBISH = [
    b"\n",
    b"{}\n",
    b"[1]\n",
    b"\xff\xfe\n",
    b"{" * 70_000,
    b"[" * 60_000 + b"\n",
    b'{"op":' * 9_000 + b"\n",
    b'{"op":["x"]}\n',
    b'{"op":"count","to":"\\ud800"}\n',
    b'{"op":"\\udcff"}\n',
]


@pytest.mark.parametrize("line", RUBBISH, ids=range(len(RUBBISH)))
async def test_p09_rubbish_is_answered_with_usage_and_harms_nobody(api, line):
    def send():
        with socket.socket(socket.AF_UNIX) as connection:
            directory = os.open(api.path.parent, os.O_RDONLY)
            connection.connect(f"/proc/self/fd/{directory}/control.sock")
            os.close(directory)
            connection.sendall(line)
            connection.shutdown(socket.SHUT_WR)
            return connection.recv(4096)

    assert json.loads(await asyncio.to_thread(send))["kind"] == "usage"
    assert len(await collect(api.path, "count", to=2)) == 2


async def test_an_asker_that_leaves_harms_nobody(api):
    stream = ask(api.path, "count", to=100_000)
    await asyncio.to_thread(next, stream)
    stream.close()
    assert len(await collect(api.path, "count", to=2)) == 2


async def test_p09_a_program_without_free_descriptors_answers_once_it_has_some(api):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    directory = os.open(api.path.parent, os.O_RDONLY)
    with socket.socket(socket.AF_UNIX) as connection, capture_logs() as logged:
        resource.setrlimit(resource.RLIMIT_NOFILE, (connection.fileno() + 1, hard))
        try:
            connection.connect(f"/proc/self/fd/{directory}/control.sock")
            connection.sendall(b'{"op":"count","to":2}\n')
            async with asyncio.timeout(20):
                while not any(entry["event"] == "control_connection_not_taken" for entry in logged):
                    await asyncio.sleep(0)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            os.close(directory)
        assert await asyncio.to_thread(connection.recv, 4096)
    assert len(await collect(api.path, "count", to=2)) == 2


def test_nobody_there_is_said_plainly(tmp_path):
    with pytest.raises(DaemonUnreachable, match="is it running"):
        list(ask(tmp_path / "control.sock", "status"))


@pytest.mark.parametrize("answer", [b"", b'{"number":1}\n', b'{"number":1}\n{"num'])
async def test_an_answer_that_breaks_off_is_told_from_a_whole_one(tmp_path, answer):
    async def serve_half(reader, writer):
        await reader.readline()
        writer.write(answer)
        writer.close()

    async with await asyncio.start_unix_server(serve_half, tmp_path / "control.sock"):
        with pytest.raises(DaemonUnreachable, match="try again"):
            await collect(tmp_path / "control.sock", "count", to=3)


async def test_a_dead_socket_is_replaced(tmp_path):
    bind(tmp_path / "control.sock").close()
    bind(tmp_path / "control.sock").close()
