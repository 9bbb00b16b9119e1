"""What dockd signs, OpenSSH and OpenSSL check; what OpenSSH signs, dockd checks."""

import shutil
import subprocess
from datetime import UTC, datetime

import pytest

from dockd.core import checkpoint, sshsig
from dockd.core.sshsig import PublicKey, SigningKey
from dockd.errors import VerificationFailed

NAMESPACES = [sshsig.MANIFEST, sshsig.RECEIPT, sshsig.HOLDING, sshsig.SESSION]
MESSAGES = [b"", b"x", b'{"type":"manifest","v":1}', bytes(range(256)) * 400]

needs_ssh_keygen = pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="ssh-keygen is not installed")
needs_openssl = pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")


@pytest.fixture
def key():
    return SigningKey.generate()


@pytest.fixture
def key_file(tmp_path, key):
    path = tmp_path / "key"
    path.write_bytes(key.private_pem())
    path.chmod(0o600)
    return path


def ssh_verify(tmp_path, key, namespace, message, signature):
    allowed, signature_file = tmp_path / "allowed", tmp_path / "message.sig"
    allowed.write_text(f'dockd namespaces="{namespace}" {key.line("")}\n')
    signature_file.write_text(signature)
    command = ["ssh-keygen", "-Y", "verify", "-f", allowed, "-I", "dockd", "-n", namespace, "-s", signature_file]
    return subprocess.run(command, input=message, capture_output=True, timeout=30, check=False)


@needs_ssh_keygen
@pytest.mark.parametrize("namespace", NAMESPACES)
def test_p07_ssh_keygen_verifies_what_dockd_signs(tmp_path, key, namespace):
    for message in MESSAGES:
        signature = sshsig.sign(key, namespace, message)
        done = ssh_verify(tmp_path, key.public, namespace, message, signature)
        assert done.returncode == 0, done.stderr
        assert ssh_verify(tmp_path, key.public, namespace, message + b"!", signature).returncode != 0
        assert ssh_verify(tmp_path, SigningKey.generate().public, namespace, message, signature).returncode != 0


@needs_ssh_keygen
def test_ssh_keygen_refuses_another_namespace(tmp_path, key):
    signature = sshsig.sign(key, sshsig.RECEIPT, b"x")
    assert ssh_verify(tmp_path, key.public, sshsig.HOLDING, b"x", signature).returncode != 0


@needs_ssh_keygen
@pytest.mark.parametrize("hash_", ["sha512", "sha256"])
def test_p07_dockd_verifies_what_ssh_keygen_signs(tmp_path, key, key_file, hash_):
    for message in MESSAGES:
        command = ["ssh-keygen", "-Y", "sign", "-f", key_file, "-n", sshsig.MANIFEST, "-O", f"hashalg={hash_}"]
        done = subprocess.run(command, input=message, capture_output=True, timeout=30, check=True)
        signature = done.stdout.decode()
        sshsig.verify(key.public, sshsig.MANIFEST, message, signature)
        with pytest.raises(VerificationFailed):
            sshsig.verify(key.public, sshsig.MANIFEST, message + b"!", signature)
        with pytest.raises(VerificationFailed, match="is for"):
            sshsig.verify(key.public, sshsig.RECEIPT, message, signature)


@needs_ssh_keygen
def test_dockd_signs_the_very_bytes_that_ssh_keygen_does(key, key_file):
    # Ed25519 is deterministic: the same key, namespace and message give the same file.
    command = ["ssh-keygen", "-Y", "sign", "-f", key_file, "-n", sshsig.RECEIPT]
    done = subprocess.run(command, input=b"hello\n", capture_output=True, timeout=30, check=True)
    assert done.stdout.decode() == sshsig.sign(key, sshsig.RECEIPT, b"hello\n")


@needs_ssh_keygen
def test_keys_pass_between_dockd_and_ssh_keygen(tmp_path, key, key_file):
    done = subprocess.run(["ssh-keygen", "-y", "-f", key_file], capture_output=True, timeout=30, check=True)
    assert PublicKey.parse(done.stdout.decode()) == key.public
    public_file = tmp_path / "public"
    public_file.write_text(key.public.line("dockd-store:x") + "\n")
    done = subprocess.run(["ssh-keygen", "-l", "-f", public_file], capture_output=True, timeout=30, check=True)
    assert done.stdout.decode().split()[1:3] == [key.public.fingerprint, "dockd-store:x"]

    theirs = tmp_path / "theirs"
    make = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "comment", "-f", theirs]
    subprocess.run(make, timeout=30, check=True)
    private = SigningKey.parse(theirs.read_bytes())
    assert private.public == PublicKey.parse(theirs.with_suffix(".pub").read_text())


@needs_ssh_keygen
@pytest.mark.parametrize(("kind", "passphrase"), [("ecdsa", ""), ("rsa", ""), ("ed25519", "secret")])
def test_other_and_locked_keys_are_refused(tmp_path, kind, passphrase):
    path = tmp_path / "key"
    make = ["ssh-keygen", "-q", "-t", kind, "-N", passphrase, "-f", path]
    subprocess.run(make, timeout=60, check=True)
    with pytest.raises(VerificationFailed):
        SigningKey.parse(path.read_bytes())
    if kind != "ed25519":
        with pytest.raises(VerificationFailed):
            PublicKey.parse(path.with_suffix(".pub").read_text())


# The note of a checkpoint, by the book: what docs/formats.md tells an outsider to do with openssl.


def openssl_verify(tmp_path, pem, text, signature):
    for name, content in (("pem", pem), ("text", text), ("signature", signature)):
        tmp_path.joinpath(name).write_bytes(content)
    command = ["openssl", "pkeyutl", "-verify", "-pubin", "-inkey", "pem", "-rawin", "-in", "text"]
    command += ["-sigfile", "signature"]
    return subprocess.run(command, cwd=tmp_path, capture_output=True, timeout=30, check=False).returncode == 0


def signature_of(line):
    done = subprocess.run(["base64", "-d"], input=line.split()[-1], capture_output=True, timeout=30, check=True)
    return done.stdout


@needs_openssl
def test_p07_openssl_verifies_a_checkpoint(tmp_path, key):
    head = checkpoint.Checkpoint(origin="dockd/6f1e2d3c-0000-4000-8000-000000000001/1", size=7, root=bytes(range(32)))
    note = checkpoint.sign(head, key)
    text, _, line = note.rpartition(b"\n\n")
    pem = checkpoint.public_pem(key.public)
    assert openssl_verify(tmp_path, pem, text + b"\n", signature_of(line)[4:])
    assert not openssl_verify(tmp_path, pem, text.replace(b"\n7\n", b"\n8\n") + b"\n", signature_of(line)[4:])


@needs_openssl
def test_p07_openssl_verifies_a_cosignature(tmp_path, key):
    store = SigningKey.generate()
    head = checkpoint.Checkpoint(origin="dockd/6f1e2d3c-0000-4000-8000-000000000001/1", size=7, root=bytes(range(32)))
    at = datetime(2026, 1, 31, 23, 59, 59, tzinfo=UTC)
    note = checkpoint.cosign(checkpoint.sign(head, key), store, "dockd-store/x", at)
    text, _, lines = note.rpartition(b"\n\n")
    blob = signature_of(lines.splitlines()[1])
    assert int.from_bytes(blob[4:12], "big") == 1769903999
    message = b"cosignature/v1\ntime 1769903999\n" + text + b"\n"
    assert openssl_verify(tmp_path, checkpoint.public_pem(store.public), message, blob[12:])
