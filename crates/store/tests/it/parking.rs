//! The parking lot: what is parked is there after the process, in order, and due when it says.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use warren_engine::codes;
use warren_engine::consume::policy::{Class, DeadLettered};
use warren_engine::delivery::{Envelope, Job};
use warren_engine::message::{HeaderValue, Message, Properties};
use warren_engine::ports::{NewParked, Parked, ParkedId, ParkedSum, Parking};
use warren_store::parking::FileParking;

fn parked(body: &str, lane: Option<&str>, due_ms: i64) -> NewParked {
    let mut properties =
        Properties { message_id: Some("m1".into()), expiration: Some("7".into()), ..Properties::default() };
    properties.headers.set("bytes", HeaderValue::Bytes(vec![0, 255]));
    properties.headers.set("big", HeaderValue::U32(u32::MAX));
    let envelope = Envelope {
        queue: "orders".into(),
        exchange: "events".into(),
        routing_key: "a.b".into(),
        redelivered: true,
        delivery_count: Some(3),
        delivery_tag: u64::from(u32::MAX),
        consumer_tag: "tag".into(),
        system: [("MessageGroupId".to_owned(), "g".to_owned())].into(),
    };
    let message = Message { body: Bytes::from(body.to_owned()), properties };
    let job = Arc::new(Job { message, envelope });
    NewParked { job, spent: 2, first_at_ms: 5, due_ms, lane: lane.map(Into::into), dead_lettered: None }
}

fn open(folder: &Path) -> FileParking {
    FileParking::open(folder).unwrap()
}

async fn due(parking: &FileParking, now: i64) -> Vec<String> {
    let due = parking.due("orders", now, 100).await.unwrap();
    due.iter().map(|parked| String::from_utf8_lossy(&parked.parked.job.message.body).into_owned()).collect()
}

#[tokio::test]
async fn what_is_parked_is_the_same_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let one = parked("\u{0}body", Some("k"), 100);
    let id = open(folder.path()).park("orders", &one).await.unwrap();
    let again = open(folder.path());
    let found = again.due("orders", 100, 10).await.unwrap().pop().unwrap();
    assert_eq!((found.id, found.parked), (id, one));
    assert_eq!(again.due("others", 1000, 10).await.unwrap(), []);
}

#[tokio::test]
async fn it_is_due_when_it_says_and_gone_when_it_is_removed() {
    let folder = tempfile::tempdir().unwrap();
    let parking = open(folder.path());
    let late = parking.park("orders", &parked("late", None, 200)).await.unwrap();
    parking.park("orders", &parked("soon", None, 100)).await.unwrap();
    assert_eq!(parking.next_due_ms("orders").await.unwrap(), Some(100));
    assert_eq!(due(&parking, 99).await, [""; 0]);
    assert_eq!(due(&parking, 150).await, ["soon"]);
    assert_eq!(due(&parking, 200).await, ["soon", "late"]);
    parking.delay(late, 5, 900).await.unwrap();
    assert_eq!(due(&parking, 899).await, ["soon"]);
    assert_eq!(parking.due("orders", 900, 10).await.unwrap()[1].parked.spent, 5);
    parking.remove(late).await.unwrap();
    parking.remove(ParkedId(999)).await.unwrap();
    assert_eq!(due(&parking, 9000).await, ["soon"]);
}

#[tokio::test]
async fn of_a_lane_only_the_first_is_due() {
    let folder = tempfile::tempdir().unwrap();
    let parking = open(folder.path());
    let first = parking.park("orders", &parked("a1", Some("a"), 500)).await.unwrap();
    parking.park("orders", &parked("a2", Some("a"), 0)).await.unwrap();
    parking.park("orders", &parked("b1", Some("b"), 0)).await.unwrap();
    assert_eq!(due(&parking, 100).await, ["b1"]);
    assert_eq!(due(&parking, 500).await, ["b1", "a1"]);
    parking.remove(first).await.unwrap();
    assert_eq!(due(&parking, 100).await, ["a2", "b1"]);
    let mut lanes = parking.lanes("orders").await.unwrap();
    lanes.sort_by(|one, other| one.0.cmp(&other.0));
    let one = ParkedSum { messages: 1, bytes: Job::PARKED_BYTES + 2 };
    assert_eq!(lanes, [(Some("a".to_owned()), one), (Some("b".to_owned()), one)]);
}

