-- What a provider has shown, for each of its models and engine versions: results in a
-- row that have passed, and what its margins say together.
CREATE TABLE dossiers (
    provider   BLOB    NOT NULL,
    model      BLOB    NOT NULL,
    engine     TEXT    NOT NULL,
    streak     INTEGER NOT NULL DEFAULT 0,
    results    INTEGER NOT NULL DEFAULT 0,
    tokens     INTEGER NOT NULL DEFAULT 0,
    margin_sum REAL    NOT NULL DEFAULT 0,
    evidence   REAL    NOT NULL DEFAULT 0,
    PRIMARY KEY (provider, model, engine)
) STRICT;

-- Checkers: how often another agreed with them, or a trap was seen through, and since
-- when one is refuted: it is hired no more.
CREATE TABLE checkers (
    checker   BLOB    NOT NULL PRIMARY KEY,
    confirmed INTEGER NOT NULL DEFAULT 0,
    refuted_s INTEGER
) STRICT;

-- Results that were judged, and how, as JSON: one is judged once.
CREATE TABLE judged (
    result   BLOB    NOT NULL PRIMARY KEY,
    judged   TEXT    NOT NULL,
    judged_s INTEGER NOT NULL
) STRICT;
CREATE INDEX judged_by_time ON judged (judged_s);

-- Work of the aggregator's own that was bought and accepted: questions with known
-- answers, for providers, and what traps for checkers are made of. `work` holds the
-- requests and the output as JSON.
CREATE TABLE samples (
    id      INTEGER NOT NULL PRIMARY KEY,
    model   BLOB    NOT NULL,
    author  BLOB    NOT NULL,
    work    TEXT    NOT NULL,
    made_s  INTEGER NOT NULL
) STRICT;
CREATE INDEX samples_of_a_model ON samples (model, made_s);
