import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dockd.core import sshsig
from dockd.core.sshsig import PublicKey, SigningKey
from dockd.errors import VerificationFailed
from dockd.model import SignedBytes

KEY = SigningKey.generate()
SIGNATURE = sshsig.sign(KEY, sshsig.MANIFEST, b"message")


def test_a_key_passes_through_its_forms():
    assert SigningKey.parse(KEY.private_pem()).public == KEY.public
    assert PublicKey.parse(KEY.public.line("some comment")) == KEY.public
    assert KEY.public.fingerprint.startswith("SHA256:")


def test_a_private_key_is_never_printed():
    assert repr(KEY) == f"<SigningKey {KEY.public.fingerprint}>"
    with pytest.raises(VerificationFailed) as failed:
        SigningKey.parse(b"hunter2 is no key")
    assert "hunter2" not in str(failed.value)


def test_a_signature_is_for_one_message_namespace_and_key():
    sshsig.verify(KEY.public, sshsig.MANIFEST, b"message", SIGNATURE)
    for public, namespace, message in (
        (KEY.public, sshsig.MANIFEST, b"messagf"),
        (KEY.public, sshsig.RECEIPT, b"message"),
        (SigningKey.generate().public, sshsig.MANIFEST, b"message"),
    ):
        with pytest.raises(VerificationFailed):
            sshsig.verify(public, namespace, message, SIGNATURE)


@settings(deadline=None)
@given(at=st.integers(0, len(SIGNATURE) - 2), other=st.characters())
def test_a_changed_signature_is_refused(at, other):
    changed = SIGNATURE[:at] + other + SIGNATURE[at + 1 :]
    # White space around the armour's lines, and what ends them, is nobody's content.
    if [line.strip() for line in changed.splitlines()] == [line.strip() for line in SIGNATURE.splitlines()]:
        return
    with pytest.raises(VerificationFailed):
        sshsig.verify(KEY.public, sshsig.MANIFEST, b"message", changed)


@given(text=st.text(max_size=300))
def test_what_is_no_signature_is_refused(text):
    with pytest.raises(VerificationFailed):
        sshsig.verify(KEY.public, sshsig.MANIFEST, b"message", text)


@given(line=st.text(max_size=120))
def test_what_is_no_key_is_refused(line):
    with pytest.raises(VerificationFailed):
        PublicKey.parse(line)
    with pytest.raises(VerificationFailed):
        PublicKey.parse("ssh-ed25519 " + line)


def test_the_envelope_carries_exact_bytes():
    signed = SignedBytes(payload=bytes(range(256)), signature=SIGNATURE)
    assert sshsig.signed_from_json(sshsig.signed_to_json(signed)) == signed


@pytest.mark.parametrize(
    "change",
    [{"type": "other"}, {"payload": 1}, {"payload": "!"}, {"payload": "ü"}, {"signature": None}, {"v": 2}, {"more": 1}],
)
def test_what_is_no_envelope_is_refused(change):
    record = sshsig.signed_to_json(SignedBytes(payload=b"x", signature=SIGNATURE))
    with pytest.raises(VerificationFailed):
        sshsig.signed_from_json(record | change)
