-- What a store promised beyond its receipt, one statement after the other, as long as the receipt is kept.

CREATE TABLE extension (
    acquisition TEXT NOT NULL REFERENCES acquisition (acquisition),
    store TEXT NOT NULL,
    n INTEGER NOT NULL CHECK (n >= 1),
    payload BLOB NOT NULL,
    signature TEXT NOT NULL,
    PRIMARY KEY (acquisition, store, n)
) STRICT, WITHOUT ROWID;
