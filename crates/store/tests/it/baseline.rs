//! The baseline, one behaviour a test.

use warren_engine::change::Op;
use warren_engine::codes;
use warren_engine::ports::Baseline;
use warren_engine::row::Value;
use warren_store::baseline::BaselineOptions;

use crate::baseline_world::{Rows, World, all, brief, cells, id, row, spec};

#[tokio::test]
async fn rows_are_added_changed_and_removed() {
    let world = World::new();
    let first = world.run(&[row(1, "a", 1), row(2, "b", 2), row(3, "c", 3)], &spec()).await.unwrap();
    assert_eq!(first.len(), 3);
    assert!(first.iter().all(|change| change.op == Op::Added && change.previous.is_none()));

    let rows = [row(1, "a", 1), row(2, "B", 2), row(4, "d", 4)];
    let mut set = world.diff(&rows, &spec()).await.unwrap();
    let summary = set.summary().clone();
    assert_eq!((summary.counts.rows, summary.counts.baseline_rows, summary.first_run), (3, 3, false));
    let changes = all(set.as_mut()).await.unwrap();
    let expected = [
        (2, (Op::Changed, Some(("b".to_owned(), 2)), ("B".to_owned(), 2))),
        (3, (Op::Removed, Some(("c".to_owned(), 3)), ("c".to_owned(), 3))),
        (4, (Op::Added, None, ("d".to_owned(), 4))),
    ];
    assert_eq!(brief(&changes), expected.into());
    set.advance(&changes.iter().collect::<Vec<_>>()).await.unwrap();
    set.finish().await.unwrap();
    assert!(world.run(&rows, &spec()).await.unwrap().is_empty());
}

#[tokio::test]
async fn removals_of_all_partitions_come_before_the_first_addition() {
    // A few differences are kept from the comparison, or none, so that partitions are compared again.
    for kept in [0, 50, usize::MAX] {
        let mut world = World::new();
        world.options.sizes.differences_kept = kept;
        let rows: Vec<_> = (0..300).map(|id| row(id, "old", id)).collect();
        world.run(&rows, &spec()).await.unwrap();
        // A third is removed, a third changes, a third stays, and others are added.
        let left = (0..400).filter(|id| id % 3 > 0);
        let rows: Vec<_> = left.map(|id| row(id, ["", "old", "new"][id as usize % 3], id)).collect();
        let changes = world.run(&rows, &spec()).await.unwrap();
        let of = |op| changes.iter().filter(|change| change.op == op).count();
        assert_eq!((of(Op::Removed), of(Op::Changed), of(Op::Added)), (100, 100, 66));
        assert!(changes[..100].iter().all(|change| change.op == Op::Removed));
    }
}

#[tokio::test]
async fn a_run_with_nothing_changed_writes_nothing() {
    let world = World::new();
    let rows: Vec<_> = (0..50).map(|id| row(id, "x", id)).collect();
    world.run(&rows, &spec()).await.unwrap();
    let before = world.baseline().info().await.unwrap().unwrap();
    let stamp = || std::fs::metadata(world.path().join("manifest.json")).unwrap().modified().unwrap();
    let stamped = stamp();
    assert!(world.run(&rows, &spec()).await.unwrap().is_empty());
    assert_eq!(world.baseline().info().await.unwrap().unwrap(), before);
    assert_eq!((before.rows, before.generation, stamp()), (50, 1, stamped));
}

#[tokio::test]
async fn what_was_not_accepted_comes_again() {
    let world = World::new();
    let mut set = world.diff(&[row(1, "a", 1), row(2, "b", 2)], &spec()).await.unwrap();
    assert!(set.summary().first_run);
    let changes = all(set.as_mut()).await.unwrap();
    let accepted = changes.iter().find(|change| cells(&change.row).0 == 1).unwrap();
    set.advance(&[accepted]).await.unwrap();
    set.finish().await.unwrap();
    let mut set = world.diff(&[row(1, "a", 1), row(2, "b", 2)], &spec()).await.unwrap();
    assert!(!set.summary().first_run);
    let again = all(set.as_mut()).await.unwrap();
    assert_eq!(brief(&again), [(2, (Op::Added, None, ("b".to_owned(), 2)))].into());
}

#[tokio::test]
async fn what_was_accepted_counts_though_the_run_died_and_the_rest_keeps_its_id() {
    let world = World::new();
    world.run(&[row(1, "a", 1), row(9, "z", 9)], &spec()).await.unwrap();
    let rows = [row(1, "A", 1), row(2, "b", 2), row(3, "c", 3)];
    let mut set = world.diff(&rows, &spec()).await.unwrap();
    let changes = all(set.as_mut()).await.unwrap();
    let (told, open): (Vec<_>, Vec<_>) = changes.iter().partition(|change| cells(&change.row).0 != 3);
    set.announce(&changes.iter().collect::<Vec<_>>()).await.unwrap();
    set.advance(&told).await.unwrap();
    drop(set);
    let mut set = world.diff(&rows, &spec()).await.unwrap();
    let again = all(set.as_mut()).await.unwrap();
    assert_eq!(
        again.iter().map(id).collect::<Vec<_>>(),
        open.iter().map(|change| id(change)).collect::<Vec<_>>()
    );
}

