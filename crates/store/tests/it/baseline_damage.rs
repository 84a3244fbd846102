//! Deaths at every step, full disks, and bytes that are not what was written.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use warren_engine::codes;
use warren_engine::failure::Failure;

use crate::baseline_world::{Brief, Cells, World, all, brief, cells, copy_files, row, spec};

/// What a step that is to fail does.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Fault {
    /// This step fails, and no other: the disk was full for a moment.
    Once,
    /// This step and all after it fail: the process is dead.
    Dead,
}

/// The steps before `at` go well. Returns the counter of steps.
fn fail_at(world: &mut World, at: usize, fault: Fault) -> Arc<AtomicUsize> {
    let steps = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&steps);
    world.options.faults = Some(Arc::new(move |_, _| {
        let step = counter.fetch_add(1, Ordering::Relaxed);
        let fails = if fault == Fault::Once { step == at } else { step >= at };
        if fails { Err(io::Error::from(io::ErrorKind::StorageFull)) } else { Ok(()) }
    }));
    steps
}

/// A world with enough runs behind it that the next one compacts.
async fn history() -> World {
    let world = World::new();
    for round in 0..3 {
        let rows: Vec<_> = (0..12).map(|id| row(id, "told", if id % 3 == 0 { round } else { 0 })).collect();
        world.run(&rows, &spec()).await.unwrap();
    }
    world
}

fn next_rows() -> Vec<Cells> {
    (2..16).map(|id| row(id, "now", id % 4)).collect()
}

/// A run that accepts a few at a time until something fails. Returns the keys whose acceptance was written down.
async fn attempt(world: &World, told: &mut Vec<i64>) -> Result<(), Failure> {
    let mut set = world.diff(&next_rows(), &spec()).await?;
    let changes = all(set.as_mut()).await?;
    for some in changes.chunks(5) {
        set.announce(&some.iter().collect::<Vec<_>>()).await?;
        set.advance(&some.iter().collect::<Vec<_>>()).await?;
        told.extend(some.iter().map(|change| cells(&change.row).0));
    }
    set.finish().await
}

#[tokio::test]
async fn whatever_step_fails_nothing_accepted_is_forgotten() {
    let history = history().await;
    let whole =
        brief(&all(history.copy().diff(&next_rows(), &spec()).await.unwrap().as_mut()).await.unwrap());
    assert_eq!(whole.len(), 16);
    for fault in [Fault::Once, Fault::Dead] {
        let mut at = 0;
        loop {
            let mut world = history.copy();
            let steps = fail_at(&mut world, at, fault);
            let mut told = Vec::new();
            let ended = attempt(&world, &mut told).await;
            world.options.faults = None;
            if steps.load(Ordering::Relaxed) <= at {
                ended.unwrap();
                break;
            }
            if let Err(failure) = ended {
                assert_eq!(failure.code, codes::STATE_UNWRITABLE, "{failure}");
                assert!(failure.remedy.is_some() && failure.place.is_some());
            }
            let mut set = world.diff(&next_rows(), &spec()).await.unwrap();
            let again = brief(&all(set.as_mut()).await.unwrap());
            drop(set);
            for (key, change) in &again {
                assert!(!told.contains(key), "{fault:?} at step {at}: {key} was told and comes again");
                assert_eq!(whole.get(key), Some(change), "{fault:?} at step {at}");
            }
            world.run(&next_rows(), &spec()).await.unwrap();
            assert!(world.run(&next_rows(), &spec()).await.unwrap().is_empty());
            at += 1;
        }
        assert!(at > 20, "{at} steps");
    }
}

#[tokio::test]
async fn a_full_disk_names_the_file_and_the_way_out() {
    let mut world = history().await;
    let steps = fail_at(&mut world, usize::MAX, Fault::Dead);
    let mut set = world.diff(&next_rows(), &spec()).await.unwrap();
    let changes = all(set.as_mut()).await.unwrap();
    drop(set);
    fail_at(&mut world, steps.load(Ordering::Relaxed) + 1, Fault::Dead);
    let mut set = world.diff(&next_rows(), &spec()).await.unwrap();
    let failure = set.advance(&changes.iter().collect::<Vec<_>>()).await.unwrap_err();
    assert_eq!(failure.code, codes::STATE_UNWRITABLE);
    assert!(failure.place.as_ref().unwrap().ends_with("rows-4.tmp"), "{failure}");
    assert!(failure.to_string().contains("no storage space"), "{failure}");
}

/// Files with one byte changed, one after another; what the baseline then says is an error or the truth.
async fn flip_all(world: &World, name: &str, truth: &Brief, subset: bool) -> (usize, usize) {
    let path = world.path().join(name);
    let right = std::fs::read(&path).unwrap();
    let (mut errors, mut truths) = (0, 0);
    // The directory at the end of a key file is long and all of one kind.
    let step = |at: usize| if name.starts_with("keys") && at > 700 { 97 } else { 1 };
    let mut at = 0;
    while at < right.len() {
        for flip in [0x01, 0xff] {
            let copy = world.copy();
            let mut bytes = right.clone();
            bytes[at] ^= flip;
            std::fs::write(copy.path().join(name), bytes).unwrap();
            match look(&copy).await {
                Ok(found) if subset => {
                    assert!(
                        truth.iter().all(|(key, change)| found.get(key) == Some(change)),
                        "{name}, byte {at}"
                    );
                    truths += 1;
                }
                Ok(found) => {
                    assert_eq!(&found, truth, "{name}, byte {at}");
                    truths += 1;
                }
                Err(failure) => {
                    let known = [codes::STATE_DAMAGED, codes::STATE_TOO_NEW];
                    assert!(known.contains(&failure.code), "{name}, byte {at}: {failure}");
                    assert!(failure.place.as_ref().unwrap().contains(&*copy.path().to_string_lossy()));
                    errors += 1;
                }
            }
        }
        at += step(at);
    }
    (errors, truths)
}

