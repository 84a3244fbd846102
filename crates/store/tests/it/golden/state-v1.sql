-- A state as this version wrote it. Made by `write_golden`; never changed.
PRAGMA application_id = 1463898702;
PRAGMA user_version = 1;
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
CREATE TABLE block_rows (
    block INTEGER PRIMARY KEY REFERENCES blocks (id) ON DELETE CASCADE,
    ids BLOB NOT NULL,
    rows BLOB NOT NULL,
    bodies BLOB NOT NULL
) STRICT;
INSERT INTO runs VALUES (1, 'customers', 'changes', 'warning', 1767225600000, 1767225600010, '{"rows":5,"baseline_rows":0,"planned":{"added":2,"changed":1,"removed":1},"sent":{"added":1,"changed":0,"removed":0},"skipped":{"added":0,"changed":0,"removed":0},"rejected":{"added":0,"changed":0,"removed":0},"held":{"added":0,"changed":0,"removed":0},"null_keys":1,"duplicate_keys":0,"possible_duplicates":0,"retries":0,"bytes":0}', '{"querying_ms":1,"planning_ms":2,"sending_ms":3,"total_ms":10}', '{"code":"unroutable","message":"no queue","remedy":null}', '1-1');
INSERT INTO runs VALUES (2, 'orders', 'full', 'queued', 1767312000000, NULL, '{"rows":0,"baseline_rows":0,"planned":{"added":0,"changed":0,"removed":0},"sent":{"added":0,"changed":0,"removed":0},"skipped":{"added":0,"changed":0,"removed":0},"rejected":{"added":0,"changed":0,"removed":0},"held":{"added":0,"changed":0,"removed":0},"null_keys":0,"duplicate_keys":0,"possible_duplicates":0,"retries":0,"bytes":0}', '{"querying_ms":0,"planning_ms":0,"sending_ms":0,"total_ms":0}', NULL, '1-1');
INSERT INTO tallies VALUES (1, 'held', 'added', '', 1, 0, '4', NULL);
INSERT INTO tallies VALUES (1, 'rejected', '', 'null-key', 1, 0, 'null', NULL);
INSERT INTO tallies VALUES (1, 'rejected', 'changed', 'unroutable', 1, 9, '[2, "b"]', 'returned: 312 NO_ROUTE');
INSERT INTO tallies VALUES (1, 'sent', 'added', '', 1, 9, '1', 'confirmed');
INSERT INTO tallies VALUES (1, 'unknown', 'removed', 'connection-lost', 1, 0, '3', 'connection lost');
INSERT INTO blocks VALUES (1, 1, 5, 15, 1767225600000, 1767225600004, X'77d0e779e9388a6440381a5584af');
INSERT INTO block_rows VALUES (1, X'1032547698badcfeefcdab8967452301020000000000000000000000000000000300000000000000000000000000000004000000000000000000000000000000', X'0128b52ffd64a200850b006618583d504dda06b0a0d452c440c082c46a3a530066a66986f322c9524cb6cdd89e5b689746e15f47889fcf911dc86f67a40d523bbcbb5684bea166cdb6b74c294a00450049002eb79ff8f86bebc36e743e61c01161e3c1840d0d48a24c10024bd68b5f5e029256f0b1bd1503e8eef6975d89d9cf703480dd18a01f4b62775ed546c712616d261b343478c8f80081e205eec9396707d2349dcb195314ec1a13194599ceb3020cdcbcc298cd9f5a5b351dd6b4169a01ed0e1dbbc5318fa228a2def5e8999f5fa53525d566150e543b1fc6492f172820dee07534da1264e0bdf0414294587181e382c1cf2436dfc9dd3099fc4cf52a870f97c283f018f98d33a22da0109b515a910e22daaa5097cbe8ee4b9a2ee739d30a35dd9373ce539a70dd134a716da08e74c567bbe6b43767720f270279eded49b0a82ca002928764725cf36e6f978a14243260688a3f1969b9a01457c96796429f597a51edfc286bb5f1e9c778040066ac01ff3b03344075011a4fc55c97', X'28b52ffd24129100007b226964223a20317d7b226964223a20327d1e50db8d');
