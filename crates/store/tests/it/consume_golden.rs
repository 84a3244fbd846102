//! What consuming keeps, as earlier versions wrote it: the record of messages and the journal of messages in flight. It is read for ever.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use warren_engine::codes;
use warren_engine::consume::record::{MessageError, MessageRun, MessageRunId, MessageStatus, StepRecord};
use warren_engine::delivery::{Envelope, Job};
use warren_engine::failure::FailureName;
use warren_engine::memory::FixedClock;
use warren_engine::message::{HeaderValue, Message, Properties};
use warren_engine::ports::{InFlight, MessageRecords};
use warren_store::in_flight::FileInFlight;
use warren_store::messages::{FileMessages, MessageFilter, find};
use warren_store::state::Retention;

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/golden").join(name)
}

#[tokio::test]
async fn version_one_of_the_record_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let connection = rusqlite::Connection::open(folder.path().join("messages.db")).unwrap();
    connection.execute_batch(include_str!("golden/messages-v1.sql")).unwrap();
    drop(connection);
    let filter = MessageFilter { oldest_first: true, ..MessageFilter::default() };
    let found = find(folder.path(), filter).await.unwrap();
    let [first, second] = &found[..] else { panic!("{found:#?}") };
    assert_eq!((first.id, first.message.as_str(), first.attempt), (MessageRunId(1), "m1", 1));
    assert_eq!((first.status, first.next_at), (MessageStatus::Retried, Some(1_767_225_610_000)));
    let error = first.error.as_ref().unwrap();
    assert_eq!(
        (error.code.as_str(), error.status, error.answer.as_deref()),
        ("broker-unreachable", Some(503), Some("busy"))
    );
    let steps: Vec<(&str, Option<&str>, u64)> =
        first.steps.iter().map(|step| (step.path.as_str(), step.id.as_deref(), step.took_us)).collect();
    assert_eq!(steps, [("1.http", Some("call"), 5), ("2.map", None, 1)]);
    assert_eq!(first.properties.headers.get("tenant"), Some(&HeaderValue::U16(7)));
    assert_eq!(first.properties.headers.get("bytes"), Some(&HeaderValue::Bytes(vec![0, 255])));
    assert_eq!((first.envelope.delivery_count, first.envelope.exchange.as_str()), (Some(3), "events"));
    assert_eq!((first.body.as_deref(), first.body_bytes), (Some(&b"body"[..]), 4));
    assert_eq!((second.status, second.class.as_deref()), (MessageStatus::DeadLettered, Some("exhausted")));
    assert_eq!((second.body.as_deref(), second.body_bytes), (None, 9));
    assert_eq!(second.steps, []);
}

#[tokio::test]
async fn a_newer_record_is_not_read() {
    let folder = tempfile::tempdir().unwrap();
    let connection = rusqlite::Connection::open(folder.path().join("messages.db")).unwrap();
    connection.execute_batch(include_str!("golden/messages-v1.sql")).unwrap();
    connection.pragma_update(None, "user_version", 99).unwrap();
    drop(connection);
    let failure = find(folder.path(), MessageFilter::default()).await.unwrap_err();
    assert_eq!(failure.code, codes::STATE_TOO_NEW);
}

#[tokio::test]
#[ignore = "makes the files that the next one reads"]
async fn make_version_1_of_the_journal() {
    let folder = golden("inflight-v1");
    let first = FileInFlight::open(&folder, "orders").unwrap();
    let _died = first.enter(7).unwrap();
    first.unstarted(&[9]).await;
    drop(first);
    let second = FileInFlight::open(&folder, "orders").unwrap();
    let (_died, _died_too) = (second.enter(7).unwrap(), second.enter(u128::MAX - 1).unwrap());
    let done = second.enter(8).unwrap();
    second.leave(done);
}

/// 7 died twice, the second time together with another; 8 ended; 9 was handed back without having been started.
#[tokio::test]
async fn version_1_of_the_journal_is_read() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["orders.slots", "orders.suspects"] {
        std::fs::copy(golden("inflight-v1").join(name), folder.path().join(name)).unwrap();
    }
    let journal = FileInFlight::open(folder.path(), "orders").unwrap();
    let crashes = [7, u128::MAX - 1, 8, 9].map(|print| journal.crashes(print));
    assert_eq!(crashes, [2, 1, 0, 0]);
    assert!(journal.take_unstarted(9).await && !journal.take_unstarted(8).await);
}

