"""Camera profiles as their files say them, key by key (docs/cameras.md). A profile is called as its file is."""

from __future__ import annotations

import re
import zoneinfo
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, Field, model_validator

from dockd.config.load import parse_table, problem, refused
from dockd.config.schema import DirectoryName, Suffix
from dockd.config.tables import Table
from dockd.errors import ConfigError

SUFFIX = ".toml"
STATION_ZONE, UTC_ZONE = "station", "utc"

_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,62}[a-z0-9])?")
_RESERVED = ("folder",)  # what a directory with a marker is read by
_MOST_FILES = 500
_MOST_BYTES = 16384  # what it says of files travels to the reader in one message, several times over at worst


def _inside(text: str) -> str:
    """A path below a root: nothing that leads out of it, or round about in it."""
    if not text or "\x00" in text or any(part in ("", ".", "..") for part in text.split("/")):
        raise ValueError("no path below the root")
    return text


def _zone(text: str) -> str:
    if text not in (STATION_ZONE, UTC_ZONE):
        try:
            zoneinfo.ZoneInfo(text)
        except (ValueError, OSError, zoneinfo.ZoneInfoNotFoundError) as error:
            raise ValueError("no time zone") from error
    return text


FileName = DirectoryName
Inside = Annotated[str, AfterValidator(_inside)]


def _list(what: str) -> Any:
    return Field(strict=False, max_length=64, description=f"a list of {what}")


def _hex(what: str) -> Any:
    return Field(pattern=r"^[0-9a-f]{4}$", description=f"the USB {what} id: four hex digits in lower case, as text")


class MatchTable(Table):
    """`[[match]]`: one way to know the camera. All keys of one must hold, and one of several is enough."""

    medium: Annotated[str, Field(pattern=r"^(storage|mtp)$", description='"storage" or "mtp"')]
    vendor_id: Annotated[str | None, _hex("vendor")] = None
    product_id: Annotated[str | None, _hex("product")] = None
    filesystem: Annotated[
        str | None, Field(pattern=r"^(vfat|exfat|ext4)$", description='"vfat", "exfat" or "ext4"')
    ] = None
    label: Annotated[
        str | None, Field(min_length=1, max_length=64, description="a volume label; * and ? stand for anything")
    ] = None
    must_exist: Annotated[
        Inside | None, Field(description="a path below the root of a volume, without / at its beginning or end")
    ] = None

    @model_validator(mode="after")
    def _possible(self) -> MatchTable:
        if self.product_id and not self.vendor_id:
            raise ValueError("a product id says nothing without the vendor's")
        if self.medium == "mtp" and (self.filesystem or self.label or self.must_exist):
            raise ValueError("an MTP device has no volumes")
        return self


class PatternTable(Table):
    """`[clips]`, `[sidecars]`, `[noise]`: which files."""

    directories: Annotated[
        tuple[Inside, ...], _list("directories, as paths below the root; * and ? stand for anything")
    ] = ()
    suffixes: Annotated[tuple[Suffix, ...], _list('file name suffixes like ".mp4"')] = ()
    names: Annotated[tuple[FileName, ...], _list("file names without a slash; * and ? stand for anything")] = ()


class EvidenceTable(Table):
    """`[evidence]`: how the camera marks it."""

    directories: Annotated[tuple[DirectoryName, ...], _list("names of directories without a slash")] = ()
    name_flags: Annotated[tuple[FileName, ...], _list("parts of file names")] = ()
    categories: Annotated[tuple[FileName, ...], _list("categories, as {category} in a template reads them")] = ()
    read_only: Annotated[bool, Field(description="true or false")] = False


class NamesTable(Table):
    """`[names]`: what the names of clips say."""

    templates: Annotated[
        tuple[str, ...], _list("file names without their suffix, with fields in braces (docs/cameras.md)")
    ] = ()
    time_zone: Annotated[
        str,
        AfterValidator(_zone),
        Field(description='"station", "utc", or a name of the time zone database like "Europe/Berlin"'),
    ] = STATION_ZONE


class CameraTable(Table):
    """A file in cameras.d."""

    version: Annotated[int, Field(ge=1, le=9999, description="a whole number from 1, higher with every change")]
    description: Annotated[str, Field(min_length=1, max_length=200, description="one line of text")]
    erase: Annotated[
        str,
        Field(pattern=r"^(delete|clear|discard|none)$", description='"delete", "clear", "discard" or "none"'),
    ] = "delete"
    match: Annotated[
        tuple[MatchTable, ...],
        Field(
            strict=False,
            min_length=1,
            max_length=64,
            description="one or more tables [[match]]; in each, product_id only with vendor_id, and of volumes nothing "
            "where medium is mtp",
        ),
    ]
    clips: Annotated[PatternTable, Field(description="a table [clips]")] = PatternTable()
    sidecars: Annotated[PatternTable, Field(description="a table [sidecars]")] = PatternTable()
    noise: Annotated[PatternTable, Field(description="a table [noise]")] = PatternTable()
    evidence: Annotated[EvidenceTable, Field(description="a table [evidence]")] = EvidenceTable()
    names: Annotated[NamesTable, Field(description="a table [names]")] = NamesTable()


def load_camera(path: Path) -> CameraTable:
    """One profile's file. Raises ConfigError with every mistake in it."""
    if not _NAME.fullmatch(path.stem) or path.stem in _RESERVED:
        allowed = f"a-z, 0-9 and - inside, then {SUFFIX}; any but {', '.join(_RESERVED)}"
        raise refused(path, [problem(path, "its name", f'"{path.stem}"', allowed)])
    try:
        size = path.stat().st_size
    except OSError:
        size = 0  # `parse_table` says why it cannot be read
    if size > _MOST_BYTES:
        raise refused(path, [f"{path}: found {size} bytes; allowed: {_MOST_BYTES}"])
    return parse_table(path, CameraTable)


def camera_files(directory: Path) -> tuple[Path, ...]:
    """The profiles' files, by name. Raises ConfigError where they cannot be listed."""
    try:
        found = sorted(one for one in directory.iterdir() if one.suffix == SUFFIX and not one.name.startswith("."))
    except OSError as error:
        raise ConfigError(
            f"{directory} cannot be listed: {error.strerror}",
            problems=(f"{directory}: cameras.directory cannot be listed: {error.strerror}",),
        ) from error
    if len(found) > _MOST_FILES:
        raise refused(directory, [f"{directory}: found {len(found)} profiles; allowed: {_MOST_FILES}"])
    return tuple(found)
