"""exFAT volumes made by exfatprogs and filled by tests/exfat_writer.py, which fsck.exfat agrees with."""

import random
import shutil
import struct
import subprocess

import pytest
from cards import Part, make_volume

from dockd.errors import FilesystemUnclear
from dockd.filesystems import open_volume, probe

CLIP = "DCIM/100MEDIA/CLIP0001.MP4"


class Heap:
    """Where things lie, by the boot sector, and the entries of one file."""

    def __init__(self, image) -> None:
        self.image = image
        fields = struct.unpack_from("<QQIIIIIIHHBBB", image.content, 64)
        self.sector = 1 << fields[10]
        self.cluster_bytes = self.sector << fields[11]
        self.fat, self.heap, self.clusters, self.root = fields[2] * self.sector, fields[4] * self.sector, *fields[5:7]
        root = self.offset(self.root)
        self.bitmap_entry = next(at for at in range(root, root + 4096, 32) if image.content[at] == 0x81)
        self.bitmap = self.offset(image.number(self.bitmap_entry + 20, 4))

    def offset(self, cluster: int) -> int:
        return self.heap + (cluster - 2) * self.cluster_bytes

    def entry(self, name: str) -> int:
        """Of the file whose name begins so (15 characters at most)."""
        at = self.image.content.find(b"\xc1\0" + name.encode("utf-16-le"))
        return at - 64

    def sum(self, entry: int) -> None:
        """Set the checksum right again."""
        count, total = 32 * (1 + self.image.content[entry + 1]), 0
        for place in (0, 1, *range(4, count)):
            total = ((total << 15 | total >> 1) & 0xFFFF) + self.image.content[entry + place] & 0xFFFF
        self.image.set(entry + 2, 2, total)

    def mark(self, cluster: int, *, taken: bool) -> None:
        at, bit = self.bitmap + (cluster - 2) // 8, 1 << (cluster - 2) % 8
        self.image.content[at] = self.image.content[at] | bit if taken else self.image.content[at] & ~bit


def sum_boot(image) -> None:
    """Set the checksum of the boot sectors right again."""
    total = 0
    for place, byte in enumerate(image.content[: 11 * 512]):
        if place not in (106, 107, 112):
            total = ((total << 31 | total >> 1) & 0xFFFFFFFF) + byte & 0xFFFFFFFF
    image.content[11 * 512 : 12 * 512] = struct.pack("<I", total) * 128


def unaccounted(image) -> str:
    return open_volume(image.read).unaccounted(image.paths)


@pytest.mark.parametrize("chained", [(), (CLIP, "top.bin")])
@pytest.mark.parametrize("cluster_bytes", [0, 512, 32768])
def test_every_file_is_found_where_its_bytes_are(image, chained, cluster_bytes):
    card = image("exfat", chained=chained, cluster_bytes=cluster_bytes)
    volume = open_volume(card.read)
    assert card.stored(volume) == card.files
    directories = [file.path for file in volume.files() if file.is_directory]
    assert sorted(directories) == [b"DCIM", b"DCIM/100MEDIA", b"DCIM/101MEDIA"]
    for path, content in card.files.items():
        assert b"".join(card.read(*extent) for extent in volume.extents(path.encode())) == content
    assert volume.extents(b"DCIM/none.mp4") is None
    assert volume.unaccounted(card.paths) == ""


def test_the_writer_makes_what_fsck_takes(image, tmp_path):
    for options in ({}, {"chained": (CLIP, "top.bin")}, {"full": True}, {"cluster_bytes": 512}):
        path = tmp_path / "volume"
        path.write_bytes(image("exfat", **options).content)
        shown = subprocess.run(["fsck.exfat", "-n", path], capture_output=True, text=True, check=False)
        assert shown.returncode == 0, shown.stdout + shown.stderr
        assert ": clean." in shown.stdout


def test_many_files_in_a_root_of_several_clusters(image):
    files = {f"{n:03} a name of some length.bin": bytes([n]) * (n * 7) for n in range(200)}
    card = image("exfat", files=files)
    volume = open_volume(card.read)
    assert card.stored(volume) == files
    assert volume.unaccounted(card.paths) == ""


def test_a_full_card_is_accounted_for(tmp_path):
    path = tmp_path / "volume"
    digests = make_volume(path, Part(kind="exfat", size_bytes=4 << 20, files={"A/B.MP4": b"x" * 5000}, full=True))
    content = path.read_bytes()
    volume = open_volume(lambda offset, count: content[offset : offset + count])
    assert volume.unaccounted([name.encode() for name in digests]) == ""


