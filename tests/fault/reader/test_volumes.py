"""Cameras of volumes: what a reader sees of them, and how it erases several clips together and looks again.

The kinds are those that this kernel has: ext4 anywhere, FAT and exFAT in the guest.
"""

from __future__ import annotations

import hashlib
import os
import random
import subprocess
from pathlib import Path

import pytest
from cards import MIB, Part, count

from dockd.core.remnants import may_be_left, remnant_name
from dockd.errors import CameraGone, EraseFailed, ReaderDied
from dockd.filesystems import probe
from dockd.model import CacheState, FileKind

KINDS = sorted(set(Path("/proc/filesystems").read_text().split()) & {"ext4", "vfat", "exfat"})
MARK = b"a mark that only clips have, once in each block of theirs"


def clip_content(seed, blocks=40):
    chance = random.Random(seed)
    return b"".join(MARK + chance.randbytes(4096 - len(MARK)) for _ in range(blocks)) + b"and an odd end"


CLIPS = {f"DCIM/100MEDIA/A video of some name {number}.mp4": clip_content(number) for number in range(4)}


def part(kind, files=None, **changes):
    values = {"kind": kind, "files": CLIPS if files is None else files, "size_bytes": 48 * MIB}
    if kind == "ext4":
        values["cluster_bytes"] = 4096
    return Part(**(values | changes))


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


async def second_reads(rig, reader):
    """Every clip, read a second time: its file and its warrant, by acquisition."""
    found = {}
    for number, (_, file) in enumerate(sorted((await rig.clips(reader)).items()), 1):
        again = await reader.reread(rig.id(number), file)
        found[rig.id(number)] = file, rig.warrant(file, again.plaintext_digest, number=number)
    return found


def files_of(found):
    return {acquisition: file for acquisition, (file, _) in found.items()}


async def erase_all(rig, reader, found):
    await rig.remount(reader, writable=True)
    return [await reader.erase(warrant, file) for file, warrant in found.values()]


def write_at(device, content, offset):
    fd = os.open(device, os.O_WRONLY)
    os.pwrite(fd, content, offset)
    os.fsync(fd)
    os.close(fd)


def digest_of(image):
    return hashlib.sha256(image.read_bytes()).hexdigest()


# --- reading


async def test_p04_clips_are_listed_sealed_and_read_again_and_no_byte_of_the_medium_changes(card, kind):
    rig = card(part(kind, CLIPS | {"log.txt": b"stays"}))
    before = digest_of(rig.images[0])
    reader = await rig.reader()
    clips = await rig.clips(reader)
    assert {os.fsdecode(path): file.size_bytes for path, file in clips.items()} == {
        path: len(content) for path, content in CLIPS.items()
    }
    assert all((file.inode == 0) is (kind != "ext4") and file.links == 1 for file in clips.values())
    for number, (path, file) in enumerate(clips.items(), 1):
        sealed = await reader.acquire(rig.id(number), file)
        again = await reader.reread(rig.id(number), file)
        content = CLIPS[os.fsdecode(path)]
        assert sealed.plaintext_digest == again.plaintext_digest == rig.digest(content)
        assert again.cache is CacheState.DIRECT
        assert rig.opened(rig.id(number)) == content
    await reader.aclose()
    rig.unmount()
    assert digest_of(rig.images[0]) == before


def debugfs(image, *requests):
    for request in requests:
        done = subprocess.run(["debugfs", "-w", "-R", request, image], check=True, capture_output=True, text=True)
        assert len(done.stderr.splitlines()) == 1, done.stderr  # its own version


