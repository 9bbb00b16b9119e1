"""What a volume says of itself, held against blkid and the tools that made it."""

import subprocess
from uuid import UUID

import pytest
from cards import MIB, Part, make_volume

from dockd.errors import FilesystemUnclear
from dockd.filesystems import open_volume, probe


def reader(path):
    content = path.read_bytes()
    return lambda offset, size: content[offset : offset + size]


def blkid(path):
    """What udev asks; of the label it makes words without spaces afterwards."""
    words = ["blkid", "-p", "-o", "value", "-s"]
    return tuple(
        subprocess.run([*words, tag, str(path)], capture_output=True, text=True, check=True).stdout.rstrip("\n")
        for tag in ("TYPE", "UUID", "LABEL")
    )


@pytest.mark.parametrize(
    "part",
    [
        Part(fat_bits=12, size_bytes=2 * MIB),
        Part(fat_bits=16, size_bytes=16 * MIB, volume_id="0000-0001"),
        Part(fat_bits=16, size_bytes=16 * MIB, cluster_bytes=512),
        Part(fat_bits=32, size_bytes=40 * MIB, volume_id="FFFF-0000", label="X"),
        Part(fat_bits=32, size_bytes=300 * MIB, cluster_bytes=4096, label="ELEVENLETTE"),
        Part(fat_bits=32, files={f"{n:08}.TXT": b"x" for n in range(200)}, cluster_bytes=512),
        Part(kind="exfat", volume_id="0BAD-CAFE"),
        Part(kind="exfat", size_bytes=300 * MIB, cluster_bytes=128 * 1024, label="Kamera ü"),
        Part(kind="ext4", size_bytes=8 * MIB),
        Part(kind="ext4", size_bytes=300 * MIB, cluster_bytes=4096, label="sixteen letters!"),
    ],
    ids=lambda part: f"{part.kind}-{part.fat_bits}-{part.size_bytes >> 20}M-{part.cluster_bytes}",
)
def test_a_volume_is_named_as_udev_names_it(tmp_path, part):
    path = tmp_path / "volume"
    make_volume(path, part)
    found = probe(reader(path))
    assert (found.kind, found.volume_id, found.label) == blkid(path)
    assert found.label == part.label
    assert found.volume_id == (part.volume_id or found.volume_id)
    assert part.size_bytes - 16 * 1024 < found.size_bytes <= part.size_bytes  # mkfs.vfat leaves a track out
    assert found.block_bytes == (part.cluster_bytes or found.block_bytes)
    assert found.dirty == ""
    assert (found.like["label"], found.like["volume_id"]) == (found.label, found.volume_id)


@pytest.mark.parametrize("kind", ["vfat", "exfat", "ext4"])
def test_a_dirty_volume_is_told(image, kind):
    assert probe(image(kind, dirty=True).read).dirty


@pytest.mark.parametrize("words", [["mke2fs", "-q", "-F"], ["mke2fs", "-q", "-F", "-t", "ext3"], ["mkswap", "-q"]])
def test_other_file_systems_are_none_of_the_three(tmp_path, words):
    path = tmp_path / "volume"
    path.write_bytes(bytes(8 * MIB))
    subprocess.run([*words, str(path)], check=True, capture_output=True)
    assert probe(reader(path)) is None


def test_nothing_is_no_file_system():
    assert probe(lambda offset, size: b"") is None
    assert probe(lambda offset, size: bytes(size)) is None
    assert probe(lambda offset, size: b"\xff" * size) is None


def test_what_could_be_two_file_systems_is_neither(image):
    both, other = image("vfat", fat_bits=32), image("ext4")
    both.content[1024:2048] = other.content[1024:2048]
    assert probe(both.read) is None


def test_a_partition_table_is_no_fat(tmp_path):
    sector = bytearray(512)
    sector[446:462] = bytes.fromhex("80202100 0cfeffff 00080000 00000200")
    sector[510:] = b"\x55\xaa"
    assert probe(lambda offset, size: bytes(sector)[offset : offset + size]) is None