#[tokio::test]
async fn a_row_that_comes_back_after_two_deaths_is_another_change() {
    let world = World::new();
    world.run(&[row(1, "a", 1)], &spec()).await.unwrap();
    let mut ids = Vec::new();
    // Key 2 comes, goes, comes back and goes, and no run ends in good order.
    for rows in [&[row(1, "a", 1), row(2, "b", 2)][..], &[row(1, "a", 1)]].repeat(2) {
        let mut set = world.diff(rows, &spec()).await.unwrap();
        let changes = all(set.as_mut()).await.unwrap();
        assert_eq!(changes.len(), 1);
        set.advance(&[&changes[0]]).await.unwrap();
        ids.push(id(&changes[0]));
    }
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 4);
}

#[tokio::test]
async fn a_first_run_is_one_until_it_was_walked_to_its_end() {
    let world = World::new();
    let rows: Vec<_> = (0..9).map(|id| row(id, "x", id)).collect();
    let mut set = world.diff(&rows, &spec()).await.unwrap();
    let some = set.next(2).await.unwrap();
    set.advance(&some.iter().collect::<Vec<_>>()).await.unwrap();
    set.finish().await.unwrap();
    let set = world.diff(&rows, &spec()).await.unwrap();
    assert!(set.summary().first_run);
    assert_eq!(set.summary().counts.baseline_rows, some.len() as u64);
    drop(set);
    world.run(&rows, &spec()).await.unwrap();
    assert!(!world.diff(&rows, &spec()).await.unwrap().summary().first_run);
}

#[tokio::test]
async fn an_empty_first_run_is_a_first_run() {
    let world = World::new();
    assert!(world.run(&[], &spec()).await.unwrap().is_empty());
    let set = world.diff(&[row(1, "a", 1)], &spec()).await.unwrap();
    assert!(!set.summary().first_run);
}

#[tokio::test]
async fn a_plan_leaves_no_trace() {
    let world = World::new();
    let rows: Vec<_> = (0..200).map(|id| row(id, "some words that fill the buffers", id)).collect();
    let mut set = world.diff(&rows, &spec()).await.unwrap();
    assert_eq!(all(set.as_mut()).await.unwrap().len(), 200);
    drop(set);
    assert_eq!(std::fs::read_dir(world.path()).unwrap().count(), 0);
    assert_eq!(world.baseline().info().await.unwrap(), None);
}

#[tokio::test]
async fn null_and_duplicate_keys_are_set_aside() {
    let world = World::new();
    world.run(&[row(1, "a", 1), row(2, "b", 2)], &spec()).await.unwrap();
    let rows = [
        row(1, "a", 1),
        row(2, "b", 2),
        row(2, "b", 2),
        row(5, "e", 5),
        row(5, "f", 5),
        (None, "n".into(), 0),
    ];
    let mut set = world.diff(&rows, &spec()).await.unwrap();
    let summary = set.summary().clone();
    assert_eq!((summary.counts.null_keys, summary.counts.duplicate_keys), (1, 4));
    let mut faults: Vec<_> = summary.faults.iter().map(|fault| (fault.code, fault.key.as_str())).collect();
    faults.sort_unstable();
    let twice = codes::DUPLICATE_KEY;
    assert_eq!(faults, [(twice, "2"), (twice, "2"), (twice, "5"), (twice, "5"), (codes::NULL_KEY, "null")]);
    assert!(all(set.as_mut()).await.unwrap().is_empty());
    set.finish().await.unwrap();
    // Key 2 is still known: once it occurs once again, it is no difference.
    assert!(world.run(&[row(1, "a", 1), row(2, "b", 2)], &spec()).await.unwrap().is_empty());
}

#[tokio::test]
async fn at_most_a_hundred_faults_of_a_code_are_kept() {
    let world = World::new();
    let mut rows: Vec<_> = (0..150).flat_map(|id| [row(id, "x", 1), row(id, "y", 1)]).collect();
    rows.extend((0..150).map(|size| (None, String::new(), size)));
    let set = world.diff(&rows, &spec()).await.unwrap();
    let summary = set.summary();
    assert_eq!((summary.counts.null_keys, summary.counts.duplicate_keys), (150, 300));
    let nulls = summary.faults.iter().filter(|fault| fault.code == codes::NULL_KEY).count();
    assert_eq!((nulls, summary.faults.len()), (100, 200));
}