def test_names_beyond_ascii(image):
    files = {"ü € 😀.mp4": b"1", "a" * 255: b"2", "x" * 14 + "😀": b"3", "ß": b"4"}
    card = image("exfat", files=files)
    assert card.stored(open_volume(card.read)) == files


def test_a_deleted_file_is_gone(image):
    card = image("exfat")
    heap = Heap(card)
    entry = heap.entry("top.bin")
    for at in range(entry, entry + 96, 32):
        card.content[at] &= 0x7F
    volume = open_volume(card.read)
    assert volume.extents(b"top.bin") is None
    assert "clusters are taken by no file" in volume.unaccounted(card.paths)
    assert "top.bin is not on the volume" in volume.unaccounted(card.paths)


# --- what is not accounted for


def test_a_file_that_is_not_listed(image):
    card = image("exfat")
    assert "top.bin is not among" in open_volume(card.read).unaccounted(card.paths[:-1])


def test_lost_clusters_and_free_ones_in_use(image):
    card = image("exfat")
    heap = Heap(card)
    heap.mark(heap.clusters + 1, taken=True)
    assert unaccounted(card) == "1 clusters are taken by no file"
    heap.mark(heap.clusters + 1, taken=False)
    assert unaccounted(card) == ""
    heap.mark(card.number(heap.entry("CLIP0001.MP4") + 32 + 20, 4), taken=False)
    assert unaccounted(card) == "1 clusters of files are marked as free"


def test_bad_clusters(image):
    card = image("exfat")
    heap = Heap(card)
    card.set(heap.fat + 4 * heap.clusters, 4, 0xFFFFFFF7)
    heap.mark(heap.clusters, taken=True)
    assert "1 clusters are marked as bad" in unaccounted(card)


def test_two_files_with_one_cluster(image):
    card = image("exfat")
    heap = Heap(card)
    one, other = heap.entry("CLIP0001.MP4"), heap.entry("top.bin")
    card.set(other + 32 + 20, 4, card.number(one + 32 + 20, 4))
    heap.sum(other)
    assert "shares cluster" in unaccounted(card)


@pytest.mark.parametrize("value", [0, 1, 0xFFFFFFFF, 0xFFFFFFF7, 0x10000000])
def test_a_chain_that_breaks_off(image, value):
    card = image("exfat", chained=(CLIP,))
    heap = Heap(card)
    first = card.number(heap.entry("CLIP0001.MP4") + 32 + 20, 4)
    card.set(heap.fat + 4 * (first + 2), 4, value)
    assert f"{CLIP}: it" in unaccounted(card)
    with pytest.raises(FilesystemUnclear, match="CLIP0001"):
        open_volume(card.read).extents(CLIP.encode())
    assert open_volume(card.read).extents(b"top.bin")


def test_a_chain_longer_than_its_file(image):
    card = image("exfat", chained=(CLIP,))
    heap = Heap(card)
    cluster = card.number(heap.entry("CLIP0001.MP4") + 32 + 20, 4)
    while (after := card.number(heap.fat + 4 * cluster, 4)) != 0xFFFFFFFF:
        cluster = after
    card.set(heap.fat + 4 * cluster, 4, heap.clusters)
    card.set(heap.fat + 4 * heap.clusters, 4, 0xFFFFFFFF)
    assert f"{CLIP}: its chain is longer" in unaccounted(card)
    assert card.stored(open_volume(card.read)) == card.files


@pytest.mark.parametrize(("first", "size"), [(0, 5000), (1, 5000), (0xFFFFFFFF, 5000), (5, 1 << 62), (5, 4 << 20)])
@pytest.mark.parametrize("in_a_row", [True, False])
def test_a_file_that_is_not_on_the_volume(image, first, size, in_a_row):
    card = image("exfat")
    heap = Heap(card)
    entry = heap.entry("top.bin")
    card.set(entry + 33, 1, 3 if in_a_row else 1)
    card.set(entry + 32 + 20, 4, first)
    card.set(entry + 32 + 24, 8, size)
    heap.sum(entry)
    with pytest.raises(FilesystemUnclear, match=r"top\.bin"):
        open_volume(card.read).extents(b"top.bin")
    assert "top.bin: " in unaccounted(card)


def test_entries_with_a_wrong_checksum(image):
    card = image("exfat")
    card.content[Heap(card).entry("top.bin") + 8] ^= 1
    assert "top.bin: the checksum of its entries is wrong" in unaccounted(card)
    with pytest.raises(FilesystemUnclear, match="checksum"):
        open_volume(card.read).extents(b"top.bin")
    assert open_volume(card.read).extents(CLIP.encode())


