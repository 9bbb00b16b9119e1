"""Take fields out of a decoded record, strictly: the right type, and nothing left over."""

from __future__ import annotations

import re
import uuid
from datetime import datetime
from typing import Any

from dockd.core.canonical import parse_digest, parse_time, shown
from dockd.errors import VerificationFailed
from dockd.model import Digest

_NAMED = 5  # keys that nobody knows, in a sentence
_HEX = re.compile(r"[0-9a-f]*")


class Fields:
    """One record being taken apart. Every taker raises VerificationFailed, naming the key; `end` refuses the rest."""

    def __init__(self, record: dict[str, Any], what: str) -> None:
        self._rest = {key: value for key, value in record.items() if key not in ("type", "v")}
        self._what = what

    def text(self, key: str) -> str:
        """A text."""
        value = self._take(key)
        if not isinstance(value, str):
            raise self._wrong(key, "a text")
        return value

    def uuid(self, key: str) -> str:
        """A UUID in lower-case text."""
        value = self.text(key)
        try:
            if str(uuid.UUID(value)) == value:
                return value
        except ValueError:
            pass
        raise self._wrong(key, "a UUID")

    def count(self, key: str, *, least: int = 0) -> int:
        """A whole number, `least` or more."""
        value = self._take(key)
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise self._wrong(key, f"a whole number, {least} or more")
        return value

    def integer(self, key: str) -> int:
        """A whole number."""
        value = self._take(key)
        if not isinstance(value, int) or isinstance(value, bool):
            raise self._wrong(key, "a whole number")
        return value

    def flag(self, key: str) -> bool:
        """True or false."""
        value = self._take(key)
        if not isinstance(value, bool):
            raise self._wrong(key, "true or false")
        return value

    def digest(self, key: str) -> Digest:
        """A digest."""
        return parse_digest(self._take(key))

    def time(self, key: str) -> datetime:
        """A time."""
        return parse_time(self._take(key))

    def hex(self, key: str, count: int) -> bytes:
        """`count` bytes as lower-case hex."""
        value = self.text(key)
        if len(value) != 2 * count or not _HEX.fullmatch(value):
            raise self._wrong(key, f"{count} bytes in lower-case hex")
        return bytes.fromhex(value)

    def texts(self, key: str) -> tuple[str, ...]:
        """A list of texts."""
        value = self._take(key)
        if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
            raise self._wrong(key, "a list of texts")
        return tuple(value)

    def pairs(self, key: str) -> tuple[tuple[int, int], ...]:
        """A list of pairs of whole numbers, 0 or more."""
        value = self._take(key)
        if not isinstance(value, list) or not all(map(_is_pair, value)):
            raise self._wrong(key, "a list of pairs of whole numbers")
        return tuple((first, second) for first, second in value)

    def null(self, key: str) -> bool:
        """Whether the key is there and null; it is taken then."""
        if key in self._rest and self._rest[key] is None:
            del self._rest[key]
            return True
        return False

    def inner(self, key: str) -> Fields:
        """An object within."""
        value = self._take(key)
        if not isinstance(value, dict):
            raise self._wrong(key, "an object")
        return Fields(value, f"{self._what}.{key}")

    def records(self, key: str) -> list[Fields]:
        """A list of objects within."""
        value = self._take(key)
        if not isinstance(value, list) or not all(isinstance(one, dict) for one in value):
            raise self._wrong(key, "a list of objects")
        return [Fields(one, f"{self._what}.{key}") for one in value]

    def mapping(self, key: str) -> dict[str, Any]:
        """An object within, whose keys are nobody's business here."""
        value = self._take(key)
        if not isinstance(value, dict):
            raise self._wrong(key, "an object")
        return value

    def end(self) -> None:
        """Refuse what was not taken."""
        if self._rest:
            raise VerificationFailed(f"{self._what}: unknown {', '.join(map(shown, sorted(self._rest)[:_NAMED]))}")

    def _take(self, key: str) -> Any:
        if key not in self._rest:
            raise VerificationFailed(f"{self._what}: {key} is missing")
        return self._rest.pop(key)

    def _wrong(self, key: str, wanted: str) -> VerificationFailed:
        return VerificationFailed(f"{self._what}: {key} is not {wanted}")


def _is_pair(value: object) -> bool:
    two = 2
    return (
        isinstance(value, list)
        and len(value) == two
        and all(isinstance(one, int) and not isinstance(one, bool) and one >= 0 for one in value)
    )
