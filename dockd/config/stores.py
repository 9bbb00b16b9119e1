"""`[store.NAME]` and the policy over all of them, key by key."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, Field

from dockd.config.tables import MIB, FilePath, HttpsUrl, Table, distinct, listing, path, seconds, whole


def _store_name(text: str) -> str:
    if not re.fullmatch(r"[a-z0-9](?:[a-z0-9-]{0,30}[a-z0-9])?", text):
        raise ValueError("no name of a store")
    return text


StoreName = Annotated[str, AfterValidator(_store_name)]


class Store(Table):
    """What every `[store.NAME]` has, whatever its kind: what its word is worth, and how much of the network it has."""

    final: Annotated[bool | None, Field(description="true or false")] = None
    fallback_for: Annotated[StoreName | None, Field(description="the NAME of another [store.NAME]")] = None
    failover_after_s: Annotated[int, whole(1, 30 * 86400, "seconds")] = 900
    min_retention_days: Annotated[int, whole(0, 36500, "days")] = 31
    slots: Annotated[int, whole(1, 32, "uploads at once")] = 3
    patch_mib: Annotated[int, whole(1, 64, "MiB")] = 64
    connect_timeout_s: Annotated[float, seconds(300)] = 10.0
    read_timeout_s: Annotated[float, seconds(3600)] = 60.0

    @property
    def patch_bytes(self) -> int:
        """The longest body of one request that carries a clip."""
        return self.patch_mib * MIB

    @property
    def is_final(self) -> bool:
        """Whether its word counts towards erasing: by default that of every store but a fallback."""
        return self.fallback_for is None if self.final is None else self.final


class ReceiverStore(Store):
    """A dockd receiver: it signs for what it holds."""

    kind: Annotated[str, Field(pattern=r"^receiver$", description='"receiver"')] = "receiver"
    url: Annotated[HttpsUrl, Field(description="https://HOST[:PORT][/PATH]; plain http is not spoken")]
    ca_file: Annotated[FilePath, path("a PEM file of the only certificates that are trusted for it")]
    key_file: Annotated[FilePath, path("the store's public key file (store.pub)")]


class CountedStores(Table):
    """So many of these."""

    count: Annotated[int, whole(1, 64)]
    of: Annotated[tuple[StoreName, ...], listing("NAMEs of [store.NAME]", least=1), AfterValidator(distinct)]


class Policy(Table):
    """What has to confirm a clip before it may be erased."""

    erase_when: Annotated[
        Annotated[str, Field(pattern=r"^(all|any)$")] | CountedStores,
        Field(description='"all", "any" or { count = 2, of = ["NAME", "NAME", "NAME"] }'),
    ] = "all"
