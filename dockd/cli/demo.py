"""`dockd demo`: the whole way of the data on this machine, in a minute, with real clips."""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from dockd.cli.naming import quoted, this_program
from dockd.cli.render import bay_line, bay_table, count, done_permille, size
from dockd.errors import DockdError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dockd.app.demo import Demo

_MOST_BAYS = 16
_PLAIN_EVERY_S = 2.0


def register(subparsers: Any) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "demo",
        help="see it all happen on this machine, with real clips",
        description="Start a receiver and a station on loopback, dock cameras full of real clips, and show what "
        "happens until every camera is erased. Nothing outside the directory is changed.",
        epilog="Example: dockd demo --clips ~/Videos --bays 2",
    )
    parser.add_argument("--clips", metavar="DIR", type=Path, help="dock copies of the videos in DIR (never changed)")
    parser.add_argument("--out", metavar="DIR", type=Path, help="keep everything in DIR (default: a fresh directory)")
    parser.add_argument("--bays", metavar="N", type=int, default=4, help="how many cameras, 1 to 16 (default 4)")
    parser.set_defaults(handler=run)


def run(args: argparse.Namespace) -> int:
    """Run the demonstration; 0 where every camera came to rest and custody verified."""
    from dockd.app.demo import Demo

    if not 1 <= args.bays <= _MOST_BAYS:
        print(f"dockd demo: --bays takes 1 to {_MOST_BAYS}", file=sys.stderr)
        return 64
    clips = _own_clips(args.clips)
    _check_room(clips, args.bays, args.out)
    out = _fresh(args.out)
    for number in (signal.SIGTERM, signal.SIGHUP):  # whatever ends the demo, its children are ended first
        signal.signal(number, _interrupt)
    demo = Demo(out, args.bays)
    try:
        print(f"Setting up a station, a receiver and {args.bays} cameras in {out}", flush=True)
        demo.set_up()
        cameras = demo.make_cameras(clips)
        demo.start()
        print("Docking the cameras. Clips are counted as read/stored/erased.", flush=True)
        started = time.monotonic()
        demo.dock(cameras)
        last = _show(demo)
        elapsed = time.monotonic() - started
        demo.stop()
        verified = demo.verify_custody()
    except KeyboardInterrupt:
        print(f"\nStopped. Everything is kept in {out}; remove it with: rm -r {quoted(out)}")
        return 130
    except (DockdError, OSError):
        print(f"What there is so far is kept in {out}; remove it with: rm -r {quoted(out)}", file=sys.stderr)
        raise
    finally:
        demo.close()
    _summarise(last, elapsed, verified, out)
    return 0 if all(bay["state"] != "refused" for bay in last["bays"]) else 75


def _own_clips(directory: Path | None) -> list[Path]:
    """The user's videos, or none for the demo's own. Raises OSError with a sentence, before anything is made."""
    if directory is None:
        return []
    from dockd.config.schema import CLIP_SUFFIXES

    if not directory.is_dir():
        raise FileNotFoundError(f"--clips {directory} is not a directory")
    files = sorted(Path(place, name) for place, _, names in os.walk(directory, onerror=_refuse) for name in names)
    videos = (path for path in files if path.suffix.lower() in CLIP_SUFFIXES)
    clips = [path for path in videos if path.is_file() and not path.is_symlink()]
    closed = [path for path in clips if not os.access(path, os.R_OK, effective_ids=True)]
    if closed:
        raise PermissionError(f"--clips: {count(len(closed), 'video')} cannot be read by you, the first is {closed[0]}")
    if not clips:
        raise FileNotFoundError(f"--clips {directory} holds no videos ({', '.join(CLIP_SUFFIXES)})")
    if len(clips) < len(files):
        print(f"Left out of {directory}: {count(len(files) - len(clips), 'file')}, no videos by name or no plain files")
    return clips


def _fresh(out: Path | None) -> Path:
    if out is None:
        return Path(tempfile.mkdtemp(prefix="dockd-demo-"))
    if out.exists() and any(out.iterdir()):
        raise FileExistsError(f"--out {out} is not empty: name a new directory")
    out.mkdir(parents=True, exist_ok=True)
    return out.resolve()


