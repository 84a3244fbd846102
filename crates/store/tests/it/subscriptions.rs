//! Subscriptions on a disk: the same after a restart and after a kill, their secrets unreadable in the file.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use warren_engine::codes;
use warren_engine::hub::ports::Subscriptions;
use warren_engine::hub::resource::Resource;
use warren_engine::hub::subscription::{
    Contact, DeliveryErrors, HaMode, Protocol, Signing, Subscription, SubscriptionKey, SubscriptionState,
    WhyInactive,
};
use warren_engine::message::HeaderValue;
use warren_engine::pipeline::outside::Hidden;
use warren_store::subscriptions::FileSubscriptions;

const FOLDER: &str = "WARREN_TEST_HUB_FOLDER";

/// The key of the golden file.
const GOLDEN_KEY: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";

fn bare(callback: &str) -> Subscription {
    let key = SubscriptionKey {
        resource: Resource::queue("/", "orders"),
        topic: "all".into(),
        callback: callback.into(),
    };
    Subscription::new(key, Protocol::Rabbithub, 1000)
}

/// Every field once.
fn full() -> Subscription {
    let key = SubscriptionKey {
        resource: Resource::exchange("v/h", "évents"),
        topic: "a.#".into(),
        callback: "https://h.example/?x=1".into(),
    };
    let mut full = Subscription::new(key, Protocol::Websub, 5000);
    full.state = SubscriptionState::Inactive(WhyInactive::Gone);
    full.lease_seconds = 31_536_000_000;
    full.expires_at_ms = i64::MAX;
    full.max_tps = 7;
    full.max_in_flight = Some(3);
    full.ha_mode = HaMode::Count(2);
    full.basic_auth = Some(Hidden("dXNlcjpwYXNz".into()));
    full.secret = Some(Hidden("sesame".into()));
    full.signing = Signing::Standard;
    full.contact = Some(Contact {
        app_name: "shop".into(),
        contact_name: Some("Ann".into()),
        phone: Some("1".into()),
        email: Some("a@h".into()),
        description: Some("d".into()),
    });
    full.arguments.set("x-match", HeaderValue::Text("any".into()));
    full.arguments.set("n", HeaderValue::I64(-1));
    full.pseudo_queue = Some("warren.hub.00".into());
    full.user = Some("guest".into());
    full.verified_at_ms = Some(6000);
    full.errors = DeliveryErrors {
        count: 9,
        first_at_ms: 1,
        last_at_ms: 2,
        last_kind: Some(warren_engine::failure::FailureName::Unavailable),
        last_message: "it answered 500".into(),
    };
    full
}

fn open(folder: &Path) -> FileSubscriptions {
    FileSubscriptions::open(folder).unwrap()
}

async fn all(folder: &Path) -> Vec<Subscription> {
    let mut all = open(folder).all().await.unwrap();
    all.sort_by(|one, other| one.key.cmp(&other.key));
    all
}

#[tokio::test]
async fn what_is_stored_is_the_same_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    {
        let store = open(folder.path());
        store.put(&bare("http://a/")).await.unwrap();
        store.put(&full()).await.unwrap();
        store.put(&Subscription { max_tps: 5, ..bare("http://a/") }).await.unwrap();
        store.put(&bare("http://b/")).await.unwrap();
        assert!(store.remove(bare("http://b/").id()).await.unwrap());
        assert!(!store.remove(bare("http://b/").id()).await.unwrap());
    }
    assert_eq!(all(folder.path()).await, [Subscription { max_tps: 5, ..bare("http://a/") }, full()]);
}

#[tokio::test]
async fn values_are_kept_under_their_names() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    for (name, value) in [("a/1", "one"), ("a/2", "two"), ("b/1", "x"), ("a/2", "zwei"), ("a%", "y")] {
        store.keep(name, value.as_bytes()).await.unwrap();
    }
    assert_eq!(store.names("a/").await.unwrap(), ["a/1", "a/2"]);
    assert_eq!(open(folder.path()).value("a/2").await.unwrap().unwrap(), b"zwei");
    store.forget("a/2").await.unwrap();
    assert_eq!(store.value("a/2").await.unwrap(), None);
    assert_eq!(store.names("").await.unwrap(), ["a%", "a/1", "b/1"]);
}

#[tokio::test]
async fn no_secret_stands_in_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    store.put(&full()).await.unwrap();
    store.keep("token-key", b"open-sesame").await.unwrap();
    drop(store);
    let mut read = 0;
    for file in std::fs::read_dir(folder.path()).unwrap().map(Result::unwrap) {
        let bytes = std::fs::read(file.path()).unwrap();
        read += bytes.len();
        for secret in ["sesame", "dXNlcjpwYXNz"] {
            assert!(!bytes.windows(secret.len()).any(|window| window == secret.as_bytes()), "{file:?}");
        }
        let mode = std::fs::metadata(file.path()).unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{file:?} is for its owner alone");
    }
    assert!(read > 8000, "there was something to look at");
}

#[tokio::test]
async fn without_its_key_the_file_is_not_opened() {
    let folder = tempfile::tempdir().unwrap();
    open(folder.path()).put(&full()).await.unwrap();
    let key = folder.path().join("hub.key");
    let right = std::fs::read_to_string(&key).unwrap();
    std::fs::remove_file(&key).unwrap();
    let failure = FileSubscriptions::open(folder.path()).err().unwrap();
    assert_eq!(failure.code, codes::STATE_DAMAGED);
    assert!(failure.detail.unwrap().contains("hub.key"));
    assert!(!key.exists(), "a new one would hide that the old one is missing");
    // Another key opens nothing.
    std::fs::write(&key, GOLDEN_KEY).unwrap();
    assert_eq!(open(folder.path()).all().await.unwrap_err().code, codes::STATE_DAMAGED);
    std::fs::write(&key, "no key").unwrap();
    assert_eq!(FileSubscriptions::open(folder.path()).err().unwrap().code, codes::STATE_DAMAGED);
    std::fs::write(&key, right).unwrap();
    assert_eq!(all(folder.path()).await, [full()]);
}

