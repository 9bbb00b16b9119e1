"""The real program under a service manager's socket: what systemd hears of it from start to stop."""

import socket


def heard_until(listener, wanted):
    lines = []
    while wanted not in lines:
        lines += listener.recv(4096).decode().splitlines()
    return lines


def test_systemd_hears_that_the_station_is_ready_alive_and_stopping(trial, tmp_path, monkeypatch):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "notify"))
        listener.settimeout(60)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        monkeypatch.setenv("WATCHDOG_USEC", "400000")
        trial.start("station")
        assert heard_until(listener, "READY=1") == ["READY=1", "STATUS=0 of 8 bays taken"]
        assert trial.status() is not None  # who is ready answers
        assert set(heard_until(listener, "WATCHDOG=1")) == {"WATCHDOG=1"}
        trial.stop("station")
        assert "STOPPING=1" in heard_until(listener, "STOPPING=1")
