"""P03: a station that is no trial does not start where it can read a key that must not be there."""

import os
import shutil

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_ssh_private_key

from dockd.app import init
from dockd.app.check import check_station
from dockd.app.guard import readable_secrets
from dockd.config.load import load_station
from dockd.core.sealing import Identity
from dockd.core.sshsig import SigningKey
from dockd.errors import ConfigError


@pytest.fixture
def set_(tmp_path):
    """A production set, with the authority and the receiver out of reach."""
    away, here = tmp_path / "away", tmp_path / "here"
    authority = init.init_authority(away / "authority")
    receiver = init.init_receiver(away / "receiver", "127.0.0.1:8443", recipients=authority.recipients)
    station = init.init_station(
        here,
        receiver_url="https://127.0.0.1:8443",
        ca=receiver.certificate,
        store_key=receiver.store_pub,
        recipients=authority.recipients,
    )
    return Set(station.config, authority, receiver, here)


class Set:
    def __init__(self, config, authority, receiver, here):
        self.config, self.authority, self.receiver, self.here = config, authority, receiver, here
        self.store_key = receiver.store / "keys" / "store.key"

    def found(self):
        return readable_secrets(self.config, load_station(self.config))


def test_a_sound_set_holds_none(set_):
    assert set_.found() == []
    check_station(set_.config, load_station(set_.config))


@pytest.mark.parametrize("place", ["working.key", "keys/notes", "state/a/b/c/old.bak", ".hidden/key"])
@pytest.mark.parametrize("which", [0, 1])
def test_p03_an_identity_that_opens_clips_is_found(set_, place, which):
    target = set_.here / place
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(set_.authority.keys[which], target)
    assert set_.found() == [f"{target} is an age identity that opens this station's clips"]


@pytest.mark.parametrize("place", ["store.key", "keys/x", "state/custody/x"])
def test_p03_the_stores_signing_key_is_found(set_, place):
    target = set_.here / place
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(set_.store_key, target)
    (line,) = set_.found()
    assert line.startswith(f"{target} is the store's signing key")


def test_keys_inside_other_text_and_in_other_encodings_are_found(set_):
    secret = set_.authority.keys[0].read_bytes().splitlines()[-1]
    (set_.here / "mail").write_bytes(b"\xff\xfe here it is: " + secret.lower() + b" bye")
    key = load_ssh_private_key(set_.store_key.read_bytes(), password=None)
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (set_.here / "bundle.pem").write_bytes((set_.receiver.certificate).read_bytes() + pem)
    assert [line.partition(" is ")[0] for line in set_.found()] == [
        str(set_.here / "bundle.pem"),
        str(set_.here / "mail"),
    ]


def test_a_linked_key_is_found_once_and_a_linked_directory_is_not_followed(set_, tmp_path):
    (set_.here / "link").symlink_to(set_.authority.keys[0])
    (set_.here / "again").symlink_to(set_.authority.keys[0])
    (set_.here / "directory").symlink_to(tmp_path / "away")
    assert len(set_.found()) == 1


def test_keys_of_others_are_none_of_our_business(set_):
    (set_.here / "other.key").write_text(Identity.generate(os.urandom).text)
    (set_.here / "ssh.key").write_bytes(SigningKey.generate().private_pem())
    (set_.here / "broken.key").write_text(
        "AGE-SECRET-KEY-1QQQ\n-----BEGIN OPENSSH PRIVATE KEY-----\nx\n-----END OPENSSH PRIVATE KEY-----\n"
    )
    os.mkfifo(set_.here / "fifo")
    (set_.here / "loop").symlink_to("loop")
    assert set_.found() == []


def test_p08_cameras_in_bays_are_not_read(set_):
    camera = set_.here / "bays" / "1" / "camera"
    camera.mkdir()
    shutil.copy(set_.authority.keys[0], camera)
    assert set_.found() == []


def test_what_is_far_away_or_large_is_not_looked_at(set_):
    deep = set_.here / "a" / "b" / "c" / "d"
    deep.mkdir(parents=True)
    shutil.copy(set_.authority.keys[0], deep)
    (set_.here / "large").write_bytes(set_.authority.keys[0].read_bytes() + b"#" * 70_000)
    assert set_.found() == []


def test_p03_the_check_names_every_key_unless_it_is_a_trial(set_):
    shutil.copy(set_.authority.keys[0], set_.here / "w.key")
    shutil.copy(set_.store_key, set_.here / "s.key")
    with pytest.raises(ConfigError) as caught:
        check_station(set_.config, load_station(set_.config))
    assert len(caught.value.problems) == 2
    assert all("trial = true" in line for line in caught.value.problems)
    set_.config.write_text("trial = true\n" + set_.config.read_text())
    check_station(set_.config, load_station(set_.config))


# --- the rest of the check


def test_every_file_that_does_not_fit_is_told_at_once(set_):
    keys = set_.here / "keys"
    shutil.copy(keys / "manifest.key", keys / "checkpoint.key")
    (keys / "recipients.txt").write_text("age1nonsense\n")
    (keys / "store.pub").write_text("ssh-rsa AAAA x\n")
    (keys / "ca.crt").write_text("nothing\n")
    with pytest.raises(ConfigError) as caught:
        check_station(set_.config, load_station(set_.config))
    assert [line.split(": ")[1] for line in caught.value.problems] == [
        "keys.checkpoint",
        "seal.recipients_file",
        "store.archive.ca_file",
        "store.archive.key_file",
    ]


def test_one_recipient_is_enough_for_a_trial_alone(set_):
    file = set_.here / "keys" / "recipients.txt"
    file.write_text(file.read_text().splitlines()[2] + "\n")
    with pytest.raises(ConfigError) as caught:
        check_station(set_.config, load_station(set_.config))
    (line,) = caught.value.problems
    assert "at least two" in line
    set_.config.write_text("trial = true\n" + set_.config.read_text())
    check_station(set_.config, load_station(set_.config))
