-- The receiver's catalogue, version 1. Times are microseconds since 1970 in UTC.

CREATE TABLE session (
    token_hash BLOB PRIMARY KEY CHECK (length(token_hash) = 32),
    station TEXT NOT NULL,
    expires_us INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX session_by_expiry ON session (expires_us);

-- What was announced. Two stations never share a row, whatever ids they choose.
CREATE TABLE acquisition (
    station TEXT NOT NULL,
    acquisition TEXT NOT NULL,
    upload TEXT NOT NULL UNIQUE,
    -- open: bytes arrive. verified: all there with the right digest, about to be moved. stored: moved and signed for.
    state TEXT NOT NULL CHECK (state IN ('open', 'verified', 'stored')),
    manifest BLOB NOT NULL,
    signature TEXT NOT NULL,
    manifest_digest TEXT NOT NULL,
    sealed_digest TEXT NOT NULL UNIQUE,
    size_bytes INTEGER NOT NULL CHECK (size_bytes > 0),
    stanzas INTEGER NOT NULL,
    -- How much is on the disk for certain: advanced only after fsync.
    durable_bytes INTEGER NOT NULL DEFAULT 0 CHECK (durable_bytes BETWEEN 0 AND size_bytes),
    expires_us INTEGER NOT NULL,
    PRIMARY KEY (station, acquisition),
    CHECK (state = 'open' OR durable_bytes = size_bytes)
) STRICT, WITHOUT ROWID;

CREATE INDEX acquisition_open ON acquisition (expires_us) WHERE state = 'open';

-- The receipts to each station: numbered from 1, each naming the digest of the one before.
CREATE TABLE receipt (
    station TEXT NOT NULL,
    receipt_seq INTEGER NOT NULL CHECK (receipt_seq >= 1),
    acquisition TEXT NOT NULL,
    payload BLOB NOT NULL,
    signature TEXT NOT NULL,
    digest TEXT NOT NULL,
    retention_until_us INTEGER NOT NULL,
    PRIMARY KEY (station, receipt_seq),
    UNIQUE (station, acquisition),
    FOREIGN KEY (station, acquisition) REFERENCES acquisition (station, acquisition)
) STRICT, WITHOUT ROWID;

-- The newest checkpoint of each station's custody log that was cosigned.
CREATE TABLE checkpoint (
    station TEXT PRIMARY KEY,
    origin TEXT NOT NULL,
    size INTEGER NOT NULL CHECK (size >= 0),
    root BLOB NOT NULL CHECK (length(root) = 32),
    note BLOB NOT NULL
) STRICT, WITHOUT ROWID;
