"""What tus servers really do, by the probe that set-up and `dockd doctor` run."""

import secrets

import pytest
from contract.evidence import MachineClock

from dockd.stores.header_file import HeaderFile
from dockd.stores.probing import Answer, Question
from dockd.stores.tus_probe import FOUND, WITH_UPLOAD, probe
from dockd.stores.tus_store import TusStore

pytestmark = pytest.mark.servers

_KEPT = (Question.RESUME, WITH_UPLOAD, FOUND, Question.READ_BACK, Question.ABANDON)
_NOT_KEPT = (Question.WRONG_CHECKSUM, Question.LOCKED)


async def _probed(**settings):
    stores = [
        TusStore(name="tus", clock=MachineClock(), random=secrets.token_bytes, insecure_loopback=True, **settings)
        for _ in range(2)
    ]
    try:
        found = await probe(*stores, random=secrets.token_bytes)
    finally:
        for store in stores:
            await store.aclose()
    for one in found:
        print(one)  # noqa: T201  for the table in the documentation
    assert not any(one.broken_claim for one in found)
    return {one.question: one.answer for one in found}


async def test_what_tus_server_does(tus_server, tmp_path):
    file = tmp_path / "authorization"
    file.write_text(f"Bearer {tus_server.token}")
    found = await _probed(url=tus_server.url, ca_file=tus_server.ca_file, authorization=HeaderFile(file))
    assert [found[one] for one in (*_KEPT, Question.OVERWRITE)] == [Answer.YES] * 6
    assert [found[one] for one in _NOT_KEPT] == [Answer.NO] * 2


async def test_what_seaweedfs_does(seaweed):
    found = await _probed(url=seaweed.tus_url + "/probe", objects_url=seaweed.files_url + "/probe")
    assert [found[one] for one in _KEPT] == [Answer.YES] * 5
    # A second upload under a name takes the place of the first: names are ours to keep apart.
    assert [found[one] for one in (*_NOT_KEPT, Question.OVERWRITE)] == [Answer.NO] * 3
