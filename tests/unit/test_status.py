"""What a snapshot says of a bay belongs together, though the docking goes on while the journal is asked."""

from datetime import UTC, datetime
from types import SimpleNamespace

from dockd.keep.records import Counts, Tally
from dockd.station.snapshot import StoreStatus, UplinkStatus
from dockd.station.status import Alarms, Sources, take_snapshot


class Moving:
    """A docking that is in another state, with another note and camera, after every question to the journal."""

    plugged = SimpleNamespace(bay=1, label="CAM1")
    docking = "D"
    progress = SimpleNamespace(acquiring_bytes=lambda: 0, rate_bytes_s=lambda _now_s: 0)
    postponed = SimpleNamespace(set_aside=dict)
    turn = 0

    @property
    def state(self):
        return f"state {self.turn}"

    @property
    def note(self):
        return f"note {self.turn}"

    @property
    def camera(self):
        return SimpleNamespace(serial=f"serial {self.turn}", model=f"model {self.turn}")


class Journal:
    durable_size = signed_size = 0

    def __init__(self, docking):
        self.docking = docking

    async def read(self, query):
        self.docking.turn += 1
        return query(self)

    def counts(self, _docking):
        return Counts(states={}, held=Tally())

    def get(self, _key):
        return None

    def keys(self, prefix):
        return [][: len(prefix)]

    def count_noted(self, _docking):
        return 0

    def waiting(self, _store):
        return 0, 0

    def given_up(self, _store):
        return 0

    def next_in(self, *_, limit):
        return [][:limit]

    def held(self, *, limit):
        return [][:limit]

    def spoiled(self, *, limit):
        return [][:limit]

    def acquisitions(self, *, state, limit):
        return [][:limit] if state else None


async def test_state_and_note_and_camera_of_a_bay_are_of_one_instant():
    docking = Moving()
    snapshot = await take_snapshot(
        Sources(
            station="S",
            trial=True,
            started_at=datetime.now(UTC),
            clock=SimpleNamespace(now=lambda: datetime.now(UTC), monotonic_s=lambda: 0.0),
            journal=Journal(docking),
            spool=SimpleNamespace(usage=lambda: (0, 0), free_bytes=lambda: 0),
            stores=SimpleNamespace(
                uplink=UplinkStatus,
                status=lambda: (StoreStatus(name="store", state="reachable"),),
                alarms=(),
                witnessed=0,
                rate=lambda: 0,
                policy=SimpleNamespace(sentence=lambda: "store"),
            ),
            bays=(1,),
            dockings={"device": docking},
            alarms=Alarms(),
            forkserver=SimpleNamespace(unmet={}),
        )
    )
    (bay,) = snapshot.bays
    said = (bay.state, bay.note, bay.camera, bay.model)
    assert len({text.rpartition(" ")[2] for text in said}) == 1, said
