-- The parking lot of Warren, version 1.

-- A message that waits for its next try. Within a lane they go one after another, by id.
CREATE TABLE parked (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    consumer TEXT NOT NULL,
    lane TEXT,
    due_ms INTEGER NOT NULL,
    spent INTEGER NOT NULL,
    first_at_ms INTEGER NOT NULL,
    properties TEXT NOT NULL,
    envelope TEXT NOT NULL,
    body BLOB NOT NULL
) STRICT;
CREATE INDEX parked_by_due ON parked (consumer, due_ms);
CREATE INDEX parked_by_lane ON parked (consumer, lane, id) WHERE lane IS NOT NULL;
