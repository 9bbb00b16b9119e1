"""Where recordings go at an Axis content destination: System, Users, Devices, and one container a recording."""

from __future__ import annotations

import asyncio
from typing import Any

from dockd.core.transfer import Call
from dockd.errors import StoreRefused, UploadLost
from dockd.model import AcquisitionId, StationId
from dockd.stores.axis_names import (
    ACQUISITION,
    COMPLETE,
    MANIFEST,
    STATUS,
    Recording,
    headers,
    value,
)
from dockd.stores.axis_session import Account

_SPEECHLESS = (400, 405, 501)  # to a HEAD, which the API itself never sends
_EXISTS = 412
_MAX_KNOWN = 4096  # cameras and users that need not be announced again in this life


class Places:
    """Containers and the objects that describe who and what recorded. Every method may be called again."""

    def __init__(self, account: Account, *, station: StationId, station_name: str, everything: bool) -> None:
        self._account = account
        self._station = station
        self._station_name = station_name
        self._everything = everything
        self._capabilities: dict[str, Any] | None = None
        self._known: set[tuple[str, ...]] = set()
        self._claiming = asyncio.Lock()  # two clips of one second look at the same container one after the other

    async def announce(self, recording: Recording) -> None:
        """Make the station, the camera and the user known where they are not. Nothing that is there is changed.

        Raises StoreBusy where the store has no licence left for them.
        """
        if await self.can("StoreAndRead", "StoreReadSystemID"):
            system = {"ConnectionId": self._station, "SystemName": self._station_name or self._station}
            await self._make("System", self._station, system)
        user = {"Active": "True", "Name": recording.officer}
        if await self.can("Store", "StoreUserIDKey"):
            user["UserID"] = recording.officer
        await self._make("Users", recording.user, user)
        name = recording.serial
        await self._make("Devices", recording.device, {"Active": "True", "Name": name, "Model": recording.model})

    async def claim(self, recording: Recording, acquisition: AcquisitionId, manifest_digest: str) -> str:
        """The recording's container, made where it is missing.

        Two recordings of one camera may begin within one second, and then have one name by the API: the second's has
        its id added. Raises StoreRefused where the acquisition is there with another manifest.
        """
        async with self._claiming:
            for name in recording.containers:
                certain = name == recording.containers[-1]  # only ours can have this name
                owner = await self._owner(name)
                if owner is None:
                    said = {"ContainerName": name, **recording.container_metadata}
                    await self._account.ask(Call.REGISTER, "PUT", (name,), headers=headers("Container", said))
                    owner = await self._owner(name)
                if owner == (acquisition, manifest_digest) or (certain and owner in (None, ("", ""))):
                    return name
                if owner is not None and owner[0] == acquisition:
                    raise StoreRefused("the store has this acquisition with another manifest", status=409)
        raise StoreRefused("another recording stands under this acquisition's name", status=409)

    async def complete(self, container: str) -> None:
        """Say that everything of the recording is there, unless that is said already."""
        answer = await self._account.ask(Call.FINISH, "HEAD", (container,), expected=_SPEECHLESS)
        if value(answer.headers, "container", STATUS) != COMPLETE:
            said = headers("Container", {STATUS: COMPLETE})
            await self._account.ask(Call.FINISH, "POST", (container,), headers=said)

    async def can(self, group: str, capability: str) -> bool:
        """Whether the store publishes a capability. Read once a life: the API has them never taken back."""
        if self._everything:
            return True
        if self._capabilities is None:
            self._capabilities = await self._account.system_file("Capabilities.json")
        found = self._capabilities.get(group)
        return isinstance(found, dict) and found.get(capability) is True

    async def _owner(self, name: str) -> tuple[str, str] | None:
        """Acquisition and manifest that a container says it is of; None where it is not there, or nothing is said."""
        try:
            answer = await self._account.ask(Call.OFFSET, "HEAD", (name,), expected=_SPEECHLESS)
        except UploadLost:
            return None
        if answer.status in _SPEECHLESS:
            return None
        return value(answer.headers, "container", ACQUISITION), value(answer.headers, "container", MANIFEST)

    async def _make(self, container: str, name: str, metadata: dict[str, str]) -> None:
        if (container, name) in self._known:
            return
        if (container,) not in self._known:
            await self._account.ask(Call.REGISTER, "PUT", (container,))
        await self._account.ask(
            Call.REGISTER,
            "PUT",
            (container, name),
            headers={"If-None-Match": "*", **headers("Object", metadata)},
            content=b"",
            expected=(_EXISTS,),
        )
        if len(self._known) >= _MAX_KNOWN:
            self._known.clear()
        self._known |= {(container,), (container, name)}
