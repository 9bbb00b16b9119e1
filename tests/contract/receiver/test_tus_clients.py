"""tus clients that are not ours push to the receiver with nothing but a token and an announced acquisition."""

import asyncio
import io
import json
import shutil
import subprocess
from pathlib import Path

import pytest
from tusclient import client as tuspy
from tusclient.uploader import Uploader

from dockd.core import receipts, sshsig

STORE = "0190a5c0-0000-4000-8000-00000000000a"
_CACHE = Path(__file__).parents[3] / ".cache"
_JS_CLIENT = "tus-js-client@4.3.1"

_SCRIPT = """
import fs from "node:fs";
import * as tus from "tus-js-client";
const given = JSON.parse(fs.readFileSync(0, "utf8"));
const upload = new tus.Upload(fs.createReadStream(given.file), {
  endpoint: given.endpoint,
  uploadUrl: given.upload ?? null,
  uploadSize: fs.statSync(given.file).size,
  chunkSize: given.chunk,
  uploadDataDuringCreation: given.during,
  headers: { Authorization: `Bearer ${given.token}` },
  metadata: { acquisition: given.acquisition },
  retryDelays: [],
  onError: (error) => { console.error(String(error)); process.exit(1); },
  onSuccess: () => { console.log(upload.url); process.exit(0); },
});
upload.start();
"""


async def _is_whole(receiver, station, clip):
    answer = await station.receipt(clip)
    assert answer.status_code == 200, answer.text
    receipts.verify_receipt(
        sshsig.signed_from_json(answer.json()),
        store_key=receiver.key.public,
        store=STORE,
        station=station.id,
        manifest=clip.payload,
    )


@pytest.mark.parametrize("checksum", [False, True])
async def test_tuspy_pushes_a_clip(receiver, station, monkeypatch, checksum):
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(receiver.cert))
    clip = station.clip(3 << 20)
    url = await station.announced(clip)

    def push():
        client = tuspy.TusClient(
            f"https://127.0.0.1:{receiver.port}/uploads", headers={"Authorization": f"Bearer {station.token}"}
        )
        uploader = client.uploader(
            file_stream=io.BytesIO(clip.content),
            chunk_size=1 << 20,
            metadata={"acquisition": clip.acquisition},
            upload_checksum=checksum,
        )
        uploader.upload()
        return uploader.url

    assert (await asyncio.to_thread(push)).endswith(url)
    await _is_whole(receiver, station, clip)


async def test_tuspy_goes_on_where_the_receiver_stands(receiver, station, monkeypatch):
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(receiver.cert))
    clip = station.clip(3 << 20)
    url = await station.announced(clip)
    await station.patch(url, 0, clip.content[: 1 << 20])

    def push():
        uploader = Uploader(
            file_stream=io.BytesIO(clip.content),
            chunk_size=1 << 20,
            url=f"https://127.0.0.1:{receiver.port}{url}",
            client=tuspy.TusClient(
                f"https://127.0.0.1:{receiver.port}/uploads", headers={"Authorization": f"Bearer {station.token}"}
            ),
        )
        began = uploader.offset
        uploader.upload()
        return began

    assert await asyncio.to_thread(push) == 1 << 20
    await _is_whole(receiver, station, clip)


@pytest.fixture(scope="session")
def js_client():
    """A directory in which node finds tus-js-client, kept between runs."""
    if shutil.which("npm") is None or shutil.which("node") is None:
        pytest.skip("npm is not installed: tus-js-client cannot be tried")
    directory = _CACHE / _JS_CLIENT
    if not (directory / "node_modules" / "tus-js-client").is_dir():
        directory.mkdir(parents=True, exist_ok=True)
        done = subprocess.run(
            ["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix", directory, _JS_CLIENT],
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        if done.returncode:
            pytest.skip(f"npm could not install {_JS_CLIENT}: {done.stderr[-200:]}")
    (directory / "push.mjs").write_text(_SCRIPT)
    return directory


async def _node(js_client, receiver, given):
    node = await asyncio.create_subprocess_exec(
        "node",
        "push.mjs",
        cwd=js_client,
        env={"PATH": "/usr/bin:/bin:/usr/local/bin", "NODE_EXTRA_CA_CERTS": str(receiver.cert)},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await asyncio.wait_for(node.communicate(json.dumps(given).encode()), 60)
    assert node.returncode == 0, err.decode()
    return out.decode().strip()


@pytest.mark.parametrize("during", [False, True])
async def test_tus_js_client_pushes_a_clip(js_client, receiver, station, tmp_path, during):
    clip = station.clip(3 << 20)
    url = await station.announced(clip)
    file = tmp_path / "clip.age"
    file.write_bytes(clip.content)
    given = {
        "endpoint": f"https://127.0.0.1:{receiver.port}/uploads",
        "token": station.token,
        "acquisition": clip.acquisition,
        "file": str(file),
        "chunk": 1 << 20,
        "during": during,
    }
    assert (await _node(js_client, receiver, given)).endswith(url)
    await _is_whole(receiver, station, clip)


async def test_tus_js_client_goes_on_where_the_receiver_stands(js_client, receiver, station, tmp_path):
    clip = station.clip(3 << 20)
    url = await station.announced(clip)
    await station.patch(url, 0, clip.content[: 1 << 20])
    file = tmp_path / "clip.age"
    file.write_bytes(clip.content)
    given = {
        "endpoint": f"https://127.0.0.1:{receiver.port}/uploads",
        "upload": f"https://127.0.0.1:{receiver.port}{url}",
        "token": station.token,
        "acquisition": clip.acquisition,
        "file": str(file),
        "chunk": 1 << 20,
        "during": False,
    }
    await _node(js_client, receiver, given)
    await _is_whole(receiver, station, clip)
