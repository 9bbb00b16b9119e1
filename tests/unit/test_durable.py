"""Files that are there whole or not at all."""

import os
import stat
import threading
from pathlib import Path

import pytest

from dockd.keep.durable import fsync_directory, is_temporary, temporary_beside, write_file


def _names(directory):
    return sorted(path.name for path in directory.iterdir())


def test_a_file_is_written_with_its_mode_whatever_the_umask(tmp_path):
    before = os.umask(0o077)
    try:
        write_file(tmp_path / "a", b"one")
        write_file(tmp_path / "b", b"two", mode=0o644)
    finally:
        os.umask(before)
    assert (tmp_path / "a").read_bytes() == b"one"
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "b").stat().st_mode) == 0o644
    assert _names(tmp_path) == ["a", "b"]


def test_writing_again_replaces_and_repeating_changes_nothing(tmp_path):
    path = tmp_path / "a"
    for content in (b"a longer first", b"short", b"short", b""):
        write_file(path, content)
        assert path.read_bytes() == content
    assert _names(tmp_path) == ["a"]


def test_large_content_is_written_whole(tmp_path):
    content = os.urandom(5_000_001)
    write_file(tmp_path / "a", content)
    assert (tmp_path / "a").read_bytes() == content


def test_until_the_block_ends_the_old_file_stands(tmp_path):
    path = tmp_path / "a"
    write_file(path, b"old")
    with temporary_beside(path) as file:
        file.write(b"new")
        file.flush()
        assert path.read_bytes() == b"old"
        (temporary,) = set(_names(tmp_path)) - {"a"}
        assert is_temporary(temporary)
        assert stat.S_IMODE((tmp_path / temporary).stat().st_mode) == 0o600
    assert path.read_bytes() == b"new"
    assert _names(tmp_path) == ["a"]


@pytest.mark.parametrize("failure", [ValueError, KeyboardInterrupt, SystemExit])
def test_p02_a_failing_block_leaves_nothing_and_the_old_file(tmp_path, failure):
    path = tmp_path / "a"
    write_file(path, b"old")
    with pytest.raises(failure), temporary_beside(path) as file:  # noqa: PT012  the block is what fails
        file.write(b"half of the n")
        raise failure
    assert path.read_bytes() == b"old"
    assert _names(tmp_path) == ["a"]


def test_without_replace_an_existing_name_is_never_overwritten(tmp_path):
    path = tmp_path / "a"
    with temporary_beside(path, replace=False) as file:
        file.write(b"mine")
    with pytest.raises(FileExistsError) as caught, temporary_beside(path, replace=False) as file:
        file.write(b"yours")
    assert caught.value.filename == str(path)
    assert path.read_bytes() == b"mine"
    assert path.stat().st_nlink == 1
    assert _names(tmp_path) == ["a"]


def test_a_name_that_appears_meanwhile_is_not_overwritten(tmp_path):
    path = tmp_path / "a"
    with pytest.raises(FileExistsError), temporary_beside(path, replace=False) as file:  # noqa: PT012  its end fails
        file.write(b"mine")
        path.write_bytes(b"theirs")
    assert path.read_bytes() == b"theirs"
    assert _names(tmp_path) == ["a"]


def test_the_longest_possible_name_works(tmp_path):
    path = tmp_path / ("ä" * 127)
    write_file(path, b"x")
    assert path.read_bytes() == b"x"
    write_file(tmp_path / ("n" * 255), b"y")
    assert len(_names(tmp_path)) == 2


def test_names_of_bytes_that_are_no_text_work(tmp_path):
    path = tmp_path / os.fsdecode(b"\xff\xfe clip")
    write_file(path, b"x")
    assert path.read_bytes() == b"x"


def test_a_file_that_somebody_else_lengthened_is_not_taken(tmp_path):
    complaint = "wrote 3 bytes, the file has 10"
    with pytest.raises(OSError, match=complaint), temporary_beside(tmp_path / "a") as file:  # noqa: PT012  its end fails
        file.write(b"abc")
        file.flush()
        os.truncate(file.fileno(), 10)
    assert _names(tmp_path) == []


def test_a_temporary_name_that_is_taken_is_not_opened(tmp_path):
    with temporary_beside(tmp_path / "a", random=bytes) as file:
        file.write(b"first")
        with pytest.raises(FileExistsError), temporary_beside(tmp_path / "a", random=bytes):
            pass
    assert (tmp_path / "a").read_bytes() == b"first"


def test_a_symbolic_link_is_replaced_not_followed(tmp_path):
    (tmp_path / "target").write_bytes(b"untouched")
    (tmp_path / "a").symlink_to("target")
    write_file(tmp_path / "a", b"new")
    assert not (tmp_path / "a").is_symlink()
    assert (tmp_path / "target").read_bytes() == b"untouched"


def test_errors_of_the_system_pass_through(tmp_path):
    with pytest.raises(FileNotFoundError):
        write_file(tmp_path / "missing" / "a", b"x")
    with pytest.raises(FileNotFoundError):
        fsync_directory(tmp_path / "missing")
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(NotADirectoryError):
        fsync_directory(tmp_path / "file")
    (tmp_path / "directory").mkdir()
    with pytest.raises(IsADirectoryError):
        write_file(tmp_path / "directory", b"x")
    assert _names(tmp_path) == ["directory", "file"]


def test_a_directory_is_synced_by_path_and_by_descriptor(tmp_path):
    fsync_directory(tmp_path)
    descriptor = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fsync_directory(descriptor)
    finally:
        os.close(descriptor)


def test_no_descriptor_stays_open(tmp_path):
    before = len(_names(Path("/proc/self/fd")))
    write_file(tmp_path / "a", b"x")
    with pytest.raises(ValueError, match="stop"), temporary_beside(tmp_path / "a"):
        raise ValueError("stop")
    assert len(_names(Path("/proc/self/fd"))) == before


def test_many_writers_of_one_name_leave_one_whole_file(tmp_path):
    path = tmp_path / "a"
    contents = [bytes([number]) * 100_000 for number in range(8)]
    threads = [threading.Thread(target=write_file, args=(path, content)) for content in contents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert path.read_bytes() in contents
    assert _names(tmp_path) == ["a"]
