-- Which cameras may be docked, by an operator's word: one by its serial, or all of a profile. `since_epoch` is the
-- newest epoch when that was said: what was seen of a camera in dockings up to then is not held against it.

CREATE TABLE enrolment (
    kind TEXT NOT NULL CHECK (kind IN ('serial', 'profile')),
    name TEXT NOT NULL,
    operator TEXT NOT NULL,
    reason TEXT NOT NULL,
    enrolled_at_us INTEGER NOT NULL,
    since_epoch INTEGER NOT NULL,
    PRIMARY KEY (kind, name)
) STRICT, WITHOUT ROWID;

CREATE INDEX docking_of_camera ON docking (serial, epoch) WHERE serial IS NOT NULL;