#[tokio::test]
async fn all_of_a_batch_are_parked_or_none() {
    let folder = tempfile::tempdir().unwrap();
    let parking = open(folder.path());
    let batch = [parked("a1", Some("a"), 0), parked("x", None, 0), parked("a2", Some("a"), 0)];
    let ids = parking.park_all("orders", &batch).await.unwrap();
    assert!(ids.is_sorted() && ids.len() == 3);
    assert_eq!(due(&parking, 0).await, ["a1", "x"]);
    // Whichever is removed first, the head is the first that is left.
    parking.remove(ids[2]).await.unwrap();
    assert_eq!(due(&parking, 0).await, ["a1", "x"]);
    parking.park("orders", &parked("a3", Some("a"), 0)).await.unwrap();
    parking.remove(ids[0]).await.unwrap();
    assert_eq!(due(&parking, 0).await, ["x", "a3"]);
    // Another consumer's lane of that name is another.
    parking.park("others", &parked("o1", Some("a"), 0)).await.unwrap();
    assert_eq!(parking.due("others", 0, 9).await.unwrap().len(), 1);
}

/// Ten thousand messages of one lane: what is done for one of them is the same work as with few, so that a backlog drains in a time
/// that grows with its length and not with its square. SQLite's own count of steps says so, whatever the machine.
#[tokio::test]
async fn the_work_for_one_message_does_not_grow_with_the_backlog() {
    let folder = tempfile::tempdir().unwrap();
    let parking = open(folder.path());
    let mut steps = Vec::new();
    for count in [100, 9_900] {
        let batch: Vec<NewParked> = (0..count).map(|_| parked("a", Some("a"), 0)).collect();
        parking.park_all("orders", &batch).await.unwrap();
        let connection = rusqlite::Connection::open(folder.path().join("parking.db")).unwrap();
        let mut of_this = 0;
        for query in [
            "SELECT id FROM parked WHERE consumer = 'orders' AND head = 1 AND due_ms <= 0 ORDER BY due_ms, id LIMIT 10",
            "SELECT min(due_ms) FROM parked WHERE consumer = 'orders' AND head = 1",
            "SELECT min(id) FROM parked WHERE consumer = 'orders' AND lane = 'a'",
        ] {
            let mut statement = connection.prepare(query).unwrap();
            let mut rows = statement.query([]).unwrap();
            while rows.next().unwrap().is_some() {}
            drop(rows);
            of_this += statement.get_status(rusqlite::StatementStatus::VmStep);
        }
        steps.push(of_this);
    }
    assert_eq!(steps[0], steps[1]);
    for _ in 0..200 {
        let due: Vec<Parked> = parking.due("orders", 0, 10).await.unwrap();
        assert_eq!(due.len(), 1);
        parking.remove(due[0].id).await.unwrap();
        assert_eq!(parking.next_due_ms("orders").await.unwrap(), Some(0));
    }
}

#[tokio::test]
async fn a_file_of_a_newer_version_is_not_touched() {
    let folder = tempfile::tempdir().unwrap();
    open(folder.path()).park("orders", &parked("x", None, 0)).await.unwrap();
    let connection = rusqlite::Connection::open(folder.path().join("parking.db")).unwrap();
    connection.pragma_update(None, "user_version", 99).unwrap();
    drop(connection);
    assert_eq!(FileParking::open(folder.path()).err().unwrap().code, codes::STATE_TOO_NEW);
}

#[tokio::test]
async fn a_file_that_is_none_of_ours_is_said_to_be() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(
        folder.path().join("parking.db"),
        "no database at all, and longer than a header".repeat(9),
    )
    .unwrap();
    let failure = FileParking::open(folder.path()).err().unwrap();
    assert_eq!(failure.code, codes::STATE_DAMAGED);
    assert!(failure.remedy.unwrap().contains("to be tried again"));
}

/// Parking lots of older versions are read for ever.
#[tokio::test]
async fn parking_lots_of_older_versions_are_read() {
    for golden in [include_str!("golden/parking-v1.sql"), include_str!("golden/parking-v2.sql")] {
        let folder = tempfile::tempdir().unwrap();
        let connection = rusqlite::Connection::open(folder.path().join("parking.db")).unwrap();
        connection.execute_batch(golden).unwrap();
        drop(connection);
        let found = open(folder.path()).due("orders", 100, 10).await.unwrap().pop().unwrap();
        assert_eq!(found.parked, parked("body", Some("k"), 100));
    }
}

#[tokio::test]
async fn the_reason_of_a_parked_dead_letter_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let reason = DeadLettered { class: Class::Backlog, text: "its key is full".into() };
    let one = NewParked { dead_lettered: Some(reason), ..parked("body", None, 100) };
    open(folder.path()).park("orders", &one).await.unwrap();
    let found = open(folder.path()).due("orders", 100, 10).await.unwrap().pop().unwrap();
    assert_eq!(found.parked, one);
}
