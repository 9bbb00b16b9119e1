-- How long each clip is kept, and under which rule.

-- The store's policy statements, the newest being the one of now. None is ever forgotten: receipts name them.
CREATE TABLE policy (
    policy_seq INTEGER PRIMARY KEY CHECK (policy_seq >= 1),
    payload BLOB NOT NULL,
    signature TEXT NOT NULL,
    digest TEXT NOT NULL UNIQUE
) STRICT;

-- Which versions of statements were chosen for a session, as a JSON object; of one from before there was a choice none.
ALTER TABLE session ADD COLUMN versions TEXT NOT NULL DEFAULT '{}';

-- What was promised of each acquisition that has a receipt, as it is now: with its extensions, and of what a person ends
-- no less than any floor that was stated.
CREATE TABLE promise (
    station TEXT NOT NULL,
    acquisition TEXT NOT NULL,
    category TEXT, -- null: the receipt was given before there were rules, and keeps its date
    until TEXT NOT NULL CHECK (until IN ('date', 'ended')),
    recorded_from TEXT CHECK (recorded_from IN ('manifest', 'arrival')),
    recorded_us INTEGER, -- what the date is counted from
    arrived_us INTEGER, -- the receipt's time
    keep_until_us INTEGER NOT NULL,
    is_late INTEGER NOT NULL DEFAULT 0 CHECK (is_late IN (0, 1)), -- it is kept longer than its category says
    PRIMARY KEY (station, acquisition),
    FOREIGN KEY (station, acquisition) REFERENCES receipt (station, acquisition)
) STRICT, WITHOUT ROWID;
INSERT INTO promise (station, acquisition, until, keep_until_us)
    SELECT station, acquisition, 'date', retention_until_us FROM receipt;

-- The extensions of each receipt, numbered from 1.
CREATE TABLE extension (
    station TEXT NOT NULL,
    acquisition TEXT NOT NULL,
    n INTEGER NOT NULL CHECK (n >= 1),
    payload BLOB NOT NULL,
    signature TEXT NOT NULL,
    PRIMARY KEY (station, acquisition, n),
    FOREIGN KEY (station, acquisition) REFERENCES receipt (station, acquisition)
) STRICT, WITHOUT ROWID;
