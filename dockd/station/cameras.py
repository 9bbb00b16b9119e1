"""Camera profiles: from their files to the records that every part decides by."""

from __future__ import annotations

from pathlib import Path

from dockd.config.cameras import CameraTable, PatternTable, camera_files, load_camera
from dockd.config.load import problem, refused
from dockd.core.clip_names import ClipNames, check_template
from dockd.core.profile import EraseMethod, Evidence, FileRules, Match, Pattern, Profile
from dockd.errors import ConfigError
from dockd.model import MediumKind

_MEDIA = {"storage": MediumKind.VOLUMES, "mtp": MediumKind.MTP}


def load_profiles(directory: Path) -> tuple[Profile, ...]:
    """Every profile in a directory. Raises ConfigError with all mistakes in all files: then none is used."""
    found: list[Profile] = []
    problems: list[str] = []
    for path in camera_files(directory):
        try:
            found.append(load_profile(path))
        except ConfigError as error:
            problems += error.problems
    if problems:
        raise refused(directory, problems)
    return tuple(found)


def load_profile(path: Path) -> Profile:
    """The profile in one file. Raises ConfigError with every mistake."""
    table = load_camera(path)
    problems = []
    for number, template in enumerate(table.names.templates):
        try:
            check_template(template)
        except ValueError as error:
            problems.append(problem(path, f"names.templates[{number}]", f'"{template}"', f"a template; {error}"))
    if problems:
        raise refused(path, problems)
    return _profile(path.stem, table)


def _profile(name: str, table: CameraTable) -> Profile:
    return Profile(
        name=name,
        version=table.version,
        erase=EraseMethod(table.erase),
        description=table.description,
        matches=tuple(
            Match(
                medium=_MEDIA[one.medium],
                vendor_id=one.vendor_id or "",
                product_id=one.product_id or "",
                filesystem=one.filesystem or "",
                label=one.label or "",
                must_exist=(one.must_exist or "").encode(),
            )
            for one in table.match
        ),
        files=FileRules(
            clips=_pattern(table.clips),
            sidecars=_pattern(table.sidecars),
            noise=_pattern(table.noise),
            evidence=Evidence(
                directories=table.evidence.directories,
                name_flags=table.evidence.name_flags,
                categories=table.evidence.categories,
                read_only=table.evidence.read_only,
            ),
        ),
        names=ClipNames(templates=table.names.templates, time_zone=table.names.time_zone),
    )


def _pattern(table: PatternTable) -> Pattern:
    return Pattern(directories=table.directories, suffixes=table.suffixes, names=table.names)
