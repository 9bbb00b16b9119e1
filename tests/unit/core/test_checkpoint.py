import base64
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dockd.core import checkpoint
from dockd.core.checkpoint import Checkpoint
from dockd.core.sshsig import SigningKey
from dockd.errors import VerificationFailed

ORIGIN = checkpoint.origin_of("6f1e2d3c-0000-4000-8000-000000000001", 1)
HEAD = Checkpoint(origin=ORIGIN, size=12, root=bytes(range(32)))
KEY, STORE = SigningKey.generate(), SigningKey.generate()
NOTE = checkpoint.sign(HEAD, KEY)
AT = datetime(2026, 1, 31, 23, 59, 59, 999000, tzinfo=UTC)


def test_a_note_has_three_lines_a_gap_and_a_signature():
    lines = NOTE.decode().split("\n")
    assert lines[:4] == [ORIGIN, "12", base64.b64encode(HEAD.root).decode(), ""]
    assert lines[4].startswith(f"— {ORIGIN} ")
    assert lines[5:] == [""]


def test_a_note_says_what_was_signed():
    assert checkpoint.parse_and_verify(NOTE, ORIGIN, KEY.public) == HEAD


def test_a_cosigned_note_still_verifies_and_says_when():
    note = checkpoint.cosign(NOTE, STORE, "dockd-store/s", AT)
    assert note.startswith(NOTE)
    assert checkpoint.parse_and_verify(note, ORIGIN, KEY.public) == HEAD
    assert checkpoint.verify_cosignature(note, "dockd-store/s", STORE.public) == int(AT.timestamp())


def test_a_cosignature_by_another_is_not_found():
    note = checkpoint.cosign(NOTE, STORE, "dockd-store/s", AT)
    for name, public in (("dockd-store/t", STORE.public), ("dockd-store/s", KEY.public)):
        with pytest.raises(VerificationFailed, match="no cosignature"):
            checkpoint.verify_cosignature(note, name, public)


def test_the_time_of_a_cosignature_is_signed():
    note = checkpoint.cosign(NOTE, STORE, "dockd-store/s", AT)
    head, _, line = note.removesuffix(b"\n").rpartition(b" ")
    blob = bytearray(base64.b64decode(line))
    blob[11] ^= 1
    with pytest.raises(VerificationFailed):
        checkpoint.verify_cosignature(head + b" " + base64.b64encode(blob) + b"\n", "dockd-store/s", STORE.public)


def test_a_signature_in_the_shape_of_a_cosignature_is_none():
    # The key's id includes the algorithm, so one kind of line cannot be passed off as the other.
    note = checkpoint.cosign(NOTE, KEY, ORIGIN, AT)
    only = NOTE.rpartition(b"\n\n")[0] + b"\n\n" + note.removeprefix(NOTE)
    with pytest.raises(VerificationFailed, match="no signature"):
        checkpoint.parse_and_verify(only, ORIGIN, KEY.public)


@pytest.mark.parametrize("origin", [ORIGIN[:-1] + "2", "dockd/other/1", ""])
def test_a_note_of_another_log_is_refused(origin):
    with pytest.raises(VerificationFailed):
        checkpoint.parse_and_verify(NOTE, origin, KEY.public)


def test_a_note_by_another_key_is_refused():
    with pytest.raises(VerificationFailed, match="no signature"):
        checkpoint.parse_and_verify(NOTE, ORIGIN, STORE.public)


@given(at=st.integers(0, len(NOTE) - 1), flip=st.integers(1, 255))
def test_any_changed_byte_of_a_note_is_refused(at, flip):
    changed = bytearray(NOTE)
    changed[at] ^= flip
    with pytest.raises(VerificationFailed):
        checkpoint.parse_and_verify(bytes(changed), ORIGIN, KEY.public)


@given(note=st.binary(max_size=200))
def test_what_is_no_note_is_refused(note):
    with pytest.raises(VerificationFailed):
        checkpoint.parse_and_verify(note, ORIGIN, KEY.public)


def forged(text):
    body = text.encode()
    public = KEY.public
    key_id = bytes.fromhex(checkpoint.vkey(ORIGIN, public).split("+")[1])
    blob = base64.b64encode(key_id + KEY.sign_raw(body)).decode()
    return body + f"\n— {ORIGIN} {blob}\n".encode()


@pytest.mark.parametrize(
    "text",
    [
        f"{ORIGIN}\n12\n",
        f"{ORIGIN}\n012\n{base64.b64encode(HEAD.root).decode()}\n",
        f"{ORIGIN}\n-1\n{base64.b64encode(HEAD.root).decode()}\n",
        f"{ORIGIN}\n1_2\n{base64.b64encode(HEAD.root).decode()}\n",
        f"{ORIGIN}\n12\n{base64.b64encode(HEAD.root[:31]).decode()}\n",
        f"{ORIGIN}\n12\n!\n",
        f"{ORIGIN}\n12\n{base64.b64encode(HEAD.root).decode()}\nmore\n",
        f"other\n12\n{base64.b64encode(HEAD.root).decode()}\n",
    ],
)
def test_a_signed_text_that_is_no_checkpoint_is_refused(text):
    with pytest.raises(VerificationFailed):
        checkpoint.parse_and_verify(forged(text), ORIGIN, KEY.public)


def test_a_verifier_key_is_read_back():
    assert checkpoint.parse_vkey(checkpoint.vkey(ORIGIN, KEY.public) + "\n") == (ORIGIN, KEY.public)


def test_the_published_note_verifies():
    # The example of Go's sumdb/note package.
    name, public = checkpoint.parse_vkey("PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW")
    assert name == "PeterNeumann"
    text = b"If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n"
    signature = "x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM="
    blob = base64.b64decode(signature)
    assert blob[:4].hex() == "c74f20a3"
    public.verify_raw(blob[4:], text)
    with pytest.raises(VerificationFailed):
        public.verify_raw(blob[4:], text + b"\n")


@pytest.mark.parametrize(
    "text",
    ["", "a+b", "n+00000000+" + base64.b64encode(b"\1" + bytes(32)).decode(), "n+c74f20a3+!", "n+c74f20a3+", "a+b+ü"],
)
def test_what_is_no_verifier_key_is_refused(text):
    with pytest.raises(VerificationFailed):
        checkpoint.parse_vkey(text)
