//! What cannot be used or written says so: what, where, why, and the way out. And nothing that was there is lost.

use std::fs;
use std::path::Path;

use warren_engine::codes::{self, Code};
use warren_engine::failure::Failure;
use warren_engine::ports::{Leases, Records};
use warren_engine::run::{RunId, RunKind};
use warren_store::state::{OutcomeFilter, Retention, SqliteState, State};

use super::{NOW, World, many, sent};

fn refused(folder: &Path) -> Failure {
    SqliteState::open(folder, Retention::default()).err().expect("it cannot be opened")
}

/// A person is told the code, the place, a reason and the way out.
fn assert_tells(failure: &Failure, code: Code, place: &str) {
    assert_eq!(failure.code, code, "{failure:?}");
    assert!(failure.place.as_deref().is_some_and(|told| told.contains(place)), "{failure:?}");
    assert!(failure.detail.is_some(), "{failure:?}");
    assert!(failure.remedy.is_some(), "{failure:?}");
}

#[test]
fn a_file_where_the_folder_should_be() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("state"), "").unwrap();
    assert_tells(&refused(&folder.path().join("state")), codes::STATE_UNWRITABLE, "state");
    assert_tells(&refused(&folder.path().join("state/deeper")), codes::STATE_UNWRITABLE, "state/deeper");
}

#[test]
fn a_folder_where_the_file_should_be() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("state.db")).unwrap();
    assert_tells(&refused(folder.path()), codes::STATE_UNWRITABLE, "state.db");
}

#[test]
fn a_folder_of_somebody_else() {
    // Nothing is read only for root, and tests may run as root; /proc is, for everybody.
    assert_tells(&refused(Path::new("/proc/warren-state")), codes::STATE_UNWRITABLE, "/proc/warren-state");
}

#[test]
fn a_file_that_is_something_else() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("state.db"), "name,email\n".repeat(1000)).unwrap();
    assert_tells(&refused(folder.path()), codes::STATE_DAMAGED, "state.db");
    fs::remove_file(folder.path().join("state.db")).unwrap();
    let other = rusqlite::Connection::open(folder.path().join("state.db")).unwrap();
    other.execute_batch("CREATE TABLE customers (id)").unwrap();
    drop(other);
    assert_tells(&refused(folder.path()), codes::STATE_DAMAGED, "state.db");
}

#[tokio::test]
async fn a_file_of_a_newer_version() {
    let world = World::new();
    let connection = rusqlite::Connection::open(world.path().join("state.db")).unwrap();
    connection.pragma_update(None, "user_version", 1000).unwrap();
    let failure = refused(&world.path());
    assert_tells(&failure, codes::STATE_TOO_NEW, "state.db");
    assert!(failure.to_string().contains("1000"), "{failure}");
}

#[tokio::test]
async fn a_damaged_file_is_never_a_panic() {
    let world = World::new();
    world.run_of("customers", many(0, 5000, NOW)).await;
    let path = world.path();
    let World { folder: _folder, clock: _clock, state } = world;
    drop(state); // the log goes into the file
    let whole = fs::read(path.join("state.db")).unwrap();
    let mut random = fastrand::Rng::with_seed(7);
    let mut found = 0;
    for round in 0..60 {
        let mut damaged = whole.clone();
        let at = random.usize(..damaged.len() - 4096);
        damaged[at..at + 4096].fill(random.u8(..));
        fs::write(path.join("state.db"), &damaged).unwrap();
        let failure = use_all(&path).await.err();
        if let Some(failure) = failure {
            found += 1;
            assert_eq!(failure.code, codes::STATE_DAMAGED, "round {round}, at {at}: {failure:?}");
        }
    }
    assert!(found > 20, "only {found} of 60 were found");
}

async fn use_all(path: &Path) -> Result<(), Failure> {
    let state = SqliteState::open(path, Retention::default())?;
    let mut outcomes = state.find(OutcomeFilter::default());
    while !outcomes.next().await?.is_empty() {}
    state.tallies(RunId(1)).await?;
    let run = state.begin("customers", RunKind::Changes).await?;
    state.append(run, many(0, 2000, NOW)).await
}

#[tokio::test]
async fn a_full_disk_is_told_and_what_was_recorded_stays() {
    let world = World::with(Retention::default(), Some(400_000));
    let run = world.state.begin("customers", RunKind::Changes).await.unwrap();
    let mut recorded = 0;
    let failure = loop {
        match world.state.append(run, many(recorded, 500, NOW)).await {
            Ok(()) => recorded += 500,
            Err(failure) => break failure,
        }
        assert!(recorded < 1_000_000, "it never gets full");
    };
    assert_tells(&failure, codes::STATE_UNWRITABLE, "state.db");
    assert!(failure.to_string().contains("disk is full"), "{failure}");
    assert!(recorded > 0);
    assert_eq!(world.keys(OutcomeFilter::default()).await.len() as u64, recorded);
    assert_eq!(world.state.tallies(run).await.unwrap()[0].rows, recorded);
    // With room again, it goes on.
    let path = world.path();
    let World { folder: _folder, clock: _clock, state } = world;
    drop(state);
    let state = SqliteState::open(&path, Retention::default()).unwrap();
    state.append(run, many(recorded, 500, NOW)).await.unwrap();
    assert_eq!(state.tallies(run).await.unwrap()[0].rows, recorded + 500);
}

#[tokio::test]
async fn rows_of_a_run_that_is_not_there_fail_alone() {
    let world = World::new();
    let run = world.state.begin("customers", RunKind::Changes).await.unwrap();
    let nobody = RunId(99);
    let (first, wrong, second) = tokio::join!(
        world.state.append(run, vec![sent("1", NOW)]),
        world.state.append(nobody, vec![sent("2", NOW)]),
        world.state.append(run, vec![sent("3", NOW)]),
    );
    first.unwrap();
    second.unwrap();
    assert_eq!(wrong.unwrap_err().code, codes::INTERNAL);
    assert_eq!(world.keys(OutcomeFilter::default()).await, ["3", "1"]);
}

#[tokio::test]
async fn a_lease_of_any_name_can_be_taken() {
    let world = World::new();
    let names = ["", ".", "..", "a/b", "a\\b", "A", "a", "naïve", "\0", &"x".repeat(4000)];
    let mut held = Vec::new();
    for name in names {
        held.push(world.state.take(name).await.unwrap().expect("free"));
    }
    for name in names {
        assert!(world.state.take(name).await.unwrap().is_err(), "{name:?}");
    }
}

#[tokio::test]
async fn many_open_a_new_folder_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state");
    let opening: Vec<_> = (0..8)
        .map(|_| {
            let path = path.clone();
            std::thread::spawn(move || SqliteState::open(&path, Retention::default()))
        })
        .collect();
    let states: Vec<SqliteState> = opening.into_iter().map(|it| it.join().unwrap().unwrap()).collect();
    for (number, state) in states.iter().enumerate() {
        let run = state.begin("customers", RunKind::Changes).await.unwrap();
        assert_eq!(run, RunId(number as i64 + 1));
    }
}
