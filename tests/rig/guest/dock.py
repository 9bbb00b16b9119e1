"""A dock: the guest with the daemon in it, running under systemd, its bays, and the receiver on the host."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from rig.guest.bays import Bays
from rig.guest.machine import Machine
from rig.guest.receiver import ADDRESS, Receiver
from rig.guest.wire import Gone

from dockd.app.open import open_sealed

SETTLED = ("ready", "attention", "refused")
PATIENCE_S = 300.0  # with what does come to pass: this machine may be a slow one, and have much else to do


class Unanswered(RuntimeError):
    """The daemon in the guest does not answer."""


class Dock:
    """One guest with one receiver. `close` ends both."""

    def __init__(self, machine: Machine, receiver: Receiver) -> None:
        self.machine = machine
        self.receiver = receiver
        self.bays = Bays(machine)

    def close(self) -> None:
        self.machine.cut_power()
        (self.machine.directory / "root.qcow2").unlink(missing_ok=True)  # half a GiB
        self.receiver.stop()

    # --- asking the daemon

    def ask(self, operation: str, **arguments: Any) -> list[dict[str, Any]]:
        """What its control socket answers; the guest leads a port there. Raises Unanswered, AssertionError."""
        answers = []
        try:
            with socket.create_connection(("127.0.0.1", self.machine.asked_at), timeout=120) as connection:
                stream = connection.makefile("rwb")
                stream.write(json.dumps({"op": operation, **arguments}).encode() + b"\n")
                stream.flush()
                answers.extend(json.loads(line) for line in stream)
        except (OSError, ValueError) as error:
            raise Unanswered(str(error)) from error
        if not answers:
            raise Unanswered("no answer")
        last = answers.pop()
        assert last["type"] != "error", f"{operation} {arguments}: {last['message']}"
        if last["type"] != "end":
            raise Unanswered("the answer broke off")
        return answers

    def status(self) -> dict[str, Any] | None:
        with suppress(Unanswered):
            return self.ask("status")[0]
        return None

    def bay(self, number: int) -> dict[str, Any]:
        """What status says of one bay; empty where the daemon does not answer."""
        status = self.status()
        return next((bay for bay in status["bays"] if bay["bay"] == number), {}) if status else {}

    def clips(self) -> list[dict[str, Any]]:
        return self.ask("clips")

    def enrol(self, *serials: str) -> None:
        for serial in serials:
            self.ask("enrol", serial=serial, profile=None, reason="the rig")

    def wait(self, what: str, condition: Callable[[], Any], *, timeout_s: float = PATIENCE_S) -> Any:
        """Until `condition()` is true. What the daemon said is shown where it does not come true."""
        try:
            return self.machine.wait(what, condition, timeout_s=timeout_s, every_s=0.25)
        except AssertionError as error:
            with suppress(Gone):
                raise AssertionError(f"{error}\n{self._occupied()}\n{self.journal(60)}") from error
            raise

    def _occupied(self) -> str:
        """Status, without what is nothing."""
        status = self.status() or {}
        bays = [bay for bay in status.pop("bays", ()) if bay["state"] != "empty"]
        return "\n".join(json.dumps({key: value for key, value in one.items() if value}) for one in (*bays, status))

    def wait_bay(self, number: int, *states: str, timeout_s: float = PATIENCE_S) -> dict[str, Any]:
        """Until the bay is in one of these states (by default settled); returns what status says of it then."""
        wanted = states or SETTLED

        def there() -> dict[str, Any] | None:
            bay = self.bay(number)
            return bay if bay.get("state") in wanted else None

        return self.wait(f"bay {number} {'/'.join(wanted)}", there, timeout_s=timeout_s)

    def settled(self, number: int, state: str) -> dict[str, Any]:
        """Until the bay is settled, and that has to be in this state. Returns what status says of it."""
        bay = self.wait_bay(number)
        if bay["state"] != state:
            # A text, since pytest cuts whatever else stands in an assertion.
            raise AssertionError(
                f"bay {number} is {bay['state']}, not {state}: {bay['note']}\n{json.dumps(bay)}\n"
                f"{json.dumps(self.clips())}\n{self.journal(60)}"
            )
        return bay

    def journal(self, lines: int = 200) -> str:
        """The last that dockd and its write blocker logged."""
        return self.machine.run(f"journalctl -o cat --no-pager -n {lines} -u 'dockd*' | cut -c 1-600").out

    def logged(self, event: str) -> list[dict[str, Any]]:
        """What the daemon logged under this name."""
        lines = self.machine.run(f"journalctl -o cat --no-pager -u dockd | grep -F '\"{event}\"'").out.splitlines()
        return [json.loads(line) for line in lines]

    def custody(self) -> list[dict[str, Any]]:
        lines = self.machine.read("/var/lib/dockd/custody/custody.jsonl").splitlines()
        return [json.loads(line) for line in lines]

    # --- what the receiver has

    def stored(self, serial: str = "", *, key: str = "working.key") -> dict[str, list[str]]:
        """The SHA-256 of every clip in the store, opened: one for each acquisition of a path.

        Those of one camera are under their paths, those of all under `serial:path`.
        """
        found: dict[str, list[str]] = {}
        opened = self.receiver.directory / "opened"
        for sealed in sorted((self.receiver.store / "acquisitions").glob("*/*/clip.age")):
            manifest = json.loads((sealed.parent / "manifest.json").read_bytes())
            whose = manifest["camera"]["serial"]
            if serial in ("", whose):
                clip = open_sealed(sealed, self.receiver.directory / "authority" / key, opened, overwrite=True)
                place = manifest["path"] if serial else f"{whose}:{manifest['path']}"
                found.setdefault(place, []).append(clip.digest.partition(":")[2])
        opened.unlink(missing_ok=True)
        return found

    # --- the wire to it

    def lead_to_receiver(self) -> None:
        """The one address that the station dials leads to the receiver's port of the moment."""
        address, _, port = ADDRESS.partition(":")
        rule = f"tcp dport {port} dnat to {address}:{self.receiver.port}"
        chain = f"type nat hook output priority -100\nip daddr {address} {rule}\n"
        anew = f"table ip rig\ndelete table ip rig\ntable ip rig {{\nchain out {{\n{chain}}}\n}}\n"
        self.machine.run("nft -f -", stdin=anew.encode(), check=True)