@pytest.mark.parametrize("below", ["itself", "its parent", "a sibling"])
async def test_p05_a_directory_that_leads_back_to_another_is_named_and_not_followed(card, below):
    rig = card(part("ext4", CLIPS | {"DCIM/200MEDIA/deep/B.mp4": clip_content(9)}))
    target = {"itself": "DCIM/200MEDIA/deep", "its parent": "DCIM", "a sibling": "DCIM/100MEDIA"}[below]
    debugfs(rig.images[0], f"link {target} DCIM/200MEDIA/deep/loop")
    reader = await rig.reader()
    entries = await rig.listing(reader)
    clips = {os.fsdecode(entry.file.path) for entry in entries if entry.kind is FileKind.CLIP}
    refused = {os.fsdecode(entry.file.path): entry.reason for entry in entries if entry.kind is FileKind.REFUSED}
    assert "DCIM/200MEDIA/deep/B.mp4" in clips
    if below == "a sibling":  # it is shown in one of its two places
        assert {name.rpartition("/")[2] for name in clips} == {*(name.rpartition("/")[2] for name in CLIPS), "B.mp4"}
    else:
        assert clips == {*CLIPS, "DCIM/200MEDIA/deep/B.mp4"}
        assert refused.keys() == {"DCIM/200MEDIA/deep/loop"}


@pytest.mark.parametrize("name", [b"..", b".", b"a/"])
async def test_p05_p08_names_that_lead_out_of_their_directory_lead_nowhere(card, name):
    """No program can make such a file; a medium can claim to have one."""
    written = b"qz.mp4" if name == b"a/" else b"qz"[: len(name)]
    rig = card(part("ext4", {"in.mp4": clip_content(1), f"DCIM/{written.decode()}": clip_content(2)}))
    for loop in rig.loops:  # no checksums over directories: the kernel has to look at the name itself
        subprocess.run(["tune2fs", "-O", "^metadata_csum", loop], check=True, capture_output=True)
    rig.ids = [probe(rig._reader(image)).volume_id for image in rig.images]
    content = rig.images[0].read_bytes()
    at = content.index(bytes([len(written)]) + b"\x01" + written)  # length, file type, name
    with rig.images[0].open("r+b") as image:
        image.seek(at + 2)
        image.write(name + written[len(name) :])
    reader = await rig.reader()
    entries = await rig.listing(reader)
    clips = {os.fsdecode(entry.file.path) for entry in entries if entry.kind is FileKind.CLIP}
    assert clips == {"in.mp4"}
    if name == b"a/":
        assert any(entry.kind is FileKind.REFUSED for entry in entries), "what could not be read is not passed over"


async def test_the_first_component_names_the_volume_where_there_are_several(card):
    rig = card(part("ext4", {"a.mp4": b"one"}), part("ext4", {"EVIDENCE/a.mp4": b"two"}))
    reader = await rig.reader()
    listed = {entry.file.path: entry for entry in await rig.listing(reader)}
    assert set(listed) == {b"lun0/a.mp4", b"lun1/EVIDENCE/a.mp4"}
    assert listed[b"lun1/EVIDENCE/a.mp4"].category == "evidence"
    await reader.acquire(rig.id(1), listed[b"lun1/EVIDENCE/a.mp4"].file)
    assert rig.opened(rig.id(1)) == b"two"
    found = await second_reads(rig, reader)
    assert (await reader.plan_erasing(files_of(found))).unaccounted == ""
    one = dict([next(iter(found.items()))])
    assert "lun1" in (await reader.plan_erasing(files_of(one))).unaccounted
    await erase_all(rig, reader, one)
    await rig.remount(reader)
    assert set(await reader.verify_erased(one)) == {rig.id(1)}
    assert set(await rig.clips(reader)) == {b"lun1/EVIDENCE/a.mp4"}


async def test_p02_a_mount_that_outlives_its_device_is_not_taken_for_an_empty_camera(card, kind):
    rig = card(part(kind))
    reader = await rig.reader()
    file = next(iter((await rig.clips(reader)).values()))
    os.truncate(rig.images[0], 0)  # the loop device gives zeros now, and the mount still lists what it remembers
    with pytest.raises(CameraGone):
        await rig.listing(reader)
    with pytest.raises(CameraGone):
        await reader.reread(rig.id(1), file)


# --- letting go, and taking anew


