-- kind and process path are numbered per file, so that a row costs a byte or two for each.
CREATE TABLE kind (
    id   INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE
) STRICT;

CREATE TABLE event (
    id          INTEGER PRIMARY KEY,
    time        INTEGER NOT NULL,
    pid         INTEGER,
    start_ticks INTEGER,
    boot        INTEGER,
    kind        INTEGER NOT NULL,
    json        TEXT NOT NULL
) STRICT;
-- Events come nearly in order of time, so this index grows at its end and stays cheap. There is none on pid:
-- it would halve the speed of writing, and a day is scanned in a second.
CREATE INDEX event_time ON event (time);

CREATE TABLE hour (
    hour   INTEGER PRIMARY KEY,
    events INTEGER NOT NULL
) STRICT;

CREATE TABLE rollup (
    hour   INTEGER NOT NULL,
    kind   INTEGER NOT NULL,
    path   TEXT NOT NULL,
    events INTEGER NOT NULL,
    PRIMARY KEY (hour, kind, path)
) STRICT, WITHOUT ROWID;
