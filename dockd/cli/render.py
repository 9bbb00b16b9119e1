"""How a status snapshot looks on a terminal, and as plain lines. Shared by `status` and `demo`."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

_STYLES = {
    "ready": "bold green",
    "attention": "bold yellow",
    "refused": "bold red",
    "interrupted": "red",
    "sanitising": "magenta",
    "empty": "dim",
}
_THOUSAND = 1000


def size(count: int) -> str:
    """Bytes for people: decimal units, as disks and networks are sold."""
    value = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if value < _THOUSAND:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= _THOUSAND
    return f"{value:.2f} TB"


def bits(bytes_s: int) -> str:
    """Bytes a second, as the speeds of networks are told."""
    value = float(bytes_s * 8)
    for unit in ("bit", "kbit", "Mbit"):
        if value < _THOUSAND:
            return f"{value:.3g} {unit}/s"
        value /= _THOUSAND
    return f"{value:.3g} Gbit/s"


def count(number: int, what: str) -> str:
    """A number of things."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def duration(seconds: int) -> str:
    """Seconds for people."""
    minutes, rest = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def done_permille(bay: dict[str, Any]) -> int:
    """How far a bay is: reading and delivering count half each, a finished camera is whole."""
    if bay["state"] == "ready":
        return 1000
    total = 2 * bay["bytes_total"]
    return 1000 * (bay["bytes_acquired"] + bay["bytes_stored"]) // total if total else 0