def held(reader):
    """What of block devices and mounts the reader has open."""
    targets = [os.readlink(entry.path) for entry in os.scandir(f"/proc/{reader.pid}/fd")]
    return [target for target in targets if target.startswith("/dev/loop") or target == "/"]


async def test_p04_nothing_of_the_camera_stays_open_after_letting_go(card, kind):
    rig = card(part(kind))
    reader = await rig.reader()
    assert held(reader)
    await reader.let_go()
    assert held(reader) == []
    with pytest.raises(CameraGone):
        await rig.listing(reader)
    await reader.take(rig.mount())
    assert len(await rig.clips(reader)) == len(CLIPS)


async def test_p08_volumes_of_another_camera_are_not_taken(card):
    rig, other = card(part("ext4")), card(part("ext4"))
    reader = await rig.reader()
    await reader.let_go()
    with pytest.raises(CameraGone, match="not the volumes"):
        await reader.take(other.mount())
    assert held(reader) == []
    await reader.take(rig.mount())
    with pytest.raises(CameraGone, match="not the volumes"):  # it has to let go first
        await reader.take(other.mount())


async def test_p08_a_medium_that_claims_to_be_the_volume_is_asked(card):
    rig, other = card(part("ext4")), card(part("ext4"))
    reader = await rig.reader()
    await reader.let_go()
    other.ids = rig.ids
    with pytest.raises(CameraGone, match="on its medium"):
        await reader.take(other.mount())
    assert held(reader) == []


# --- erasing


async def test_p04_clips_are_erased_together_and_looked_for_from_a_new_mount(card, kind):
    rig = card(part(kind, CLIPS | {"log.txt": b"stays"}))
    assert count(rig.images[0], MARK) == 160
    reader = await rig.reader()
    found = await second_reads(rig, reader)
    plan = await reader.plan_erasing(files_of(found))
    assert plan.unclear == {}
    assert "log.txt" in plan.unaccounted
    erasures = await erase_all(rig, reader, found)
    assert [erasure.overwritten_bytes for erasure in erasures] == [file.size_bytes for file, _ in found.values()]
    await rig.remount(reader)
    checked = await reader.verify_erased(found)
    assert set(checked) == set(found)
    assert all("mounted anew" in words and "zeros" in words for words in checked.values())
    assert [entry.file.path for entry in await rig.listing(reader)] == [b"log.txt"]
    await reader.aclose()
    rig.unmount()
    assert count(rig.images[0], MARK) == 0


async def test_every_block_is_accounted_for_where_only_clips_are_on_it(card, kind):
    rig = card(part(kind))
    reader = await rig.reader()
    found = files_of(await second_reads(rig, reader))
    assert (await reader.plan_erasing(found)).unaccounted == ""
    found.pop(rig.id(2))
    assert "not among the files" in (await reader.plan_erasing(found)).unaccounted


async def test_a_dirty_volume_is_not_accounted_for(card):
    rig = card(part("ext4"))
    reader = await rig.reader(medium=rig.mount(dirty="it was never let go cleanly"))
    found = files_of(await second_reads(rig, reader))
    assert (await reader.plan_erasing(found)).unaccounted == "it was never let go cleanly"


async def test_p04_a_clip_whose_place_is_not_known_is_not_erased(card, kind):
    rig = card(part(kind))
    reader = await rig.reader()
    found = await second_reads(rig, reader)
    first, *others = found
    await reader.plan_erasing({acquisition: found[acquisition][0] for acquisition in others})
    await rig.remount(reader, writable=True)
    with pytest.raises(EraseFailed, match="not known where"):
        await reader.erase(found[first][1], found[first][0])
    assert len(await rig.clips(reader)) == len(CLIPS)


