"""A program that pushes one sealed file to an S3 store, as a station does: journal first, and go on in any life.

It reads what to do as JSON from its standard input, and ends with 0 when the clip was confirmed by `look` or `read`.
"""

import asyncio
import contextlib
import hashlib
import json
import os
import sys
from datetime import UTC, datetime
from pathlib import Path

from dockd.core.objects import Piece
from dockd.model import SignedBytes
from dockd.stores.credentials import EnvironmentCredentials
from dockd.stores.s3 import S3Store
from dockd.stores.s3_records import Believed

BLOCK = 1 << 20


class Clock:
    def now(self):
        return datetime.now(UTC)

    def monotonic_s(self):
        return asyncio.get_running_loop().time()

    async def sleep(self, delay_s):
        await asyncio.sleep(delay_s)


def digests(path, part_bytes):
    """SHA-256 of the file, and of each part of it."""
    whole, parts = hashlib.sha256(), []
    with path.open("rb") as file:
        while True:
            part, left = hashlib.sha256(), part_bytes
            while left and (block := file.read(min(BLOCK, left))):
                whole.update(block)
                part.update(block)
                left -= len(block)
            if left < part_bytes:
                parts.append(part.digest())
            if left:
                return whole.digest(), parts


async def blocks(path, offset, length):
    with path.open("rb") as file:
        file.seek(offset)
        while length:
            block = file.read(min(BLOCK, length))
            length -= len(block)
            yield block


def keep(path, text):
    beside = path.with_suffix(".new")
    with beside.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)


async def push(given):
    spool, journal = Path(given["spool"]), Path(given["journal"])
    manifest = SignedBytes(payload=given["manifest"].encode(), signature=given["signature"])
    keys = {"AWS_ACCESS_KEY_ID": given["access_key"], "AWS_SECRET_ACCESS_KEY": given["secret_key"]}

    async def part_digests(_acquisition, part_bytes):
        return (await asyncio.to_thread(digests, spool, part_bytes))[1]

    store = S3Store(
        name="s3",
        url=given["url"],
        bucket=given["bucket"],
        region="us-east-1",
        station=given["station"],
        credentials=EnvironmentCredentials(keys),
        clock=Clock(),
        part_bytes=given["part_bytes"],
        believed=Believed(checksum=True, put_if_absent=True, complete_if_absent=True),
        part_digests=part_digests,
        insecure_loopback=True,
    )
    size = spool.stat().st_size
    async with contextlib.aclosing(store):
        if not journal.exists():
            keep(journal, await store.register(given["acquisition"], manifest, size))
        upload = journal.read_text()
        offset = await store.offset(upload)
        while offset < size:
            length = store.stretch(upload, offset, size - offset)
            offset = await store.append(upload, offset, blocks(spool, offset, length), length)
        objects = await store.finish(upload, given["acquisition"], manifest)
        keep(Path(given["result"]), objects)
        state = (await store.look(objects))[Piece.SEALED]
        _, parts = await asyncio.to_thread(digests, spool, state.checksum.part_bytes)
        assert state.size_bytes == size
        assert state.checksum.digest == hashlib.sha256(b"".join(parts)).digest()


if __name__ == "__main__":
    asyncio.run(push(json.load(sys.stdin)))
