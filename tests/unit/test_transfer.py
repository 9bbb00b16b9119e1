import re
from datetime import UTC, datetime
from pathlib import Path

import pytest

from dockd.core import transfer
from dockd.core.transfer import Action, Call, RetryClass, classify, next_move, retry_after_s

NOW = datetime(2026, 11, 21, 8, 0, 0, tzinfo=UTC)
DOC = Path(__file__).parents[2] / "docs" / "push.md"


def _rows(columns):
    cells = r" \| ".join([r"([\w ]+)"] * columns)
    return re.findall(rf"^\| {cells} \|$", DOC.read_text(), re.MULTILINE)


def test_the_page_shows_the_tables():
    assert {(int(a), b) for a, b in _rows(2) if a.isdigit()} == {(k, v.value) for k, v in transfer.STATUS.items()}
    shown = {(call, int(status), cls) for call, status, cls in _rows(3) if status.isdigit()}
    assert shown == {(c.value, s, v.value) for (c, s), v in transfer.EXCEPTIONS.items()}
    assert {row.value for row in RetryClass} <= {
        line.split("|")[1].strip() for line in DOC.read_text().splitlines() if line.startswith("|")
    }


def test_an_exception_differs_from_the_rule_it_overrides():
    for (call, status), found in transfer.EXCEPTIONS.items():
        assert transfer.STATUS.get(status) is not found, (call, status)


@pytest.mark.parametrize(
    ("call", "status", "found"),
    [
        (Call.APPEND, 409, RetryClass.RESUME),
        (Call.APPEND, 460, RetryClass.RESUME),
        (Call.APPEND, 413, RetryClass.SHRINK),
        (Call.APPEND, 403, RetryClass.GONE),
        (Call.APPEND, 423, RetryClass.LATER),
        (Call.OFFSET, 404, RetryClass.GONE),
        (Call.OFFSET, 410, RetryClass.GONE),
        (Call.OFFSET, 500, RetryClass.LATER),
        (Call.RECEIPT, 409, RetryClass.INCOMPLETE),
        (Call.RECEIPT, 422, RetryClass.RESEND),
        (Call.REGISTER, 409, RetryClass.REFUSED),
        (Call.REGISTER, 507, RetryClass.LATER),
        (Call.WITNESS, 422, RetryClass.CONTRADICTION),
        (Call.SESSION, 403, RetryClass.UNUSABLE),
        (Call.REGISTER, 302, RetryClass.UNUSABLE),
        (Call.APPEND, 401, RetryClass.RENEW),
        (Call.APPEND, 599, RetryClass.LATER),
        (Call.APPEND, 418, RetryClass.UNUSABLE),
        (Call.APPEND, 101, RetryClass.UNUSABLE),
    ],
)
def test_classes(call, status, found):
    assert classify(call, status) is found


def test_p09_a_proxy_condemns_no_clip():
    for call in Call:
        for status in range(100, 600):
            found = classify(call, status, own_words=False)
            assert found not in (RetryClass.REFUSED, RetryClass.RESEND, RetryClass.CONTRADICTION)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0.0),
        (" 120 ", 120.0),
        ("99999", 3600.0),
        ("Sat, 21 Nov 2026 08:00:30 GMT", 30.0),
        ("Saturday, 21-Nov-26 08:00:30 GMT", 30.0),
        ("Sat Nov 21 08:00:30 2026", 30.0),
        ("Sat Nov  7 08:00:30 2026", 0.0),
        ("Saturday, 21-Nov-99 08:00:30 GMT", 0.0),  # RFC 9110: a two-digit year far ahead lies in the past
        ("Sat, 21 Nov 2026 09:30:00 GMT", 3600.0),
        ("soon", None),
        ("-5", None),
        ("1.5", None),
        ("١٢", None),
        ("Sat, 32 Nov 2026 08:00:30 GMT", None),
        ("Sat, 21 Foo 2026 08:00:30 GMT", None),
        ("Monday, 29-Feb-00 08:00:30 GMT", 0.0),
        ("", None),
        (None, None),
    ],
)
def test_retry_after(text, seconds):
    assert retry_after_s(text, NOW) == seconds


@pytest.mark.parametrize(
    ("offset", "acked", "action"),
    [
        (0, 0, Action.SEND),
        (60, 50, Action.SEND),
        (50, 60, Action.SEND_AGAIN),
        (100, 60, Action.CONFIRM),
        (101, 60, Action.HOLD),
        (-1, 0, Action.HOLD),
    ],
)
def test_next_move(offset, acked, action):
    move = next_move(local_size=100, store_offset=offset, acked=acked)
    assert (move.action, move.offset) == (action, offset)


def test_next_move_refuses_nonsense():
    with pytest.raises(ValueError, match="acknowledged"):
        next_move(local_size=100, store_offset=0, acked=101)
