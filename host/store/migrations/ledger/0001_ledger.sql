-- Times are microseconds since 1970-01-01T00:00:00Z. The json columns hold the whole record; the other columns
-- are what queries select and order by.
CREATE TABLE finding (
    id       INTEGER PRIMARY KEY,
    time     INTEGER NOT NULL,
    kind     TEXT NOT NULL,
    severity TEXT NOT NULL,
    json     TEXT NOT NULL
) STRICT;
CREATE INDEX finding_time ON finding (time);

CREATE TABLE incident (
    id   INTEGER PRIMARY KEY,
    time INTEGER NOT NULL,
    json TEXT NOT NULL
) STRICT;
CREATE INDEX incident_time ON incident (time);

-- AUTOINCREMENT: the number of a deleted line is never given to another action.
CREATE TABLE action (
    id       INTEGER PRIMARY KEY AUTOINCREMENT,
    time     INTEGER NOT NULL,
    changed  INTEGER NOT NULL,
    incident INTEGER,
    state    TEXT NOT NULL,
    json     TEXT NOT NULL
) STRICT;
CREATE INDEX action_incident ON action (incident);

CREATE TABLE counter (
    name  TEXT PRIMARY KEY,
    value INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE reserve (block BLOB) STRICT;
