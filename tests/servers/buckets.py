"""Buckets of a running S3 server, and adapters for them."""

from __future__ import annotations

from datetime import UTC, datetime

from dockd.core.transfer import Call
from dockd.stores.credentials import EnvironmentCredentials
from dockd.stores.s3 import S3Store

STATION = "6f1e2d3c-0000-4000-8000-000000000001"


class MachineClock:
    def now(self):
        return datetime.now(UTC)

    def monotonic_s(self):
        raise AssertionError("nothing here measures")

    async def sleep(self, delay_s):
        raise AssertionError("no adapter waits by itself")


def adapter(server, bucket, **changes):
    """An adapter for a bucket of `server`, a fixture with `s3_url`, `access_key` and `secret_key`."""
    keys = {"AWS_ACCESS_KEY_ID": server.access_key, "AWS_SECRET_ACCESS_KEY": server.secret_key}
    wanted = {
        "name": bucket,
        "url": server.s3_url,
        "bucket": bucket,
        "region": "us-east-1",
        "station": STATION,
        "credentials": EnvironmentCredentials(keys),
        "clock": MachineClock(),
        "insecure_loopback": True,
    }
    return S3Store(**(wanted | changes))


async def make_bucket(store, *, lock=False):
    """As the operator of the server makes it."""
    headers = {"x-amz-bucket-object-lock-enabled": "true"} if lock else {}
    await store.bucket._exchange.ask(Call.REGISTER, "PUT", headers=headers)
