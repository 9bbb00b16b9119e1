"""The uplink of the real programs: a cap over eight bays, counted outside of them; proxies that let little through."""

from __future__ import annotations

import hashlib
import re
import socket
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Self

import pytest
from fault.network import faults
from fault.network.proxy import Proxy, between
from servers import nginx

MIB = 1024 * 1024
CAP_BYTES_S = 2_500_000
CLIP_BYTES = 24 * MIB
BAYS = 8
MINUTE_S = 60.0
PIECE = 64 * 1024

pytestmark = [pytest.mark.servers, pytest.mark.timeout(600)]


@dataclass
class Counter:
    """Passes connections on as they are, TLS and all, and notes how many bytes came from the station, and when."""

    target: tuple[str, int]
    noted: list[tuple[float, int]] = field(default_factory=list)
    port: int = 0

    def __enter__(self) -> Self:
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._open: set[socket.socket] = set()
        self.port = self._listening.getsockname()[1]
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._threads[0].join(20)
        self._listening.close()
        for one in list(self._open):
            _end(one)
        for thread in self._threads:
            thread.join(20)
            assert not thread.is_alive()

    def between(self, first_s: float, last_s: float) -> int:
        return sum(count for at_s, count in list(self.noted) if first_s <= at_s < last_s)

    def _accept(self) -> None:
        while True:
            try:
                here, _ = self._listening.accept()
            except OSError:
                return
            self._threads.append(threading.Thread(target=self._serve, args=(here,)))
            self._threads[-1].start()

    def _serve(self, here: socket.socket) -> None:
        with here, suppress(ConnectionRefusedError), socket.create_connection(self.target) as there:
            self._open |= {here, there}
            back = threading.Thread(target=self._pass, args=(there, here))
            back.start()
            self._pass(here, there, self.noted)
            back.join()
            self._open -= {here, there}

    @staticmethod
    def _pass(source: socket.socket, sink: socket.socket, noted: list[tuple[float, int]] | None = None) -> None:
        with suppress(OSError):
            while piece := source.recv(PIECE):
                if noted is not None:
                    noted.append((time.monotonic(), len(piece)))
                sink.sendall(piece)
        _end(source)
        _end(sink)


def _end(one: socket.socket) -> None:
    with suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)


def _change(path, old, new):
    text = path.read_text()
    assert text.count(old) == 1, (old, text)
    path.write_text(text.replace(old, new))


def _behind(trial, port, settings, uplink=""):
    """The station of a trial is set up to find its store at a port."""
    receiver, station = trial.directory / "receiver.toml", trial.directory / "dockd.toml"
    own = re.search(r'listen = "127.0.0.1:(\d+)"', receiver.read_text()).group(1)
    _change(receiver, "public_hosts = [", f'public_hosts = ["127.0.0.1:{port}", ')
    _change(station, f'url = "https://127.0.0.1:{own}"', f'url = "https://127.0.0.1:{port}"\n{settings}')
    station.write_text(station.read_text() + uplink)


def _start(trial):
    """The receiver, and then the station, so that no outage is over when a test begins."""
    trial.start("receiver")
    trial.wait("the receiver", lambda: _listens(_port(trial)))
    trial.start("station")
    trial.wait(
        "the station", lambda: "reachable" in [one["state"] for one in (trial.status() or {"stores": ()})["stores"]]
    )


def _stores(trial):
    return (trial.status() or {}).get("stores", [])


def _listens(port):
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=5):
        return True
    return False


def _port(trial):
    return int(re.search(r'listen = "127.0.0.1:(\d+)"', (trial.directory / "receiver.toml").read_text()).group(1))


def _uplink(trial):
    """What status says of all uploads; nothing while the station starts."""
    return (trial.status() or {}).get("uplink", {})


def _stored(trial):
    """The cameras of what was stored, in the order in which it was."""
    return [entry["camera"] for entry in trial.custody() if entry["event"] == "acquisition.stored"]


def test_eight_bays_hold_a_cap_within_5_percent_over_a_minute_and_evidence_docked_last_is_stored_first(
    trial, mp4, record_property
):
    cap = '\n[uplink]\nmax_in_flight = 8\ncaps = { "00:00-24:00" = "20 Mbit/s" }\n'
    with Counter(("127.0.0.1", _port(trial))) as counter:
        _behind(trial, counter.port, "slots = 8\npatch_mib = 8", cap)
        _start(trial)
        cameras = {
            bay: trial.camera(f"CAM{bay}", {f"{'EVIDENCE/' if bay == BAYS else ''}A.mp4": mp4(CLIP_BYTES, bay)})
            for bay in range(1, BAYS + 1)
        }
        for bay in range(1, BAYS):
            trial.dock(cameras[bay], bay)
        trial.wait("seven uploads", lambda: _uplink(trial).get("in_flight") == BAYS - 1)
        trial.dock(cameras[BAYS], BAYS)
        trial.wait("eight uploads", lambda: _uplink(trial).get("in_flight") == BAYS)
        began_s = time.monotonic()
        uplink = _uplink(trial)
        assert (uplink["cap_bytes_s"], uplink["max_in_flight"]) == (CAP_BYTES_S, BAYS)
        while time.monotonic() < began_s + MINUTE_S + 1:
            uplink = _uplink(trial)
            assert uplink["in_flight"] <= BAYS
            time.sleep(0.5)
        sent = counter.between(began_s, began_s + MINUTE_S)
        assert uplink["in_flight"] > 0, "the clips were too short: nobody was sending any more"
        assert 0.95 * MINUTE_S * CAP_BYTES_S <= sent <= 1.05 * MINUTE_S * CAP_BYTES_S, sent / MINUTE_S / CAP_BYTES_S
        print(f"\n{sent / MINUTE_S / CAP_BYTES_S:.4f} of the cap; stored in this minute: {_stored(trial)}")  # noqa: T201
        trial.wait_settled(*range(1, BAYS + 1))
    assert _stored(trial)[0] == f"CAM{BAYS}"
    assert len(_stored(trial)) == BAYS
    assert "upload_deferred" not in trial.log("station"), "no time-out, and nobody was cut off for waiting"
    truth = {
        f"CAM{bay}:{'EVIDENCE/' if bay == BAYS else 'DCIM/'}A.mp4": hashlib.sha256(mp4(CLIP_BYTES, bay)).hexdigest()
        for bay in range(1, BAYS + 1)
    }
    assert {place.replace("DCIM/EVIDENCE", "EVIDENCE"): found for place, found in trial.opened().items()} == truth


