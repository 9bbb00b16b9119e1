-- What is stored is read again, and compared with what was signed for.

-- When each acquisition with a receipt was last looked at.
CREATE TABLE look (
    station TEXT NOT NULL,
    acquisition TEXT NOT NULL,
    since_us INTEGER NOT NULL, -- its receipt's time, or when it was sent again: the first look is due by this
    looked_us INTEGER, -- the last look that found out how it is; null: there was none since then
    -- While it cannot be read, or was found gone once: since when, what was seen, and how often in a row.
    suspected_us INTEGER,
    suspicion TEXT,
    proof TEXT CHECK (proof IN ('missing', 'length', 'changed')), -- what that proves where it is seen again
    tries INTEGER NOT NULL DEFAULT 0,
    again_us INTEGER, -- when it is to be looked at out of turn: while suspected, and while lost
    PRIMARY KEY (station, acquisition)
) STRICT, WITHOUT ROWID;
CREATE INDEX look_first ON look (since_us) WHERE looked_us IS NULL AND again_us IS NULL;
CREATE INDEX look_next ON look (looked_us) WHERE looked_us IS NOT NULL AND again_us IS NULL;
CREATE INDEX look_again ON look (again_us) WHERE again_us IS NOT NULL;

INSERT INTO look (station, acquisition, since_us)
SELECT station, acquisition, coalesce(
    CASE WHEN json_valid(CAST(payload AS TEXT)) THEN
        CAST(strftime('%s', json_extract(CAST(payload AS TEXT), '$.at')) AS INTEGER) * 1000000
    END, 0) FROM receipt;

-- What was found lost or changed, for good; a null in `healed_us`: it is so still.
CREATE TABLE loss (
    n INTEGER PRIMARY KEY,
    station TEXT NOT NULL,
    acquisition TEXT NOT NULL,
    what TEXT NOT NULL CHECK (what IN ('missing', 'length', 'changed', 'papers')),
    detail TEXT NOT NULL,
    found_us INTEGER NOT NULL,
    healed_us INTEGER,
    healed_by TEXT CHECK (healed_by IN ('sent-again', 'found-well', 'mended'))
) STRICT;
CREATE UNIQUE INDEX loss_open ON loss (station, acquisition) WHERE healed_us IS NULL;

-- Counted since this table was made.
CREATE TABLE scrub (
    name TEXT PRIMARY KEY,
    count INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
