-- One row each time an agent started.
CREATE TABLE run (
    id      INTEGER PRIMARY KEY AUTOINCREMENT,
    boot    INTEGER NOT NULL,
    version TEXT NOT NULL,
    started INTEGER NOT NULL,
    ended   INTEGER
) STRICT;

-- One row each time a policy was put in force or refused.
CREATE TABLE policy (
    id     INTEGER PRIMARY KEY AUTOINCREMENT,
    time   INTEGER NOT NULL,
    path   TEXT,
    text   TEXT NOT NULL,
    faults TEXT NOT NULL
) STRICT;
