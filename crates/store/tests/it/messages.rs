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
    let id = messages.append(first.clone()).await.unwrap();
    messages.append(run(Some("a"), "body", 2, MessageStatus::Ok)).await.unwrap();
    messages.append(run(None, "other", 1, MessageStatus::Ok)).await.unwrap();
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
    let id = messages.append(run(Some("a"), "b", 1, MessageStatus::Ok)).await.unwrap();
    messages.late(id).await.unwrap();
    let found = messages.find(MessageFilter { id: Some(id), ..MessageFilter::default() }).await.unwrap();
    assert_eq!(found[0].status, MessageStatus::Late);
}

#[tokio::test]
async fn a_body_is_kept_only_where_it_may_be() {
    let folder = tempfile::tempdir().unwrap();
    let messages = open(folder.path());
    let bare = MessageRun { with_body: false, ..run(Some("a"), "secret", 1, MessageStatus::Ok) };
    messages.append(bare).await.unwrap();
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
            async move { messages.append(run(Some(&at.to_string()), "b", 1, MessageStatus::Ok)).await },
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
    let body = "x".repeat(10_000);
    for _ in 0..1500 {
        messages.append(run(Some("big"), &body, 1, MessageStatus::Ok)).await.unwrap();
    }
    drop(messages);
    // 15 MB were recorded; the newest are there.
    let later = Arc::new(FixedClock(NOW + 100 * 24 * 3600 * 1000));
    let kept = find(folder.path(), MessageFilter::default()).await.unwrap();
    assert!(!kept.is_empty() && kept.len() < 1000, "{}", kept.len());
    assert_eq!(kept[0].id, MessageRunId(1500));
    // Three months on, everything of then goes with the next that is recorded.
    let retention = Retention { age: Duration::from_secs(7 * 24 * 3600), ..Retention::default() };
    let messages = FileMessages::open(folder.path(), retention, later).unwrap();
    let new =
        MessageRun { ended_at: NOW + 100 * 24 * 3600 * 1000, ..run(Some("new"), "b", 1, MessageStatus::Ok) };
    messages.append(new).await.unwrap();
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
            messages.append(run(Some(&format!("m{}", at % 2500)), "b", 1, MessageStatus::Ok)).await.unwrap();
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
    messages.append(run(Some("m7"), "b", 2, MessageStatus::Ok)).await.unwrap();
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
    messages.append(run(Some("m1"), "b", 2, MessageStatus::Ok)).await.unwrap();
    assert_eq!(count(folder.path(), "m1").await, 2);
}