def test_a_serial_number_of_zeros_is_no_volume_id(image):
    fat = image("vfat", fat_bits=16)
    fat.set(39, 4, 0)
    assert probe(fat.read).volume_id == ""


@pytest.mark.parametrize("kind", ["vfat", "exfat", "ext4"])
def test_an_error_of_the_medium_passes_through(image, kind):
    whole = image(kind)

    def failing(offset, size):
        if offset:
            raise OSError(5, "Input/output error")
        return whole.read(offset, size)

    with pytest.raises(OSError, match="Input/output"):
        probe(failing)


@pytest.mark.parametrize("kind", ["vfat", "exfat", "ext4"])
@pytest.mark.parametrize("size", [0, 100, 512, 1100])
def test_a_volume_cut_short_is_none(image, kind, size):
    assert probe(lambda offset, count: image(kind).read(offset, count)[: max(0, size - offset)]) is None


def test_ext4_is_not_opened_here(image):
    with pytest.raises(FilesystemUnclear):
        open_volume(image("ext4").read)


def test_ext4_states(tmp_path):
    path = tmp_path / "volume"
    make_volume(path, Part(kind="ext4", size_bytes=8 * MIB))
    for command, words in (
        ("ssv state 0", "not let go cleanly"),
        ("ssv state 3", "counts errors"),
        ("ssv state 5", "deleted files"),
        ("ssv error_count 1", "counts errors"),
        ("ssv last_orphan 12", "deleted files"),
        ("feature needs_recovery", "journal was not replayed"),
    ):
        before = path.read_bytes()
        subprocess.run(["debugfs", "-w", "-R", command, str(path)], check=True, capture_output=True)
        assert words in probe(reader(path)).dirty, command
        path.write_bytes(before)
    assert probe(reader(path)).dirty == ""


def test_ext4_says_what_makes_another_one_like_it(tmp_path, image):
    like = probe(image("ext4").read).like
    path = tmp_path / "anew"
    path.write_bytes(bytes(4 * MIB))
    words = f"-q -F -t ext4 -O {like['features']} -b {like['block_bytes']} -I {like['inode_bytes']} -N {like['inodes']}"
    names = ["-U", like["volume_id"], "-L", like["label"]]
    subprocess.run(["mke2fs", *words.split(), *names, path], check=True)
    assert probe(reader(path)).like == like
    assert UUID(like["volume_id"])


def test_fat_says_what_makes_another_one_like_it(tmp_path):
    path = tmp_path / "volume"
    path.write_bytes(bytes(40 * MIB))
    odd = ["-F", "32", "-s", "2", "-S", "1024", "-f", "1", "-R", "48", "-h", "77", "-n", "ODD", "-i", "00112233"]
    subprocess.run(["mkfs.vfat", *odd, str(path)], check=True, capture_output=True)
    like = probe(reader(path)).like
    assert like == {
        "label": "ODD",
        "volume_id": "0011-2233",
        "fat_bits": 32,
        "sector_bytes": 1024,
        "sectors_per_cluster": 2,
        "reserved_sectors": 48,
        "fats": 1,
        "root_entries": 0,
        "hidden_sectors": 77,
        "media": 0xF8,
        "drive": 0x80,
    }


@pytest.mark.parametrize("boundary", ["64K", "1M", "4M"])
def test_exfat_says_what_it_is_aligned_to(tmp_path, boundary):
    path = tmp_path / "volume"
    path.write_bytes(bytes(64 * MIB))
    subprocess.run(["mkfs.exfat", "-c", "8K", "-b", boundary, str(path)], check=True, capture_output=True)
    first = probe(reader(path))
    assert first.like["cluster_bytes"] == first.block_bytes == 8192
    again = tmp_path / "again"
    again.write_bytes(bytes(64 * MIB))
    words = ["mkfs.exfat", "-c", str(first.like["cluster_bytes"]), "-b", str(first.like["boundary_bytes"]), str(again)]
    subprocess.run(words, check=True, capture_output=True)
    assert again.read_bytes()[64:96] == path.read_bytes()[64:96]  # every offset and length
