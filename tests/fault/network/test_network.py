"""The real station and the real receiver with a bad network between them: every case ends with the clip stored, once.

docs/reliability.md has the same cases in a table, with what the station did; a test compares the two.
"""

from __future__ import annotations

import hashlib
import re
import shutil
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from fault.network import faults
from fault.network.proxy import between

MIB = 1024 * 1024
CLIP_BYTES = 3 * MIB
READ_TIMEOUT_S = 2

PATCH, RECEIPT, HOLDING = ("PATCH", "/uploads/"), ("POST", "/receipt$"), ("POST", "/holding$")
REGISTER, SESSION, HEAD = ("PUT", "/acquisitions/"), ("POST", "/session$"), ("HEAD", "/uploads/")
SOON = format_datetime(datetime.now(UTC) + timedelta(seconds=1), usegmt=True)

CASES = {
    "reset at byte 0 of a PATCH": (faults.reset_after(0), PATCH, 2),
    "reset at byte 300,000 of a PATCH": (faults.reset_after(300_000), PATCH, 2),
    "reset while registering": (faults.reset_after(10), REGISTER, 2),
    "stall for ever in a PATCH": (faults.stall_after(100_000), PATCH, 1),
    "stall for ever instead of a receipt": (faults.stall_after(0), RECEIPT, 1),
    "1 byte a second into the store": (faults.crawl, PATCH, 1),
    "1 byte a second out of the store": (faults.trickle, RECEIPT, 1),
    "reply lost to a registration": (faults.lose_answer, REGISTER, 1),
    "reply lost to a PATCH": (faults.lose_answer, PATCH, 2),
    "reply lost after the store signed": (faults.lose_answer, RECEIPT, 2),
    "reply lost to a holding question": (faults.lose_answer, HOLDING, 1),
    "truncated reply to a registration": (faults.truncate_answer, REGISTER, 1),
    "truncated receipt": (faults.truncate_answer, RECEIPT, 1),
    "duplicated registration": (faults.twice, REGISTER, 1),
    "duplicated PATCH": (faults.twice, PATCH, 1),
    "duplicated receipt question": (faults.twice, RECEIPT, 1),
    "409 to a PATCH": (faults.status(409, problem=True), PATCH, 1),
    "410 to a PATCH": (faults.status(410, problem=True), PATCH, 1),
    "410 to a HEAD": (faults.status(410, problem=True), HEAD, 1),
    "412 to a PATCH": (faults.status(412), PATCH, 1),
    "413 to a PATCH": (faults.status(413, early=True), PATCH, 1),
    "423 to a PATCH": (faults.status(423, problem=True), PATCH, 1),
    "429 with seconds": (faults.status(429, "Retry-After: 1", problem=True), PATCH, 1),
    "429 with a date": (faults.status(429, f"Retry-After: {SOON}", problem=True), PATCH, 1),
    "460 to a PATCH": (faults.status(460, problem=True), PATCH, 1),
    "500 to a PATCH": (faults.status(500), PATCH, 2),
    "500 to a receipt question": (faults.status(500), RECEIPT, 2),
    "502 to a PATCH": (faults.status(502), PATCH, 1),
    "503 early in a PATCH": (faults.status(503, "Retry-After: 1", early=True), PATCH, 1),
    "504 to a receipt question": (faults.status(504), RECEIPT, 1),
    "507 to a registration": (faults.status(507, problem=True), REGISTER, 1),
    "redirect of a PATCH": (faults.status(307, "Location: https://127.0.0.1:9/uploads/x"), PATCH, 1),
    "redirect of a session": (faults.status(302, "Location: http://127.0.0.1:9/"), SESSION, 1),
    "captive portal instead of the store": (faults.portal, REGISTER, 2),
    "captive portal instead of a receipt": (faults.portal, RECEIPT, 1),
    "buffering proxy that then fails": (faults.swallow, PATCH, 2),
}
ELSEWHERE = (  # cases with a test of their own below
    "expired certificate",
    "certificate with a wrong name",
    "changed certificate",
    "DNS failure",
    "store's clock a day off",
)


@pytest.fixture(scope="module")
def line(module_trial):
    """A running station and receiver, and the proxy between them."""
    trial = module_trial
    proxy = between(trial, f"patch_mib = 1\nread_timeout_s = {READ_TIMEOUT_S}")
    trial.start_both()
    try:
        yield trial, proxy
        trial.stop("station")
        trial.command("custody", "verify", str(trial.directory / "station"))
    finally:
        proxy.stop()


@pytest.mark.parametrize("case", CASES)
def test_p02_a_bad_network_delays_a_clip_and_no_more(line, mp4, case):
    trial, proxy = line
    fault, call, times = CASES[case]
    if call is SESSION:
        trial.kill("station")  # a new life needs a new session
    rule = proxy.order(fault, *call, times=times)
    if call is SESSION:
        trial.start("station")
    _delivered(trial, mp4(CLIP_BYTES, 1000 + list(CASES).index(case)), list(CASES).index(case))
    if call is not HEAD:  # a HEAD comes only after a doubt
        assert rule.times == 0, "the fault did not come to pass"
    alarms = trial.status()["alarms"]
    assert not alarms, alarms


