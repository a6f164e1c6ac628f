-- Money. Amounts are millisatoshis, instants Unix seconds, keys and hashes 32 bytes.

-- What happened. A posting is written after its entries and seals them: it is
-- refused unless they sum to zero, and nothing can be added behind it.
CREATE TABLE postings (
    id     INTEGER NOT NULL PRIMARY KEY,
    reason TEXT    NOT NULL CHECK (reason IN ('top-up', 'refund', 'charge', 'outside')),
    at_s   INTEGER NOT NULL CHECK (at_s >= 0)
) STRICT;

-- What it did to which account. The reference is the payment's hash, or the
-- award's id for a charge. The foreign key is checked when the transaction ends:
-- entries that no posting has sealed cannot stay.
CREATE TABLE entries (
    posting      INTEGER NOT NULL REFERENCES postings (id) DEFERRABLE INITIALLY DEFERRED,
    reference    BLOB    NOT NULL CHECK (length(reference) = 32),
    leg          TEXT    NOT NULL CHECK (leg IN (
        'paid', 'routing', 'credited', 'received', 'accepted', 'charged', 'spent', 'earned')),
    account      TEXT    NOT NULL CHECK (account IN (
        'wallet', 'tab', 'income', 'spending', 'fees', 'outside')),
    counterparty BLOB    CHECK (length(counterparty) = 32),
    amount_msat  INTEGER NOT NULL CHECK (amount_msat <> 0),
    UNIQUE (reference, leg),
    CHECK ((account = 'tab') = (counterparty IS NOT NULL))
) STRICT;

CREATE INDEX entries_by_posting ON entries (posting);
CREATE INDEX entries_by_account ON entries (account, counterparty);

CREATE TRIGGER postings_seal_a_zero_sum BEFORE INSERT ON postings
WHEN coalesce((SELECT sum(amount_msat) FROM entries WHERE posting = NEW.id), 1) <> 0
BEGIN SELECT raise(ABORT, 'a posting must sum to zero'); END;

CREATE TRIGGER postings_are_never_replaced BEFORE INSERT ON postings
WHEN EXISTS (SELECT 1 FROM postings WHERE id = NEW.id)
BEGIN SELECT raise(ABORT, 'a posting is there for good'); END;

CREATE TRIGGER postings_are_sealed BEFORE INSERT ON entries
WHEN EXISTS (SELECT 1 FROM postings WHERE id = NEW.posting)
BEGIN SELECT raise(ABORT, 'a posting is sealed'); END;

CREATE TRIGGER entries_are_never_replaced BEFORE INSERT ON entries
WHEN EXISTS (SELECT 1 FROM entries WHERE reference = NEW.reference AND leg = NEW.leg)
BEGIN SELECT raise(ABORT, 'that leg has been posted'); END;

CREATE TRIGGER postings_never_change BEFORE UPDATE ON postings
BEGIN SELECT raise(ABORT, 'the ledger only grows'); END;

CREATE TRIGGER postings_never_go BEFORE DELETE ON postings
BEGIN SELECT raise(ABORT, 'the ledger only grows'); END;

CREATE TRIGGER entries_never_change BEFORE UPDATE ON entries
BEGIN SELECT raise(ABORT, 'the ledger only grows'); END;

CREATE TRIGGER entries_never_go BEFORE DELETE ON entries
BEGIN SELECT raise(ABORT, 'the ledger only grows'); END;

