-- Every award that was answered. A row is written before the answer leaves, so
-- that a process that dies knows afterwards what it had promised.
CREATE TABLE attempts (
    award      BLOB    NOT NULL PRIMARY KEY,
    job        BLOB    NOT NULL,
    buyer      BLOB    NOT NULL,
    number     INTEGER NOT NULL,
    -- accepted: promised and not yet answered for; declined; ended: by a result,
    -- or stopped before it began; abandoned: by a cancel after a restart.
    state      TEXT    NOT NULL CHECK (state IN ('accepted', 'declined', 'ended', 'abandoned')),
    arrived_s  INTEGER NOT NULL,
    -- Until then the award's id is remembered, so that a replay does nothing.
    forget_s   INTEGER NOT NULL
) STRICT;
CREATE INDEX attempts_of_a_job ON attempts (buyer, job, number);
CREATE INDEX attempts_to_forget ON attempts (forget_s);

-- Events that must reach a relay: results, and cancels after a restart. They
-- are published again until one has acknowledged them.
CREATE TABLE outbox (
    event          BLOB    NOT NULL PRIMARY KEY,
    award          BLOB    NOT NULL,
    json           TEXT    NOT NULL,
    made_s         INTEGER NOT NULL,
    acknowledged_s INTEGER
) STRICT;
CREATE INDEX outbox_unacknowledged ON outbox (made_s) WHERE acknowledged_s IS NULL;

-- When the last announcement was made: a later one must not look older.
CREATE TABLE announced (
    only      INTEGER NOT NULL PRIMARY KEY CHECK (only = 1),
    created_s INTEGER NOT NULL
) STRICT;
INSERT INTO announced (only, created_s) VALUES (1, 0);
