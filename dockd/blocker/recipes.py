"""How a file system like another is made: argument vectors for the programs of its kind. Pure."""

from __future__ import annotations

from collections.abc import Mapping

Like = Mapping[str, str | int]
Vector = tuple[str, ...]


def recipes(filesystem: str, node: str, like: Like, size_bytes: int) -> tuple[tuple[Vector, ...], ...]:
    """The ways to make it, the most alike first: each is what is run, one after the other, each by its own name.

    A later one is for a program that does not take what the volume had, a layout that its maker alone makes.
    """
    if filesystem == "vfat":
        return _vfat(node, like)
    if filesystem == "exfat":
        return _exfat(node, like)
    return _ext4(node, like, size_bytes)


def _vfat(node: str, like: Like) -> tuple[tuple[Vector, ...], ...]:
    bits = _number(like, "fat_bits")
    volume_id = (_text(like, "volume_id").replace("-", "") or "0").zfill(8)
    # -I: what stands on the disk was looked at before; --mbr=n: a bare disk gets nothing that looks like a table.
    start: Vector = ("mkfs.vfat", "-I", "--mbr=n", "-i", volume_id, *_given("-n", _text(like, "label")))
    plain = start + _given("-F", bits) + _given("-s", _number(like, "sectors_per_cluster"))
    exact = (
        *plain,
        "-a",  # the reserved sectors are as many as told, and no more
        *_given("-S", _number(like, "sector_bytes")),
        *_given("-R", _number(like, "reserved_sectors")),
        *_given("-f", _number(like, "fats")),
        *_given("-r", _number(like, "root_entries")),
        *_given("-h", _number(like, "hidden_sectors")),
        *_given("-M", _number(like, "media"), as_hex=True),
        *_given("-D", _number(like, "drive"), as_hex=True),
    )
    loose = start + _given("-F", bits)
    return tuple(((*vector, node),) for vector in (exact, plain, loose))


def _exfat(node: str, like: Like) -> tuple[tuple[Vector, ...], ...]:
    start = ("mkfs.exfat", *_given("-L", _text(like, "label")))
    plain = start + _given("-c", _number(like, "cluster_bytes"))
    exact = plain + _given("-b", _number(like, "boundary_bytes"))
    serial = _text(like, "volume_id").replace("-", "")
    after: tuple[Vector, ...] = (("tune.exfat", "-I", f"0x{serial}", node),) if serial else ()
    return tuple(((*vector, node), *after) for vector in (exact, plain, start))


def _ext4(node: str, like: Like, size_bytes: int) -> tuple[tuple[Vector, ...], ...]:
    start = ("mke2fs", "-F", "-q", "-t", "ext4", *_given("-L", _text(like, "label")))
    start += _given("-U", _text(like, "volume_id"))
    start += ("-E", "nodiscard,lazy_itable_init=0,lazy_journal_init=0,root_owner=0:0")
    block = _number(like, "block_bytes")
    plain = start + _given("-b", block)
    exact = (
        plain
        + _given("-I", _number(like, "inode_bytes"))
        + _given("-N", _number(like, "inodes"))
        + _given("-O", _text(like, "features"))
    )
    if block and size_bytes:
        exact += ("-m", f"{100 * _number(like, 'reserved_blocks') * block / size_bytes:.4f}")
    return tuple(((*vector, node),) for vector in (exact, plain))


def _given(option: str, value: str | int, *, as_hex: bool = False) -> Vector:
    """The option with its value, and nothing where there is none."""
    if not value:
        return ()
    return (option, hex(value) if as_hex and isinstance(value, int) else str(value))


def _number(like: Like, key: str) -> int:
    value = like.get(key, 0)
    return value if isinstance(value, int) and value >= 0 else 0


def _text(like: Like, key: str) -> str:
    """A text that no program takes for an option, nor for two."""
    value = like.get(key, "")
    return value if isinstance(value, str) and "\0" not in value and not value.startswith("-") else ""