#[tokio::test]
async fn a_secret_moved_to_another_subscription_does_not_open() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    store.put(&full()).await.unwrap();
    store.put(&Subscription { secret: Some(Hidden("other".into())), ..bare("http://a/") }).await.unwrap();
    let connection = rusqlite::Connection::open(folder.path().join("hub.db")).unwrap();
    let id = full().id().0.to_be_bytes();
    let moved = connection
        .execute("UPDATE subscriptions SET secrets = (SELECT secrets FROM subscriptions WHERE id = ?1)", [id])
        .unwrap();
    assert_eq!(moved, 2);
    assert_eq!(store.all().await.unwrap_err().code, codes::STATE_DAMAGED);
}

#[tokio::test]
async fn a_file_of_a_newer_version_is_not_touched() {
    let folder = tempfile::tempdir().unwrap();
    drop(open(folder.path()));
    let connection = rusqlite::Connection::open(folder.path().join("hub.db")).unwrap();
    connection.pragma_update(None, "user_version", 99).unwrap();
    drop(connection);
    assert_eq!(FileSubscriptions::open(folder.path()).err().unwrap().code, codes::STATE_TOO_NEW);
}

/// What the child does: stores subscriptions until it is killed, saying so after each.
#[tokio::test]
#[ignore = "not a test: the process that the next test kills"]
async fn child() {
    let folder = std::env::var(FOLDER).unwrap();
    let store = open(Path::new(&folder));
    for turn in 0u64.. {
        let secret = Some(Hidden(format!("secret {turn}")));
        store.put(&Subscription { secret, ..bare(&format!("http://h/{turn}")) }).await.unwrap();
        println!("stored {turn}");
        std::io::stdout().flush().unwrap();
    }
}

#[tokio::test]
async fn what_was_stored_before_a_kill_is_there() {
    for _ in 0..5 {
        let folder = tempfile::tempdir().unwrap();
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "subscriptions::child", "--ignored", "--nocapture", "--test-threads", "1"])
            .env(FOLDER, folder.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let enough = fastrand::u64(1..40);
        let stored = |line: String| line.split_once("stored ")?.1.parse::<u64>().ok();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let mut last = lines.by_ref().filter_map(stored).find(|turn| *turn >= enough).unwrap();
        child.kill().unwrap(); // SIGKILL
        child.wait().unwrap();
        last = lines.filter_map(stored).last().unwrap_or(last);
        let found = all(folder.path()).await;
        for turn in 0..=last {
            let callback = format!("http://h/{turn}");
            let held = found.iter().find(|held| held.key.callback == callback).expect("it was stored");
            assert_eq!(held.secret, Some(Hidden(format!("secret {turn}"))));
        }
    }
}

/// A file as version 1 wrote it is read for ever.
#[tokio::test]
async fn version_one_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let connection = rusqlite::Connection::open(folder.path().join("hub.db")).unwrap();
    connection.execute_batch(include_str!("golden/hub-v1.sql")).unwrap();
    drop(connection);
    std::fs::write(folder.path().join("hub.key"), GOLDEN_KEY).unwrap();
    // The kind of the last failure came later.
    let mut of_version_1 = full();
    of_version_1.errors.last_kind = None;
    assert_eq!(all(folder.path()).await, [bare("http://a/"), of_version_1]);
    assert_eq!(open(folder.path()).value("token-key").await.unwrap().unwrap(), b"key");
}

#[tokio::test]
#[ignore = "writes the golden file of a new version"]
async fn write_golden() {
    use std::fmt::Write as _;
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("hub.key"), GOLDEN_KEY).unwrap();
    let store = open(folder.path());
    store.put(&bare("http://a/")).await.unwrap();
    store.put(&full()).await.unwrap();
    store.keep("token-key", b"key").await.unwrap();
    let connection = rusqlite::Connection::open(folder.path().join("hub.db")).unwrap();
    let mut sql = "-- The hub's subscriptions as version 1 wrote them; never changed.\nPRAGMA application_id = 1463898696;\n\
                   PRAGMA user_version = 1;\n"
        .to_owned();
    let mut tables = connection.prepare("SELECT name, sql FROM sqlite_schema WHERE sql IS NOT NULL").unwrap();
    let mut tables = tables.query([]).unwrap();
    while let Some(table) = tables.next().unwrap() {
        let (name, made): (String, String) = (table.get(0).unwrap(), table.get(1).unwrap());
        writeln!(sql, "{made};").unwrap();
        let columns = if name == "kept" { "name, value, NULL" } else { "id, subscription, secrets" };
        let mut rows = connection
            .prepare(&format!(
                "SELECT quote(a), quote(b), quote(c) FROM (SELECT {} FROM {name})",
                columns
                    .split(", ")
                    .zip(["a", "b", "c"])
                    .map(|(column, short)| format!("{column} AS {short}"))
                    .collect::<Vec<_>>()
                    .join(", ")
            ))
            .unwrap();
        let mut rows = rows.query([]).unwrap();
        while let Some(row) = rows.next().unwrap() {
            let mut values: Vec<String> = (0..3).map(|at| row.get(at).unwrap()).collect();
            values.truncate(if name == "kept" { 2 } else { 3 });
            writeln!(sql, "INSERT INTO {name} VALUES ({});", values.join(", ")).unwrap();
        }
    }
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/golden/hub-v1.sql");
    std::fs::write(golden, sql).unwrap();
}
