//! The record of messages.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use warren_engine::consume::record::{MessageError, MessageRun, MessageRunId, MessageStatus, StepRecord};
use warren_engine::delivery::{Envelope, Job};
use warren_engine::memory::FixedClock;
use warren_engine::message::{HeaderValue, Message, Properties};
use warren_engine::ports::MessageRecords;
use warren_engine::size::ByteSize;
use warren_store::messages::{FileMessages, MessageFilter, find};
use warren_store::state::Retention;

const NOW: i64 = 1_767_225_600_000;

fn run(id: Option<&str>, body: &str, attempt: u32, status: MessageStatus) -> MessageRun {
    let mut properties = Properties { message_id: id.map(str::to_owned), ..Properties::default() };
    properties.headers.set("tenant", HeaderValue::U16(7));
    let envelope = Envelope { queue: "orders".into(), routing_key: "orders".into(), ..Envelope::default() };
    let failed = status != MessageStatus::Ok;
    MessageRun {
        consumer: "orders".into(),
        print: 7,
        job: Arc::new(Job { message: Message { body: Bytes::from(body.to_owned()), properties }, envelope }),
        with_body: true,
        attempt,
        received_at: NOW,
        started_at: NOW + 1,
        ended_at: NOW + 2,
        status,
        class: failed.then_some("exhausted"),
        next_at: failed.then_some(NOW + 10_000),
        error: failed.then(|| MessageError {
            code: "broker-unreachable".into(),
            message: "call it: no".into(),
            status: Some(503),
            ..MessageError::default()
        }),
        steps: vec![StepRecord {
            path: "1.http".into(),
            id: None,
            took_us: 5,
            note: Some("503".into()),
            error: None,
        }],
    }
}

fn open(folder: &Path) -> FileMessages {
    FileMessages::open(folder, Retention::default(), Arc::new(FixedClock(NOW))).unwrap()
}

