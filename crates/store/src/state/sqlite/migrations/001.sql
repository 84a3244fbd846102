-- The state of Warren, version 1.

-- A run. `owner` is the process that runs it (number and start), to tell a run under way from one whose process is gone.
CREATE TABLE runs (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    sync TEXT NOT NULL,
    kind TEXT NOT NULL,
    state TEXT NOT NULL,
    started_at INTEGER NOT NULL,
    ended_at INTEGER,
    counts TEXT NOT NULL,
    times TEXT NOT NULL,
    error TEXT,
    owner TEXT NOT NULL
) STRICT;
CREATE INDEX runs_by_sync ON runs (sync, id);

-- How many rows of a run ended in one way, with a sample. `op` and `code` are '' for none.
CREATE TABLE tallies (
    run INTEGER NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
    status TEXT NOT NULL,
    op TEXT NOT NULL,
    code TEXT NOT NULL,
    rows INTEGER NOT NULL,
    body_bytes INTEGER NOT NULL,
    sample_key TEXT NOT NULL,
    sample_answer TEXT,
    PRIMARY KEY (run, status, op, code)
) STRICT, WITHOUT ROWID;

-- Recorded rows, some hundreds in a block. This table is what a search reads of every block ...
CREATE TABLE blocks (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    run INTEGER NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
    count INTEGER NOT NULL,
    statuses INTEGER NOT NULL,
    oldest_at INTEGER NOT NULL,
    newest_at INTEGER NOT NULL,
    seen BLOB NOT NULL
) STRICT;
CREATE INDEX blocks_by_run ON blocks (run, id);

-- ... and this one what it reads of the few that may hold what is searched for.
CREATE TABLE block_rows (
    block INTEGER PRIMARY KEY REFERENCES blocks (id) ON DELETE CASCADE,
    ids BLOB NOT NULL,
    rows BLOB NOT NULL,
    bodies BLOB NOT NULL
) STRICT;