@pytest.mark.parametrize(("offset", "value"), [(1, 1), (1, 0), (1, 255), (32, 0xC1), (64, 0x85), (35, 0), (35, 200)])
def test_entries_that_do_not_fit_together(image, offset, value):
    card = image("exfat")
    heap = Heap(card)
    card.content[heap.entry("CLIP0001.MP4") + offset] = value
    with pytest.raises(FilesystemUnclear, match="do not fit together"):
        list(open_volume(card.read).files())
    assert "do not fit together" in unaccounted(card)


def test_a_bitmap_that_is_too_short_or_missing(image):
    card = image("exfat")
    heap = Heap(card)
    card.set(heap.bitmap_entry + 24, 8, 5)
    assert "the allocation bitmap is shorter" in unaccounted(card)
    card.content[heap.bitmap_entry] = 0xA0
    assert "no allocation bitmap" in unaccounted(card)


def test_a_dirty_volume(image):
    assert unaccounted(image("exfat", dirty=True)) == "the boot sector says that the volume was not let go cleanly"
    card = image("exfat")
    card.set(106, 2, 4)
    assert unaccounted(card) == probe(card.read).dirty == "the boot sector says that the medium had errors"


def test_a_second_fat(image):
    card = image("exfat")
    card.set(106, 2, 1)
    with pytest.raises(FilesystemUnclear, match="second FAT"):
        open_volume(card.read)


def test_a_directory_in_a_loop(image):
    card = image("exfat")
    heap = Heap(card)
    card.set(heap.fat + 4 * heap.root, 4, heap.root)
    with pytest.raises(FilesystemUnclear, match="a loop"):
        list(open_volume(card.read).files())


def test_a_directory_below_itself(image):
    card = image("exfat")
    heap = Heap(card)
    entry = heap.entry("100MEDIA")
    card.set(entry + 32 + 20, 4, card.number(heap.entry("DCIM") + 32 + 20, 4))
    heap.sum(entry)
    with pytest.raises(FilesystemUnclear, match="lies where another directory does"):
        list(open_volume(card.read).files())


@pytest.mark.parametrize(
    ("offset", "width", "value"),
    [
        (80, 4, 1),
        (84, 4, 1),
        (88, 4, 25),
        (92, 4, 1 << 30),
        (96, 4, 0),
        (96, 4, 1 << 30),
        (108, 1, 8),
        (108, 1, 40),
        (109, 1, 26),
        (110, 1, 0),
        (110, 1, 3),
        (72, 8, 100),
        (11, 1, 1),
    ],
)
def test_boot_sectors_that_contradict_themselves(image, offset, width, value):
    card = image("exfat")
    card.set(offset, width, value)
    sum_boot(card)
    assert probe(card.read) is None
    with pytest.raises(FilesystemUnclear):
        open_volume(card.read)


def test_boot_sectors_with_a_wrong_checksum(image):
    card = image("exfat")
    card.content[1000] ^= 1
    assert probe(card.read) is None


@pytest.fixture
def mounted(tmp_path):
    """A volume under exfat-fuse: another writer than ours."""
    if not shutil.which("mount.exfat-fuse"):
        pytest.skip("exfat-fuse is not installed")
    path, place = tmp_path / "volume", tmp_path / "place"
    make_volume(path, Part(kind="exfat", size_bytes=16 << 20))
    place.mkdir()
    found = subprocess.run(["losetup", "-f", "--show", path], capture_output=True, text=True, check=False)
    if found.returncode:
        pytest.skip(f"no loop device: {found.stderr.strip()}")
    loop = found.stdout.strip()
    try:
        shown = subprocess.run(["mount.exfat-fuse", loop, place], capture_output=True, text=True, check=False)
        if shown.returncode:
            pytest.skip(f"no FUSE mount: {shown.stderr.strip()}")
        yield path, place
    finally:
        subprocess.run(["umount", place], capture_output=True, check=False)
        subprocess.run(["losetup", "-d", loop], check=True)


def test_what_another_writer_made(mounted):
    path, place = mounted
    chance, files = random.Random(7), {}
    (place / "DCIM").mkdir()
    for number in range(40):
        name = f"DCIM/clip {number} € ü.mp4"
        files[name] = chance.randbytes(chance.randrange(120_000))
        (place / name).write_bytes(files[name])
    for name in list(files)[::3]:
        (place / name).unlink()
        del files[name]
    files["big"] = chance.randbytes(3_000_000)
    (place / "big").write_bytes(files["big"])
    subprocess.run(["umount", place], check=True)
    content = path.read_bytes()
    volume = open_volume(lambda offset, count: content[offset : offset + count])
    for name, expected in files.items():
        extents = volume.extents(name.encode())
        assert b"".join(content[offset : offset + length] for offset, length in extents) == expected, name
    assert len(volume.extents(b"big")) > 1
    assert volume.unaccounted([name.encode() for name in files]) == ""
