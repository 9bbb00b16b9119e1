"""Holds connections to a port open and says nothing: half of them stop before TLS, half after the handshake.

Arguments: port, peers (addresses from 127.0.1.1 on), connections of each, and after how many seconds one that was
closed is opened again (0: never). Says how it stands, as a line of JSON, for every line that it is told.
"""

import asyncio
import contextlib
import json
import ssl
import sys


class Crowd:
    def __init__(self, port, again_s):
        self.port, self.again_s = port, again_s
        self.tried = self.held = self.closed = 0
        self.context = ssl.create_default_context()
        self.context.check_hostname, self.context.verify_mode = False, ssl.CERT_NONE

    async def hold(self, address, number):
        while True:
            await self.once(address, {"ssl": self.context} if number % 2 else {})
            self.closed += 1
            if not self.again_s:
                return
            await asyncio.sleep(self.again_s)

    async def once(self, address, more):
        self.tried += 1
        with contextlib.suppress(OSError):
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", self.port, local_addr=(address, 0), limit=1024, **more
            )
            self.held += 1
            try:
                await reader.read()
            finally:
                self.held -= 1
                writer.transport.abort()

    def stands(self):
        return json.dumps({"tried": self.tried, "held": self.held, "closed": self.closed})


async def main():
    port, peers, each, again_s = int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
    crowd = Crowd(port, again_s)
    told = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(told), sys.stdin)
    async with asyncio.TaskGroup() as tasks:
        holding = [
            tasks.create_task(crowd.hold(f"127.0.1.{1 + peer}", number))
            for number in range(each)
            for peer in range(peers)
        ]
        while await told.readline():
            print(crowd.stands(), flush=True)  # noqa: T201
        for one in holding:
            one.cancel()


asyncio.run(main())
