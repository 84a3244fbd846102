-- Version 2: which message of its lane is the next is stored, so that nothing looks at a whole lane to find it.

ALTER TABLE parked ADD COLUMN head INTEGER NOT NULL DEFAULT 0;
UPDATE parked SET head = 1
    WHERE lane IS NULL OR id IN (SELECT min(id) FROM parked WHERE lane IS NOT NULL GROUP BY consumer, lane);
DROP INDEX parked_by_due;
CREATE INDEX parked_heads ON parked (consumer, due_ms, id) WHERE head = 1;
