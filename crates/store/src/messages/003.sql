-- Version 3. Attempts are kept in blocks of some hundreds, packed; the newest are in files beside this one (`messages-N.journal`) until there
-- are enough for a block. A row for each attempt, with its place in two trees, cost more than all the rest that is done with a message.

CREATE TABLE blocks (
    -- The number of its first attempt; those of the others follow.
    first INTEGER PRIMARY KEY,
    count INTEGER NOT NULL,
    -- A bit for each status that occurs.
    statuses INTEGER NOT NULL,
    -- When the first and the last of them ended, in milliseconds since the epoch.
    oldest INTEGER NOT NULL,
    newest INTEGER NOT NULL,
    -- Which messages and consumers it may hold.
    seen BLOB NOT NULL,
    attempts BLOB NOT NULL,
    bodies BLOB NOT NULL
) STRICT;

-- Numbers from here on were given to nobody.
CREATE TABLE numbers (next INTEGER NOT NULL) STRICT;
INSERT INTO numbers SELECT 1 + coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'attempts';

-- What versions 1 and 2 recorded is packed when the record is opened to write; then their table goes.
DROP TABLE names;
DROP TABLE named;
