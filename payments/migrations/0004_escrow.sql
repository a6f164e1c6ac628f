-- Money in escrow. SQLite cannot widen a check, so the tables are made anew.

CREATE TABLE postings_next (
    id     INTEGER NOT NULL PRIMARY KEY,
    reason TEXT    NOT NULL CHECK (reason IN (
        'top-up', 'refund', 'charge', 'outside',
        'hold', 'payout', 'credit', 'bond', 'forfeit', 'write-off')),
    at_s   INTEGER NOT NULL CHECK (at_s >= 0)
) STRICT;

-- The reference is the payment's hash, the award's id for a charge, or a hash of
-- what is charged where it is a group of a batch.
CREATE TABLE entries_next (
    posting      INTEGER NOT NULL REFERENCES postings_next (id) DEFERRABLE INITIALLY DEFERRED,
    reference    BLOB    NOT NULL CHECK (length(reference) = 32),
    leg          TEXT    NOT NULL CHECK (leg IN (
        'paid', 'routing', 'credited', 'received', 'accepted', 'charged', 'spent', 'earned',
        'fee', 'kept', 'bonded', 'released', 'freed', 'forfeited', 'compensated',
        'written-off', 'lost')),
    account      TEXT    NOT NULL CHECK (account IN (
        'wallet', 'tab', 'income', 'spending', 'fees', 'outside', 'credit', 'payout', 'bond')),
    counterparty BLOB    CHECK (length(counterparty) = 32),
    amount_msat  INTEGER NOT NULL CHECK (amount_msat <> 0),
    UNIQUE (reference, leg),
    CHECK ((account IN ('tab', 'credit', 'payout', 'bond')) = (counterparty IS NOT NULL))
) STRICT;

INSERT INTO postings_next (id, reason, at_s) SELECT id, reason, at_s FROM postings;
INSERT INTO entries_next (posting, reference, leg, account, counterparty, amount_msat)
    SELECT posting, reference, leg, account, counterparty, amount_msat FROM entries ORDER BY rowid;
DROP TABLE entries;
DROP TABLE postings;
ALTER TABLE postings_next RENAME TO postings;
ALTER TABLE entries_next RENAME TO entries;

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

-- Held is what a wallet says of a hold that its payer has paid.
CREATE TABLE intents_next (
    key          BLOB    NOT NULL PRIMARY KEY CHECK (length(key) = 32),
    direction    TEXT    NOT NULL CHECK (direction IN ('incoming', 'outgoing')),
    reason       TEXT    NOT NULL CHECK (reason IN ('top-up', 'refund', 'hold', 'payout', 'credit')),
    counterparty BLOB    NOT NULL CHECK (length(counterparty) = 32),
    award        BLOB    CHECK (length(award) = 32),
    amount_msat  INTEGER NOT NULL CHECK (amount_msat > 0),
    max_fee_msat INTEGER NOT NULL CHECK (max_fee_msat >= 0),
    hash         BLOB    CHECK (length(hash) = 32),
    invoice      TEXT,
    expires_s    INTEGER,
    state        TEXT    NOT NULL CHECK (state IN (
        'planned', 'under-way', 'held', 'settled', 'failed')),
    planned_s    INTEGER NOT NULL CHECK (planned_s >= 0),
    changed_s    INTEGER NOT NULL CHECK (changed_s >= 0),
    UNIQUE (direction, hash),
    CHECK ((hash IS NULL) = (invoice IS NULL) AND (hash IS NULL) = (expires_s IS NULL)),
    CHECK (hash IS NOT NULL OR direction = 'incoming'),
    CHECK (hash IS NOT NULL OR state IN ('planned', 'failed')),
    CHECK (state <> 'held' OR (direction = 'incoming' AND reason = 'hold'))
) STRICT;

INSERT INTO intents_next (key, direction, reason, counterparty, award, amount_msat, max_fee_msat,
                          hash, invoice, expires_s, state, planned_s, changed_s)
    SELECT key, direction, reason, counterparty, award, amount_msat, max_fee_msat,
           hash, invoice, expires_s, state, planned_s, changed_s FROM intents ORDER BY rowid;
DROP TABLE intents;
ALTER TABLE intents_next RENAME TO intents;

CREATE INDEX intents_open ON intents (state) WHERE state IN ('planned', 'under-way', 'held');
CREATE INDEX intents_by_day ON intents (direction, planned_s);
CREATE INDEX intents_by_counterparty ON intents (counterparty, state);
CREATE INDEX intents_by_award ON intents (award);

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
    ('under-way', 'held'), ('held', 'settled'), ('held', 'failed'),
    ('failed', 'settled'))
