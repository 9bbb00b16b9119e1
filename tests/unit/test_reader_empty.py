"""Where the look at a fresh file system looks, and what it keeps in memory for that."""

import pytest

from dockd.errors import FilesystemUnclear
from dockd.reader.empty import SAMPLE_BYTES, SAMPLES, _samples, _within
from dockd.reader.places import MAX_FREE, free_of


class Volume:
    def __init__(self, count):
        self.count, self.given = count, 0

    def free(self):
        for at in range(self.count):
            self.given += 1
            yield at * 100, 50


def test_p10_free_space_in_more_pieces_than_are_kept_is_unclear_and_is_not_read_to_its_end():
    assert len(free_of(Volume(MAX_FREE))) == MAX_FREE
    volume = Volume(10 * MAX_FREE)
    with pytest.raises(FilesystemUnclear, match="pieces"):
        free_of(volume)
    assert volume.given == MAX_FREE + 1


def test_what_of_the_old_places_is_free_now():
    free = free_of(Volume(4))  # 0-50, 100-150, 200-250, 300-350
    assert list(_within(free, [(20, 100), (0, 10), (60, 30), (340, 100), (240, 120)])) == [
        (0, 10),
        (20, 30),
        (100, 20),
        (240, 10),
        (300, 50),
        (340, 10),
    ]
    assert list(_within([], [(0, 10)])) == []


def test_samples_lie_in_free_space_alone():
    draws = iter(range(SAMPLES))
    found = list(_samples(free_of(Volume(4)), lambda count: next(draws).to_bytes(count, "big")))
    assert len(found) == SAMPLES
    assert found[0] == (0, 50)
    assert found[50] == (100, 50)
    assert found[199] == (349, 1)
    assert all(length <= SAMPLE_BYTES and offset % 100 + length <= 50 for offset, length in found)
    assert list(_samples([], bytes)) == []
