"""What a pusher does next: one table of answers and their retry classes, and the decisions of the hard cases.

docs/push.md shows the tables; a test compares it with them. Pure: bytes and numbers in, decisions out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum

from dockd.core.backoff import MAX_ASKED_S


class Call(StrEnum):
    """What was asked of the store."""

    SESSION = "session"
    REGISTER = "register"
    OFFSET = "offset"  # HEAD
    APPEND = "append"  # PATCH
    RECEIPT = "receipt"
    RANGES = "ranges"
    HOLDING = "holding"
    EXTENSION = "extension"  # of what a receipt promises
    TWINS = "twins"  # what other stations brought of the same clip
    SHARE = "share"  # let another's object stand for it
    WITNESS = "witness"
    LOSSES = "losses"  # what it found lost when it looked again
    FINISH = "finish"  # make the objects whole, at a store that does not sign
    LOOK = "look"  # ask for an object's description
    READ = "read"  # GET of an object's bytes
    ABANDON = "abandon"


class RetryClass(StrEnum):
    """What the pusher does after an answer."""

    DONE = "done"
    RESUME = "resume"  # ask for the offset and go on there; the answer's own figures are not believed
    RENEW = "renew"  # open a new session, once, and ask again
    LATER = "later"  # back off, at least as long as Retry-After says
    LACKING = "lacking"  # the store's own word that it cannot do this: wait, and say what it lacks
    UNUSABLE = "unusable"  # no answer of the store itself: back off, count it against the store
    SHRINK = "shrink"  # send smaller pieces
    GONE = "gone"  # ask for the receipt, since it may be finished; register again only without one
    INCOMPLETE = "incomplete"  # ask for the offset and push the rest
    RESEND = "resend"  # compare the spool file with its seal, then send all of it again
    REFUSED = "refused"  # quarantine this acquisition, go on with the others
    CONTRADICTION = "contradiction"  # hold, alarm, erase nothing


R = RetryClass

STATUS: Mapping[int, RetryClass] = {
    200: R.DONE,
    201: R.DONE,
    202: R.DONE,
    204: R.DONE,
    206: R.DONE,
    301: R.UNUSABLE,
    302: R.UNUSABLE,
    303: R.UNUSABLE,
    307: R.UNUSABLE,
    308: R.UNUSABLE,
    400: R.UNUSABLE,
    401: R.RENEW,
    403: R.REFUSED,
    404: R.GONE,
    405: R.UNUSABLE,
    407: R.UNUSABLE,
    408: R.LATER,
    409: R.RESUME,
    410: R.GONE,
    411: R.UNUSABLE,
    412: R.UNUSABLE,
    413: R.REFUSED,
    415: R.UNUSABLE,
    421: R.UNUSABLE,
    422: R.REFUSED,
    423: R.LATER,
    425: R.LATER,
    429: R.LATER,
    431: R.UNUSABLE,
    451: R.REFUSED,
    460: R.RESUME,
    500: R.LATER,
    501: R.UNUSABLE,
    502: R.UNUSABLE,
    503: R.LATER,
    504: R.UNUSABLE,
    505: R.UNUSABLE,
    507: R.LATER,
    511: R.UNUSABLE,
}
"""What a status means whatever was asked."""

PUSH_BACK = (429, 503)
"""Of class LATER: the store has too much to do."""

EXCEPTIONS: Mapping[tuple[Call, int], RetryClass] = {
    (Call.SESSION, 401): R.UNUSABLE,  # the handshake itself failed; a new one comes with the next attempt
    (Call.SESSION, 403): R.UNUSABLE,  # not enrolled: nothing is wrong with any clip, and enrolling mends it
    (Call.SESSION, 404): R.UNUSABLE,  # another server lives at this address
    (Call.SESSION, 409): R.LATER,
    (Call.SESSION, 410): R.LATER,  # the challenge was used or is too old: ask for another
    (Call.SESSION, 422): R.UNUSABLE,
    (Call.REGISTER, 400): R.REFUSED,
    (Call.REGISTER, 404): R.UNUSABLE,
    (Call.REGISTER, 409): R.REFUSED,  # the same id or ciphertext with another manifest
    (Call.REGISTER, 410): R.UNUSABLE,
    (Call.OFFSET, 403): R.GONE,
    (Call.OFFSET, 422): R.UNUSABLE,
    (Call.APPEND, 403): R.GONE,  # finished uploads take no more bytes
    (Call.APPEND, 413): R.SHRINK,
    (Call.RECEIPT, 409): R.INCOMPLETE,
    (Call.RECEIPT, 422): R.RESEND,  # what arrived has another digest; the store dropped it
    (Call.RANGES, 403): R.UNUSABLE,
    (Call.RANGES, 409): R.INCOMPLETE,
    (Call.RANGES, 413): R.UNUSABLE,
    (Call.RANGES, 422): R.UNUSABLE,
    (Call.HOLDING, 409): R.INCOMPLETE,
    (Call.EXTENSION, 403): R.UNUSABLE,
    (Call.EXTENSION, 409): R.INCOMPLETE,  # no receipt was given; that no more is promised is told by its problem
    (Call.EXTENSION, 413): R.UNUSABLE,
    (Call.EXTENSION, 422): R.UNUSABLE,
    (Call.TWINS, 400): R.GONE,  # whatever speaks against asking speaks against no clip: it is sent
    (Call.TWINS, 403): R.GONE,
    (Call.TWINS, 405): R.GONE,
    (Call.TWINS, 422): R.GONE,
    (Call.SHARE, 400): R.GONE,
    (Call.SHARE, 403): R.GONE,
    (Call.SHARE, 405): R.GONE,
    (Call.SHARE, 409): R.GONE,
    (Call.SHARE, 422): R.GONE,
    (Call.WITNESS, 403): R.UNUSABLE,
    (Call.WITNESS, 404): R.UNUSABLE,
    (Call.WITNESS, 413): R.UNUSABLE,
    (Call.WITNESS, 422): R.CONTRADICTION,  # the store says that the log forked
    (Call.LOSSES, 403): R.UNUSABLE,
    (Call.LOSSES, 405): R.GONE,  # an older receiver, which does not look
    (Call.LOSSES, 409): R.UNUSABLE,
    (Call.LOSSES, 413): R.UNUSABLE,
    (Call.LOSSES, 422): R.UNUSABLE,
    (Call.FINISH, 413): R.UNUSABLE,
    (Call.LOOK, 403): R.UNUSABLE,  # nothing is wrong with any clip: a permission is missing
    (Call.ABANDON, 403): R.UNUSABLE,
}
"""Where it means something else for one call."""


_SIGNED_FOR = (Call.RANGES, Call.HOLDING, Call.EXTENSION)  # asked about what the store gave a receipt for
_LACKING = (R.GONE, R.INCOMPLETE)


def classify(call: Call, status: int, *, own_words: bool = True) -> RetryClass:
    """The class of an answer. `own_words`: it bears the store's problem record (RFC 9457), or is a HEAD's.

    A refusal condemns a clip to a person's desk, and not to hold what it signed for condemns a store: so only the
    store itself is believed with it. The same status from a proxy or a captive portal is no usable answer.
    """
    found = EXCEPTIONS.get((call, status)) or STATUS.get(status)
    if found is None:
        found = R.LATER if 500 <= status <= 599 else R.UNUSABLE  # noqa: PLR2004  the server's own failures
    grave = found in (R.REFUSED, R.RESEND, R.CONTRADICTION) or (call in _SIGNED_FOR and found in _LACKING)
    if grave and not own_words:
        return R.UNUSABLE
    return found


class Action(StrEnum):
    """What to do with an upload whose offset is known."""

    SEND = "send"
    CONFIRM = "confirm"  # the store has every byte: ask for the receipt
    SEND_AGAIN = "send_again"  # the store lost bytes that it had acknowledged: say so, and send them again
    HOLD = "hold"  # the store claims bytes that do not exist


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """The next step of an upload: `action`, from `offset`."""

    action: Action
    offset: int


def next_move(*, local_size: int, store_offset: int, acked: int) -> Move:
    """Decide from the sealed file's size, the store's durable offset and the highest one it acknowledged before.

    An offset between what this program sent and the end is no contradiction: an earlier life's connection may have
    been drained late. All bytes are the same sealed file's, and the store's digest has the last word.
    """
    if not 0 <= acked <= local_size:
        raise ValueError("more was acknowledged than there is")
    if not 0 <= store_offset <= local_size:
        return Move(action=Action.HOLD, offset=store_offset)
    if store_offset < acked:
        return Move(action=Action.SEND_AGAIN, offset=store_offset)
    return Move(action=Action.CONFIRM if store_offset == local_size else Action.SEND, offset=store_offset)


# --- Retry-After (RFC 9110 section 10.2.3), in seconds or as an HTTP date in any of its three forms

_SECONDS = re.compile(r"[0-9]{1,9}")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_CLOCK = r"(?P<hour>\d\d):(?P<minute>\d\d):(?P<second>\d\d)"
_DATES = (
    re.compile(rf"[A-Z][a-z]{{2}}, (?P<day>\d\d) (?P<month>[A-Z][a-z]{{2}}) (?P<year>\d{{4}}) {_CLOCK} GMT"),
    re.compile(rf"[A-Z][a-z]{{5,8}}, (?P<day>\d\d)-(?P<month>[A-Z][a-z]{{2}})-(?P<year>\d\d) {_CLOCK} GMT"),
    re.compile(rf"[A-Z][a-z]{{2}} (?P<month>[A-Z][a-z]{{2}}) (?P<day>[ \d]\d) {_CLOCK} (?P<year>\d{{4}})"),
)


def retry_after_s(text: str | None, now: datetime) -> float | None:
    """Seconds that a Retry-After asks for, from 0 to an hour; None where there is none that can be read."""
    if text is None:
        return None
    text = text.strip()
    if _SECONDS.fullmatch(text):
        return min(float(text), MAX_ASKED_S)
    moment = _parse_http_date(text, now)
    if moment is None:
        return None
    return min(max(0.0, (moment - now).total_seconds()), MAX_ASKED_S)


def _parse_http_date(text: str, now: datetime) -> datetime | None:
    match = next(filter(None, (form.fullmatch(text) for form in _DATES)), None)
    if match is None or match["month"] not in _MONTHS:
        return None
    year = int(match["year"])
    two_digits = len(match["year"]) == 2  # noqa: PLR2004  RFC 850's form
    if two_digits:
        year += now.year - now.year % 100
    try:
        moment = datetime(
            year,
            _MONTHS.index(match["month"]) + 1,
            int(match["day"]),
            int(match["hour"]),
            int(match["minute"]),
            min(int(match["second"]), 59),  # a leap second
            tzinfo=UTC,
        )
        if two_digits and moment > now + timedelta(days=50 * 365):  # RFC 9110: then it lies in the past
            moment = moment.replace(year=year - 100)
    except ValueError:
        return None
    return moment
