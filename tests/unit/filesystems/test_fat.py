"""FAT volumes made by dosfstools and mtools: whose bytes are where, and what is not accounted for."""

import os
import random
import struct
import subprocess

import pytest
from cards import Part, make_volume

from dockd.errors import FilesystemUnclear
from dockd.filesystems import open_volume

BITS = pytest.mark.parametrize("bits", [12, 16, 32])


class Table:
    """The first FAT of an image, read and altered one entry at a time; the copy follows unless it is not to."""

    def __init__(self, image, bits: int) -> None:
        self.image, self.bits = image, bits
        self.reserved, self.fats, self.root_entries = image.number(14, 2), image.number(16, 1), image.number(17, 2)
        self.sectors = image.number(22, 2) or image.number(36, 4)
        self.cluster_bytes = image.number(13, 1) * 512
        self.data = (self.reserved + self.fats * self.sectors) * 512 + self.root_entries * 32
        self.end = (1 << min(bits, 28)) - 1

    def get(self, cluster: int) -> int:
        if self.bits == 12:
            pair = self.image.number(self.reserved * 512 + cluster * 3 // 2, 2)
            return pair >> 4 if cluster & 1 else pair & 0xFFF
        return self.image.number(self.reserved * 512 + cluster * self.bits // 8, self.bits // 8)

    def set(self, cluster: int, value: int, *, copies: int | None = None) -> None:
        for copy in range(self.fats if copies is None else copies):
            start = (self.reserved + copy * self.sectors) * 512
            if self.bits == 12:
                at = start + cluster * 3 // 2
                pair = self.image.number(at, 2)
                pair = pair & 0x00F | value << 4 if cluster & 1 else pair & 0xF000 | value
                self.image.set(at, 2, pair)
            else:
                self.image.set(start + cluster * self.bits // 8, self.bits // 8, value)

    def first(self, name: bytes) -> int:
        """The first cluster of the file whose short name begins so."""
        return self.image.number(self.entry(name) + 26, 2)

    def entry(self, name: bytes) -> int:
        at = self.image.content.find(name)
        while at % 32:
            at = self.image.content.find(name, at + 1)
        return at

    def last(self, cluster: int) -> int:
        while self.get(cluster) < self.end & ~7:
            cluster = self.get(cluster)
        return cluster

    def free(self) -> int:
        return next(cluster for cluster in range(2000, 2, -1) if not self.get(cluster))


def unaccounted(image, without: str = "") -> str:
    return open_volume(image.read).unaccounted([path for path in image.paths if path.decode() != without])


@BITS
def test_every_file_is_found_where_its_bytes_are(image, bits):
    card = image("vfat", fat_bits=bits)
    volume = open_volume(card.read)
    assert card.stored(volume) == card.files
    directories = [file.path for file in volume.files() if file.is_directory]
    assert sorted(directories) == [b"DCIM", b"DCIM/100MEDIA", b"DCIM/101MEDIA"]
    for path, content in card.files.items():
        assert b"".join(card.read(*extent) for extent in volume.extents(path.encode())) == content
    assert volume.extents(b"DCIM/none.mp4") is None
    assert volume.extents(b"none/none.mp4") is None
    assert volume.extents(b"top.bin/none.mp4") is None
    assert volume.unaccounted(card.paths) == ""


@BITS
def test_a_file_in_pieces_and_a_deleted_one(tmp_path, bits):
    path, big = tmp_path / "volume", random.Random(9).randbytes(300_000)
    size = {12: 4, 16: 16, 32: 40}[bits] << 20
    make_volume(
        path, Part(fat_bits=bits, size_bytes=size, files={f"PAD{n}.BIN": bytes([n]) * 20_000 for n in range(9)})
    )
    (tmp_path / "big").write_bytes(big)
    environment = {**os.environ, "MTOOLSRC": "/dev/null"}
    gone = [f"::PAD{n}.BIN" for n in range(0, 9, 2)]
    subprocess.run(["mdel", "-i", path, *gone], check=True, env=environment)
    subprocess.run(["mcopy", "-i", path, tmp_path / "big", "::big.bin"], check=True, env=environment)
    content = path.read_bytes()
    volume = open_volume(lambda offset, count: content[offset : offset + count])
    extents = volume.extents(b"big.bin")
    assert b"".join(content[offset : offset + length] for offset, length in extents) == big
    assert len(extents) > 3 or bits == 32  # mtools fills holes from the start on FAT12 and FAT16
    assert volume.extents(b"PAD2.BIN") is None
    assert volume.unaccounted([b"big.bin", *(f"PAD{n}.BIN".encode() for n in range(1, 9, 2))]) == ""


@BITS
def test_a_full_card_is_accounted_for(tmp_path, bits):
    path, size = tmp_path / "volume", {12: 4, 16: 16, 32: 40}[bits] << 20
    digests = make_volume(path, Part(fat_bits=bits, size_bytes=size, files={"A/B.MP4": b"x" * 5000}, full=True))
    content = path.read_bytes()
    volume = open_volume(lambda offset, count: content[offset : offset + count])
    assert volume.unaccounted([name.encode() for name in digests]) == ""


# --- what is not accounted for


@BITS
def test_a_file_that_is_not_listed(image, bits):
    assert "top.bin is not among" in unaccounted(image("vfat", fat_bits=bits), without="top.bin")
    empty = "DCIM/100MEDIA/EMPTY.MP4"
    assert f"{empty} is not among" in unaccounted(image("vfat", fat_bits=bits), without=empty)


def test_a_listed_file_that_is_not_there(image):
    card = image("vfat")
    assert "gone.mp4 is not on the volume" in open_volume(card.read).unaccounted([*card.paths, b"gone.mp4"])
    assert "DCIM is not on the volume" in open_volume(card.read).unaccounted([*card.paths, b"DCIM"])


@BITS
def test_lost_clusters(image, bits):
    card = image("vfat", fat_bits=bits)
    table = Table(card, bits)
    free = table.free()
    table.set(free, table.end)
    table.set(free - 1, free)
    assert unaccounted(card) == "2 clusters are taken by no file"
    assert open_volume(card.read).extents(b"top.bin")


@BITS
def test_bad_clusters(image, bits):
    card = image("vfat", fat_bits=bits)
    table = Table(card, bits)
    table.set(table.free(), table.end & ~8)
    assert "1 clusters are marked as bad" in unaccounted(card)


@BITS
def test_a_chain_longer_than_its_file(image, bits):
    card = image("vfat", fat_bits=bits)
    table = Table(card, bits)
    last, free = table.last(table.first(b"TOP     BIN")), table.free()
    table.set(last, free)
    table.set(free, table.end)
    assert "top.bin: its chain is longer" in unaccounted(card)
    assert card.stored(open_volume(card.read)) == card.files  # as Linux reads it, nothing is wrong


@BITS
def test_a_chain_for_an_empty_file(image, bits):
    card = image("vfat", fat_bits=bits)
    table = Table(card, bits)
    free = table.free()
    table.set(free, table.end)
    card.set(table.entry(b"EMPTY   MP4") + 26, 2, free)
    assert "EMPTY.MP4: its chain is longer" in unaccounted(card)


@BITS
@pytest.mark.parametrize("value", [0, 1, "end", "beyond", "bad"])
def test_a_chain_that_breaks_off(image, bits, value):
    card = image("vfat", fat_bits=bits)
    table = Table(card, bits)
    first = table.first(b"CLIP0001MP4")
    values = {"end": table.end, "beyond": table.end & ~15, "bad": table.end & ~8}
    table.set(table.get(first), values.get(value, value))
    volume, path = open_volume(card.read), b"DCIM/100MEDIA/CLIP0001.MP4"
    assert "CLIP0001.MP4: it" in volume.unaccounted(card.paths)
    with pytest.raises(FilesystemUnclear, match="CLIP0001"):
        volume.extents(path)
    broken = {file.path: file for file in volume.files() if file.unclear}
    assert list(broken) == [path]
    assert broken[path].extents == ()
    assert volume.extents(b"top.bin")


@BITS
def test_two_files_with_one_cluster(image, bits):
    card = image("vfat", fat_bits=bits)
    table = Table(card, bits)
    table.set(table.first(b"TOP     BIN"), table.get(table.first(b"CLIP0001MP4")))
    assert "shares cluster" in unaccounted(card)


@BITS
def test_a_file_in_a_loop(image, bits):
    card = image("vfat", fat_bits=bits)
    table = Table(card, bits)
    first = table.first(b"CLIP0001MP4")
    table.set(table.get(first), first)
    assert "shares cluster" in unaccounted(card)


@BITS
def test_a_directory_in_a_loop(image, bits):
    card = image("vfat", fat_bits=bits)
    table = Table(card, bits)
    directory = table.first(b"100MEDIA   ")
    table.set(directory, directory)
    assert "a loop" in unaccounted(card)
    with pytest.raises(FilesystemUnclear, match="a loop"):
        list(open_volume(card.read).files())
    assert open_volume(card.read).extents(b"top.bin")


@BITS
def test_a_directory_below_itself(image, bits):
    card = image("vfat", fat_bits=bits)
    table = Table(card, bits)
    card.set(table.entry(b"100MEDIA   ") + 26, 2, table.first(b"DCIM       "))
    assert "lies where another directory does" in unaccounted(card)
    deep = b"/".join([b"DCIM", *[b"100MEDIA"] * 50, b"Mixed.Case.log"])
    assert open_volume(card.read).extents(deep)  # ends, with what Linux would find there, too


def test_copies_that_differ(image):
    card = image("vfat")
    table = Table(card, 12)
    table.set(table.free(), 0xFF0, copies=2)
    assert "copy 2" not in unaccounted(card)
    table.set(table.free(), table.end, copies=1)
    assert "copy 2 of the FAT is not like the first" in unaccounted(card)


@BITS
def test_a_dirty_volume(image, bits):
    assert "not let go cleanly" in unaccounted(image("vfat", fat_bits=bits, dirty=True))


def test_another_fat_that_counts(image):
    card = image("vfat", fat_bits=32)
    card.set(40, 2, 0x81)
    with pytest.raises(FilesystemUnclear, match="FAT number 1"):
        open_volume(card.read)
    card.set(40, 2, 0x01)  # mirrored: the number says nothing
    assert open_volume(card.read).unaccounted(card.paths) == ""


# --- names, by entries laid by hand into the root directory


def sum_of(short: bytes) -> int:
    total = 0
    for byte in short:
        total = ((total >> 1) | (total & 1) << 7) + byte & 0xFF
    return total


def own(short: bytes, *, attributes: int = 0x20, case: int = 0, cluster: int = 0, size: int = 0) -> bytes:
    return struct.pack("<11sBB7xH4xHI", short, attributes, case, 0, cluster, size)


def long(name: str, short: bytes, *, total: int | None = None) -> list[bytes]:
    units = name.encode("utf-16-le", "surrogatepass")
    if len(units) % 26:
        units += b"\0\0" + b"\xff\xff" * 12
    parts = [units[at : at + 26] for at in range(0, len(units) // 26 * 26, 26)]
    check = sum_of(short) if total is None else total
    slots = [
        bytes([number | (0x40 if number == len(parts) else 0)])
        + part[:10]
        + bytes([0x0F, 0, check])
        + part[10:22]
        + bytes(2)
        + part[22:]
        for number, part in enumerate(parts, 1)
    ]
    return slots[::-1]


def names(image, *entries: bytes) -> list[bytes]:
    card = image("vfat", files={})
    table = Table(card, 12)
    root = table.data - 32 * table.root_entries
    content = b"".join(entries)
    card.content[root : root + len(content)] = content
    return [file.path for file in open_volume(card.read).files()]


SHORT = b"CLIP~1  MP4"


@pytest.mark.parametrize(
    ("short", "case", "shown"),
    [
        (b"NAME    EXT", 0x00, "NAME.EXT"),
        (b"NAME    EXT", 0x08, "name.EXT"),
        (b"NAME    EXT", 0x10, "NAME.ext"),
        (b"NAME    EXT", 0x18, "name.ext"),
        (b"NAME       ", 0x00, "NAME"),
        (b"A B     C D", 0x00, "A B.C D"),
        (b"\x8eRGER   \x9aEX", 0x00, "ÄRGER.ÜEX"),
        (b"\x8eRGER   \x9aEX", 0x18, "ärger.üex"),
        (b"\x05ABC    EXT", 0x00, "\N{GREEK SMALL LETTER SIGMA}ABC.EXT"),
        (b"\xeaGA     EXT", 0x08, "Ωga.EXT"),  # no small omega in code page 437
    ],
)
def test_short_names(image, short, case, shown):
    assert names(image, own(short, case=case)) == [shown.encode()]


@pytest.mark.parametrize(
    "name", ["a", "thirteen char", "fourteen chars", "x" * 255, "ü € 😀.mp4", "a" * 12 + "😀" * 20]
)
def test_long_names(image, name):
    assert names(image, *long(name, SHORT), own(SHORT)) == [name.encode()]


def test_halves_of_surrogate_pairs_are_left_out(image):
    assert names(image, *long("a\ud83d.b\ude00c\ud83d", SHORT), own(SHORT)) == [b"a.bc"]


def test_long_names_of_other_files_are_not_taken(image):
    slots = long("a long name of three slots, indeed", SHORT)
    assert len(slots) == 3
    short = b"CLIP~1.MP4"
    assert names(image, *long("other sum", SHORT, total=1), own(SHORT)) == [short]
    assert names(image, *slots[1:], own(SHORT)) == [short]
    assert names(image, *slots[:2], own(SHORT)) == [short]
    assert names(image, slots[0], slots[2], slots[1], own(SHORT)) == [short]
    assert names(image, *slots, own(b"OTHER   MP4")) == [b"OTHER.MP4"]
    assert names(image, *slots, b"\xe5" + own(SHORT)[1:], own(SHORT)) == [short]
    assert names(image, slots[0], *slots, own(SHORT)) == [b"a long name of three slots, indeed"]


def test_what_is_no_file_is_passed_over(image):
    entries = [
        own(b"LABEL      ", attributes=0x08),
        b"\xe5" + own(SHORT)[1:],
        bytes(32),
        own(b".          ", attributes=0x10),
        own(b"..         ", attributes=0x10),
        own(b"           "),
        own(b"HERE       ", attributes=0x01),
    ]
    assert names(image, *entries) == [b"HERE"]  # Linux goes on after an entry of zeros, too


@pytest.mark.parametrize("name", ["a/b", "..", "."])
def test_names_that_no_file_can_have(image, name):
    with pytest.raises(FilesystemUnclear, match="no file can be"):
        names(image, *long(name, SHORT), own(SHORT))


def test_two_entries_with_one_name(image):
    with pytest.raises(FilesystemUnclear, match=r"two entries are named CLIP~1\.MP4"):
        names(image, own(SHORT), own(SHORT))


@BITS
def test_p04_it_is_told_that_overwriting_one_file_would_change_another(image, bits):
    card = image("vfat", fat_bits=bits)
    assert not open_volume(card.read).contradiction()
    table = Table(card, bits)
    table.set(table.first(b"TOP     BIN"), table.get(table.first(b"CLIP0001MP4")))
    assert "shares cluster" in open_volume(card.read).contradiction()
