-- The subscriptions of Warren's hub, version 1.

-- A subscription. `secrets` is sealed with the key of the state folder, bound to the id.
CREATE TABLE subscriptions (
    id BLOB NOT NULL PRIMARY KEY,
    subscription TEXT NOT NULL,
    secrets BLOB
) STRICT, WITHOUT ROWID;

-- What the hub keeps beside them. `value` is sealed, bound to the name.
CREATE TABLE kept (
    name TEXT NOT NULL PRIMARY KEY,
    value BLOB NOT NULL
) STRICT, WITHOUT ROWID;
