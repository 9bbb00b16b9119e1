"""Who may talk to the receiver, and how it tells others what to do."""

import base64
import json
import ssl
from dataclasses import replace
from datetime import timedelta

import httpx
import pytest

from dockd.core import canonical, sshsig
from dockd.core.keyfiles import format_station_pub
from dockd.errors import VerificationFailed
from dockd.receiver.enrol import enrol
from dockd.receiver.problems import Kind
from dockd.receiver.settings import Limits


async def _open(station, payload, key=None):
    return await station.http.post("/session", content=station.envelope(payload, sshsig.SESSION, key))


async def _challenge(station):
    return (await station.challenge()).json()["challenge"]


async def test_a_session_is_a_challenge_signed_once_for_this_store_and_host(receiver, problem):
    station = await receiver.station(session=False)
    given = (await station.challenge()).json()
    assert (given["type"], given["v"], given["store"]) == ("challenge", 1, receiver.settings.store)
    assert len(base64.b64decode(given["challenge"])) == 32
    statement = station.statement(given["challenge"])
    answer = await _open(station, statement)
    assert answer.status_code == 201
    assert answer.headers["Cache-Control"] == "no-store"
    session = answer.json()
    life = canonical.parse_time(session["expires"]) - receiver.clock.now()
    assert timedelta(minutes=59) < life <= timedelta(hours=1)
    problem(await _open(station, statement), Kind.CHALLENGE_UNKNOWN)  # it serves once


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({"store": "0190a5c0-0000-4000-8000-00000000000b"}, Kind.SESSION_REFUSED),
        ({"host": "elsewhere.example:443"}, Kind.SESSION_REFUSED),
        ({"host": 7}, Kind.SESSION_REFUSED),
        ({"at": "yesterday"}, Kind.MALFORMED),
        ({"at": None}, Kind.MALFORMED),
        ({"more": "?"}, Kind.MALFORMED),
        ({"challenge": "AAAA"}, Kind.CHALLENGE_UNKNOWN),
        ({"challenge": "not base64"}, Kind.CHALLENGE_UNKNOWN),
        ({"station": "0190a5c0-0000-4000-8000-0000000000ff"}, Kind.UNKNOWN_STATION),
        ({"type": "other"}, Kind.MALFORMED),
    ],
)
async def test_a_wrong_statement_opens_no_session(receiver, problem, changes, kind):
    station = await receiver.station(session=False)
    challenge = await _challenge(station)
    problem(await _open(station, station.statement(**({"challenge": challenge} | changes))), kind)


async def test_a_challenge_ends_after_five_minutes(receiver, problem):
    station = await receiver.station(session=False)
    statement = station.statement(await _challenge(station))
    receiver.clock.ahead = timedelta(minutes=5, seconds=1)
    problem(await _open(station, statement), Kind.CHALLENGE_UNKNOWN)


async def test_a_statement_counts_only_by_the_enrolled_manifest_key(receiver, problem):
    station = await receiver.station(session=False)
    for key in (station.checkpoint_key, sshsig.SigningKey.generate()):
        statement = station.statement(await _challenge(station))
        problem(await _open(station, statement, key), Kind.SESSION_REFUSED)
    payload = station.statement(await _challenge(station))
    answer = await station.http.post("/session", content=station.envelope(payload, sshsig.MANIFEST))
    problem(answer, Kind.SESSION_REFUSED)  # the right key, but it signed something else


async def test_one_station_cannot_use_anothers_challenge(receiver, problem):
    one, other = await receiver.station(session=False), await receiver.station(session=False)
    problem(await _open(other, other.statement(await _challenge(one))), Kind.CHALLENGE_UNKNOWN)


async def test_an_unknown_station_is_refused_and_let_in_without_a_restart(receiver, problem):
    station = await receiver.station(enrolled=False)
    assert "dockd receiver enrol" in problem(await station.challenge(), Kind.UNKNOWN_STATION)["detail"]
    station.enrol()
    await station.log_in()


async def test_a_station_whose_keys_are_removed_is_out_at_once(receiver, station, problem):
    assert (await station.http.get("/checkpoints")).status_code == 200
    (receiver.store / "stations" / f"{station.id}.pub").unlink()
    problem(await station.http.get("/checkpoints"), Kind.UNKNOWN_STATION)


async def test_nothing_without_a_token(receiver, problem):
    client = await receiver.connect({"Tus-Resumable": "1.0.0", "Content-Type": "application/offset+octet-stream"})
    acquisition = "/acquisitions/0190a5c0-0000-7000-8000-000000000001"
    calls = [("PUT", acquisition), ("POST", acquisition + "/receipt"), ("POST", acquisition + "/holding")]
    calls += [("POST", "/uploads"), ("PATCH", "/uploads/x"), ("DELETE", "/uploads/x"), ("GET", "/checkpoints")]
    for method, path in calls:
        for authorization in (None, b"", b"Bearer", b"Bearer wrong", b"Basic Zm9vOmJhcg==", b"Bearer \xfc"):
            headers = {} if authorization is None else {"Authorization": authorization}
            answer = await client.request(method, path, headers=headers)
            problem(answer, Kind.NO_TOKEN)
            assert answer.headers["WWW-Authenticate"].startswith("Bearer")