def bay_table(snapshot: dict[str, Any], *, empty: bool = True) -> RenderableType:
    """The live table: a row a bay."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name, justify in (("bay", "right"), ("camera", "left"), ("state", "left"), ("clips", "right")):
        table.add_column(name, justify=justify, no_wrap=True)  # type: ignore[arg-type]
    table.add_column("progress", width=24)
    for name in ("rate", "left"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("note", overflow="fold")
    for bay in snapshot["bays"]:
        if bay["state"] == "empty" and not empty:
            continue
        table.add_row(
            str(bay["bay"]),
            bay["camera"] or "",
            Text(bay["state"], style=_STYLES.get(bay["state"], "cyan")),
            _clips(bay) if bay["clips_total"] else "",
            ProgressBar(total=1000, completed=done_permille(bay), width=24) if bay["clips_total"] else Text(""),
            f"{size(bay['rate_bytes_s'])}/s" if bay["rate_bytes_s"] else "",
            duration(bay["left_s"]) if bay["left_s"] is not None else "",
            bay["note"],
        )
    return table


def whole_status(snapshot: dict[str, Any]) -> RenderableType:
    """What `dockd status` prints on a terminal."""
    lines: list[RenderableType] = [Text(headline(snapshot), style="bold")]
    if snapshot["trial"]:
        lines.append(Text("TRIAL: this machine can read the keys that open its own clips. Not for evidence.", "red"))
    lines += [Text(f"ALARM: {alarm}", style="bold red") for alarm in snapshot["alarms"]]
    lines += [bay_table(snapshot), *(Text(line) for line in summary_lines(snapshot))]
    return Group(*lines)


def plain_status(snapshot: dict[str, Any]) -> list[str]:
    """The same without a terminal: a line a bay."""
    lines = [headline(snapshot)]
    if snapshot["trial"]:
        lines.append("TRIAL: this machine can read the keys that open its own clips. Not for evidence.")
    lines += [f"ALARM: {alarm}" for alarm in snapshot["alarms"]]
    return lines + [bay_line(bay) for bay in snapshot["bays"]] + summary_lines(snapshot)


def headline(snapshot: dict[str, Any]) -> str:
    """Who and when."""
    return f"dockd {snapshot['version']}  station {snapshot['station']}  {snapshot['at']}"


def bay_line(bay: dict[str, Any]) -> str:
    """One bay in one line."""
    if bay["state"] == "empty":
        return f"bay {bay['bay']}: empty"
    parts = [f"bay {bay['bay']}: {bay['state']}", f"camera {bay['camera']}"]
    if bay["clips_total"]:
        parts += [f"clips {_clips(bay)}", f"{done_permille(bay) // 10} %"]
    if bay["rate_bytes_s"]:
        parts.append(f"{size(bay['rate_bytes_s'])}/s")
    if bay["left_s"] is not None:
        parts.append(f"{duration(bay['left_s'])} left")
    if bay["note"]:
        parts.append(bay["note"])
    return ", ".join(parts)


def summary_lines(snapshot: dict[str, Any]) -> list[str]:
    """Stores, spool and custody, a line each, and what waits for a person."""
    lines = [
        *(store_line(one) for one in snapshot["stores"]),
        uplink_line(snapshot["uplink"]),
        *([f"policy  erased once confirmed by {snapshot['policy']}"] if len(snapshot["stores"]) > 1 else []),
        "spool   {spool_files} sealed clips, {used}, {free} free".format(
            **snapshot, used=size(snapshot["spool_bytes"]), free=size(snapshot["spool_free_bytes"])
        ),
        "custody {custody_size} entries, {custody_signed} signed, {custody_witnessed} witnessed by a store".format(
            **snapshot
        ),
    ]
    if snapshot["held"]:
        lines.append(f"{count(len(snapshot['held']), 'clip')} waiting for a person:")
        lines += [held_line(clip) for clip in snapshot["held"]]
    return lines


def store_line(store: dict[str, Any]) -> str:
    """One store in one line."""
    waiting = f"{count(store['waiting'], 'clip')} ({size(store['waiting_bytes'])}) waiting for its word"
    parts = [f"store   {store['name']}: {store['state']}, {waiting}"]
    if store["given_up"]:
        parts.append(f"{count(store['given_up'], 'clip')} that it will not get")
    if store["spread_left_s"]:
        parts.append(f"goes easy on it after an outage for {duration(store['spread_left_s'])}")
    if store["standing_in"]:
        parts.append("standing in for another")
    if store["looked_note"]:
        parts.append(store["looked_note"])
    if not store["counts"]:
        parts.append("its word does not count")
    elif store["held"] and store["held"] not in store["note"]:
        parts.append(f"nothing is erased on its word: {store['held']}")
    return "; ".join(parts + ([store["note"]] if store["note"] else []))


def uplink_line(uplink: dict[str, Any]) -> str:
    """All uploads, and the cap that holds for them."""
    parts = [
        f"uplink  {count(uplink['in_flight'], 'upload')} of {uplink['max_in_flight']}",
        bits(uplink["rate_bytes_s"]) if uplink["rate_bytes_s"] else "",
        cap_words(uplink),
    ]
    return ", ".join(part for part in parts if part)


def cap_words(uplink: dict[str, Any]) -> str:
    """The cap that holds, and what comes after it."""
    words = _cap(uplink["cap_bytes_s"])
    if uplink["cap_by"]:
        words += f" by {uplink['cap_by']}"
    if uplink["cap_changes_at"] is None:
        return words
    at = datetime.fromisoformat(uplink["cap_changes_at"]).astimezone()
    return f"{words} until {at:%a %H:%M}, then {_cap(uplink['cap_then_bytes_s'])}"


def _cap(bytes_s: int | None) -> str:
    return "no cap" if bytes_s is None else f"cap {bits(bytes_s)}"


def held_line(clip: dict[str, Any]) -> str:
    """A clip that waits for a person."""
    where = f"bay {clip['bay']}, " if clip["bay"] is not None else ""
    return f"  {clip['acquisition']}  {where}camera {clip['camera']}, {clip['path']}: {clip['why']}"


def _clips(bay: dict[str, Any]) -> str:
    """read/stored/erased of all."""
    return f"{bay['clips_acquired']}/{bay['clips_stored']}/{bay['clips_erased']} of {bay['clips_total']}"
