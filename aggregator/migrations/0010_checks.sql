-- How many results in a row have passed, of each of a provider's models and engine
-- versions.
CREATE TABLE streaks (
    provider BLOB    NOT NULL,
    model    BLOB    NOT NULL,
    engine   TEXT    NOT NULL,
    streak   INTEGER NOT NULL,
    PRIMARY KEY (provider, model, engine)
) STRICT;

-- What the margins of a provider's model say together. Whatever it calls its engine: a
-- new name must not begin anew.
CREATE TABLE pools (
    provider   BLOB    NOT NULL,
    model      BLOB    NOT NULL,
    results    INTEGER NOT NULL,
    tokens     INTEGER NOT NULL,
    margin_sum REAL    NOT NULL,
    evidence   REAL    NOT NULL,
    PRIMARY KEY (provider, model)
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