@pytest.mark.parametrize("wrong", ["expired certificate", "certificate with a wrong name", "changed certificate"])
def test_p02_a_wrong_certificate_is_told_nothing_and_raises_an_alarm(line, mp4, wrong):
    trial, proxy = line
    right = proxy.certificate, proxy.key
    if wrong == "changed certificate":
        shown = _certificate(trial.directory / wrong.replace(" ", "-"))
    else:
        shown = _signed_by(right, trial.directory / wrong.replace(" ", "-"), expired=wrong.startswith("expired"))
    trial.kill("station")
    proxy.show(*shown)
    proxy.seen.clear()
    trial.start("station")
    content = mp4(CLIP_BYTES, hash(wrong) % 1000)
    docked = trial.dock(trial.camera(f"TLS{ELSEWHERE.index(wrong)}", {"A.mp4": content}), 8)
    trial.wait("an alarm", lambda: (trial.status() or {"alarms": []})["alarms"])
    assert not proxy.seen, "nothing was sent"
    proxy.show(*right)
    if wrong != "expired certificate":  # one of them is waited for; the others begin a new life
        trial.kill("station")
        trial.start("station")
    _settled(trial, 8)
    trial.wait("the alarm is over", lambda: not trial.status()["alarms"])
    _undock(trial, docked)


def test_p02_a_store_whose_name_is_not_known_is_waited_for(trial, mp4):
    right = (trial.directory / "dockd.toml").read_text()
    (trial.directory / "dockd.toml").write_text(re.sub(r"127\.0\.0\.1:\d+", "store.invalid:8443", right))
    trial.start("station")
    trial.wait("the station answers", trial.status)
    trial.dock(trial.camera("DNS", {"A.mp4": mp4(MIB, 1)}), 1)
    trial.wait("it is read", lambda: trial.bay(1)["clips_acquired"] == 1)
    status = trial.wait("it is known", lambda: (s := trial.status())["stores"][0]["state"] == "unreachable" and s)
    assert status["stores"][0]["note"]
    trial.stop("station")
    (trial.directory / "dockd.toml").write_text(right)
    trial.start_both()
    _settled(trial, 1)


@pytest.mark.parametrize("off", ["+1d", "-1d"])
def test_p02_a_store_whose_clock_is_a_day_off_is_pushed_to(trial, mp4, monkeypatch, off):
    (library,) = Path("/usr/lib").glob("*/faketime/libfaketime.so.1")
    with monkeypatch.context() as patch:
        patch.setenv("LD_PRELOAD", str(library))
        patch.setenv("FAKETIME", off)
        patch.setenv("FAKETIME_DONT_FAKE_MONOTONIC", "1")
        trial.start("receiver")
    trial.start("station")
    content = mp4(MIB, 1)
    trial.dock(trial.camera("CLOCK", {"A.mp4": content}), 1)
    _settled(trial, 1)
    assert list(trial.opened().values()) == [hashlib.sha256(content).hexdigest()]
    assert not trial.status()["alarms"]


def test_the_document_has_every_case():
    document = (Path(__file__).parents[3] / "docs" / "reliability.md").read_text()
    table = document.split("## A bad network", 1)[1].split("\n## ", 1)[0]
    rows = re.findall(r"(?m)^\| ([^|]+?) \| [^|]+ \|$", table)
    told = [row for row in rows if row not in ("what happens", "---")]
    assert sorted(told) == sorted([*CASES, *ELSEWHERE])


def _delivered(trial, content, number):
    """Dock a camera with one clip; it is erased once the store has it, whole, and is there once."""
    bay = number % 7 + 1
    docked = trial.dock(trial.camera(f"CAM{number}", {"A.mp4": content}), bay)
    _settled(trial, bay)
    assert not list(docked.rglob("*.mp4"))
    opened = {place: digest for place, digest in trial.opened().items() if place.startswith(f"CAM{number}:")}
    assert list(opened.values()) == [hashlib.sha256(content).hexdigest()]
    _undock(trial, docked)
    for sealed in trial.sealed():  # opened once is enough
        shutil.rmtree(sealed.parent)


def _settled(trial, bay):
    trial.wait("the camera is ready", lambda: (trial.bay(bay) or {}).get("state") == "ready")


def _undock(trial, docked):
    bay = int(docked.parent.name)
    docked.rename(trial.directory / "cameras" / docked.name)
    trial.wait("the bay is empty", lambda: trial.bay(bay)["state"] == "empty")


def _certificate(directory, **changes):
    """A certificate of its own that nobody pinned."""
    return _make(directory, None, **changes)


def _signed_by(authority, directory, *, expired):
    """One by the pinned authority, but expired or for another name."""
    now = datetime.now(UTC)
    until = now - timedelta(hours=1) if expired else now + timedelta(days=1)
    return _make(directory, authority, until=until, address="127.0.0.1" if expired else "192.0.2.1")


def _make(directory, authority, *, until=None, address="127.0.0.1"):
    directory.mkdir(exist_ok=True)
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "receiver")])
    issuer, signing = name, key
    if authority:
        issuer = x509.load_pem_x509_certificate(authority[0].read_bytes()).subject
        signing = serialization.load_pem_private_key(authority[1].read_bytes(), None)
    until = until or datetime.now(UTC) + timedelta(days=1)
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(until - timedelta(days=2))
        .not_valid_after(until)
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address(address))]), critical=False)
        .sign(signing, hashes.SHA256())
    )
    certificate, private = directory / "tls.crt", directory / "tls.key"
    certificate.write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    private.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return certificate, private
