"""Sets that `dockd init` makes: they fit, they are private, they never overwrite, and keys were tried before use."""

import json
import os
import shutil
import ssl
import stat
import subprocess
from datetime import timedelta

import pytest
from cryptography import x509

from dockd.app import init
from dockd.app.canary import TEXT, try_keys
from dockd.app.certificate import self_signed
from dockd.app.check import check_receiver, check_station
from dockd.app.clock import MachineClock
from dockd.config.load import load_receiver, load_station
from dockd.config.schema import ReceiverConfig, StationConfig
from dockd.core.keyfiles import parse_station_pub, parse_store_pub
from dockd.core.sealing import Identity, parse_identity_file, parse_recipients_file
from dockd.errors import ConfigError, VerificationFailed

LISTEN = "127.0.0.1:8443"


@pytest.fixture(scope="module")
def trial(tmp_path_factory):
    directory = tmp_path_factory.mktemp("set") / "trial"
    init.init_trial(directory, LISTEN)
    return directory


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return init.init_authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def receiver(tmp_path, authority):
    return init.init_receiver(
        tmp_path / "receiver", "0.0.0.0:8443", recipients=authority.recipients, public_hosts=["evidence.example:8443"]
    )


def make_station(directory, authority, receiver, **changed):
    given = {
        "receiver_url": "https://evidence.example:8443",
        "ca": receiver.certificate,
        "store_key": receiver.store_pub,
        "recipients": authority.recipients,
    }
    return init.init_station(directory, **{**given, **changed})


def files(directory):
    return {str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file()}


# --- the trial


def test_a_trial_set_is_laid_out_as_documented(trial):
    station = load_station(trial / "dockd.toml")
    assert files(trial) == {
        "dockd.toml",
        "receiver.toml",
        *(f"authority/{name}" for name in ("working.key", "escrow.key", "recipients.txt", "canary.age")),
        *("authority/store.pub", "authority/station.pub"),
        *(f"station/keys/{name}" for name in ("manifest.key", "checkpoint.key", "station.pub")),
        *(f"station/keys/{name}" for name in ("ca.crt", "store.pub", "recipients.txt")),
        *(f"store/keys/{name}" for name in ("store.key", "store.pub", "tls.key", "tls.crt")),
        f"store/stations/{station.station.id}.pub",
    }
    assert sorted(path.name for path in (trial / "bays").iterdir()) == [str(bay) for bay in range(1, 9)]


def test_a_trial_set_works_as_it_is(trial):
    station, receiver = load_station(trial / "dockd.toml"), load_receiver(trial / "receiver.toml")
    check_station(trial / "dockd.toml", station)
    check_receiver(trial / "receiver.toml", receiver)
    assert station.trial
    assert receiver.trial
    assert station.store["archive"].url.removeprefix("https://") in receiver.receiver.public_hosts
    assert sorted(station.bay_directories()) == list(range(1, 9))
    assert parse_store_pub(station.store["archive"].key_file.read_text()).store == receiver.receiver.id
    assert parse_station_pub((trial / "authority" / "station.pub").read_text()).station == station.station.id
    assert station.seal.recipients_file.read_bytes() == receiver.accept.recipients_file.read_bytes()
    assert station.store["archive"].minima["none"].recorded_days == 30
    assert receiver.retention.legacy_days > 31


def test_a_trial_set_can_be_moved(trial, tmp_path):
    moved = tmp_path / "moved"
    shutil.copytree(trial, moved)
    check_station(moved / "dockd.toml", load_station(moved / "dockd.toml"))
    assert load_station(moved / "dockd.toml").keys.manifest == moved / "station" / "keys" / "manifest.key"


def test_private_files_are_private(trial):
    secret = {"working.key", "escrow.key", "manifest.key", "checkpoint.key", "store.key", "tls.key"}
    for path in trial.rglob("*"):
        mode = stat.S_IMODE(path.stat().st_mode)
        if path.name in secret:
            assert mode == 0o600, path
            assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700, path
    for name in ("station", "store"):
        assert stat.S_IMODE((trial / name).stat().st_mode) == 0o700


def test_the_station_holds_no_key_that_opens_clips(trial):
    secrets = [one.text for name in ("working", "escrow") for one in identities(trial / "authority" / f"{name}.key")]
    for path in (trial / "station").rglob("*"):
        if path.is_file():
            assert not any(secret in path.read_text() for secret in secrets)


def identities(path):
    return parse_identity_file(path.read_text())


