-- The hub's subscriptions as version 1 wrote them; never changed.
PRAGMA application_id = 1463898696;
PRAGMA user_version = 1;
CREATE TABLE subscriptions (
    id BLOB NOT NULL PRIMARY KEY,
    subscription TEXT NOT NULL,
    secrets BLOB
) STRICT, WITHOUT ROWID;
INSERT INTO subscriptions VALUES (X'64EA8FF316B3306E7FDC287957FC6348', '{"key":{"resource":{"vhost":"/","kind":"queue","name":"orders"},"topic":"all","callback":"http://a/"},"protocol":"rabbithub","state":"active","lease_seconds":0,"expires_at_ms":1000,"max_tps":0,"ha_mode":"none","signing":"sha256","created_at_ms":1000,"errors":{"count":0,"first_at_ms":0,"last_at_ms":0,"last_message":""}}', NULL);
INSERT INTO subscriptions VALUES (X'B84D79BF2D292898B4775FC084817FCD', '{"key":{"resource":{"vhost":"v/h","kind":"exchange","name":"évents"},"topic":"a.#","callback":"https://h.example/?x=1"},"protocol":"websub","state":{"inactive":"gone"},"lease_seconds":31536000000,"expires_at_ms":9223372036854775807,"max_tps":7,"max_in_flight":3,"ha_mode":{"count":2},"signing":"standard","contact":{"app_name":"shop","contact_name":"Ann","phone":"1","email":"a@h","description":"d"},"arguments":[["x-match",{"text":"any"}],["n",{"i64":-1}]],"pseudo_queue":"warren.hub.00","user":"guest","created_at_ms":5000,"verified_at_ms":6000,"errors":{"count":9,"first_at_ms":1,"last_at_ms":2,"last_message":"it answered 500"}}', X'01299F1731D1F1395D2298037C4A8C058E7AAE06E868DC9F09AE9FD4DB91026ABCCC9561C3F5DFA6CAFED7BD25E0B924C4E9B49408365E1F87E4E4993A732758693DBA9E95F39A93B043E152');
CREATE TABLE kept (
    name TEXT NOT NULL PRIMARY KEY,
    value BLOB NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO kept VALUES ('token-key', X'0120DCC93775190D5B794BBF8D653A1585C92AD45E172B95ADE49E9F3A5884B0');
