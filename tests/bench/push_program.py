"""Pushes the files of a directory to a store, all at once, and prints the seconds and the memory that it took for it.

As the station does: blocks are read from the spool by its own code, and the adapter is the one that it uses.
"""

import asyncio
import json
import os
import secrets
import sys
import time
from pathlib import Path

from servers.buckets import MachineClock, adapter

from dockd.model import SignedBytes
from dockd.stages.upload import _blocks
from dockd.stores.header_file import HeaderFile
from dockd.stores.s3_records import Believed
from dockd.stores.tus_store import TusStore


def peak_bytes():
    """The most memory this program ever had. Not `getrusage`: that begins with the peak of who started it."""
    line = next(one for one in Path("/proc/self/status").read_text().splitlines() if one.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


class Server:
    def __init__(self, given):
        self.s3_url, self.access_key, self.secret_key = given["url"], given["access_key"], given["secret_key"]


def open_store(given):
    ca_file = Path(given["ca_file"])
    if "bucket" not in given:
        return TusStore(
            name="tus",
            url=given["url"],
            clock=MachineClock(),
            random=secrets.token_bytes,
            ca_file=ca_file,
            authorization=HeaderFile(Path(given["authorization"])),
        )
    believed = Believed(put_if_absent=True, complete_if_absent=True)
    sizes = {} if given["piece_bytes"] is None else {"part_bytes": given["piece_bytes"]}
    return adapter(Server(given), given["bucket"], ca_file=ca_file, believed=believed, **sizes)


async def push(store, path, number, piece_bytes):
    """Push a clip; returns the seconds that its bytes alone took, without what comes before and after them."""
    size = path.stat().st_size
    manifest = SignedBytes(payload=f'{{"clip": {number}}}'.encode(), signature="a signature")
    acquisition = f"{os.getpid()}-{number}"
    upload, offset = await store.register(acquisition, manifest, size), 0
    began_s = time.monotonic()
    while offset < size:
        length = store.stretch(upload, offset, min(piece_bytes or size, size - offset))
        offset = await store.append(upload, offset, _blocks(path, offset, length, lambda _: None), length)
    took_s = time.monotonic() - began_s
    await store.finish(upload, acquisition, manifest)
    return took_s


async def push_all(given):
    store, directory = open_store(given), Path(given["directory"])
    await push(store, directory / "small", 0, given["piece_bytes"])  # loads what is loaded once
    before = peak_bytes()
    began_s, used_s = time.monotonic(), time.process_time()
    async with asyncio.TaskGroup() as tasks:
        pushes = [
            tasks.create_task(push(store, path, number, given["piece_bytes"]))
            for number, path in enumerate(sorted(directory.glob("clip-*")), 1)
        ]
    took_s = time.monotonic() - began_s
    await store.aclose()
    said = {
        "seconds": took_s,
        "bytes_seconds": max(one.result() for one in pushes),
        "cpu_seconds": time.process_time() - used_s,
        "grown_bytes": peak_bytes() - before,
    }
    print(json.dumps(said))  # noqa: T201  its answer


if __name__ == "__main__":
    asyncio.run(push_all(json.load(sys.stdin)))
