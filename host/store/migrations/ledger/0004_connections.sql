-- Sums of connections of one talker with one other end; `last` is when any of them was last seen.
CREATE TABLE connection (
    id   INTEGER PRIMARY KEY,
    last INTEGER NOT NULL,
    json TEXT NOT NULL
) STRICT;
CREATE INDEX connection_last ON connection (last);
