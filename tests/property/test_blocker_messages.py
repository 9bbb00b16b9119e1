"""Whatever a peer sends: a request that makes sense, or a refusal."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dockd.blocker.messages import BlockerError, Request

GOOD = {"v": 1, "verb": "make", "device": "sda1", "diskseq": 20, "port": "0000:00:09.0/3", "serial": "X"}
GOOD |= {"filesystem": "vfat", "method": "clear", "like": {"label": "CAM", "fat_bits": 32}}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@given(st.binary(max_size=200))
def test_any_bytes_are_refused(datagram):
    with pytest.raises(BlockerError):
        Request.decode(datagram)


@given(st.dictionaries(st.sampled_from([*GOOD, "more"]), JSON, max_size=4))
def test_any_fields_are_refused_or_make_sense(changed):
    try:
        request = Request.decode(json.dumps(GOOD | changed).encode())
    except BlockerError:
        return
    assert "/" not in request.device
    assert request.verb in ("read", "write", "make")
    assert type(request.diskseq) is int


@pytest.mark.parametrize("device", ["../sda", "/dev/sda", "sda 1", "", "SDA", "sda\n", "-sda"])
def test_a_device_is_a_plain_name(device):
    with pytest.raises(BlockerError):
        Request.decode(json.dumps(GOOD | {"device": device}).encode())


def test_a_request_comes_out_as_it_went_in():
    request = Request.decode(json.dumps(GOOD).encode())
    assert Request.decode(request.encode()) == request
