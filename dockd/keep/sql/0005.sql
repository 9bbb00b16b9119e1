-- Another station's signed manifest of the same clip, where a store's word about an acquisition rests on that station's
-- object. It is kept as long as the receipt that names it.

CREATE TABLE twin (
    acquisition TEXT NOT NULL REFERENCES acquisition (acquisition),
    store TEXT NOT NULL,
    payload BLOB NOT NULL,
    signature TEXT NOT NULL,
    PRIMARY KEY (acquisition, store)
) STRICT, WITHOUT ROWID;