-- What is going to be paid or asked for: written before it is done. One intent
-- for an invoice, ever.
CREATE TABLE intents (
    key          BLOB    NOT NULL PRIMARY KEY CHECK (length(key) = 32),
    direction    TEXT    NOT NULL CHECK (direction IN ('incoming', 'outgoing')),
    reason       TEXT    NOT NULL CHECK (reason IN ('top-up', 'refund')),
    counterparty BLOB    NOT NULL CHECK (length(counterparty) = 32),
    award        BLOB    CHECK (length(award) = 32),
    amount_msat  INTEGER NOT NULL CHECK (amount_msat > 0),
    max_fee_msat INTEGER NOT NULL CHECK (max_fee_msat >= 0),
    hash         BLOB    CHECK (length(hash) = 32),
    invoice      TEXT,
    expires_s    INTEGER,
    state        TEXT    NOT NULL CHECK (state IN ('planned', 'under-way', 'settled', 'failed')),
    planned_s    INTEGER NOT NULL CHECK (planned_s >= 0),
    changed_s    INTEGER NOT NULL CHECK (changed_s >= 0),
    UNIQUE (direction, hash),
    CHECK ((hash IS NULL) = (invoice IS NULL) AND (hash IS NULL) = (expires_s IS NULL)),
    CHECK (hash IS NOT NULL OR direction = 'incoming'),
    CHECK (hash IS NOT NULL OR state IN ('planned', 'failed'))
) STRICT;

CREATE INDEX intents_open ON intents (state) WHERE state IN ('planned', 'under-way');
CREATE INDEX intents_by_day ON intents (direction, planned_s);

CREATE TRIGGER intents_never_go BEFORE DELETE ON intents
BEGIN SELECT raise(ABORT, 'an intent is there for good'); END;

CREATE TRIGGER intents_are_never_replaced BEFORE INSERT ON intents
WHEN EXISTS (SELECT 1 FROM intents
             WHERE key = NEW.key OR (direction = NEW.direction AND hash = NEW.hash))
BEGIN SELECT raise(ABORT, 'an intent is there for good'); END;

CREATE TRIGGER intents_stay_what_they_are BEFORE UPDATE ON intents
WHEN (OLD.key, OLD.direction, OLD.reason, OLD.counterparty, OLD.amount_msat, OLD.max_fee_msat, OLD.planned_s)
    IS NOT (NEW.key, NEW.direction, NEW.reason, NEW.counterparty, NEW.amount_msat, NEW.max_fee_msat, NEW.planned_s)
    OR OLD.award IS NOT NEW.award
    OR (OLD.hash IS NOT NULL
        AND (OLD.hash, OLD.invoice, OLD.expires_s) IS NOT (NEW.hash, NEW.invoice, NEW.expires_s))
BEGIN SELECT raise(ABORT, 'an intent only changes its state'); END;

-- Failed is what we were told; money that moves all the same is settled.
CREATE TRIGGER intents_go_forward BEFORE UPDATE OF state ON intents
WHEN (OLD.state, NEW.state) NOT IN (VALUES
    ('planned', 'under-way'), ('planned', 'failed'),
    ('under-way', 'planned'), ('under-way', 'settled'), ('under-way', 'failed'),
    ('failed', 'settled'))
BEGIN SELECT raise(ABORT, 'an intent cannot change like that'); END;

-- The last totals that each side has signed for a job: what a restart goes on
-- from, and what a dispute is settled by.
CREATE TABLE statements (
    award         BLOB    NOT NULL CHECK (length(award) = 32),
    author        BLOB    NOT NULL CHECK (length(author) = 32),
    buyer         BLOB    NOT NULL CHECK (length(buyer) = 32),
    provider      BLOB    NOT NULL CHECK (length(provider) = 32),
    input_tokens  INTEGER NOT NULL CHECK (input_tokens >= 0),
    output_tokens INTEGER NOT NULL CHECK (output_tokens >= 0),
    due_msat      INTEGER NOT NULL CHECK (due_msat >= 0),
    tab_due_msat  INTEGER NOT NULL CHECK (tab_due_msat >= 0),
    tab_paid_msat INTEGER NOT NULL CHECK (tab_paid_msat >= 0),
    signature     BLOB    NOT NULL CHECK (length(signature) = 64),
    PRIMARY KEY (award, author),
    CHECK (author = buyer OR author = provider)
) STRICT, WITHOUT ROWID;

CREATE TRIGGER statements_never_go BEFORE DELETE ON statements
BEGIN SELECT raise(ABORT, 'what was signed stays'); END;

CREATE TRIGGER statements_only_grow BEFORE UPDATE ON statements
WHEN NEW.output_tokens < OLD.output_tokens
BEGIN SELECT raise(ABORT, 'what was signed stays'); END;