def _check_room(clips: Sequence[Path], bays: int, out: Path | None) -> None:
    """Raises OSError with a sentence where the copies, their sealed files and the store's may fill the disk."""
    from dockd.app.demo import CAMERA_BYTES
    from dockd.config.schema import Spool
    from dockd.config.tables import MIB

    place = Path(tempfile.gettempdir()) if out is None else out.absolute()
    place = next(one for one in (place, *place.parents) if one.exists())
    copies = sum(path.stat().st_size for path in clips) if clips else bays * CAMERA_BYTES
    needed = 3 * copies + Spool().reserve_bytes + 64 * MIB
    free = shutil.disk_usage(place).free
    if needed > free:
        raise OSError(f"the demo may take {size(needed)}, {place} has {size(free)} free: name another place with --out")


def _refuse(error: OSError) -> NoReturn:
    raise error


def _interrupt(_number: int, _frame: object) -> NoReturn:
    raise KeyboardInterrupt


def _show(demo: Demo) -> dict[str, Any]:
    """Show snapshots until all is done; returns the last."""
    last: dict[str, Any] = {}
    with _live() if sys.stdout.isatty() else _plain() as show:
        for last in demo.watch():
            show(last)
    return last


@contextmanager
def _live() -> Iterator[Callable[[dict[str, Any]], None]]:
    from rich.console import Console
    from rich.live import Live

    with Live(console=Console(), refresh_per_second=8) as live:
        yield lambda snapshot: live.update(bay_table(snapshot, empty=False))


@contextmanager
def _plain() -> Iterator[Callable[[dict[str, Any]], None]]:
    """Without a terminal: a line whenever a bay's state changes, and every two seconds while it moves."""
    shown: dict[int, tuple[str, int, float]] = {}

    def show(snapshot: dict[str, Any]) -> None:
        now = time.monotonic()
        for bay in snapshot["bays"]:
            state, done, at = shown.get(bay["bay"], ("empty", 0, 0.0))
            moved = done_permille(bay) != done and now - at >= _PLAIN_EVERY_S
            if bay["state"] != state or moved:
                shown[bay["bay"]] = (bay["state"], done_permille(bay), now)
                print(bay_line(bay), flush=True)

    yield show


def _summarise(last: dict[str, Any], elapsed_s: float, verified: str, out: Path) -> None:
    """What a newcomer wants to know, and what to try next."""
    bays = [bay for bay in last["bays"] if bay["state"] != "empty"]

    def total(field: str) -> int:
        return int(sum(bay[field] for bay in bays))

    ready = sum(bay["state"] == "ready" for bay in bays)
    clips, stored, erased, held = (total(f"clips_{what}") for what in ("total", "stored", "erased", "held"))
    found, moved = total("bytes_total"), total("bytes_stored")
    rate = size(int(moved / elapsed_s)) if elapsed_s else "-"
    print()
    print(f"Read      {clips} clips, {size(found)}, from {count(len(bays), 'camera')}")
    print(
        f"Stored    {stored} clips, sealed, pushed over TLS and signed for by the receiver: {rate}/s, {elapsed_s:.1f} s"
    )
    print(f"Erased    {erased} clips; {ready} of {len(bays)} cameras are empty and ready")
    print(f"Custody   verified. {verified.strip().splitlines()[-1]}")
    if held:
        print(f"Waiting   {count(held, 'clip')} damaged or not recognised: kept on the camera until a person decides")
    print()
    for line in _next_commands(last["held"], out):
        print(line)


def _next_commands(held: Sequence[dict[str, Any]], out: Path) -> list[str]:
    """Commands to paste, with absolute paths."""
    program = this_program()

    def at(*parts: str) -> str:
        return quoted(out.joinpath(*parts))

    sealed = next(iter(sorted((out / "store" / "acquisitions").glob("*/*/clip.age"))), None)
    lines = ["Try next:"]
    if sealed:
        lines += [
            "  open a sealed clip with stock age (only the evidence authority's key can):",
            f"    age -d -i {at('authority', 'working.key')} -o clip.mp4 {quoted(sealed)}",
        ]
    lines += [
        "  verify the custody log again, as an outsider would:",
        f"    {program} custody verify {at('station', 'custody')}",
        f"    {program} custody show {at('station', 'custody')}",
    ]
    if held:
        clip = held[0]
        lines += [
            f"  camera {clip['camera']} holds {clip['path']}, {clip['why']}.",
            "  It is stored, but only a person may let it be erased. Start both again, wait a moment, and release it:",
            f"    {program} receiver --config {at('receiver.toml')} & {program} run --config {at('dockd.toml')} &",
            f"    {program} clips release {clip['acquisition']} --reason 'seen' --config {at('dockd.toml')}",
        ]
    return [*lines, "", f"Everything is kept in {out}; remove it with: rm -r {at()}"]
