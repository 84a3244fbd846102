-- A record of messages as version 1 wrote it; never changed.
PRAGMA application_id = 1463898701;
PRAGMA user_version = 1;
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
INSERT INTO attempts VALUES (1, 'orders', 'm1', 1, 'retried', NULL, 1767225600000, 1767225600001, 1767225600002, 1767225610000,
 '{"code":"broker-unreachable","message":"call it: no","status":503,"answer":"busy"}',
 '[{"path":"1.http","id":"call","took_us":5,"note":"503"},{"path":"2.map","took_us":1,"error":"no [expression-failed]"}]',
 '{"persistent":true,"message_id":"m1","headers":[["tenant",{"u16":7}],["bytes",{"bytes":[0,255]}]]}',
 '{"queue":"orders","exchange":"events","routing_key":"a.b","redelivered":true,"delivery_count":3,"delivery_tag":9,"consumer_tag":"tag","system":{"MessageGroupId":"g"}}',
 4, X'626f6479');
INSERT INTO attempts VALUES (2, 'orders', 'print:000000000000000000000000000000ff', 2, 'dead_lettered', 'exhausted', 1767225600000, 1767225600001, 1767225600002, NULL,
 '{"code":"","message":"failed 2 times"}', NULL, '{"persistent":false,"headers":[]}', '{"queue":"orders"}', 9, NULL);
