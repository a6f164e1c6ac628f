-- What this user has had done. No prompts, no answers.
CREATE TABLE jobs (
    id       TEXT PRIMARY KEY NOT NULL,
    began    INTEGER NOT NULL,
    deadline INTEGER NOT NULL,
    model    TEXT NOT NULL,
    provider TEXT NOT NULL,
    status   TEXT NOT NULL CHECK (status IN ('running', 'done', 'failed', 'stopped')),
    tokens   INTEGER NOT NULL
) STRICT;

CREATE INDEX jobs_by_time ON jobs (began);
