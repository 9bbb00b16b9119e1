"""`[store.NAME]` of every kind, and the policy over all of them, key by key."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import AfterValidator, Discriminator, Field, Tag

from dockd.config.tables import (
    MIB,
    FilePath,
    HttpsUrl,
    StationName,
    Table,
    distinct,
    listing,
    path,
    seconds,
    text,
    whole,
)

RECEIVER = "receiver"  # the kind of a table that names none
_KINDS = '"receiver", "tus", "s3" or "axis"'
_HTTPS_PORT = 443


def _store_name(text: str) -> str:
    if not re.fullmatch(r"[a-z0-9](?:[a-z0-9-]{0,30}[a-z0-9])?", text):
        raise ValueError("no name of a store")
    return text


def _proxy(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.path not in ("", "/") or parts.query:
        raise ValueError("no address of a proxy")
    if parts.port == 0:  # reading it also raises ValueError for what is no port
        raise ValueError("no port")
    return text


StoreName = Annotated[str, AfterValidator(_store_name)]
ProxyUrl = Annotated[str, AfterValidator(_proxy)]


class Store(Table):
    """What every `[store.NAME]` has, whatever its kind: what its word is worth, and the way to it."""

    kind: str
    url: HttpsUrl
    final: Annotated[bool | None, Field(description="true or false")] = None
    fallback_for: Annotated[StoreName | None, Field(description="the NAME of another [store.NAME]")] = None
    failover_after_s: Annotated[int, whole(1, 30 * 86400, "seconds")] = 900
    min_retention_days: Annotated[int, whole(0, 36500, "days")] = 31
    slots: Annotated[int, whole(1, 32, "uploads at once")] = 3
    connect_timeout_s: Annotated[float, seconds(300)] = 10.0
    read_timeout_s: Annotated[float, seconds(3600)] = 60.0
    ca_file: Annotated[FilePath | None, path("a PEM file of the only certificates that are trusted for it")] = None
    system_trust: Annotated[bool, Field(description="true or false")] = False
    client_cert: Annotated[FilePath | None, path("a PEM file of the certificate that is shown to the store")] = None
    client_key: Annotated[FilePath | None, path("a PEM file of that certificate's private key (mode 0600)")] = None
    proxy_url: Annotated[
        ProxyUrl | None, Field(description="http://[USER:PASSWORD@]HOST:PORT of a proxy, or the same with https")
    ] = None

    @property
    def is_final(self) -> bool:
        """Whether its word counts towards erasing: by default that of every store but a fallback."""
        return self.fallback_for is None if self.final is None else self.final

    @property
    def patch_bytes(self) -> int:
        """The longest body of one request that carries a clip, where the store does not say it itself."""
        return 64 * MIB

    @property
    def place(self) -> str:
        """Where it keeps objects, the same text for the same place however its address is written."""
        parts = urlsplit(self.url)
        host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
        return f"{self.kind} https://{host}:{parts.port or _HTTPS_PORT}{parts.path.rstrip('/')}"


class _Patched(Store):
    """A store that takes pieces of any length."""

    patch_mib: Annotated[int, whole(1, 64, "MiB")] = 64

    @property
    def patch_bytes(self) -> int:
        """As in every store."""
        return self.patch_mib * MIB


class Minimum(Table):
    """`[store.NAME.minimum.CATEGORY]`: how long clips of a category have to be kept, counted as the store's rule is."""

    until: Annotated[str, Field(pattern=r"^(date|ended)$", description='"date", or "ended": a person ends it')] = "date"
    recorded_days: Annotated[int, whole(0, 36500, "days")] = 30
    review_days: Annotated[int, whole(0, 365, "days")] = 7
    undo_days: Annotated[int, whole(0, 365, "days")] = 7


