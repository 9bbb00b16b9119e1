"""`[uplink]`: how much of the network the station may have, over all stores."""

from __future__ import annotations

import zoneinfo
from collections.abc import Mapping
from typing import Annotated

from pydantic import AfterValidator, Field

from dockd.config.tables import Table, whole


def _zone(text: str) -> str:
    try:
        zoneinfo.ZoneInfo(text)
    except (ValueError, OSError, zoneinfo.ZoneInfoNotFoundError) as error:
        raise ValueError("no time zone") from error
    return text


class Uplink(Table):
    """All of it takes effect at once."""

    max_in_flight: Annotated[int, whole(1, 64, "uploads at once, over all stores")] = 8
    time_zone: Annotated[
        Annotated[str, AfterValidator(_zone)] | None,
        Field(description='a name of the time zone database, like "Europe/Berlin"'),
    ] = None
    caps: Annotated[
        Mapping[str, str],
        Field(
            max_length=64,
            description='a table of times of the week, each with a rate, like "mon-fri 07:00-19:00" = "20 Mbit/s"',
        ),
    ] = Field(default_factory=dict)

    @property
    def zone(self) -> zoneinfo.ZoneInfo | None:
        """The time zone of the caps; None for the machine's."""
        return None if self.time_zone is None else zoneinfo.ZoneInfo(self.time_zone)
