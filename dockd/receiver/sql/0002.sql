-- Clips that two stations brought, and uploads that nobody came back for.

-- Whose clip it is, as its signed manifest says: another station may ask whether it is here.
ALTER TABLE acquisition ADD COLUMN plaintext_digest TEXT;
ALTER TABLE acquisition ADD COLUMN camera_serial TEXT;
UPDATE acquisition SET
    plaintext_digest = json_extract(CAST(manifest AS TEXT), '$.plaintext.digest'),
    camera_serial = json_extract(CAST(manifest AS TEXT), '$.camera.serial');
CREATE INDEX acquisition_by_clip ON acquisition (plaintext_digest, camera_serial, station) WHERE state = 'stored';

-- When it was announced; null for what was announced before this version.
ALTER TABLE acquisition ADD COLUMN announced_us INTEGER;

-- An acquisition whose clip is the object of another station: it has no bytes of its own.
CREATE TABLE share (
    station TEXT NOT NULL,
    acquisition TEXT NOT NULL,
    holder TEXT NOT NULL,
    held TEXT NOT NULL, -- the holder's acquisition
    shown BLOB NOT NULL CHECK (length(shown) = 32), -- SHA-256 of this manifest's nonce and the whole object
    PRIMARY KEY (station, acquisition),
    FOREIGN KEY (station, acquisition) REFERENCES acquisition (station, acquisition),
    FOREIGN KEY (holder, held) REFERENCES acquisition (station, acquisition)
) STRICT, WITHOUT ROWID;
CREATE INDEX share_held ON share (holder, held);

-- What became of uploads that were left: for people; the newest ones.
CREATE TABLE expired (
    station TEXT NOT NULL,
    acquisition TEXT NOT NULL,
    size_bytes INTEGER NOT NULL,
    durable_bytes INTEGER NOT NULL,
    announced_us INTEGER,
    expired_us INTEGER NOT NULL,
    PRIMARY KEY (station, acquisition)
) STRICT, WITHOUT ROWID;
