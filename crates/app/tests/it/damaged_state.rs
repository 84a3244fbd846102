//! What `check` and `doctor` find of files in the state folder that are damaged or too new, next to good ones.

use std::path::{Path, PathBuf};

use serde_json::Value;
use warren_engine::hub::ports::Subscriptions;
use warren_engine::hub::resource::Resource;
use warren_engine::hub::subscription::{Protocol, Subscription, SubscriptionKey};
use warren_engine::pipeline::outside::Hidden;
use warren_store::subscriptions::FileSubscriptions;
use warren_testkit::{Scratch, scratch};

use crate::program::Program;

/// Two syncs that ran, and a hub with a subscription that has a secret.
async fn world() -> (Scratch, Program) {
    let folder = scratch("damaged");
    let database = rusqlite::Connection::open(folder.path().join("shop.db")).unwrap();
    database
        .execute_batch(
            "CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT); INSERT INTO t VALUES (1, 'a'), (2, 'b')",
        )
        .unwrap();
    let sync = "{model: m, to: local, queue: q, message: {fields: {id: id}}}";
    let program = Program::configured(
        folder.path(),
        &format!(
            "sources: {{shop: {{type: sqlite, path: shop.db}}}}\n\
             models: {{m: {{source: shop, primary_key: id, table: t}}}}\n\
             brokers: {{local: {{type: embedded, queues: {{q: {{}}}}}}}}\n\
             syncs:\n  bad: {sync}\n  good: {sync}\n\
             hub: {{broker: local, users: {{}}}}\nstate: state\n"
        ),
    );
    assert_eq!(program.run(&["sync", "--all"]).code, Some(0));
    let subscriptions = FileSubscriptions::open(&folder.path().join("state")).unwrap();
    let key = SubscriptionKey {
        resource: Resource::queue("/", "q"),
        topic: "all".into(),
        callback: "http://h.example/".into(),
    };
    let mut subscription = Subscription::new(key, Protocol::Rabbithub, 1000);
    subscription.secret = Some(Hidden("sesame".into()));
    subscriptions.put(&subscription).await.unwrap();
    (folder, program)
}

/// The one file of a folder whose name begins so.
fn file(folder: &Path, prefix: &str) -> PathBuf {
    let mut found = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    found.find(|path| path.file_name().unwrap().to_str().unwrap().starts_with(prefix)).unwrap()
}

/// What both commands find: code, subject and what the other side said.
fn found(program: &Program, code: i32) -> Vec<(String, String, String)> {
    let of = |command: &str| {
        let document = program.documents(&[command], code).pop().unwrap();
        let findings = document["findings"].as_array().unwrap().clone();
        let errors = findings.into_iter().filter(|finding| finding["severity"] == "error");
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        errors
            .map(|one| (text(&one["code"]), text(&one["subject"]), text(&one["detail"])))
            .collect::<Vec<_>>()
    };
    let checked = of("check");
    assert_eq!(of("doctor"), checked);
    checked
}

fn overwrite(path: &Path, at: usize, bytes: &[u8]) {
    let mut whole = std::fs::read(path).unwrap();
    whole[at..at + bytes.len()].copy_from_slice(bytes);
    std::fs::write(path, whole).unwrap();
}

#[tokio::test]
async fn a_damaged_or_newer_file_of_a_baseline_is_found_and_its_neighbour_is_not() {
    let (folder, program) = world().await;
    assert_eq!(found(&program, 0), []);
    let baseline = folder.path().join("state/baselines/bad");
    let (keys, rows) = (file(&baseline, "keys-"), file(&baseline, "rows-"));
    let newer = 99_u32.to_le_bytes();
    // Of the keys: the header's mark, its version, a block, the footer. Of the rows: mark and version.
    let footer = usize::try_from(std::fs::metadata(&keys).unwrap().len()).unwrap() - 20;
    for (path, at, bytes, code) in [
        (&keys, 0, &b"x"[..], "state-damaged"),
        (&keys, 8, &newer, "state-too-new"),
        (&keys, 40, b"\xff\xfe", "state-damaged"),
        (&keys, footer, b"\xff\xfe", "state-damaged"),
        (&rows, 0, b"x", "state-damaged"),
        (&rows, 8, &newer, "state-too-new"),
    ] {
        let right = std::fs::read(path).unwrap();
        overwrite(path, at, bytes);
        let [(found_code, subject, detail)] = &found(&program, 1)[..] else { panic!("{path:?} {at}") };
        assert_eq!((found_code.as_str(), subject.as_str()), (code, "syncs.bad"), "{path:?} {at}: {detail}");
        assert!(detail.contains(path.file_name().unwrap().to_str().unwrap()), "{detail}");
        std::fs::write(path, right).unwrap();
    }
    let right = std::fs::read(&keys).unwrap();
    std::fs::write(&keys, &right[..right.len() / 2]).unwrap();
    assert_eq!(found(&program, 1)[0].0, "state-damaged");
    std::fs::remove_file(&keys).unwrap();
    assert_eq!(found(&program, 1)[0].0, "state-damaged");
    std::fs::write(&keys, right).unwrap();
    assert_eq!(found(&program, 0), []);
}

#[tokio::test]
async fn a_damaged_or_newer_store_of_the_hub_is_found_and_nothing_else() {
    let (folder, program) = world().await;
    assert_eq!(found(&program, 0), []);
    let state = folder.path().join("state");
    let (db, key) = (state.join("hub.db"), state.join("hub.key"));
    let only = |code: &str, said: &str| {
        let found = found(&program, 1);
        let [(found_code, subject, detail)] = &found[..] else { panic!("{found:?}") };
        assert_eq!((found_code.as_str(), subject.as_str()), (code, "hub"), "{detail}");
        assert!(detail.contains(said), "{detail}");
    };
    let right = std::fs::read(&key).unwrap();
    std::fs::write(&key, "0".repeat(64)).unwrap();
    only("state-damaged", "does not open with the key in `hub.key`");
    std::fs::write(&key, "no key").unwrap();
    only("state-damaged", "64 hexadecimal digits");
    std::fs::remove_file(&key).unwrap();
    only("state-damaged", "`hub.key` is missing");
    assert!(!key.exists(), "looking makes no key");
    std::fs::write(&key, right).unwrap();
    let connection = rusqlite::Connection::open(&db).unwrap();
    connection.pragma_update(None, "user_version", 99).unwrap();
    drop(connection);
    only("state-too-new", "99");
    let connection = rusqlite::Connection::open(&db).unwrap();
    connection.pragma_update(None, "user_version", 1).unwrap();
    drop(connection);
    std::fs::create_dir_all(state.join("inflight")).unwrap();
    std::fs::write(state.join("inflight/%hub.ids"), b"WARNWID\x02and more").unwrap();
    only("state-too-new", "%hub.ids");
    std::fs::remove_file(state.join("inflight/%hub.ids")).unwrap();
    assert_eq!(found(&program, 0), []);
    for name in ["hub.db-wal", "hub.db-shm"] {
        std::fs::remove_file(state.join(name)).ok(); // a clean end removes them
    }
    std::fs::write(&db, "x".repeat(8192)).unwrap();
    only("state-damaged", "hub.db");
}
