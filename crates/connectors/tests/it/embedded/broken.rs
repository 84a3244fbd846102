//! Files that cannot be written or read.

use std::path::Path;

use warren_connectors::embedded::{Config, Embedded};
use warren_engine::codes;
use warren_engine::failure::Failure;
use warren_engine::ports::Broker;

use super::{World, queue};

fn fault(folder: &Path) -> Failure {
    let failure = Embedded::open("test", &Config::default(), folder).err().expect("an error");
    assert!(failure.place.is_some() && failure.remedy.is_some(), "place and remedy of {failure:?}");
    failure
}

#[test]
fn a_folder_that_cannot_be_made_is_named() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("file"), "in the way").unwrap();
    let failure = fault(&folder.path().join("file"));
    assert_eq!(failure.code, codes::STATE_UNWRITABLE);
    assert!(failure.place.unwrap().contains("file"));
}

#[test]
fn a_file_of_somebody_elses_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("test.broker");
    std::fs::write(&path, "not a database, and long enough to be looked at for one ".repeat(40)).unwrap();
    assert_eq!(fault(folder.path()).code, codes::STATE_DAMAGED);
    std::fs::remove_file(&path).unwrap();
    let other = rusqlite::Connection::open(&path).unwrap();
    other.execute_batch("CREATE TABLE customers (id)").unwrap();
    drop(other);
    assert_eq!(fault(folder.path()).code, codes::STATE_DAMAGED);
    assert!(rusqlite::Connection::open(&path).unwrap().prepare("SELECT id FROM customers").is_ok());
}

#[test]
fn a_file_of_a_newer_version_is_left_alone() {
    let world = World::new("{}");
    let path = world.broker.path().to_owned();
    let World { folder, broker, .. } = world;
    drop(broker);
    rusqlite::Connection::open(&path).unwrap().pragma_update(None, "user_version", 99).unwrap();
    assert_eq!(fault(folder.path()).code, codes::STATE_TOO_NEW);
}

#[tokio::test]
async fn a_damaged_page_is_an_error_and_no_panic() {
    let world = World::new(r#"{"queues": {"q": {}}}"#);
    for _ in 0..200 {
        world.send(queue("q"), &"x".repeat(500)).await;
    }
    let path = world.broker.path().to_owned();
    world.broker.close().await;
    // All but the first pages, which hold the tables' names, is noise.
    let mut bytes = std::fs::read(&path).unwrap();
    assert!(bytes.len() > 100_000);
    bytes[40_000..].fill(0xa5);
    std::fs::write(&path, bytes).unwrap();
    let failure = match world.broker.peek("q", 0, 1000).await {
        Err(failure) => failure,
        Ok(messages) => panic!("{} messages of a damaged file", messages.len()),
    };
    assert_eq!(failure.code, codes::STATE_DAMAGED);
    assert!(failure.place.is_some() && failure.remedy.is_some());
    // A consumer hears of it too, at once or when it comes to the damage.
    let failure = match world.broker.consume("q", 300).await {
        Err(failure) => failure,
        Ok(mut consumer) => loop {
            let next = tokio::time::timeout(super::PATIENCE, consumer.next()).await.expect("an answer");
            match next {
                Ok(Some(delivery)) => drop(delivery),
                Ok(None) => panic!("the end of a damaged queue"),
                Err(failure) => break failure,
            }
        },
    };
    assert_eq!(failure.code, codes::STATE_DAMAGED);
    world.broker.close().await;
}

// A name that would leave the folder must be given as a path, on purpose.
#[test]
fn a_name_that_is_no_file_name_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["", "../up", "a/b", ".hidden"] {
        let failure = Embedded::open(name, &Config::default(), folder.path()).err().expect("an error");
        assert_eq!(failure.code, codes::INVALID_VALUE, "{name}");
    }
}
