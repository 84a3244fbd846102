-- Version 2. The index by name is added to in large portions, each in its order: names are in no order, so that an index in the table's
-- own commits was written anew, page by page, at many times the volume of what was recorded.

CREATE TABLE names (
    message TEXT NOT NULL,
    id INTEGER NOT NULL,
    PRIMARY KEY (message, id)
) STRICT, WITHOUT ROWID;
INSERT INTO names SELECT message, id FROM attempts ORDER BY message, id;

-- Attempts up to here stand in `names`; those behind are looked through one by one. Of attempts that were dropped, names may be left.
CREATE TABLE named (up_to INTEGER NOT NULL) STRICT;
INSERT INTO named SELECT coalesce(max(id), 0) FROM attempts;

DROP INDEX attempts_by_message;
