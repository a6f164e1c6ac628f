-- Attempts that are paid by a tab: what their charge and their receipt are made
-- of. A ticket is written before an invoice for it is asked for, or before it
-- is accepted; its outcome is decided once, and then charged. Those that cost
-- and brought nothing are forgotten; the others stay, for the owner's books.
CREATE TABLE tickets (
    award         BLOB    NOT NULL PRIMARY KEY,
    job           BLOB    NOT NULL,
    buyer         BLOB    NOT NULL,
    number        INTEGER NOT NULL,
    model         TEXT    NOT NULL,
    -- Of the award's input: the receipt's hashes are salted with it.
    salt          BLOB    NOT NULL,
    input_tokens  INTEGER NOT NULL,
    prefix_tokens INTEGER NOT NULL,
    opened_s      INTEGER NOT NULL,
    -- The outcome.
    output_tokens INTEGER,
    due_msat      INTEGER,
    result        BLOB,
    -- Whether it was charged, and its receipt written.
    is_settled    INTEGER NOT NULL DEFAULT 0,
    CHECK ((output_tokens IS NULL) = (due_msat IS NULL))
) STRICT;
CREATE INDEX tickets_unsettled ON tickets (opened_s) WHERE is_settled = 0;