async def test_p04_what_was_erased_counts_only_on_a_new_read_only_mount(card, kind):
    rig = card(part(kind))
    reader = await rig.reader()
    found = await second_reads(rig, reader)
    await reader.plan_erasing(files_of(found))
    with pytest.raises(EraseFailed, match="did not erase"):
        await reader.verify_erased(found)
    await erase_all(rig, reader, found)
    with pytest.raises(EraseFailed, match="writable"):
        await reader.verify_erased(found)
    await rig.remount(reader, writable=True)
    with pytest.raises(EraseFailed, match="writable"):
        await reader.verify_erased(found)
    with pytest.raises(EraseFailed, match="writable"):
        await reader.plan_erasing(files_of(found))
    await rig.remount(reader)
    assert set(await reader.verify_erased(found)) == set(found)


@pytest.mark.parametrize("back", ["name", "remnant", "bytes"])
async def test_p04_what_comes_back_after_erasing_is_found(card, back):
    rig = card(part("ext4"))
    reader = await rig.reader()
    found = await second_reads(rig, reader)
    await reader.plan_erasing(files_of(found))
    old = rig.images[0].read_bytes().find(MARK)
    await erase_all(rig, reader, found)
    await reader.let_go()
    medium = rig.mount(writable=True)
    directory = os.open("DCIM/100MEDIA", os.O_RDONLY, dir_fd=medium.volumes[0].root_fd)
    if back != "bytes":
        name = os.path.basename(found[rig.id(1)][0].path) if back == "name" else remnant_name(rig.id(1))
        os.close(os.open(name, os.O_CREAT | os.O_WRONLY, dir_fd=directory))
    os.close(directory)
    del directory, medium
    rig.unmount()
    if back == "bytes":
        write_at(rig.loops[0], MARK, old)
    await reader.take(rig.mount())
    with pytest.raises(EraseFailed, match="still on the medium" if back == "bytes" else "still in its directory"):
        await reader.verify_erased(found)


@pytest.mark.parametrize("point", ["renamed", "overwritten", "read_back", "truncated"])
async def test_p02_an_erasure_that_was_cut_short_is_finished_by_another_reader(card, kind, point):
    rig = card(part(kind), faults=f"kill@erase.{point}:1.mp4")
    reader = await rig.reader()
    found = await second_reads(rig, reader)
    await reader.plan_erasing(files_of(found))
    with pytest.raises(ReaderDied):
        await erase_all(rig, reader, found)
    again = await rig.reader(epoch=2)
    remnants = {entry.file.path: entry.file for entry in await rig.listing(again) if entry.kind is not FileKind.CLIP}
    (path,) = remnants
    assert path.endswith(remnant_name(rig.id(2)))
    assert len(await rig.clips(again)) == 2
    await again.plan_erasing({rig.id(2): remnants[path]})
    await rig.remount(again, writable=True)
    warrant = rig.warrant(remnants[path], found[rig.id(2)][1].plaintext_digest, number=2, epoch=2, remnant=True)
    await again.erase(warrant, remnants[path])
    await rig.remount(again)
    assert set(await again.verify_erased([rig.id(2)])) == {rig.id(2)}


async def test_a_medium_that_keeps_other_bytes_than_were_written_leaves_a_remnant(card, kind):
    rig = card(part(kind), faults="eio@erase.read_back")
    reader = await rig.reader()
    found = await second_reads(rig, reader)
    await reader.plan_erasing(files_of(found))
    with pytest.raises(ReaderDied, match="half-way"):
        await erase_all(rig, reader, found)


async def test_p01_another_volume_in_its_place_is_not_erased(card):
    rig = card(part("ext4"))
    reader = await rig.reader()
    found = await second_reads(rig, reader)
    await reader.plan_erasing(files_of(found))
    await rig.remount(reader, writable=True)
    patch(rig.images[0], bytes.fromhex(rig.ids[0].replace("-", "")), bytes(range(16)))
    (file, warrant), *_ = found.values()
    with pytest.raises((EraseFailed, CameraGone)):
        await reader.erase(warrant, file)


# --- after clear


