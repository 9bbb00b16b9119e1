"""Logging: JSON unless on a terminal, one stream for all libraries, and never the local variables of a traceback."""

import json
import logging

import pytest
import structlog

from dockd import log


@pytest.fixture(autouse=True)
def restored():
    """Logging is the one thing that a program sets up once for all: put it back."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    names = {name: logging.getLogger(name).level for name in log._CHATTY}
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    for name, before in names.items():
        logging.getLogger(name).setLevel(before)
    logging.captureWarnings(capture=False)
    structlog.reset_defaults()


def lines(capsys):
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


def test_json_where_there_is_no_terminal(capsys):
    log.set_up()
    structlog.get_logger().info("clip_sealed", bay=3, path=b"a\xff")
    logging.getLogger("some.library").warning("words %s", 5)
    ours, theirs = lines(capsys)
    assert ours["event"] == "clip_sealed"
    assert ours["bay"] == 3
    assert ours["level"] == "info"
    assert ours["timestamp"].endswith("Z")
    assert theirs["event"] == "words 5"
    assert theirs["logger"] == "some.library"


def test_the_level_holds_for_both_and_may_be_changed(capsys):
    logger = structlog.get_logger()
    log.set_up("error")
    logger.warning("a")
    logging.getLogger("x").warning("b")
    log.set_up("debug")
    logger.debug("c")
    logging.getLogger("x").debug("d")
    assert [line["event"] for line in lines(capsys)] == ["c", "d"]


def test_libraries_that_tell_of_every_request_are_quiet(capsys):
    log.set_up("debug")
    for name in log._CHATTY:
        logging.getLogger(name).info("GET /secret")
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("form", ["json", "console"])
def test_p03_a_traceback_holds_no_local_variables(capsys, form):
    log.set_up("info", form)

    def fail():
        token = "the-bearer-token-1234"  # noqa: S105  made up
        raise ValueError(len(token))

    for logger in (structlog.get_logger(), logging.getLogger("x")):
        try:
            fail()
        except ValueError:
            logger.exception("it_failed")
    said = capsys.readouterr().err
    assert said.count("it_failed") == 2
    assert said.count("ValueError: 21") == 2
    assert "1234" not in said.replace('token = "the-bearer-token-1234"', "")  # the line of code itself may be shown


def test_readable_on_request(capsys):
    log.set_up("info", "console")
    structlog.get_logger().info("clip_sealed", bay=3)
    said = capsys.readouterr().err
    assert "clip_sealed" in said
    assert "bay=3" in said
    assert not said.startswith("{")
