-- The record of messages of Warren, version 1.

-- One attempt at one message. `message` is what the message is looked up by: its id, or `print:` and its print.
CREATE TABLE attempts (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    consumer TEXT NOT NULL,
    message TEXT NOT NULL,
    attempt INTEGER NOT NULL,
    status TEXT NOT NULL,
    class TEXT,
    received_at INTEGER NOT NULL,
    started_at INTEGER NOT NULL,
    ended_at INTEGER NOT NULL,
    next_at INTEGER,
    error TEXT,
    steps TEXT,
    properties TEXT NOT NULL,
    envelope TEXT NOT NULL,
    body_bytes INTEGER NOT NULL,
    body BLOB
) STRICT;
CREATE INDEX attempts_by_message ON attempts (message, id);
