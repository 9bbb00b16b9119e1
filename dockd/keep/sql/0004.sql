-- Several stores. A delivery is one acquisition on its way to one store; `outlet` says which stores are to get every
-- clip, as the station is configured now. A row without an upload, without objects and in state 'waiting' says no more
-- than that the store lacks the clip. What signs keeps its receipts in `receipt`; `confirmation` is what was found of
-- the objects at any other store. `docking`, `category`, `found_at_us` and `clip` (its state) repeat the acquisition's,
-- for the picks that a running station repeats.

CREATE TABLE outlet (
    store TEXT PRIMARY KEY
) STRICT, WITHOUT ROWID;

CREATE TABLE delivery (
    acquisition TEXT NOT NULL REFERENCES acquisition (acquisition),
    store TEXT NOT NULL,
    state TEXT NOT NULL,
    upload_url TEXT,
    objects TEXT,
    confirmation BLOB,
    confirmation_digest TEXT,
    reason TEXT,
    changed_at_us INTEGER NOT NULL,
    docking TEXT NOT NULL,
    category TEXT NOT NULL,
    found_at_us INTEGER NOT NULL,
    size_bytes INTEGER NOT NULL,
    clip TEXT NOT NULL,
    PRIMARY KEY (acquisition, store),
    CHECK (state <> 'confirmed' OR confirmation_digest IS NOT NULL)
) STRICT, WITHOUT ROWID;

CREATE INDEX delivery_to_send ON delivery (store, category, found_at_us, acquisition)
    WHERE state IN ('waiting', 'registered', 'finished')
        AND clip IN ('spooled', 'uploading', 'stored', 'warranted', 'erased');
CREATE INDEX delivery_to_send_of ON delivery (store, docking, category, found_at_us, acquisition)
    WHERE state IN ('waiting', 'registered', 'finished')
        AND clip IN ('spooled', 'uploading', 'stored', 'warranted', 'erased');

CREATE INDEX delivery_given_up ON delivery (store, acquisition) WHERE state = 'given_up';

-- The journal before had one store, whose id stands in its receipts and settings; where it does not, an upload that was
-- begun is registered again, which finds it where it was.
INSERT INTO delivery
SELECT acquisition, store, 'confirmed', upload_url, NULL, NULL, digest, NULL, found_at_us, docking, category,
    found_at_us, sealed_size_bytes, state
FROM acquisition JOIN receipt USING (acquisition)
WHERE state IN ('stored', 'warranted', 'erased');

INSERT INTO delivery
SELECT acquisition, known.store, 'registered', upload_url, NULL, NULL, NULL, NULL, found_at_us, docking, category,
    found_at_us, sealed_size_bytes, state
FROM acquisition JOIN (
    SELECT max(store) AS store FROM (
        SELECT store FROM receipt
        UNION SELECT substr(key, length('receipt_asked/') + 1) FROM setting WHERE key LIKE 'receipt\_asked/%' ESCAPE '\'
        UNION SELECT value FROM setting WHERE key = 'witnessed_by' AND value <> ''
    ) HAVING count(*) = 1
) AS known
WHERE state = 'uploading' AND upload_url IS NOT NULL;

-- What was witnessed is known for each store by itself.
INSERT INTO setting
SELECT 'witnessed_size/' || by_.value, size_.value FROM setting AS by_ JOIN setting AS size_
WHERE by_.key = 'witnessed_by' AND by_.value <> '' AND size_.key = 'witnessed_size' AND size_.value <> '';
DELETE FROM setting WHERE key IN ('witnessed_by', 'witnessed_size', 'witnessed_entry');

DROP INDEX acquisition_to_send;
DROP INDEX acquisition_to_send_of;
ALTER TABLE acquisition DROP COLUMN upload_url;

CREATE TRIGGER acquisition_to_deliver AFTER UPDATE OF state ON acquisition
WHEN NEW.state = 'spooled'
BEGIN
    INSERT OR IGNORE INTO delivery
    SELECT NEW.acquisition, store, 'waiting', NULL, NULL, NULL, NULL, NULL, NEW.found_at_us, NEW.docking, NEW.category,
        NEW.found_at_us, NEW.sealed_size_bytes, NEW.state FROM outlet;
END;

CREATE TRIGGER acquisition_restored AFTER INSERT ON acquisition
WHEN NEW.state = 'spooled'
BEGIN
    INSERT OR IGNORE INTO delivery
    SELECT NEW.acquisition, store, 'waiting', NULL, NULL, NULL, NULL, NULL, NEW.found_at_us, NEW.docking, NEW.category,
        NEW.found_at_us, NEW.sealed_size_bytes, NEW.state FROM outlet;
END;

CREATE TRIGGER delivery_follows AFTER UPDATE OF state, docking ON acquisition
WHEN (OLD.state, OLD.docking) IS NOT (NEW.state, NEW.docking)
BEGIN
    UPDATE delivery SET docking = NEW.docking, clip = NEW.state WHERE acquisition = NEW.acquisition;
END;
