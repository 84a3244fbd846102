//! The format on disk: files that every version wrote are read for ever.
//!
//! `golden/baseline-v1` holds a baseline with several row files and the journal of a run that died, `golden/baseline-v2`
//! one with announced changes and keys in doubt. Each was made once, by a test that is ignored, and is only read: a new
//! format gets a new folder.

use std::path::PathBuf;

use warren_engine::change::Op;
use warren_engine::codes;

use crate::baseline_world::{Cells, World, all, brief, cells, copy_files, row, spec};

fn golden(version: u32) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("tests/it/golden/baseline-v{version}"))
}

fn rows() -> Vec<Cells> {
    // The last is long enough to be compressed.
    vec![row(1, "one", 1), row(2, "zwei", 2), row(3, &"three ".repeat(50), 3)]
}

#[tokio::test]
#[ignore = "makes the files that the others read"]
async fn make_version_2() {
    let world = World::new();
    world.run(&rows(), &spec()).await.unwrap();
    let mut rows = rows();
    rows[1].1 = "two".into();
    rows.push(row(4, "four", 4));
    // 4 stays in doubt.
    let mut set = world.diff(&rows, &spec()).await.unwrap();
    let changes = all(set.as_mut()).await.unwrap();
    set.announce(&changes.iter().collect::<Vec<_>>()).await.unwrap();
    let two: Vec<_> = changes.iter().filter(|change| cells(&change.row).0 == 2).collect();
    set.advance(&two).await.unwrap();
    set.finish().await.unwrap();
    // And a run that died: 5 was told, 1 and 3 were announced, 3 was withdrawn.
    rows[0].2 = 10;
    rows[2].2 = 30;
    rows.pop();
    rows.push(row(5, "five", 5));
    let mut set = world.diff(&rows, &spec()).await.unwrap();
    let changes = all(set.as_mut()).await.unwrap();
    let of = |key: i64| changes.iter().filter(|change| cells(&change.row).0 == key).collect::<Vec<_>>();
    set.announce(&[of(1), of(3), of(5)].concat()).await.unwrap();
    set.advance(&of(5)).await.unwrap();
    set.withdraw(&of(3)).await.unwrap();
    drop(set);
    copy_files(&world.path(), &golden(2));
}

#[tokio::test]
async fn version_2_is_read() {
    let world = World::new();
    copy_files(&golden(2), &world.path());
    let info = world.baseline().info().await.unwrap().unwrap();
    assert_eq!((info.rows, info.generation), (3, 2));
    // What was told: 1, 2 as changed, 3, and 5 from the journal. In doubt: 4 was added, 1 changed.
    let now = [row(1, "one", 1), row(2, "two", 2), rows()[2].clone(), row(5, "five", 5)];
    let mut set = world.diff(&now, &spec()).await.unwrap();
    let changes = all(set.as_mut()).await.unwrap();
    let told = |name: &str, size| Some((name.to_owned(), size));
    let expected = [
        (1, (Op::Changed, told("one", 10), ("one".to_owned(), 1))),
        (4, (Op::Removed, told("four", 4), ("four".to_owned(), 4))),
    ];
    assert_eq!(brief(&changes), expected.into());
    set.advance(&changes.iter().collect::<Vec<_>>()).await.unwrap();
    set.finish().await.unwrap();
    assert!(world.run(&now, &spec()).await.unwrap().is_empty());
}

#[tokio::test]
async fn version_1_is_read() {
    let world = World::new();
    copy_files(&golden(1), &world.path());
    let info = world.baseline().info().await.unwrap().unwrap();
    assert_eq!((info.rows, info.generation), (4, 2));
    // What is there: 1, 2 as changed in the second run, 3, 4, and 5 from the journal.
    let now = [row(2, "two", 20), row(4, "four", 4)];
    let mut set = world.diff(&now, &spec()).await.unwrap();
    let changes = all(set.as_mut()).await.unwrap();
    let text = rows()[2].1.clone();
    let removed = |name: &str, size| (Op::Removed, Some((name.to_owned(), size)), (name.to_owned(), size));
    let expected = [
        (1, removed("one", 1)),
        (2, (Op::Changed, Some(("two".to_owned(), 2)), ("two".to_owned(), 20))),
        (3, removed(&text, 3)),
        (5, removed("five", 5)),
    ];
    assert_eq!(brief(&changes), expected.into());
    let versions: Vec<_> = changes.iter().map(|change| (cells(&change.row).0, change.version)).collect();
    assert!(versions.contains(&(2, 1)) && versions.contains(&(5, 2)), "{versions:?}");
    set.advance(&changes.iter().collect::<Vec<_>>()).await.unwrap();
    set.finish().await.unwrap();
    assert!(world.run(&now, &spec()).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_newer_version_is_named_and_left_alone() {
    for (name, place) in [("keys-2", 8), ("rows-1", 8), ("rows-3", 8), ("manifest.json", 10)] {
        let world = World::new();
        copy_files(&golden(1), &world.path());
        let path = world.path().join(name);
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[place] = if name == "manifest.json" { b'9' } else { 9 };
        std::fs::write(&path, &bytes).unwrap();
        let failure = match world.diff(&[], &spec()).await {
            Ok(mut set) => all(set.as_mut()).await.unwrap_err(),
            Err(failure) => failure,
        };
        assert_eq!(failure.code, codes::STATE_TOO_NEW, "{name}: {failure}");
        assert!(failure.to_string().contains("format version 9"), "{failure}");
        assert_eq!(std::fs::read(&path).unwrap(), bytes);
    }
}