def test_an_operator_lifts_the_cap_and_the_file_changes_it_while_it_holds(trial, mp4):
    with Counter(("127.0.0.1", _port(trial))) as counter:
        _behind(trial, counter.port, "slots = 3", '\n[uplink]\ncaps = { "00:00-24:00" = "800 kbit/s" }\n')
        _start(trial)
        config = trial.directory / "dockd.toml"
        camera = trial.camera("CAM1", {"A.mp4": mp4(CLIP_BYTES, 1)})
        trial.dock(camera, 1)
        trial.wait("an upload", lambda: _uplink(trial).get("in_flight"))
        began_s = time.monotonic()
        time.sleep(5)
        assert counter.between(began_s, began_s + 5) <= 2 * 5 * 100_000
        config.write_text(config.read_text().replace("800 kbit/s", "1.6 Mbit/s"))
        trial.wait("the new cap", lambda: _uplink(trial).get("cap_bytes_s") == 200_000)
        said = trial.command("uplink", "cap", "none", "--for", "1h", "--config", str(config))
        assert said.startswith("uplink: no cap by ")
        assert said.strip().endswith("then cap 1.6 Mbit/s")
        trial.wait_settled(1)
        assert time.monotonic() - began_s < CLIP_BYTES / 200_000, "it did not go on at the cap"
        trial.command("uplink", "cap", "--clear", "--config", str(config))
        assert _uplink(trial).get("cap_bytes_s") == 200_000
    events = [entry["event"] for entry in trial.custody()]
    assert events.count("uplink.cap_set") == events.count("uplink.cap_cleared") == 1


def test_a_proxy_with_nginx_s_default_limit_lets_everything_through_in_pieces(trial, mp4):
    clip = mp4(CLIP_BYTES, 1)
    with nginx.doors(f"https://127.0.0.1:{_port(trial)}") as doors:
        port = int(doors.limited.rpartition(":")[2])
        _behind(trial, port, "slots = 2")
        own = trial.directory / "station" / "keys" / "ca.crt"
        own.write_text(own.read_text() + doors.ca_file.read_text())
        _start(trial)
        trial.dock(trial.camera("CAM1", {"A.mp4": clip}), 1)
        status = trial.wait_settled(1)
        assert not status["alarms"]
    assert trial.opened() == {"CAM1:DCIM/A.mp4": hashlib.sha256(clip).hexdigest()}
    shrunk = re.findall(r'"patch_bytes": ?(\d+)', trial.log("station"))
    assert len(shrunk) <= 4, "a few requests find the limit"
    assert int(shrunk[-1]) <= MIB


@pytest.mark.parametrize("keeps", [True, False], ids=["passing", "buffering"])
def test_a_proxy_that_cuts_each_connection_delays_a_clip_and_no_more(trial, mp4, keeps):
    limit, clip = 3 * MIB, mp4(CLIP_BYTES, 1)
    proxy = between(trial, "slots = 2\nread_timeout_s = 10")
    try:
        _cut(proxy, limit, keeps=keeps)
        _start(trial)
        trial.dock(trial.camera("CAM1", {"A.mp4": clip}), 1)
        status = trial.wait_settled(1)
        assert not status["alarms"]
    finally:
        proxy.stop()
    assert trial.opened() == {"CAM1:DCIM/A.mp4": hashlib.sha256(clip).hexdigest()}
    patches = [count for method, _, count in proxy.seen if method == "PATCH"]
    print(f"\n{len(patches)} PATCHes sent {sum(patches) / len(clip):.3f} of the clip")  # noqa: T201
    assert len(patches) <= 40
    assert sum(patches) <= (1.2 if keeps else 2.0) * len(clip) + 2 * limit


def _cut(proxy: Proxy, limit: int, *, keeps: bool) -> None:
    """Every PATCH whose body is longer than `limit` loses its connection there."""
    rule = proxy.order(faults.cut_after(limit) if keeps else faults.reset_after(limit), "PATCH", "/uploads/", 10_000)
    fits = rule.fits
    rule.fits = lambda exchange: exchange.length > limit and fits(exchange)
