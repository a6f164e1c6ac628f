-- A batch that was ordered, so that a later process goes on where this one was. Keys are in it.
CREATE TABLE batch (
    one           INTEGER NOT NULL PRIMARY KEY CHECK (one = 1),
    input_sha256  BLOB    NOT NULL CHECK (length(input_sha256) = 32),
    model         TEXT,
    aggregator    TEXT    NOT NULL,
    order_event   TEXT    NOT NULL,
    -- Of it the seeds of lines are made that name none.
    seed          BLOB    NOT NULL CHECK (length(seed) = 32),
    ordered_s     INTEGER NOT NULL,
    -- The aggregator has said that it takes the order.
    is_taken      INTEGER NOT NULL DEFAULT 0,
    -- Groups whose answers are in the output, and its bytes up to there.
    written       INTEGER NOT NULL DEFAULT 0,
    written_bytes INTEGER NOT NULL DEFAULT 0,
    -- What became of the lines in it, and what they cost.
    done          INTEGER NOT NULL DEFAULT 0,
    verified      INTEGER NOT NULL DEFAULT 0,
    failed        INTEGER NOT NULL DEFAULT 0,
    flawed        INTEGER NOT NULL DEFAULT 0,
    tokens        INTEGER NOT NULL DEFAULT 0,
    cost_msat     INTEGER NOT NULL DEFAULT 0
) STRICT;

-- What was cut off the input for the aggregator, in its order.
CREATE TABLE groups (
    number        INTEGER NOT NULL PRIMARY KEY,
    begin_byte    INTEGER NOT NULL,
    begin_line    INTEGER NOT NULL,
    end_byte      INTEGER NOT NULL,
    end_line      INTEGER NOT NULL,
    size          TEXT    NOT NULL,
    -- The encrypted input and its key, once it can be given.
    input         TEXT,
    key           TEXT,
    -- The last invoice that was paid for it, or may have been.
    invoice       TEXT,
    -- What was delivered, the encrypted answers, and what opens them.
    delivery      TEXT,
    sealed        BLOB,
    opens         TEXT,
    -- Why nothing came of it.
    failed        TEXT,
    -- Of its lines, those that were checked, as the aggregator says.
    verified      INTEGER NOT NULL DEFAULT 0,
    is_over       INTEGER NOT NULL DEFAULT 0
) STRICT;
