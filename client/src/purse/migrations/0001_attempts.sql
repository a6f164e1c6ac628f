-- Paid attempts: what is needed to charge one and to sign its receipt after a crash. No prompts, no answers.
CREATE TABLE attempts (
    award          BLOB    NOT NULL PRIMARY KEY CHECK (length(award) = 32),
    job            BLOB    NOT NULL CHECK (length(job) = 32),
    number         INTEGER NOT NULL,
    provider       BLOB    NOT NULL CHECK (length(provider) = 32),
    name           TEXT    NOT NULL,
    input_msat     INTEGER NOT NULL,
    output_msat    INTEGER NOT NULL,
    prefix_tokens  INTEGER NOT NULL,
    salt           BLOB    NOT NULL CHECK (length(salt) = 32),
    opened_s       INTEGER NOT NULL,
    charged_msat   INTEGER,
    paid_msat      INTEGER,
    -- What is still to be published about it: signed events, as JSON.
    papers         TEXT,
    is_closed      INTEGER NOT NULL DEFAULT 0
) STRICT;

CREATE INDEX attempts_open ON attempts (provider) WHERE is_closed = 0;
CREATE INDEX attempts_by_job ON attempts (job);
CREATE INDEX attempts_by_provider ON attempts (provider, opened_s);
