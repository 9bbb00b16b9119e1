"""What the stages of one docking share."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import ParamSpec, TypeVar

from dockd.core.sshsig import SigningKey
from dockd.devices.port import Attachment
from dockd.errors import SpoolFull
from dockd.keep.journal import Journal
from dockd.keep.spool import Spool
from dockd.model import BayNumber, CameraIdentity, Clock, DockingId, Entropy, Epoch, StationId
from dockd.reader.client import Reader

_P = ParamSpec("_P")
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Stay:
    """One stay of one camera in one bay, with the reader that serves it and the station's own parts."""

    station: StationId
    docking: DockingId
    epoch: Epoch
    bay: BayNumber
    camera: CameraIdentity
    attachment: Attachment
    reader: Reader
    journal: Journal
    spool: Spool
    manifest_key: SigningKey
    clock: Clock
    random: Entropy
    unclean: str = ""  # why its file systems were not clean: no clip is erased without a release then


async def in_spool(call: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
    """Run a blocking call of the spool in a thread.

    Raises SpoolFull where its disk refuses, whatever the reason: the clip waits on its camera, and all else goes on.
    After cancellation the call may still run to its end.
    """
    try:
        return await asyncio.to_thread(call, *args, **kwargs)
    except OSError as error:
        raise SpoolFull(f"the spool cannot be used: {error.strerror or error}") from error
