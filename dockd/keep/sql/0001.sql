-- The journal, version 1. Paths are bytes (BLOB): a camera's file names need not be text, and may hold line feeds.
-- mtime_ns and inode are decimal text: a hostile or merely odd file system can state values beyond a signed 64-bit
-- integer, and they are only ever compared for equality. Times are microseconds since 1970 in UTC.

CREATE TABLE setting (
    key TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- The custody log: each line without its LF, and the complete nodes of the RFC 6962 tree over the lines.
CREATE TABLE entry (
    seq INTEGER PRIMARY KEY CHECK (seq >= 0),
    line BLOB NOT NULL
) STRICT;

CREATE TABLE node (
    level INTEGER NOT NULL,
    position INTEGER NOT NULL,
    hash BLOB NOT NULL CHECK (length(hash) = 32),
    PRIMARY KEY (level, position)
) STRICT, WITHOUT ROWID;

CREATE TABLE docking (
    docking TEXT PRIMARY KEY,
    epoch INTEGER NOT NULL UNIQUE,
    bay INTEGER NOT NULL,
    device BLOB NOT NULL,
    state TEXT NOT NULL,
    begun_at_us INTEGER NOT NULL,
    serial TEXT,
    model TEXT,
    volume_id TEXT,
    vendor TEXT,
    product TEXT,
    -- A camera is known whole or not at all.
    CHECK ((serial IS NULL) = (model IS NULL) AND (serial IS NULL) = (volume_id IS NULL)
        AND (serial IS NULL) = (vendor IS NULL) AND (serial IS NULL) = (product IS NULL))
) STRICT, WITHOUT ROWID;

CREATE INDEX docking_open ON docking (epoch) WHERE state <> 'ended';

CREATE TABLE acquisition (
    acquisition TEXT PRIMARY KEY,
    state TEXT NOT NULL,
    docking TEXT NOT NULL REFERENCES docking (docking),
    bay INTEGER NOT NULL,
    serial TEXT NOT NULL,
    model TEXT NOT NULL,
    volume_id TEXT NOT NULL,
    vendor TEXT NOT NULL,
    product TEXT NOT NULL,
    path BLOB NOT NULL,
    size_bytes INTEGER NOT NULL CHECK (size_bytes >= 0),
    mtime_ns TEXT NOT NULL,
    inode TEXT NOT NULL,
    links INTEGER NOT NULL,
    category TEXT NOT NULL,
    category_reason TEXT NOT NULL,
    found_at_us INTEGER NOT NULL,
    attempts INTEGER NOT NULL,
    readers_ended INTEGER NOT NULL,
    contested INTEGER NOT NULL CHECK (contested IN (0, 1)),
    -- What the read pass left behind; all or none.
    sealed_file TEXT,
    plaintext_digest TEXT,
    plaintext_size_bytes INTEGER,
    sealed_digest TEXT,
    sealed_size_bytes INTEGER,
    verdict TEXT,
    container TEXT,
    reasons TEXT,
    duration_ms INTEGER,
    recorded_at_us INTEGER,
    recipients TEXT,
    manifest_digest TEXT,
    custody_seq INTEGER,
    upload_url TEXT,
    -- The newest second read that agreed; all or none.
    reread_docking TEXT,
    reread_file TEXT,
    reread_digest TEXT,
    reread_cache TEXT,
    released_by TEXT,
    quarantine_reason TEXT,
    -- Stored, but only a person may let it be erased.
    held INTEGER NOT NULL GENERATED ALWAYS AS
        (state = 'stored' AND verdict IS NOT 'intact' AND released_by IS NULL) VIRTUAL,
    CHECK ((sealed_file IS NULL) = (sealed_digest IS NULL) AND (sealed_file IS NULL) = (verdict IS NULL)
        AND (sealed_file IS NULL) = (plaintext_digest IS NULL)),
    CHECK ((reread_docking IS NULL) = (reread_digest IS NULL))
) STRICT, WITHOUT ROWID;

CREATE INDEX acquisition_by_state ON acquisition (state, acquisition);
CREATE INDEX acquisition_by_clip ON acquisition (serial, volume_id, path, acquisition);
-- What is next in a docking, in the order in which it is handled: 'evidence' sorts before 'none'.
CREATE INDEX acquisition_next ON acquisition (docking, state, category, path, acquisition);
CREATE INDEX acquisition_to_reread ON acquisition (docking, category, path, acquisition)
    WHERE state IN ('spooled', 'uploading', 'stored') AND reread_docking IS NOT docking AND contested = 0;
CREATE INDEX acquisition_to_erase ON acquisition (docking, category, path, acquisition)
    WHERE state = 'stored' AND reread_docking = docking AND contested = 0
        AND (verdict = 'intact' OR released_by IS NOT NULL);
CREATE INDEX acquisition_to_send ON acquisition (category, found_at_us, acquisition)
    WHERE state IN ('spooled', 'uploading');
CREATE INDEX acquisition_to_send_of ON acquisition (docking, category, found_at_us, acquisition)
    WHERE state IN ('spooled', 'uploading');
CREATE INDEX acquisition_held ON acquisition (acquisition) WHERE held = 1;

-- How many clips and bytes of a docking are in each state: status is rendered every second, with 10,000 clips too.
CREATE TABLE tally (
    docking TEXT NOT NULL,
    state TEXT NOT NULL,
    held INTEGER NOT NULL,
    clips INTEGER NOT NULL CHECK (clips >= 0),
    size_bytes INTEGER NOT NULL CHECK (size_bytes >= 0),
    PRIMARY KEY (docking, state, held)
) STRICT, WITHOUT ROWID;

CREATE TRIGGER acquisition_added AFTER INSERT ON acquisition BEGIN
    INSERT INTO tally VALUES (NEW.docking, NEW.state, NEW.held, 1, NEW.size_bytes)
    ON CONFLICT DO UPDATE SET clips = clips + 1, size_bytes = size_bytes + excluded.size_bytes;
END;

CREATE TRIGGER acquisition_moved AFTER UPDATE ON acquisition
WHEN (OLD.docking, OLD.state, OLD.held, OLD.size_bytes) IS NOT (NEW.docking, NEW.state, NEW.held, NEW.size_bytes)
BEGIN
    UPDATE tally SET clips = clips - 1, size_bytes = size_bytes - OLD.size_bytes
    WHERE docking = OLD.docking AND state = OLD.state AND held = OLD.held;
    INSERT INTO tally VALUES (NEW.docking, NEW.state, NEW.held, 1, NEW.size_bytes)
    ON CONFLICT DO UPDATE SET clips = clips + 1, size_bytes = size_bytes + excluded.size_bytes;
END;

CREATE TABLE manifest (
    acquisition TEXT PRIMARY KEY REFERENCES acquisition (acquisition),
    payload BLOB NOT NULL,
    signature TEXT NOT NULL,
    nonce BLOB NOT NULL CHECK (length(nonce) = 32)
) STRICT, WITHOUT ROWID;

CREATE TABLE receipt (
    store TEXT NOT NULL,
    receipt_seq INTEGER NOT NULL,
    acquisition TEXT NOT NULL REFERENCES acquisition (acquisition),
    payload BLOB NOT NULL,
    signature TEXT NOT NULL,
    digest TEXT NOT NULL,
    PRIMARY KEY (store, receipt_seq),
    UNIQUE (acquisition, store)
) STRICT, WITHOUT ROWID;

-- Files of a docking's listing that are no acquisitions: what stays on the camera, and what was refused.
CREATE TABLE noted_file (
    docking TEXT NOT NULL REFERENCES docking (docking),
    path BLOB NOT NULL,
    size_bytes INTEGER NOT NULL,
    mtime_ns TEXT NOT NULL,
    inode TEXT NOT NULL,
    links INTEGER NOT NULL,
    kind TEXT NOT NULL,
    category TEXT NOT NULL,
    reason TEXT NOT NULL,
    PRIMARY KEY (docking, path)
) STRICT, WITHOUT ROWID;