BEGIN SELECT raise(ABORT, 'an intent cannot change like that'); END;

-- What an aggregator holds for a group of a batch. The intent of the same key is
-- the invoice; there is none where the buyer's credit covers the whole. How the
-- money stands is the intent's state; what we want of it is the will, which is
-- decided once.
CREATE TABLE holds (
    key           BLOB    NOT NULL PRIMARY KEY CHECK (length(key) = 32),
    batch         BLOB    NOT NULL CHECK (length(batch) = 32),
    part          INTEGER NOT NULL CHECK (part >= 0),
    buyer         BLOB    NOT NULL CHECK (length(buyer) = 32),
    -- The most that the group may be charged, and how much of that is in the credit already.
    most_msat     INTEGER NOT NULL CHECK (most_msat > 0),
    reserved_msat INTEGER NOT NULL CHECK (reserved_msat BETWEEN 0 AND most_msat),
    preimage      BLOB    NOT NULL UNIQUE CHECK (length(preimage) = 32),
    until_s       INTEGER NOT NULL CHECK (until_s >= 0),
    will          TEXT    CHECK (will IN ('claim', 'cancel')),
    -- What it is charged when the money is ours.
    work_msat     INTEGER CHECK (work_msat >= 0),
    checking_msat INTEGER CHECK (checking_msat >= 0),
    fee_msat      INTEGER CHECK (fee_msat >= 0),
    CHECK ((will IS 'claim') = (work_msat IS NOT NULL)),
    CHECK ((work_msat IS NULL) = (checking_msat IS NULL) AND (work_msat IS NULL) = (fee_msat IS NULL)),
    CHECK (coalesce(work_msat + checking_msat + fee_msat, 0) <= most_msat)
) STRICT;

CREATE INDEX holds_by_group ON holds (batch, part);
CREATE INDEX holds_by_buyer ON holds (buyer);

CREATE TRIGGER holds_never_go BEFORE DELETE ON holds
BEGIN SELECT raise(ABORT, 'a hold is there for good'); END;

CREATE TRIGGER holds_are_decided_once BEFORE UPDATE ON holds
WHEN OLD.will IS NOT NULL
    OR (OLD.key, OLD.batch, OLD.part, OLD.buyer, OLD.most_msat, OLD.reserved_msat, OLD.preimage, OLD.until_s)
    IS NOT (NEW.key, NEW.batch, NEW.part, NEW.buyer, NEW.most_msat, NEW.reserved_msat, NEW.preimage, NEW.until_s)
BEGIN SELECT raise(ABORT, 'a hold is decided once'); END;

-- Work that an aggregator has accepted, checks counted in. It is owed to its
-- provider, and charged to its buyer, once the group's money is ours; the loss is
-- the aggregator's where that has gone back.
CREATE TABLE works (
    award      BLOB    NOT NULL PRIMARY KEY CHECK (length(award) = 32),
    hold       BLOB    NOT NULL REFERENCES holds (key),
    provider   BLOB    NOT NULL CHECK (length(provider) = 32),
    cost_msat  INTEGER NOT NULL CHECK (cost_msat > 0),
    -- How probable it was that it be checked, and whether it was.
    chance_ppm INTEGER NOT NULL CHECK (chance_ppm BETWEEN 0 AND 1000000),
    checked    INTEGER NOT NULL CHECK (checked IN (0, 1)),
    at_s       INTEGER NOT NULL CHECK (at_s >= 0)
) STRICT;

CREATE INDEX works_by_provider ON works (provider);
CREATE INDEX works_by_hold ON works (hold);

CREATE TRIGGER works_never_change BEFORE UPDATE ON works
BEGIN SELECT raise(ABORT, 'work is written down once'); END;

CREATE TRIGGER works_never_go BEFORE DELETE ON works
BEGIN SELECT raise(ABORT, 'work is written down once'); END;

-- Work that was rejected, and the payment with which its provider was told.
CREATE TABLE rejections (
    award    BLOB    NOT NULL PRIMARY KEY CHECK (length(award) = 32),
    provider BLOB    NOT NULL CHECK (length(provider) = 32),
    payout   BLOB    CHECK (length(payout) = 32),
    at_s     INTEGER NOT NULL CHECK (at_s >= 0)
) STRICT;

CREATE INDEX rejections_by_provider ON rejections (provider);
