-- What we have attested of providers, as relays have it: ranks are made of these alone,
-- so that others can make them too.
CREATE TABLE attested (
    id       BLOB    NOT NULL PRIMARY KEY,
    provider BLOB    NOT NULL,
    event    TEXT    NOT NULL,
    made_s   INTEGER NOT NULL
) STRICT;
CREATE INDEX attested_of_a_provider ON attested (provider);
CREATE INDEX attested_by_time ON attested (made_s);

-- For how much of each day we watched the market since we first saw a provider, and for
-- how much of that its announcement stood.
CREATE TABLE presence (
    provider  BLOB    NOT NULL,
    day       INTEGER NOT NULL,
    watched_s INTEGER NOT NULL,
    there_s   INTEGER NOT NULL,
    PRIMARY KEY (provider, day)
) STRICT, WITHOUT ROWID;

-- What we said last: of each provider, as the list of bans (all zeros), and whether all
-- attestations that relays have were kept once (all 0x01).
CREATE TABLE told (
    about  BLOB    NOT NULL PRIMARY KEY,
    what   TEXT    NOT NULL,
    told_s INTEGER NOT NULL
) STRICT;
