"""Which cameras may be docked: what the journal can be asked about it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dockd.keep.reading import Reading
from dockd.keep.records import EnrolmentRecord, enrolment_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dockd.model import Epoch


class EnrolmentQueries(Reading):
    """Reads about enrolments."""

    def enrolments(self) -> list[EnrolmentRecord]:
        """All of them, serials first."""
        return [enrolment_of(dict(row)) for row in self._all("SELECT * FROM enrolment ORDER BY kind DESC, name")]

    def enrolment(self, serial: str, profiles: Sequence[str]) -> EnrolmentRecord | None:
        """What admits a camera: its own enrolment, else that of the first of these profiles that has one."""
        for kind, name in (("serial", serial), *(("profile", profile) for profile in profiles)):
            row = self._one("SELECT * FROM enrolment WHERE kind = ? AND name = ?", kind, name)
            if row is not None:
                return enrolment_of(dict(row))
        return None

    def volume_seen(self, serial: str, after: Epoch) -> str | None:
        """The volume id that a camera had in its newest docking later than `after`."""
        row = self._one(
            "SELECT volume_id FROM docking WHERE serial = ? AND epoch > ? ORDER BY epoch DESC LIMIT 1", serial, after
        )
        return None if row is None else str(row[0])
