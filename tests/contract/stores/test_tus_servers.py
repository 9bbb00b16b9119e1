"""What is special to a tus server of others."""

import contextlib
import secrets

import pytest
from contract.evidence import Clip, Keys, MachineClock
from servers.node_tus import node_tus

from dockd.errors import StoreRefused
from dockd.stores.header_file import HeaderFile
from dockd.stores.tus_store import TusStore

pytestmark = pytest.mark.servers


async def test_a_clip_that_is_longer_than_the_server_takes_is_refused_before_a_byte_is_sent(tmp_path):
    authorization, clip = tmp_path / "authorization", Clip(Keys(), size=100_000)
    with node_tus(max_size_bytes=50_000) as server:
        authorization.write_text(f"Bearer {server.token}")
        store = TusStore(
            name="tus",
            url=server.url,
            clock=MachineClock(),
            random=secrets.token_bytes,
            ca_file=server.ca_file,
            authorization=HeaderFile(authorization),
        )
        async with contextlib.aclosing(store):
            with pytest.raises(StoreRefused, match="Tus-Max-Size"):
                await store.register(clip.acquisition, clip.manifest, len(clip.content))
        assert list(server.files.iterdir()) == []