async def cleared(rig, reader):
    found = await second_reads(rig, reader)
    assert (await reader.plan_erasing(files_of(found))).unaccounted == ""
    await erase_all(rig, reader, found)
    await rig.remount(reader)
    await reader.verify_erased(found)
    await reader.let_go()
    rig.unmount()
    write_at(rig.loops[0], bytes(rig.parts[0].size_bytes), 0)
    words = {
        "ext4": ["mke2fs", "-q", "-F", "-t", "ext4", "-b", "4096", "-U", rig.ids[0]],
        "vfat": ["mkfs.vfat", "-F", "32", "-i", rig.ids[0].replace("-", "")],
        "exfat": ["mkfs.exfat"],
    }[rig.parts[0].kind]
    subprocess.run([*words, rig.loops[0]], check=True, capture_output=True)
    if rig.parts[0].kind == "exfat":
        serial = f"0x{rig.ids[0].replace('-', '')}"
        subprocess.run(["tune.exfat", "-I", serial, rig.loops[0]], check=True, capture_output=True)
    return found


async def test_p04_a_fresh_file_system_is_looked_at_from_a_new_mount(card, kind):
    rig = card(part(kind))
    reader = await rig.reader()
    await cleared(rig, reader)
    await reader.take(rig.mount())
    assert "zeros" in await reader.verify_empty("clear")
    await reader.aclose()
    rig.unmount()
    assert count(rig.images[0], MARK) == 0


async def test_p04_a_fresh_file_system_over_old_bytes_is_found(card, kind):
    rig = card(part(kind))
    reader = await rig.reader()
    places = rig.images[0].read_bytes()
    at = places.find(MARK)
    await cleared(rig, reader)
    write_at(rig.loops[0], MARK, at)
    await reader.take(rig.mount())
    with pytest.raises(EraseFailed, match="still holds something"):
        await reader.verify_empty("clear")


# --- hard media


def patch(image, old, new):
    """Change the medium behind the back of whoever has it mounted."""
    at = image.read_bytes().find(old)
    assert at > 0
    with image.open("r+b") as file:
        file.seek(at)
        file.write(new)


if "vfat" in KINDS:

    async def test_p05_a_file_that_the_kernel_does_not_show_is_told(card):
        rig = card(part("vfat", {"ONE.MP4": b"one", "TWO.MP4": b"two"}))
        reader = await rig.reader()
        assert {entry.kind for entry in await rig.listing(reader)} == {FileKind.CLIP}
        patch(rig.images[0], b"TWO     MP4", b"SIX     MP4")  # the kernel remembers what it read
        listed = await rig.listing(reader)
        assert [entry.reason for entry in listed if entry.kind is FileKind.REFUSED] == [
            "the listing may not be whole: its directories name 2 files, and the file system shows 2, or others"
        ]


async def test_clips_of_a_full_volume_whose_directory_is_full_are_erased(card, kind):
    rig = card(part(kind, full=True))
    reader = await rig.reader()
    found = await second_reads(rig, reader)
    plan = await reader.plan_erasing(files_of(found))
    assert plan.unclear == {}
    erasures = await erase_all(rig, reader, found)
    assert [erasure.overwritten_bytes for erasure in erasures] == [file.size_bytes for file, _ in found.values()]
    await rig.remount(reader)
    assert set(await reader.verify_erased(found)) == set(found)
    assert await rig.clips(reader) == {}
    await reader.aclose()
    rig.unmount()
    assert count(rig.images[0], MARK) == 0


@pytest.mark.parametrize("point", ["set_aside", "cut"])
async def test_p02_no_room_to_set_a_clip_aside_is_made_of_its_own_last_block(card, kind, point):
    rig = card(part(kind), faults="enospc@erase.set_aside:1.mp4" + (" kill@erase.cut" if point == "cut" else ""))
    reader = await rig.reader()
    found = await second_reads(rig, reader)
    await reader.plan_erasing(files_of(found))
    if point == "cut":
        with pytest.raises(ReaderDied):
            await erase_all(rig, reader, found)
        again = await rig.reader(epoch=2)
        left = {os.path.basename(path): file.size_bytes for path, file in (await rig.clips(again)).items()}
        assert left[b"A video of some name 1.mp4"] < len(CLIPS["DCIM/100MEDIA/A video of some name 1.mp4"])
        assert len(left) == 3
        return
    erasures = await erase_all(rig, reader, found)
    assert [erasure.overwritten_bytes for erasure in erasures] == [file.size_bytes for file, _ in found.values()]
    await rig.remount(reader)
    assert set(await reader.verify_erased(found)) == set(found)