async def test_a_token_ends(receiver, station, problem):
    receiver.clock.ahead = timedelta(hours=1, seconds=1)
    problem(await station.http.get("/checkpoints"), Kind.NO_TOKEN)
    await station.log_in()
    assert (await station.http.get("/checkpoints")).status_code == 200


async def test_p02_a_token_outlives_a_restart(receiver, station):
    await receiver.stop()
    await receiver.start()
    assert (await station.http.get("/checkpoints")).status_code == 200


async def test_tokens_are_neither_kept_nor_logged(receiver, station, capfd):
    await station.announced(station.clip())
    out, err = capfd.readouterr()
    assert "request_answered" in out + err
    assert station.token not in out + err
    files = [path for path in receiver.store.rglob("*") if path.is_file()]
    assert not any(station.token.encode() in path.read_bytes() for path in files)


async def test_who_asks_for_challenges_without_a_key_ends_nobodys(receiver):
    await receiver.stop()
    await receiver.start(replace(receiver.settings, limits=Limits(peer_burst=1000)))
    station = await receiver.station(session=False)
    first = await _challenge(station)
    for _ in range(80):  # anybody may ask in a station's name
        await _challenge(station)
    assert (await _open(station, station.statement(first))).status_code == 201


async def test_a_challenge_is_used_up_by_its_stations_signature_and_by_nothing_else(receiver, problem):
    station = await receiver.station(session=False)
    statement = station.statement(await _challenge(station))
    problem(await _open(station, statement, sshsig.SigningKey.generate()), Kind.SESSION_REFUSED)
    assert (await _open(station, statement)).status_code == 201
    problem(await _open(station, statement), Kind.CHALLENGE_UNKNOWN)


async def test_a_station_that_opens_session_after_session_waits_and_no_other_does(receiver, problem):
    station, other = await receiver.station(session=False), await receiver.station(session=False)
    for _ in range(256):
        assert (await _open(station, station.statement(await _challenge(station)))).status_code == 201
    answer = await _open(station, station.statement(await _challenge(station)))
    problem(answer, Kind.TOO_MANY)
    assert answer.headers["Retry-After"] == "300"
    await other.log_in()


async def test_a_session_request_that_cannot_be_read(receiver, problem):
    client = await receiver.connect()
    named, nameless = b'{"type":"session-request","v":1,"station":"x"}', b'{"type":"session-request","v":1}'
    for body in (b"", b"[]", b"{", named, nameless, b"\xff"):
        problem(await client.post("/session", content=body), Kind.MALFORMED)


async def test_bodies_are_capped(receiver, station, problem):
    problem(await station.http.post("/session", content=bytes(64 * 1024 + 1)), Kind.TOO_LARGE)


async def test_other_addresses_and_methods_say_so(receiver, problem):
    client = await receiver.connect()
    problem(await client.get("/"), Kind.NOT_FOUND)
    problem(await client.get("/acquisitions/1/2/3"), Kind.NOT_FOUND)
    answer = await client.put("/session")
    problem(answer, Kind.METHOD_NOT_ALLOWED)
    assert "POST" in answer.headers["Allow"]
    assert "POST" in problem(await client.get("/uploads"), Kind.METHOD_NOT_ALLOWED)["detail"]
    problem(await client.put("/uploads/x"), Kind.METHOD_NOT_ALLOWED)


async def test_health_needs_no_token(receiver):
    client = await receiver.connect()
    answer = await client.get("/health")
    assert (answer.status_code, answer.json()) == (200, {"type": "health", "v": 1})


async def test_only_tls_1_3(receiver):
    context = ssl.create_default_context(cafile=receiver.cert)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    async with httpx.AsyncClient(verify=context, trust_env=False) as client:
        with pytest.raises(httpx.ConnectError):
            await client.get(f"https://127.0.0.1:{receiver.port}/health")


async def test_enrolling_twice_is_one_and_other_keys_need_a_person(receiver):
    station = await receiver.station()
    station.enrol()
    other = await receiver.station(enrolled=False, session=False)
    swapped = replace(other.public, station=station.id)
    with pytest.raises(VerificationFailed, match="fingerprints"):
        enrol(receiver.store, format_station_pub(swapped))
    with pytest.raises(VerificationFailed):
        enrol(receiver.store, "ssh-ed25519 AAAA nobody\n")


async def test_a_broken_key_file_lets_nobody_in(receiver, station, problem):
    path = receiver.store / "stations" / f"{station.id}.pub"
    path.write_text("not a key\n")
    problem(await station.http.get("/checkpoints"), Kind.UNKNOWN_STATION)


def test_every_kind_of_problem_is_one_of_its_own():
    kinds = list(Kind.__members__)
    assert len(kinds) == len(list(Kind))  # equal values would make two names one
    assert len({kind.type for kind in Kind}) == len(kinds)
    assert json.dumps(sorted(kind.type for kind in Kind)).isascii()