#[tokio::test]
async fn full_sends_all_as_added_and_nothing_as_removed() {
    let world = World::new();
    world.run(&[row(1, "a", 1), row(2, "b", 2)], &spec()).await.unwrap();
    let mut full = spec();
    full.full = true;
    let changes = world.run(&[row(1, "a", 1), row(3, "c", 3)], &full).await.unwrap();
    assert!(changes.iter().all(|change| change.op == Op::Added && change.before.is_none()));
    assert_eq!(changes.len(), 2);
    let after = world.run(&[row(1, "A", 1), row(3, "c", 3)], &spec()).await.unwrap();
    let expected = [
        (1, (Op::Changed, Some(("a".to_owned(), 1)), ("A".to_owned(), 1))),
        (2, (Op::Removed, Some(("b".to_owned(), 2)), ("b".to_owned(), 2))),
    ];
    assert_eq!(brief(&after), expected.into());
}

#[tokio::test]
async fn a_broken_read_is_no_result() {
    let world = World::new();
    world.run(&[row(1, "a", 1), row(2, "b", 2)], &spec()).await.unwrap();
    let mut rows = Rows::of(&[row(1, "a", 1)]).failing();
    let failure = world.baseline().diff(&mut rows, &spec(), &|_, _| ()).await.err().unwrap();
    assert_eq!(failure.what, "the source broke off");
    assert!(world.run(&[row(1, "a", 1), row(2, "b", 2)], &spec()).await.unwrap().is_empty());
}

#[tokio::test]
async fn rows_not_kept_leave_their_key() {
    let world = World::new();
    let mut lean = spec();
    lean.keep_rows = false;
    world.run(&[row(1, "a", 1), row(2, "b", 2)], &lean).await.unwrap();
    let changes = world.run(&[row(1, "A", 1)], &lean).await.unwrap();
    let expected =
        [(1, (Op::Changed, None, ("A".to_owned(), 1))), (2, (Op::Removed, None, (String::new(), 0)))];
    assert_eq!(brief(&changes), expected.into());

    // Kept from now on: what was told before has no previous row, what is told now will have.
    world.run(&[row(1, "A", 1), row(3, "c", 3)], &spec()).await.unwrap();
    let changes = world.run(&[row(1, "B", 1), row(3, "C", 3)], &spec()).await.unwrap();
    let expected = [
        (1, (Op::Changed, None, ("B".to_owned(), 1))),
        (3, (Op::Changed, Some(("c".to_owned(), 3)), ("C".to_owned(), 3))),
    ];
    assert_eq!(brief(&changes), expected.into());

    // And not any more: many runs compact the files, which drops what is not kept.
    for size in 0..12 {
        world.run(&[row(1, "B", size), row(3, "C", 3)], &lean).await.unwrap();
    }
    let changes = world.run(&[row(1, "B", 99)], &lean).await.unwrap();
    let expected =
        [(1, (Op::Changed, None, ("B".to_owned(), 99))), (3, (Op::Removed, None, (String::new(), 0)))];
    assert_eq!(brief(&changes), expected.into());
}

#[tokio::test]
async fn row_files_stay_few_and_small() {
    let world = World::new();
    let rows: Vec<_> = (0..30).map(|id| row(id, "a row of some length, to be counted", 0)).collect();
    world.run(&rows, &spec()).await.unwrap();
    let one = world.baseline().info().await.unwrap().unwrap().bytes;
    for round in 1..100 {
        let mut rows = rows.clone();
        for row in &mut rows {
            row.2 = round;
        }
        assert_eq!(world.run(&rows, &spec()).await.unwrap().len(), 30);
    }
    let files = std::fs::read_dir(world.path()).unwrap().count();
    assert!(files <= 2 + 8, "{files} files");
    let bytes = world.baseline().info().await.unwrap().unwrap().bytes;
    assert!(bytes < 4 * one, "{bytes} bytes, and {one} at first");
}

#[tokio::test]
async fn wide_rows_come_through() {
    let world = World::new();
    let wide = |letter: &str| letter.repeat(300_000);
    let rows: Vec<_> = (0..20).map(|id| row(id, &wide("a"), id)).collect();
    world.run(&rows, &spec()).await.unwrap();
    let rows: Vec<_> = (0..20).map(|id| row(id, &wide("b"), id)).collect();
    let changes = world.run(&rows, &spec()).await.unwrap();
    assert_eq!(changes.len(), 20);
    for change in &changes {
        assert_eq!(change.previous.as_ref().unwrap().get("name"), Some(Value::Text(&wide("a"))));
        assert_eq!(change.row.get("name"), Some(Value::Text(&wide("b"))));
    }
}

#[tokio::test]
async fn rows_go_to_the_temporary_folder_that_is_given() {
    let temp = tempfile::tempdir().unwrap();
    let mut world = World::new();
    world.options = BaselineOptions { temp: Some(temp.path().join("missing")), ..world.options };
    let rows: Vec<_> = (0..3000).map(|id| row(id, "some words that fill the buffers", id)).collect();
    let failure = world.diff(&rows, &spec()).await.err().unwrap();
    assert_eq!(failure.code, codes::STATE_UNWRITABLE);
    world.options.temp = Some(temp.path().to_owned());
    world.run(&rows, &spec()).await.unwrap();
    assert_eq!(std::fs::read_dir(temp.path()).unwrap().count(), 0);
}