async def test_p02_a_clip_that_gave_up_its_last_block_is_finished_by_another_reader(card, kind):
    rig = card(part(kind), faults="enospc@erase.set_aside:1.mp4 kill@erase.renamed:1.mp4")
    reader = await rig.reader()
    found = await second_reads(rig, reader)
    await reader.plan_erasing(files_of(found))
    with pytest.raises(ReaderDied):
        await erase_all(rig, reader, {rig.id(2): found[rig.id(2)]})
    again = await rig.reader(epoch=2)
    (left,) = [entry.file for entry in await rig.listing(again) if entry.kind is not FileKind.CLIP]
    whole, warrant = found[rig.id(2)]
    assert left.size_bytes < whole.size_bytes
    assert may_be_left(left.size_bytes, whole.size_bytes)
    await again.plan_erasing({rig.id(2): left})
    await rig.remount(again, writable=True)
    await again.erase(rig.warrant(left, warrant.plaintext_digest, number=2, epoch=2, remnant=True), left)
    await rig.remount(again)
    assert set(await again.verify_erased([rig.id(2)])) == {rig.id(2)}


async def test_an_old_place_that_cannot_be_read_back_does_not_count_as_erased(card):
    rig = card(part("ext4"), faults="eio@verify:1.mp4")
    reader = await rig.reader()
    found = await second_reads(rig, reader)
    await reader.plan_erasing(files_of(found))
    await erase_all(rig, reader, found)
    await rig.remount(reader)
    with pytest.raises(EraseFailed, match=r"1\.mp4 cannot be looked for: Input/output error"):
        await reader.verify_erased(found)
    assert set(await reader.verify_erased([rig.id(1)])) == {rig.id(1)}


async def test_p06_a_sector_that_the_medium_does_not_give_is_zeros_in_one_clip(card, kind):
    rig = card(part(kind), faults="eio@read:1.mp4:8192-8193")
    reader = await rig.reader()
    verdicts = {}
    for number, (path, file) in enumerate((await rig.clips(reader)).items(), 1):
        sealed = await reader.acquire(rig.id(number), file)
        verdicts[path[-5:-4]] = sealed.verdict.reasons[0]
    assert [name for name, reason in verdicts.items() if "could not be read" in reason] == [b"1"]


def read_only(kind, **changes):
    """Two clips, one of which the camera marked read-only."""
    files = dict(list(CLIPS.items())[:2])
    marked = next(iter(files))
    return part(kind, files, **({} if kind == "ext4" else {"read_only": [marked]}), **changes), marked


def mode_of(rig, path):
    return os.stat(path, dir_fd=rig.mounted[0]).st_mode & 0o777


def mark(rig, path):
    """What only a mount can do to an ext4."""
    medium = rig.mount(writable=True)
    os.chmod(path, 0o400, dir_fd=medium.volumes[0].root_fd)


@pytest.mark.parametrize("fails", [False, True])
async def test_a_clip_that_is_marked_read_only_is_erased_and_stays_marked_where_it_is_not(card, kind, fails):
    made, marked = read_only(kind)
    rig = card(made, faults="eio@erase.aside" if fails else "")
    if kind == "ext4":
        mark(rig, marked)
    reader = await rig.reader()
    before = mode_of(rig, marked)
    assert not before & 0o200
    found = await second_reads(rig, reader)
    await reader.plan_erasing(files_of(found))
    if fails:
        with pytest.raises(EraseFailed, match="set aside"):
            await erase_all(rig, reader, found)
        assert mode_of(rig, marked) == before
        return
    await erase_all(rig, reader, found)
    await rig.remount(reader)
    assert set(await reader.verify_erased(found)) == set(found)
