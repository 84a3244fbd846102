-- A parking lot as version 2 wrote it; never changed.
PRAGMA application_id = 1463898704;
PRAGMA user_version = 2;
CREATE TABLE parked (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    consumer TEXT NOT NULL,
    lane TEXT,
    due_ms INTEGER NOT NULL,
    spent INTEGER NOT NULL,
    first_at_ms INTEGER NOT NULL,
    properties TEXT NOT NULL,
    envelope TEXT NOT NULL,
    body BLOB NOT NULL,
    head INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE INDEX parked_heads ON parked (consumer, due_ms, id) WHERE head = 1;
CREATE INDEX parked_by_lane ON parked (consumer, lane, id) WHERE lane IS NOT NULL;
INSERT INTO parked VALUES (1, 'orders', 'k', 100, 2, 5,
 '{"persistent":true,"expiration":"7","message_id":"m1","headers":[["bytes",{"bytes":[0,255]}],["big",{"u32":4294967295}]]}',
 '{"queue":"orders","exchange":"events","routing_key":"a.b","redelivered":true,"delivery_count":3,"delivery_tag":4294967295,"consumer_tag":"tag","system":{"MessageGroupId":"g"}}',
 X'626f6479', 1);