def test_nothing_is_overwritten_and_everything_in_the_way_is_named(trial):
    before = {path: path.read_bytes() for path in trial.rglob("*") if path.is_file()}
    with pytest.raises(ConfigError) as caught:
        init.init_trial(trial, LISTEN)
    for name in ("dockd.toml", "receiver.toml", "authority", "station", "store", "bays"):
        assert str(trial / name) in str(caught.value)
    assert before == {path: path.read_bytes() for path in trial.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", ["authority", "store", "station", "bays", "dockd.toml", "receiver.toml"])
def test_one_thing_in_the_way_and_nothing_is_written(tmp_path, name):
    (tmp_path / name).symlink_to("nowhere")
    with pytest.raises(ConfigError, match="there already"):
        init.init_trial(tmp_path, LISTEN)
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("listen", ["0.0.0.0:8443", "[::]:8443", "8443", "host:", "host:99999"])
def test_a_trial_needs_an_address_to_dial(tmp_path, listen):
    with pytest.raises(ConfigError, match="--listen"):
        init.init_trial(tmp_path / "set", listen)
    assert not (tmp_path / "set").exists()


@pytest.mark.parametrize(
    ("listen", "hosts"),
    [
        ("localhost:1234", ["localhost:1234", "127.0.0.1:1234"]),
        ("[::1]:1234", ["[::1]:1234", "localhost:1234"]),
        ("dock.example:1234", ["dock.example:1234"]),
    ],
)
def test_other_addresses(tmp_path, listen, hosts):
    init.init_trial(tmp_path / "set", listen)
    assert list(load_receiver(tmp_path / "set" / "receiver.toml").receiver.public_hosts) == hosts
    assert load_station(tmp_path / "set" / "dockd.toml").store["archive"].url == f"https://{hosts[0]}"


def test_a_directory_with_quotes_and_newlines_is_written_down_soundly(tmp_path):
    directory = tmp_path / 'a "b"\\\n\x7f ü'
    state = tmp_path / 'state "\\\n\x7f'
    made = init.init_authority(directory)
    receiver = init.init_receiver(tmp_path / "r", LISTEN, recipients=made.recipients)
    station = make_station(tmp_path / "s", made, receiver, state=state)
    assert load_station(station.config).station.state_dir == state


# --- the authority


def test_p03_both_keys_opened_the_canary_before_they_were_given_out(authority):
    recipients = parse_recipients_file(authority.recipients.read_text())
    keys = [identity for path in authority.keys for identity in identities(path)]
    assert {one.recipient.text for one in keys} == {one.text for one in recipients}
    assert len(set(recipients)) == 2
    for key in authority.keys:
        if shutil.which("age") is None:
            pytest.skip("Debian's age is not installed")
        opened = subprocess.run(["age", "-d", "-i", key, authority.canary], capture_output=True, check=True)
        assert opened.stdout == TEXT


def test_p03_a_key_that_does_not_open_the_canary_is_named():
    class Other(Identity):
        """An identity that hands out somebody else's recipient."""

        @property
        def recipient(self):
            return Identity.parse(stranger).recipient

    stranger = Identity.generate(lambda count: b"\x05" * count).text
    good = Identity.generate(lambda count: b"\x06" * count)
    bad = Other.generate(lambda count: b"\x07" * count)
    with pytest.raises(VerificationFailed, match="the escrow key"):
        try_keys({"working": good, "escrow": bad}, os.urandom)


@pytest.mark.parametrize("name", ["working.key", "escrow.key", "recipients.txt", "canary.age"])
def test_an_authority_is_never_half_replaced(tmp_path, name):
    (tmp_path / name).write_text("precious")
    with pytest.raises(ConfigError, match=name):
        init.init_authority(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_text() == "precious"


# --- the receiver


def test_a_receiver_in_production(receiver, authority):
    config = load_receiver(receiver.config)
    check_receiver(receiver.config, config)
    assert not config.trial
    assert config.receiver.listen == "0.0.0.0:8443"
    assert config.receiver.public_hosts == ("evidence.example:8443",)
    assert config.accept.recipients_file.read_bytes() == authority.recipients.read_bytes()


def test_a_receiver_may_wait_for_its_recipients(tmp_path):
    made = init.init_receiver(tmp_path, LISTEN)
    with pytest.raises(ConfigError) as caught:
        load_receiver(made.config)
    (line,) = caught.value.problems
    assert "accept.recipients_file" in line


def test_a_receiver_at_every_address_is_told_how_it_is_dialled(tmp_path, authority):
    with pytest.raises(ConfigError, match="--public-host"):
        init.init_receiver(tmp_path / "r", "0.0.0.0:8443", recipients=authority.recipients)
    assert not (tmp_path / "r").exists()


def test_one_recipient_is_too_few(tmp_path, authority, receiver):
    one = tmp_path / "one.txt"
    lines = [line for line in authority.recipients.read_text().splitlines() if line.startswith("age1")]
    one.write_text(f"{lines[0]}\n")
    with pytest.raises(ConfigError, match="1 recipients; at least 2"):
        init.init_receiver(tmp_path / "r", LISTEN, recipients=one)
    with pytest.raises(ConfigError, match="1 recipients; at least 2"):
        make_station(tmp_path / "s", authority, receiver, recipients=one)


# --- the certificate


@pytest.mark.parametrize(("host", "option"), [("127.0.0.1", "-verify_ip"), ("evidence.example", "-verify_hostname")])
def test_the_certificate_is_strict_pinned_and_for_two_years(tmp_path, host, option):
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    certificate, _ = self_signed(["127.0.0.1", "evidence.example"], MachineClock().now())
    (tmp_path / "tls.crt").write_bytes(certificate)
    command = ["openssl", "verify", "-x509_strict", "-purpose", "sslserver", "-CAfile", tmp_path / "tls.crt"]
    subprocess.run([*command, option, host, tmp_path / "tls.crt"], check=True, capture_output=True)
    other = {"-verify_ip": "127.0.0.2", "-verify_hostname": "example"}[option]
    assert subprocess.run([*command, option, other, tmp_path / "tls.crt"], check=False, capture_output=True).returncode
    parsed = x509.load_pem_x509_certificate(certificate)
    assert parsed.not_valid_after_utc - parsed.not_valid_before_utc == timedelta(days=730, hours=1)
    assert not parsed.extensions.get_extension_for_class(x509.BasicConstraints).value.ca


def test_python_takes_the_certificate_and_no_other(receiver):
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.minimum_version = ssl.TLSVersion.TLSv1_3
    client.verify_flags |= ssl.VERIFY_X509_STRICT
    client.load_verify_locations(cafile=receiver.certificate)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(receiver.certificate, receiver.store / "keys" / "tls.key")
    shake(client, server, "evidence.example")
    with pytest.raises(ssl.SSLCertVerificationError):
        shake(client, server, "other.example")
    empty = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    with pytest.raises(ssl.SSLCertVerificationError):
        shake(empty, server, "evidence.example")


def shake(client, server, name):
    """A whole TLS handshake in memory."""
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    sides = [client.wrap_bio(back, there, server_hostname=name), server.wrap_bio(there, back, server_side=True)]
    waiting = list(sides)
    for _ in range(10):
        for side in list(waiting):
            try:
                side.do_handshake()
                waiting.remove(side)
            except ssl.SSLWantReadError:
                pass
        if not waiting:
            return
    raise AssertionError("the handshake does not end")


# --- the station


def test_a_station_in_production(tmp_path, authority, receiver):
    made = make_station(tmp_path / "etc", authority, receiver, state=tmp_path / "var", bays=tmp_path / "srv")
    config = load_station(made.config)
    check_station(made.config, config)
    assert not config.trial
    assert config.station.state_dir == tmp_path / "var"
    assert stat.S_IMODE((tmp_path / "var").stat().st_mode) == 0o700
    assert config.bays.folder_root == tmp_path / "srv"
    assert parse_station_pub(made.station_pub.read_text()) == made.public
    assert made.public.manifest_key != made.public.checkpoint_key
    text = made.config.read_text()
    assert "trial" not in text
    for name, given in (("ca.crt", receiver.certificate), ("store.pub", receiver.store_pub)):
        assert (tmp_path / "etc" / "keys" / name).read_bytes() == given.read_bytes()


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"receiver_url": "http://host:1"}, "--receiver"),
        ({"receiver_url": "https://host:x"}, "--receiver"),
        ({"ca": "missing"}, "cannot be read"),
        ({"ca": "store.pub"}, "no certificate"),
        ({"ca": "tls.key"}, "private key"),
        ({"store_key": "tls.crt"}, "store.pub"),
        ({"recipients": "tls.crt"}, "recipient"),
    ],
)
def test_what_is_handed_over_is_looked_at_before_anything_is_written(tmp_path, authority, receiver, changed, words):
    ((key, value),) = changed.items()
    if key != "receiver_url":
        changed = {key: receiver.store / "keys" / value}
    with pytest.raises(ConfigError, match=words):
        make_station(tmp_path / "s", authority, receiver, **changed)
    assert not (tmp_path / "s").exists()


def test_configurations_hold_no_key_of_their_own_that_the_schema_lacks(trial):
    for name, model in (("dockd.toml", StationConfig), ("receiver.toml", ReceiverConfig)):
        json.dumps(model.model_json_schema())
        assert (trial / name).read_text().startswith("# Every key")