#[tokio::test]
async fn an_attempt_is_found_as_it_was_recorded() {
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(find(folder.path(), MessageFilter::default()).await.unwrap(), []);
    let messages = open(folder.path());
    let first = run(Some("a"), "body", 1, MessageStatus::Retried);
    let id = messages.append(&first.clone()).await.unwrap();
    messages.append(&run(Some("a"), "body", 2, MessageStatus::Ok)).await.unwrap();
    messages.append(&run(None, "other", 1, MessageStatus::Ok)).await.unwrap();
    let of = |filter| find(folder.path(), filter);
    let found = of(MessageFilter { id: Some(id), ..MessageFilter::default() }).await.unwrap().pop().unwrap();
    assert_eq!((found.error, found.steps), (first.error, first.steps));
    assert_eq!(
        (found.properties, found.envelope),
        (first.job.message.properties.clone(), first.job.envelope.clone())
    );
    assert_eq!((found.body, found.next_at), (Some(first.job.message.body.clone()), first.next_at));
    let attempts = |found: Vec<warren_store::messages::RecordedMessage>| {
        found.iter().map(|found| found.attempt).collect::<Vec<_>>()
    };
    let by_message = MessageFilter { message: Some("a".into()), ..MessageFilter::default() };
    assert_eq!(attempts(of(by_message.clone()).await.unwrap()), [2, 1]);
    let oldest = MessageFilter { oldest_first: true, ..by_message };
    assert_eq!(attempts(of(oldest).await.unwrap()), [1, 2]);
    let failed = MessageFilter { statuses: vec![MessageStatus::Retried], ..MessageFilter::default() };
    assert_eq!(of(failed).await.unwrap().len(), 1);
    let all = of(MessageFilter::default()).await.unwrap();
    assert!(all[0].message.starts_with("print:"), "one without an id has a name all the same");
    let same = MessageFilter { message: Some(all[0].message.clone()), ..MessageFilter::default() };
    assert_eq!(of(same).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_late_result_is_noted() {
    let folder = tempfile::tempdir().unwrap();
    let messages = open(folder.path());
    let id = messages.append(&run(Some("a"), "b", 1, MessageStatus::Ok)).await.unwrap();
    messages.late(id).await.unwrap();
    let found = messages.find(MessageFilter { id: Some(id), ..MessageFilter::default() }).await.unwrap();
    assert_eq!(found[0].status, MessageStatus::Late);
}

#[tokio::test]
async fn a_body_is_kept_only_where_it_may_be() {
    let folder = tempfile::tempdir().unwrap();
    let messages = open(folder.path());
    let bare = MessageRun { with_body: false, ..run(Some("a"), "secret", 1, MessageStatus::Ok) };
    messages.append(&bare).await.unwrap();
    let found = messages.find(MessageFilter::default()).await.unwrap().pop().unwrap();
    assert_eq!((found.body, found.body_bytes), (None, 6));
}

#[tokio::test]
async fn many_at_once_are_recorded_each() {
    let folder = tempfile::tempdir().unwrap();
    let messages = Arc::new(open(folder.path()));
    let mut tasks = tokio::task::JoinSet::new();
    for at in 0..500 {
        let messages = messages.clone();
        tasks.spawn(
            async move { messages.append(&run(Some(&at.to_string()), "b", 1, MessageStatus::Ok)).await },
        );
    }
    let mut ids = std::collections::BTreeSet::new();
    while let Some(id) = tasks.join_next().await {
        ids.insert(id.unwrap().unwrap());
    }
    assert_eq!(ids.len(), 500);
    assert_eq!(messages.find(MessageFilter::default()).await.unwrap().len(), 500);
}

#[tokio::test]
async fn what_is_too_old_or_too_much_goes() {
    let folder = tempfile::tempdir().unwrap();
    let clock = Arc::new(FixedClock(NOW));
    let retention = Retention { size: ByteSize(2 << 20), ..Retention::default() };
    let messages = FileMessages::open(folder.path(), retention, clock).unwrap();
    // Nothing that could be packed.
    let mut random = fastrand::Rng::with_seed(7);
    for at in 0..1500 {
        let body: String = std::iter::repeat_with(|| random.alphanumeric()).take(10_000).collect();
        let run = MessageRun { started_at: NOW + at, ..run(Some("big"), &body, 1, MessageStatus::Ok) };
        messages.append(&run).await.unwrap();
    }
    drop(messages);
    // 15 MB were recorded; the newest are there.
    let later = Arc::new(FixedClock(NOW + 100 * 24 * 3600 * 1000));
    let kept = find(folder.path(), MessageFilter::default()).await.unwrap();
    assert!(!kept.is_empty() && kept.len() < 1000, "{}", kept.len());
    assert!(kept.is_sorted_by(|newer, older| newer.id > older.id));
    assert_eq!(kept[0].started_at, NOW + 1499);
    // Three months on, everything of then goes with the next that is recorded.
    let retention = Retention { age: Duration::from_secs(7 * 24 * 3600), ..Retention::default() };
    let messages = FileMessages::open(folder.path(), retention, later).unwrap();
    let new =
        MessageRun { ended_at: NOW + 100 * 24 * 3600 * 1000, ..run(Some("new"), "b", 1, MessageStatus::Ok) };
    messages.append(&new).await.unwrap();
    drop(messages);
    let kept = find(folder.path(), MessageFilter::default()).await.unwrap();
    assert_eq!(kept.iter().map(|kept| kept.message.as_str()).collect::<Vec<_>>(), ["new"]);
}

/// How many attempts at the message of this name are found.
async fn count(folder: &Path, message: &str) -> usize {
    let filter = MessageFilter { message: Some(message.to_owned()), ..MessageFilter::default() };
    find(folder, filter).await.unwrap().len()
}

#[tokio::test]
async fn a_message_is_found_whether_the_index_has_it_yet_or_not() {
    let folder = tempfile::tempdir().unwrap();
    let messages = Arc::new(open(folder.path()));
    let mut tasks = tokio::task::JoinSet::new();
    // More than the index takes at once, so that some are in it and some are not.
    for at in 0..5_000 {
        let messages = messages.clone();
        tasks.spawn(async move {
            messages.append(&run(Some(&format!("m{}", at % 2500)), "b", 1, MessageStatus::Ok)).await.unwrap();
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
    for name in ["m0", "m1", "m1250", "m2499"] {
        assert_eq!(count(folder.path(), name).await, 2, "{name}");
    }
    assert_eq!(count(folder.path(), "m2500").await, 0);
    drop(messages);
    // Another process puts the rest into the index.
    let messages = open(folder.path());
    messages.append(&run(Some("m7"), "b", 2, MessageStatus::Ok)).await.unwrap();
    assert_eq!(count(folder.path(), "m7").await, 3);
    assert_eq!(count(folder.path(), "m2499").await, 2);
}

#[tokio::test]
async fn a_record_of_version_one_is_read_as_it_is_and_written_on() {
    let folder = tempfile::tempdir().unwrap();
    let connection = rusqlite::Connection::open(folder.path().join("messages.db")).unwrap();
    connection.execute_batch(include_str!("golden/messages-v1.sql")).unwrap();
    drop(connection);
    assert_eq!(count(folder.path(), "m1").await, 1);
    let messages = open(folder.path());
    messages.append(&run(Some("m1"), "b", 2, MessageStatus::Ok)).await.unwrap();
    assert_eq!(count(folder.path(), "m1").await, 2);
}

fn ids(found: &[warren_store::messages::RecordedMessage]) -> Vec<i64> {
    found.iter().map(|found| found.id.0).collect()
}

/// One connection's attempts, so many.
async fn record(messages: &FileMessages, count: usize) {
    for at in 0..count {
        messages.append(&run(Some(&format!("m{at}")), "b", 1, MessageStatus::Ok)).await.unwrap();
    }
}

fn journals(folder: &Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.filter(|path| path.extension().is_some_and(|end| end == "journal")).collect()
}

#[tokio::test]
async fn where_a_process_ended_the_next_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    for so_far in [0, 3, 6] {
        let messages = open(folder.path());
        record(&messages, 3).await;
        assert_eq!(ids(&messages.find(MessageFilter::default()).await.unwrap()).len(), so_far + 3);
    }
    let messages = open(folder.path());
    record(&messages, 3000).await;
    let found = messages.find(MessageFilter::default()).await.unwrap();
    assert_eq!(ids(&found), (1..=3009).rev().collect::<Vec<_>>(), "without a gap");
}

#[tokio::test]
async fn an_entry_that_was_not_written_to_its_end_is_none() {
    let folder = tempfile::tempdir().unwrap();
    let messages = open(folder.path());
    record(&messages, 3).await;
    drop(messages);
    for path in journals(folder.path()) {
        let mut bytes = std::fs::read(&path).unwrap();
        let last = bytes.iter().rposition(|byte| *byte != 0).unwrap();
        if last > 24 {
            bytes[last] = 0;
            std::fs::write(&path, bytes).unwrap();
        }
    }
    assert_eq!(ids(&find(folder.path(), MessageFilter::default()).await.unwrap()), [2, 1]);
    let messages = open(folder.path());
    record(&messages, 1).await;
    assert_eq!(ids(&messages.find(MessageFilter::default()).await.unwrap()), [3, 2, 1]);
}

#[tokio::test]
async fn two_at_once_have_numbers_of_their_own_and_both_are_found() {
    let folder = tempfile::tempdir().unwrap();
    let (one, other) = (open(folder.path()), open(folder.path()));
    record(&one, 1500).await;
    record(&other, 1500).await;
    record(&one, 1500).await;
    let found = find(folder.path(), MessageFilter::default()).await.unwrap();
    let mut numbers = ids(&found);
    numbers.dedup();
    assert_eq!((numbers.len(), numbers.is_sorted_by(|newer, older| newer > older)), (4500, true));
    drop((one, other));
    // What both left is one's own then.
    let messages = open(folder.path());
    record(&messages, 1500).await;
    assert_eq!(messages.find(MessageFilter::default()).await.unwrap().len(), 6000);
    drop(messages);
    assert!(journals(folder.path()).len() <= 2, "{:?}", journals(folder.path()));
}

#[tokio::test]
async fn a_file_that_is_used_again_shows_nothing_of_before() {
    let folder = tempfile::tempdir().unwrap();
    let file = |first: i64| {
        let path = folder.path().join(format!("messages-{first}.journal"));
        std::fs::metadata(path).map(|file| std::os::unix::fs::MetadataExt::ino(&file))
    };
    let messages = open(folder.path());
    let first = file(1).unwrap();
    // Enough for two files; what comes next is in the first again.
    record(&messages, 2 * 1024 + 2).await;
    assert_eq!((file(2049).unwrap(), file(1).is_err()), (first, true));
    let all: Vec<i64> = (1..=2050).rev().collect();
    assert_eq!(ids(&messages.find(MessageFilter::default()).await.unwrap()), all);
    drop(messages);
    assert_eq!(ids(&find(folder.path(), MessageFilter::default()).await.unwrap()), all);
    let messages = open(folder.path());
    record(&messages, 1).await;
    assert_eq!(ids(&messages.find(MessageFilter::default()).await.unwrap())[..2], [2051, 2050]);
}

#[tokio::test]
async fn a_death_while_a_file_is_made_for_other_numbers_costs_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let messages = open(folder.path());
    record(&messages, 1000).await;
    std::fs::copy(at("messages-1.journal"), at("kept")).unwrap();
    record(&messages, 1000).await;
    drop(messages);
    // As it is between the two names of a file: its attempts are in a block.
    for unfinished in ["messages-5000.journal", "messages-5001.journal.new"] {
        std::fs::copy(at("kept"), at(unfinished)).unwrap();
    }
    let old = std::time::SystemTime::now() - Duration::from_secs(3600);
    let file = std::fs::File::options().write(true).open(at("messages-5001.journal.new")).unwrap();
    file.set_modified(old).unwrap();
    let all: Vec<i64> = (1..=2000).rev().collect();
    assert_eq!(ids(&find(folder.path(), MessageFilter::default()).await.unwrap()), all);
    let messages = open(folder.path());
    assert_eq!(ids(&messages.find(MessageFilter::default()).await.unwrap()), all);
    assert!(!at("messages-5000.journal").exists() && !at("messages-5001.journal.new").exists());
}

#[tokio::test]
async fn a_result_of_long_ago_may_come_late() {
    let folder = tempfile::tempdir().unwrap();
    let messages = open(folder.path());
    record(&messages, 3000).await;
    for id in [1, 1024, 1025, 3000] {
        messages.late(MessageRunId(id)).await.unwrap();
    }
    messages.late(MessageRunId(1 << 40)).await.unwrap(); // there is none
    let late = MessageFilter { statuses: vec![MessageStatus::Late], ..MessageFilter::default() };
    assert_eq!(ids(&messages.find(late.clone()).await.unwrap()), [3000, 1025, 1024, 1]);
    let fine = MessageFilter { statuses: vec![MessageStatus::Ok], ..MessageFilter::default() };
    assert_eq!(messages.find(fine).await.unwrap().len(), 2996);
    drop(messages);
    let messages = open(folder.path());
    assert_eq!(messages.find(late).await.unwrap().len(), 4);
}

#[tokio::test]
async fn each_filter_narrows() {
    let folder = tempfile::tempdir().unwrap();
    let messages = open(folder.path());
    for at in 0..3000_i64 {
        let mut run = run(Some(&format!("m{}", at % 1000)), &at.to_string(), 1, MessageStatus::Ok);
        run.ended_at = NOW + at;
        if at % 2 == 1 {
            run.consumer = "other".into();
        }
        messages.append(&run).await.unwrap();
    }
    let all = MessageFilter::default;
    let of = async |filter| ids(&messages.find(filter).await.unwrap());
    assert_eq!(of(MessageFilter { message: Some("m7".into()), ..all() }).await, [2008, 1008, 8]);
    let oldest = MessageFilter { message: Some("m7".into()), oldest_first: true, limit: Some(2), ..all() };
    assert_eq!(of(oldest).await, [8, 1008]);
    assert_eq!(
        of(MessageFilter { consumer: Some("other".into()), limit: Some(2), ..all() }).await,
        [3000, 2998]
    );
    assert!(of(MessageFilter { consumer: Some("nobody".into()), ..all() }).await.is_empty());
    let between = MessageFilter { since: Some(NOW + 1023), until: Some(NOW + 1026), ..all() };
    assert_eq!(of(between).await, [1026, 1025, 1024]);
    for id in [1, 1024, 1025, 3000] {
        let found = messages.find(MessageFilter { id: Some(MessageRunId(id)), ..all() }).await.unwrap();
        assert_eq!(
            (ids(&found), found[0].body.as_deref()),
            (vec![id], Some((id - 1).to_string().as_bytes()))
        );
    }
    assert!(of(MessageFilter { id: Some(MessageRunId(3001)), ..all() }).await.is_empty());
}

#[tokio::test]
async fn where_a_block_cannot_be_stored_recording_ends_and_goes_on_when_it_can() {
    let folder = tempfile::tempdir().unwrap();
    let messages = open(folder.path());
    let broken = rusqlite::Connection::open(folder.path().join("messages.db")).unwrap();
    broken
        .execute_batch(
            "CREATE TRIGGER full BEFORE INSERT ON blocks BEGIN SELECT raise(ABORT, 'no room'); END",
        )
        .unwrap();
    let mut recorded = 0;
    let failure = loop {
        match messages.append(&run(Some("m"), "b", 1, MessageStatus::Ok)).await {
            Ok(_) => recorded += 1,
            Err(failure) => break failure,
        }
        assert!(recorded < 10_000, "what waits must have a bound");
    };
    assert!(failure.to_string().contains("no room"), "{failure}");
    assert_eq!(count(folder.path(), "m").await, recorded, "what was recorded is there");
    broken.execute_batch("DROP TRIGGER full").unwrap();
    let going_on = async {
        while messages.append(&run(Some("m"), "b", 1, MessageStatus::Ok)).await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), going_on).await.unwrap();
    assert_eq!(count(folder.path(), "m").await, recorded + 1);
}

#[tokio::test]
async fn what_version_two_recorded_is_packed_and_found() {
    let folder = tempfile::tempdir().unwrap();
    let connection = rusqlite::Connection::open(folder.path().join("messages.db")).unwrap();
    connection.execute_batch(include_str!("golden/messages-v1.sql")).unwrap();
    connection.execute_batch(include_str!("../../src/messages/002.sql")).unwrap();
    // A great many, with a gap in their numbers.
    connection
        .execute_batch(
            "INSERT INTO attempts SELECT value, 'orders', 'old-' || value, 1, 'ok', NULL, 1, 2, 3, NULL, NULL, NULL, \
             '{\"persistent\":true,\"headers\":[]}', '{\"queue\":\"orders\"}', 1, X'78' \
             FROM (WITH RECURSIVE numbers(value) AS (SELECT 10 UNION ALL SELECT value + 1 FROM numbers WHERE value < 40000) \
             SELECT value FROM numbers); PRAGMA user_version = 2;",
        )
        .unwrap();
    drop(connection);
    let of = async |name: &str| {
        let filter = MessageFilter { message: Some(name.to_owned()), ..MessageFilter::default() };
        ids(&find(folder.path(), filter).await.unwrap())
    };
    assert_eq!(of("old-20000").await, [20000], "before anybody packs it");
    let messages = open(folder.path());
    messages.append(&run(Some("new"), "b", 1, MessageStatus::Ok)).await.unwrap();
    for (name, id) in [("m1", 1), ("old-10", 10), ("old-20000", 20000), ("old-40000", 40000), ("new", 40001)]
    {
        assert_eq!(of(name).await, [id], "{name}");
    }
    let connection = rusqlite::Connection::open(folder.path().join("messages.db")).unwrap();
    let left = "SELECT count(*) FROM sqlite_schema WHERE name = 'attempts'";
    assert_eq!(connection.query_row(left, [], |row| row.get::<_, i64>(0)).unwrap(), 0);
}

#[tokio::test]
async fn a_damaged_journal_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("messages-1.journal");
    std::fs::write(&path, b"WARNMSG\x02 something that is no journal").unwrap();
    let failure =
        FileMessages::open(folder.path(), Retention::default(), Arc::new(FixedClock(NOW))).err().unwrap();
    assert!(failure.to_string().contains("messages-1.journal"), "{failure}");
    let failure = find(folder.path(), MessageFilter::default()).await.unwrap_err();
    assert_eq!(failure.code.as_str(), "state-damaged");
    std::fs::write(&path, b"WARNMSG\x03 something of a newer version").unwrap();
    let failure = find(folder.path(), MessageFilter::default()).await.unwrap_err();
    assert_eq!(failure.code.as_str(), "state-too-new");
}
