-- Attempts that an aggregator pays for after its check have tickets too: they are
-- charged without a receipt, since they are paid together.
ALTER TABLE tickets ADD COLUMN is_escrow INTEGER NOT NULL DEFAULT 0;

-- What each aggregator said last of our work in escrow: running totals. The ledger
-- has what is owed and what was paid.
CREATE TABLE payouts (
    aggregator     BLOB    NOT NULL PRIMARY KEY,
    accepted_msat  INTEGER NOT NULL,
    bond_msat      INTEGER NOT NULL,
    forfeited_msat INTEGER NOT NULL
) STRICT;