def _of_before(days: int) -> Minimum:
    """What min_retention_days asked for: so many days, of which the deletion itself takes the last."""
    late = min(7, days // 2)
    return Minimum(recorded_days=max(0, days - 1), review_days=late, undo_days=late)


class ReceiverStore(_Patched):
    """A dockd receiver: it signs for what it holds."""

    kind: Annotated[str, Field(pattern=r"^receiver$", description=_KINDS)] = RECEIVER
    url: Annotated[HttpsUrl, Field(description="https://HOST[:PORT][/PATH]; plain http is not spoken")]
    key_file: Annotated[FilePath, path("the store's public key file (store.pub)")]
    trust_stations: Annotated[
        tuple[StationName, ...], listing("stations' UUIDs in lower case"), AfterValidator(distinct)
    ] = ()
    stations_directory: Annotated[
        FilePath, path("a directory with the public keys of those stations, each as UUID.pub")
    ] = Path("/etc/dockd/stations.d")
    minimum: Annotated[
        Mapping[Annotated[str, Field(min_length=1, max_length=64)], Minimum],
        Field(max_length=256, description="a table for each category"),
    ] = Field(default_factory=dict)

    @property
    def minima(self) -> Mapping[str, Minimum]:
        """By category: of every clip, and of each of those that the file names; or as min_retention_days says."""
        said_before = "min_retention_days" in self.model_fields_set and not self.minimum
        usual = _of_before(self.min_retention_days) if said_before else Minimum()
        return {"evidence": usual, "none": usual, **self.minimum}


_NO_RETENTION: Any = Field(
    ge=0, le=0, description="0, said outright: nothing makes such a store keep anything for a time"
)
_READ_BACK: Any = text(32, 'a rate like "50 Mbit/s" or "8 MB/s"; without it, as fast as the objects come')


class TusStore(_Patched):
    """A tus 1.0 server."""

    kind: Annotated[str, Field(pattern=r"^tus$", description=_KINDS)] = "tus"
    url: Annotated[HttpsUrl, Field(description="https://HOST[:PORT]/PATH below which uploads are created")]
    objects_url: Annotated[
        HttpsUrl | None,
        Field(description="https://HOST[:PORT]/PATH below which uploads that are complete are found by name"),
    ] = None
    authorization_file: Annotated[
        FilePath | None, path('a file of one line like "Bearer TOKEN", read anew for every request (mode 0600)')
    ] = None
    min_retention_days: Annotated[int, _NO_RETENTION]
    read_back_rate: Annotated[str | None, _READ_BACK] = None


class WebIdentity(Table):
    """`[store.NAME.web_identity]`: a session's keys for a token, by AssumeRoleWithWebIdentity."""

    url: Annotated[HttpsUrl, Field(description="https://HOST[:PORT][/PATH] of the token service")]
    role: Annotated[str, text(2048, "the role to take on, as the service calls it (an ARN at AWS)")]
    token_file: Annotated[FilePath, path("a file of the identity token, which its issuer keeps fresh")]
    ca_file: Annotated[FilePath | None, path("a PEM file of the certificates that are trusted for the service")] = None
    lifetime_s: Annotated[int, whole(900, 43200, "seconds")] = 3600


class S3Store(Store):
    """A bucket of an S3 service."""

    kind: Annotated[str, Field(pattern=r"^s3$", description=_KINDS)] = "s3"
    url: Annotated[HttpsUrl, Field(description="https://HOST[:PORT][/PATH] of the service, without the bucket")]
    bucket: Annotated[
        str,
        Field(
            pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{1,62}$",
            description="a bucket's name: 2 to 63 letters, digits, dots, hyphens and underscores",
        ),
    ]
    region: Annotated[
        str, Field(pattern=r"^[A-Za-z0-9-]{1,64}$", description='the region that requests are signed for, "us-east-1"')
    ] = "us-east-1"
    prefix: Annotated[
        str,
        Field(
            pattern=r"^(?:[A-Za-z0-9._-]+(?:/[A-Za-z0-9._-]+)*)?$",
            max_length=256,
            description='what keys begin with: names of letters, digits, ".", "_", "-" with "/" between, or nothing',
        ),
    ] = ""
    bucket_in_host: Annotated[bool, Field(description="true or false")] = False
    part_mib: Annotated[int, whole(5, 64, "MiB")] = 8
    lock: Annotated[
        str, Field(pattern=r"^(none|governance|compliance)$", description='"none", "governance" or "compliance"')
    ] = "none"
    lock_days: Annotated[int, whole(0, 36500, "days")] = 0
    lock_evidence_days: Annotated[int | None, whole(0, 36500, "days")] = None
    legal_hold: Annotated[bool, Field(description="true or false")] = False
    credentials_file: Annotated[
        FilePath | None, path("a file of access keys in the form of AWS' shared credentials file (mode 0600)")
    ] = None
    credentials_profile: Annotated[str, text(128, "the section of credentials_file")] = "default"
    web_identity: Annotated[WebIdentity | None, Field(description="a table [store.NAME.web_identity]")] = None
    read_back_rate: Annotated[str | None, _READ_BACK] = None

    @property
    def place(self) -> str:
        """As in every store; keys below another prefix are another place."""
        return f"{super().place}/{self.bucket}/{self.prefix}".rstrip("/")

    @property
    def part_bytes(self) -> int:
        """How long each part of an upload is, unless the clip is too long for so many."""
        return self.part_mib * MIB

    @property
    def evidence_days(self) -> int:
        """For how long what is flagged as evidence is locked."""
        return self.lock_days if self.lock_evidence_days is None else self.lock_evidence_days


class AxisStore(_Patched):
    """An Axis Body Worn content destination, or another OpenStack Swift."""

    kind: Annotated[str, Field(pattern=r"^axis$", description=_KINDS)] = "axis"
    url: Annotated[
        HttpsUrl,
        Field(description="https://HOST[:PORT]/PATH to sign in at, the connection file's AuthenticationTokenURI"),
    ]
    credentials_file: Annotated[FilePath, path("the connection file of the destination, JSON (mode 0600)")]
    station_name: Annotated[str, Field(max_length=128, description="a text that names this station, or nothing")] = ""
    full_store: Annotated[bool, Field(description="true or false")] = False
    key_objects: Annotated[bool, Field(description="true or false")] = False
    min_retention_days: Annotated[int, _NO_RETENTION]
    read_back_rate: Annotated[str | None, _READ_BACK] = None


def _kind_of(value: object) -> object:
    if isinstance(value, Mapping):
        return value.get("kind", RECEIVER)
    return getattr(value, "kind", RECEIVER)


AnyStore = Annotated[
    Annotated[ReceiverStore, Tag(RECEIVER)]
    | Annotated[TusStore, Tag("tus")]
    | Annotated[S3Store, Tag("s3")]
    | Annotated[AxisStore, Tag("axis")],
    Discriminator(_kind_of),
]
Foreign = TusStore | S3Store | AxisStore  # kinds that keep objects and do not sign


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
    margin_days: Annotated[int, whole(1, 365, "days")] = 3


def disagreeing(stores: Mapping[str, Store]) -> list[tuple[str, str, str]]:
    """What does not fit together, each as key, what was found, and what is allowed."""
    found: list[tuple[str, str, str]] = []
    places: dict[str, str] = {}
    for name, store in stores.items():
        found += [(f"store.{name}.{key}", what, allowed) for key, what, allowed in _own_disagreements(store)]
        if store.place in places:
            key = "bucket" if isinstance(store, S3Store) else "url"
            found.append(
                (f"store.{name}.{key}", f"the same place as store.{places[store.place]}", "a place of its own")
            )
        places.setdefault(store.place, name)
    return found


def _own_disagreements(store: Store) -> list[tuple[str, str, str]]:
    found: list[tuple[str, str, str]] = []
    if (store.ca_file is None) != store.system_trust:
        what = "both ca_file and system_trust = true" if store.system_trust else "neither ca_file nor system_trust"
        found.append(("ca_file", what, "a PEM file of the only certificates to trust, or system_trust = true"))
    if (store.client_cert is None) != (store.client_key is None):
        missing = "client_key" if store.client_key is None else "client_cert"
        found.append((missing, "nothing", "client_cert and client_key, or neither"))
    if isinstance(store, S3Store):
        found += _lock_disagreements(store)
        if store.web_identity is not None and store.credentials_file is not None:
            found.append(("web_identity", "credentials_file as well", "one source of access keys"))
    return found


def _lock_disagreements(store: S3Store) -> list[tuple[str, str, str]]:
    locked = store.lock != "none"
    if not locked and (store.lock_days or store.lock_evidence_days or store.legal_hold):
        allowed = '"governance" or "compliance", where lock_days, lock_evidence_days or legal_hold is set'
        return [("lock", '"none"', allowed)]
    promised = min(store.lock_days, store.evidence_days) if locked else 0
    if promised < store.min_retention_days:
        what = f"{store.min_retention_days}, and objects are locked for {promised} days"
        return [("min_retention_days", what, "at most lock_days and lock_evidence_days, or 0 without a lock")]
    return []