/// All changes with their previous rows, and nothing accepted.
async fn look(world: &World) -> Result<Brief, Failure> {
    let mut set = world.diff(&next_rows(), &spec()).await?;
    Ok(brief(&all(set.as_mut()).await?))
}

fn files(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort_unstable();
    names
}

#[tokio::test]
async fn a_changed_byte_is_an_error_or_the_truth() {
    let world = history().await;
    let truth = look(&world).await.unwrap();
    assert_eq!(files(&world.path()), ["keys-3", "manifest.json", "rows-1", "rows-2", "rows-3"]);
    for name in files(&world.path()) {
        let (errors, _) = flip_all(&world, &name, &truth, false).await;
        assert!(errors > 100, "{name}: {errors} errors");
    }
}

#[tokio::test]
async fn a_changed_byte_in_a_journal_sends_more_and_never_less() {
    let world = history().await;
    let mut set = world.diff(&next_rows(), &spec()).await.unwrap();
    let changes = all(set.as_mut()).await.unwrap();
    for some in changes[..10].chunks(3) {
        set.announce(&some.iter().collect::<Vec<_>>()).await.unwrap();
        set.advance(&some.iter().collect::<Vec<_>>()).await.unwrap();
    }
    drop(set);
    let left = look(&world.copy()).await.unwrap();
    assert_eq!(left.len(), changes.len() - 10);
    let (errors, truths) = flip_all(&world, "rows-4", &left, true).await;
    assert!(errors > 100 && truths > 100, "{errors} errors, {truths} truths");
}

/// A history whose last run left keys in doubt.
async fn history_in_doubt() -> World {
    let world = history().await;
    let mut set = world.diff(&next_rows(), &spec()).await.unwrap();
    let changes = all(set.as_mut()).await.unwrap();
    set.announce(&changes.iter().collect::<Vec<_>>()).await.unwrap();
    set.advance(&changes[..12].iter().collect::<Vec<_>>()).await.unwrap();
    set.finish().await.unwrap();
    world
}

#[tokio::test]
async fn damaged_doubts_are_no_doubts_forgotten() {
    let world = history_in_doubt().await;
    let truth = look(&world).await.unwrap();
    assert_eq!(truth.len(), 4);
    let doubts = files(&world.path()).into_iter().find(|name| name.starts_with("doubts-")).unwrap();
    let (errors, truths) = flip_all(&world, &doubts, &truth, false).await;
    assert!(errors > 100 && truths == 0, "{errors} errors, {truths} truths");
    for cut in [1, 50] {
        let copy = world.copy();
        let file = std::fs::OpenOptions::new().write(true).open(copy.path().join(&doubts)).unwrap();
        file.set_len(file.metadata().unwrap().len() - cut).unwrap();
        assert_eq!(look(&copy).await.unwrap_err().code, codes::STATE_DAMAGED);
    }
    std::fs::remove_file(world.path().join(&doubts)).unwrap();
    assert_eq!(look(&world).await.unwrap_err().code, codes::STATE_DAMAGED);
}

#[tokio::test]
async fn a_missing_file_is_not_an_empty_baseline() {
    let world = history().await;
    for name in files(&world.path()) {
        let copy = world.copy();
        std::fs::remove_file(copy.path().join(&name)).unwrap();
        let failure = look(&copy).await.unwrap_err();
        assert_eq!(failure.code, codes::STATE_DAMAGED, "{name}");
        assert!(failure.place.as_ref().unwrap().contains(&name), "{failure}");
        assert!(failure.remedy.as_ref().unwrap().contains("--reset-baseline"));
    }
}

#[tokio::test]
async fn a_file_cut_short_is_damage() {
    let world = history().await;
    for name in files(&world.path()) {
        let length = std::fs::metadata(world.path().join(&name)).unwrap().len();
        for cut in [1, length / 2, length] {
            let copy = world.copy();
            let file = std::fs::OpenOptions::new().write(true).open(copy.path().join(&name)).unwrap();
            file.set_len(length - cut).unwrap();
            assert_eq!(look(&copy).await.unwrap_err().code, codes::STATE_DAMAGED, "{name} less {cut}");
        }
    }
}

#[tokio::test]
async fn leftovers_are_removed_and_strangers_are_left_alone() {
    let world = history().await;
    for name in
        ["keys-9.tmp", "rows-9.tmp", "manifest.json.tmp", "spill-1-2.tmp", "keys-2", "rows-77", "notes.txt"]
    {
        std::fs::write(world.path().join(name), "something").unwrap();
    }
    let before = look(&history().await).await.unwrap();
    assert_eq!(look(&world).await.unwrap(), before);
    assert_eq!(files(&world.path()), ["keys-3", "manifest.json", "notes.txt", "rows-1", "rows-2", "rows-3"]);
    let elsewhere = World::new();
    copy_files(&world.path(), &elsewhere.path());
    assert_eq!(look(&elsewhere).await.unwrap(), before);
}
