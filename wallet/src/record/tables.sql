CREATE TABLE notes (
    name TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT;

CREATE TABLE connections (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL,
    client TEXT NOT NULL UNIQUE,      -- public key, hex
    service_secret TEXT NOT NULL,     -- our key for this connection alone, hex
    methods TEXT NOT NULL,            -- separated by spaces
    budget_msat INTEGER,              -- none: no limit
    period_s INTEGER,                 -- none: the budget is for good
    whole_history INTEGER NOT NULL,
    legacy INTEGER NOT NULL DEFAULT 0, -- the client's last request was NIP-04
    created_at INTEGER NOT NULL,
    revoked_at INTEGER
) STRICT;
CREATE UNIQUE INDEX connection_name ON connections (name) WHERE revoked_at IS NULL;

CREATE TABLE requests (
    event TEXT PRIMARY KEY,
    connection INTEGER NOT NULL REFERENCES connections,
    received_at INTEGER NOT NULL,
    response TEXT                     -- none: not answered yet
) STRICT;
CREATE INDEX request_time ON requests (received_at);

CREATE TABLE invoices (
    payment_hash TEXT PRIMARY KEY,
    connection INTEGER REFERENCES connections,
    hold INTEGER NOT NULL,
    invoice TEXT,
    description TEXT,
    description_hash TEXT,
    amount_msat INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    expires_at INTEGER,
    state TEXT NOT NULL,              -- open, accepted, settling, settled, cancelled
    preimage TEXT,
    received_msat INTEGER,
    claim_deadline INTEGER,           -- block at which LDK fails an accepted hold
    settled_at INTEGER,
    metadata TEXT
) STRICT;
CREATE INDEX invoice_time ON invoices (connection, created_at);

CREATE TABLE payments (
    payment_hash TEXT PRIMARY KEY,
    connection INTEGER NOT NULL REFERENCES connections,
    invoice TEXT NOT NULL,
    description TEXT,
    description_hash TEXT,
    amount_msat INTEGER NOT NULL,
    fee_limit_msat INTEGER NOT NULL,
    fee_paid_msat INTEGER,
    created_at INTEGER NOT NULL,      -- of the last attempt
    expires_at INTEGER,
    state TEXT NOT NULL,              -- pending, paid, failed
    attempts INTEGER NOT NULL,
    preimage TEXT,
    failure TEXT,
    settled_at INTEGER,
    metadata TEXT
) STRICT;
CREATE INDEX payment_time ON payments (connection, created_at);

PRAGMA user_version = 1;
