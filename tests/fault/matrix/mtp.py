"""A reader's part of an erasure over MTP, on a made-up camera whose memory outlives the program that asks it.

A fork server's reader takes an MTP camera as a device of the kernel alone, so this one is led by hand; whole docks with
MTP cameras are in tests/rig.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from types import SimpleNamespace

from mtp_camera import MtpCameraFake

from dockd import faults as no
from dockd.core.sealing import Identity
from dockd.model import AcquisitionId, CameraIdentity, DockingId, Epoch
from dockd.reader.mtp.camera import MtpCamera
from dockd.reader.reread import reread
from dockd.reader.rules import ClipRules
from dockd.reader.work import Work, shielded_buffer

NAME = AcquisitionId("01890000-0000-7000-8000-000000000002")
IDENTITY = CameraIdentity(serial="CAM1", model="M", volume_id="mtp")
RULES = ClipRules(suffixes=(".mp4",), evidence_directories=(), max_depth=4, max_files=500, block_bytes=1 << 20)
_DELETE, _OK = 0x100B, 0x2001


class KeptCamera(MtpCameraFake):
    """Its only object is there as long as the file is."""

    def __init__(self, memory: Path):
        super().__init__()
        self._memory = memory
        if memory.exists():
            self.put("A.MP4", memory.read_bytes())

    def _do(self, code, parameters):
        payload, response = super()._do(code, parameters)
        if (code, response) == (_DELETE, _OK):
            self._memory.unlink()
        return payload, response


def delete(memory: Path, faults: no.Faults) -> None:
    """What a reader does under a warrant; nothing, where the clip is gone. Raises LeftHalfway."""
    work = Work(
        docking=DockingId("d"),
        epoch=Epoch(1),
        camera=MtpCamera(KeptCamera(memory), IDENTITY),
        incoming_fd=-1,
        recipients=(Identity.generate(os.urandom).recipient,),
        rules=RULES,
        buffer=shielded_buffer(RULES.block_bytes),
        random=secrets.token_bytes,
        faults=faults,
        wanted=lambda: None,
        tell=lambda *_: None,
    )
    listed = {one.file.path: one.file for one in work.camera.walk(RULES)}
    if b"A.MP4" in listed:
        file = listed[b"A.MP4"]
        reread(work, NAME, file)
        warrant = SimpleNamespace(file=file, remnant=False, camera=IDENTITY, acquisition=NAME)
        work.camera.erase(work, warrant, 0)
