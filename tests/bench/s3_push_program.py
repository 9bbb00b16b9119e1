"""Pushes the files of a directory to S3, all at once, and prints the seconds and the memory that it took for it."""

import asyncio
import json
import os
import sys
import time
from pathlib import Path

from fault.stores.pusher import blocks
from servers.buckets import adapter

from dockd.model import SignedBytes
from dockd.stores.s3_records import Believed


def peak_bytes():
    """The most memory this program ever had. Not `getrusage`: that begins with the peak of who started it."""
    line = next(one for one in Path("/proc/self/status").read_text().splitlines() if one.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


class Server:
    def __init__(self, given):
        self.s3_url, self.access_key, self.secret_key = given["url"], given["access_key"], given["secret_key"]


async def push(store, path, number):
    size = path.stat().st_size
    manifest = SignedBytes(payload=f'{{"clip": {number}}}'.encode(), signature="a signature")
    acquisition = f"{os.getpid()}-{number}"
    upload, offset = await store.register(acquisition, manifest, size), 0
    while offset < size:
        length = store.stretch(upload, offset, size - offset)
        offset = await store.append(upload, offset, blocks(path, offset, length), length)
    await store.finish(upload, acquisition, manifest)


async def push_all(given):
    believed = Believed(put_if_absent=True, complete_if_absent=True)
    store = adapter(Server(given), given["bucket"], part_bytes=given["part_bytes"], believed=believed)
    small = Path(given["directory"]) / "small"
    await push(store, small, 0)  # loads what is loaded once
    before = peak_bytes()
    began_s = time.monotonic()
    async with asyncio.TaskGroup() as tasks:
        for number, path in enumerate(sorted(Path(given["directory"]).glob("clip-*")), 1):
            tasks.create_task(push(store, path, number))
    took_s = time.monotonic() - began_s
    await store.aclose()
    print(json.dumps({"seconds": took_s, "grown_bytes": peak_bytes() - before}))  # noqa: T201  its answer


if __name__ == "__main__":
    asyncio.run(push_all(json.load(sys.stdin)))
