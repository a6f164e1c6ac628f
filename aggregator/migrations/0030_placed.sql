-- Awards that were placed, until each is answered: accepted, rejected, or nothing came
-- of it. A signed result that nobody looks at would be owed for ever.
CREATE TABLE placed (
    award      BLOB    NOT NULL PRIMARY KEY,
    provider   BLOB    NOT NULL,
    -- The group that it was placed for; none for a check, or questions of our own.
    of_order   BLOB,
    of_group   INTEGER,
    shard      INTEGER,
    -- Whether its provider is paid in escrow.
    is_paid    INTEGER NOT NULL,
    -- When its result must be there.
    until_s    INTEGER NOT NULL,
    -- When its result was looked for last, and when it was answered.
    looked_s   INTEGER NOT NULL DEFAULT 0,
    answered_s INTEGER
) STRICT;
CREATE INDEX placed_unanswered ON placed (of_order, of_group, shard) WHERE answered_s IS NULL;