/// Two attempts in a block, and one in the journal, whose result came late. `messages-v3` has a journal of version 1,
/// `messages-v3-journal-v2` one of version 2; neither has kinds of failures, which version 4 added.
#[tokio::test]
#[ignore = "makes the files that the next one reads"]
async fn make_version_4_of_the_record() {
    let folder = golden("messages-v4");
    let messages =
        FileMessages::open(&folder, Retention::default(), Arc::new(FixedClock(1_767_225_600_000))).unwrap();
    let first = attempt(1_767_225_600_002);
    messages.append(&first).await.unwrap();
    let plain = MessageRun { error: None, status: MessageStatus::Ok, with_body: false, ..first.clone() };
    messages.append(&plain).await.unwrap();
    // Hours later: what was before is packed.
    let last = MessageRun { ended_at: first.ended_at + 7_200_000, ..first };
    let id = messages.append(&last).await.unwrap();
    messages.late(id).await.unwrap();
    drop(messages);
    let connection = rusqlite::Connection::open(folder.join("messages.db")).unwrap();
    connection.execute_batch("PRAGMA journal_mode = DELETE; VACUUM").unwrap();
}

fn attempt(ended_at: i64) -> MessageRun {
    let mut properties = Properties { message_id: Some("m1".into()), ..Properties::default() };
    properties.headers.set("bytes", HeaderValue::Bytes(vec![0, 255]));
    let envelope = Envelope {
        queue: "orders".into(),
        delivery_count: Some(3),
        system: [("MessageGroupId".to_owned(), "g".to_owned())].into(),
        ..Envelope::default()
    };
    MessageRun {
        consumer: "orders".into(),
        print: 7,
        job: Arc::new(Job { message: Message { body: "body".into(), properties }, envelope }),
        with_body: true,
        attempt: 2,
        received_at: ended_at - 2,
        started_at: ended_at - 1,
        ended_at,
        status: MessageStatus::Retried,
        class: None,
        next_at: Some(ended_at + 10_000),
        error: Some(MessageError {
            kind: Some(FailureName::Unavailable),
            code: "broker-unreachable".into(),
            message: "call it: no".into(),
            remedy: Some("wait".into()),
            status: Some(503),
            exit_code: Some(-1),
            answer: Some("busy".into()),
        }),
        steps: vec![StepRecord {
            path: "1.http".into(),
            id: Some("call".into()),
            took_us: 5,
            note: Some("503".into()),
            error: Some("no [http-status]".into()),
        }],
    }
}

#[tokio::test]
async fn versions_3_and_4_of_the_record_are_read() {
    for version in ["messages-v3", "messages-v3-journal-v2"] {
        is_read(&golden(version), None).await;
    }
    is_read(&golden("messages-v4"), Some(FailureName::Unavailable)).await;
}

async fn is_read(version: &std::path::Path, kind: Option<FailureName>) {
    let folder = tempfile::tempdir().unwrap();
    for file in std::fs::read_dir(version).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), folder.path().join(file.file_name())).unwrap();
    }
    for _ in 0..2 {
        let filter = MessageFilter { oldest_first: true, ..MessageFilter::default() };
        let found = find(folder.path(), filter).await.unwrap();
        let [first, second, third] = &found[..] else { panic!("{found:#?}") };
        let mut wanted = attempt(1_767_225_600_002);
        wanted.error.as_mut().unwrap().kind = kind;
        assert_eq!((first.error.as_ref(), &first.steps), (wanted.error.as_ref(), &wanted.steps));
        assert_eq!(
            (&first.properties, &first.envelope),
            (&wanted.job.message.properties, &wanted.job.envelope)
        );
        assert_eq!((first.status, first.body.as_deref()), (MessageStatus::Retried, Some(&b"body"[..])));
        assert_eq!((first.received_at, first.next_at), (wanted.received_at, wanted.next_at));
        assert_eq!((second.status, second.body.as_deref(), second.body_bytes), (MessageStatus::Ok, None, 4));
        assert_eq!((third.status, third.ended_at), (MessageStatus::Late, wanted.ended_at + 7_200_000));
        // And gone on with.
        drop(FileMessages::open(folder.path(), Retention::default(), Arc::new(FixedClock(0))).unwrap());
    }
}
