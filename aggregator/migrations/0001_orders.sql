-- Quotes that may still be taken, with their secrets. What is quoted and not
-- ordered is forgotten when it runs out.
CREATE TABLE quotes (
    id            BLOB    NOT NULL PRIMARY KEY,
    buyer         BLOB    NOT NULL,
    -- Chooses what is checked; the quote says its commitment.
    secret        BLOB    NOT NULL,
    valid_until_s INTEGER NOT NULL
) STRICT;
CREATE INDEX quotes_by_time ON quotes (valid_until_s);

-- Orders that were taken. The event is kept whole: the quote is inside.
CREATE TABLE orders (
    id         BLOB    NOT NULL PRIMARY KEY,
    buyer      BLOB    NOT NULL,
    quote      BLOB    NOT NULL UNIQUE,
    event      TEXT    NOT NULL,
    secret     BLOB    NOT NULL,
    taken_s    INTEGER NOT NULL,
    -- Begin nothing more: the buyer said so, or the owner.
    is_stopped INTEGER NOT NULL DEFAULT 0,
    closed_s   INTEGER
) STRICT;
CREATE INDEX orders_open ON orders (taken_s) WHERE closed_s IS NULL;
CREATE INDEX orders_of_a_buyer ON orders (buyer);

-- Groups of lines. `state` changes by compare-and-set, forward only.
CREATE TABLE groups (
    of_order       BLOB    NOT NULL REFERENCES orders (id),
    number         INTEGER NOT NULL,
    -- The question that gave it, as JSON: size, blob, key.
    asked          TEXT    NOT NULL,
    state          TEXT    NOT NULL CHECK (state IN
        ('unpaid', 'working', 'delivering', 'delivered', 'claiming', 'settled', 'cancelled')),
    lines          INTEGER NOT NULL,
    -- What stands for a payment's preimage where nothing is paid.
    token          BLOB    NOT NULL,
    -- What was delivered (JSON), and when it is claimed at the latest.
    delivery       TEXT,
    claim_ms       INTEGER,
    -- What it came to, as JSON.
    tally          TEXT,
    reason         TEXT,
    opened_s       INTEGER NOT NULL,
    ended_s        INTEGER,
    PRIMARY KEY (of_order, number)
) STRICT;

-- Shards of a group that was begun: which lines, and what came of them. The
-- answers themselves are files.
CREATE TABLE shards (
    of_order   BLOB    NOT NULL,
    of_group   INTEGER NOT NULL,
    number     INTEGER NOT NULL,
    -- Numbers of its lines within the group, as JSON.
    lines      TEXT    NOT NULL,
    -- Purchases that came to nothing so far.
    tries      INTEGER NOT NULL DEFAULT 0,
    -- How it ended, as JSON; none while it is to be done.
    ended      TEXT,
    PRIMARY KEY (of_order, of_group, number),
    FOREIGN KEY (of_order, of_group) REFERENCES groups (of_order, number)
) STRICT;

-- Results that were rejected: paid by nobody, and told in the settlement.
CREATE TABLE rejected (
    result     BLOB    NOT NULL PRIMARY KEY,
    of_order   BLOB    NOT NULL,
    of_group   INTEGER NOT NULL,
    -- The check, as JSON.
    checked    TEXT    NOT NULL
) STRICT;
CREATE INDEX rejected_of_a_group ON rejected (of_order, of_group);

-- Events that must reach a relay, until one has acknowledged them.
CREATE TABLE outbox (
    event          BLOB    NOT NULL PRIMARY KEY,
    json           TEXT    NOT NULL,
    made_s         INTEGER NOT NULL,
    acknowledged_s INTEGER
) STRICT;
CREATE INDEX outbox_unacknowledged ON outbox (made_s) WHERE acknowledged_s IS NULL;

-- Providers that are not bought from.
CREATE TABLE bans (
    provider BLOB    NOT NULL PRIMARY KEY,
    reason   TEXT    NOT NULL,
    banned_s INTEGER NOT NULL
) STRICT;

-- What was bought of whom, for the owner to see.
CREATE TABLE dealings (
    provider  BLOB    NOT NULL PRIMARY KEY,
    name      TEXT    NOT NULL,
    done      INTEGER NOT NULL DEFAULT 0,
    failed    INTEGER NOT NULL DEFAULT 0,
    rejected  INTEGER NOT NULL DEFAULT 0,
    tokens    INTEGER NOT NULL DEFAULT 0,
    cost_msat INTEGER NOT NULL DEFAULT 0,
    last_s    INTEGER NOT NULL DEFAULT 0
) STRICT;
