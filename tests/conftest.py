"""With DOCKD_CI=1 a skipped test fails the run: continuous integration has every oracle, so a skip hides something."""

import os
import random
import struct

import pytest


def pytest_terminal_summary(terminalreporter, exitstatus, config):
    skipped = terminalreporter.stats.get("skipped", [])
    if os.environ.get("DOCKD_CI") == "1" and skipped:
        terminalreporter.section("skipped tests fail this run (DOCKD_CI=1)")
        for report in skipped:
            reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
            terminalreporter.write_line(f"{report.nodeid}: {reason}")


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session, exitstatus):
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    skipped = reporter.stats.get("skipped", []) if reporter else []
    if (
        os.environ.get("DOCKD_CI") == "1"
        and skipped
        and exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED)
    ):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def mp4(size_bytes: int, seed: int) -> bytes:
    """A small, valid MP4 of one video track whose only chunk is `size_bytes` of random media."""
    media = random.Random(seed).randbytes(size_bytes)

    def box(kind: bytes, *parts: bytes) -> bytes:
        content = b"".join(parts)
        return struct.pack(">I", 8 + len(content)) + kind + content

    def full(kind: bytes, *parts: bytes) -> bytes:
        return box(kind, bytes(4), *parts)

    ftyp = box(b"ftyp", b"isom", struct.pack(">I", 512), b"isomavc1")
    offset = len(ftyp) + 8
    mvhd = full(b"mvhd", struct.pack(">IIII", 0, 0, 1000, 1000), bytes(80))
    stbl = box(
        b"stbl",
        full(b"stsd", struct.pack(">I", 1), box(b"avc1", bytes(78))),
        full(b"stts", struct.pack(">III", 1, 1, 1000)),
        full(b"stsc", struct.pack(">IIII", 1, 1, 1, 1)),
        full(b"stsz", struct.pack(">II", 0, 1), struct.pack(">I", size_bytes)),
        full(b"stco", struct.pack(">II", 1, offset)),
    )
    hdlr = full(b"hdlr", bytes(4), b"vide", bytes(12), b"video\0")
    mdhd = full(b"mdhd", struct.pack(">IIII", 0, 0, 1000, 1000), bytes(4))
    tkhd = full(b"tkhd", bytes(80))
    moov = box(b"moov", mvhd, box(b"trak", tkhd, box(b"mdia", mdhd, hdlr, box(b"minf", stbl))))
    return ftyp + box(b"mdat", media) + moov


@pytest.fixture(name="mp4")
def mp4_fixture():
    return mp4
