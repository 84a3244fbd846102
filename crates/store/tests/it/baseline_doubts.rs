//! Keys in doubt: changes that were announced, and neither told nor withdrawn.

use warren_engine::change::{Change, ChangeId, Op};

use crate::baseline_world::{Brief, Cells, Told, World, all, brief, cells, id, row, spec};

/// How a run ends whose answers are lost.
#[derive(Clone, Copy)]
enum End {
    Finish,
    Die,
}

/// A run that announces all and hears no answer.
async fn lost(world: &World, rows: &[Cells], end: End) -> Vec<Change> {
    let mut set = world.diff(rows, &spec()).await.unwrap();
    let changes = all(set.as_mut()).await.unwrap();
    set.announce(&changes.iter().collect::<Vec<_>>()).await.unwrap();
    match end {
        End::Finish => set.finish().await.unwrap(),
        End::Die => drop(set),
    }
    changes
}

async fn look(world: &World, rows: &[Cells]) -> Vec<Change> {
    all(world.diff(rows, &spec()).await.unwrap().as_mut()).await.unwrap()
}

fn told(name: &str, size: i64) -> Told {
    (name.to_owned(), size)
}

fn ids(changes: &[Change]) -> Vec<ChangeId> {
    let mut ids: Vec<_> = changes.iter().map(id).collect();
    ids.sort_unstable();
    ids
}

#[tokio::test]
async fn a_row_that_goes_back_is_told_again() {
    for end in [End::Finish, End::Die] {
        let world = World::new();
        let before = [row(1, "a", 1), row(2, "b", 2)];
        world.run(&before, &spec()).await.unwrap();
        // 1 changes, 2 goes, 3 comes; no answer arrives; then all is as it was.
        let lost = lost(&world, &[row(1, "A", 1), row(3, "c", 3)], end).await;
        assert_eq!(lost.len(), 3);
        let again = world.run(&before, &spec()).await.unwrap();
        let expected = [
            (1, (Op::Changed, Some(told("A", 1)), ("a".to_owned(), 1))),
            (2, (Op::Added, None, ("b".to_owned(), 2))),
            (3, (Op::Removed, Some(told("c", 3)), ("c".to_owned(), 3))),
        ];
        assert_eq!(brief(&again), Brief::from(expected));
        assert!(ids(&again).iter().all(|id| !ids(&lost).contains(id)));
        // The answers came: there is no doubt any more.
        assert!(world.run(&before, &spec()).await.unwrap().is_empty());
        assert_eq!(world.baseline().info().await.unwrap().unwrap().rows, 2);
    }
}

#[tokio::test]
async fn what_is_still_true_keeps_its_id_through_other_runs() {
    for end in [End::Finish, End::Die] {
        let world = World::new();
        let rows = |name: &str| [row(1, name, 1), row(3, "c", 3)];
        world.run(&[row(1, "a", 1), row(2, "b", 2)], &spec()).await.unwrap();
        let lost_changes = lost(&world, &rows("A"), end).await;
        // Other keys come and go in between, told and recorded.
        for name in ["x", "y"] {
            let mut with = rows("A").to_vec();
            with.push(row(9, name, 9));
            let mut set = world.diff(&with, &spec()).await.unwrap();
            let changes = all(set.as_mut()).await.unwrap();
            let nine: Vec<_> = changes.iter().filter(|change| cells(&change.row).0 == 9).collect();
            assert_eq!((changes.len(), nine.len()), (4, 1));
            set.announce(&nine).await.unwrap();
            set.advance(&nine).await.unwrap();
            set.finish().await.unwrap();
        }
        let now = look(&world, &rows("A")).await;
        let again: Vec<_> = now.into_iter().filter(|change| cells(&change.row).0 != 9).collect();
        assert_eq!(ids(&again), ids(&lost_changes));
    }
}

#[tokio::test]
async fn a_doubt_on_a_doubt_goes_on_from_the_last() {
    let world = World::new();
    world.run(&[row(1, "a", 1)], &spec()).await.unwrap();
    let mut said = Vec::new();
    // What was said last is what may be there, so each is another change, though rows and prints come back.
    for name in ["b", "a", "b", "a"] {
        let changes = lost(&world, &[row(1, name, 1)], End::Die).await;
        assert_eq!(changes.len(), 1, "{name}");
        assert_eq!(changes[0].op, Op::Changed);
        said.extend(ids(&changes));
    }
    let again = look(&world, &[row(1, "a", 1)]).await;
    assert_eq!(ids(&again), said[3..]);
    assert_eq!(brief(&again)[&1].1, Some(told("b", 1)), "the row before is known too");
    said.sort_unstable();
    said.dedup();
    assert_eq!(said.len(), 4);
}

#[tokio::test]
async fn what_was_withdrawn_is_not_in_doubt() {
    let world = World::new();
    let before = [row(1, "a", 1), row(2, "b", 2)];
    world.run(&before, &spec()).await.unwrap();
    for die in [false, true] {
        let mut set = world.diff(&[row(1, "A", 1), row(3, "c", 3)], &spec()).await.unwrap();
        let changes = all(set.as_mut()).await.unwrap();
        let changes: Vec<_> = changes.iter().collect();
        set.announce(&changes).await.unwrap();
        set.withdraw(&changes).await.unwrap();
        if die {
            drop(set);
        } else {
            set.finish().await.unwrap();
        }
        assert!(world.run(&before, &spec()).await.unwrap().is_empty());
    }
}

#[tokio::test]
async fn an_older_doubt_outlives_a_change_that_was_withdrawn() {
    let world = World::new();
    world.run(&[row(1, "a", 1)], &spec()).await.unwrap();
    lost(&world, &[row(1, "b", 1)], End::Finish).await;
    let mut set = world.diff(&[row(1, "c", 1)], &spec()).await.unwrap();
    let changes = all(set.as_mut()).await.unwrap();
    set.announce(&[&changes[0]]).await.unwrap();
    set.withdraw(&[&changes[0]]).await.unwrap();
    set.finish().await.unwrap();
    let back = look(&world, &[row(1, "a", 1)]).await;
    assert_eq!(brief(&back), [(1, (Op::Changed, Some(told("b", 1)), ("a".to_owned(), 1)))].into());
}

#[tokio::test]
async fn rows_in_doubt_outlive_compaction() {
    let world = World::new();
    world.run(&[row(1, "a", 1), row(2, "b", 2)], &spec()).await.unwrap();
    lost(&world, &[row(1, "A", 1), row(2, "b", 2), row(3, "c", 3)], End::Finish).await;
    // Row files are merged several times meanwhile; 1 and 3 are not told.
    for round in 0..12 {
        let rows = [row(1, "A", 1), row(2, "b", round), row(3, "c", 3)];
        let mut set = world.diff(&rows, &spec()).await.unwrap();
        let changes = all(set.as_mut()).await.unwrap();
        let two: Vec<_> = changes.iter().filter(|change| cells(&change.row).0 == 2).collect();
        set.advance(&two).await.unwrap();
        set.finish().await.unwrap();
    }
    let files = std::fs::read_dir(world.path()).unwrap().count();
    assert!(files < 10, "{files} files");
    let back = look(&world, &[row(1, "a", 1), row(2, "b", 11)]).await;
    let expected = [
        (1, (Op::Changed, Some(told("A", 1)), ("a".to_owned(), 1))),
        (3, (Op::Removed, Some(told("c", 3)), ("c".to_owned(), 3))),
    ];
    assert_eq!(brief(&back), Brief::from(expected));
}

#[tokio::test]
async fn a_full_run_settles_what_was_in_doubt() {
    let world = World::new();
    let rows = [row(1, "a", 1), row(2, "b", 2)];
    world.run(&rows, &spec()).await.unwrap();
    lost(&world, &[row(1, "A", 1), row(2, "b", 2)], End::Die).await;
    let mut full = spec();
    full.full = true;
    let changes = world.run(&rows, &full).await.unwrap();
    assert!(changes.len() == 2 && changes.iter().all(|change| change.op == Op::Added));
    assert!(look(&world, &rows).await.is_empty());
}

#[tokio::test]
async fn a_key_in_doubt_that_occurs_twice_stays_in_doubt() {
    let world = World::new();
    world.run(&[row(1, "a", 1)], &spec()).await.unwrap();
    lost(&world, &[row(1, "b", 1)], End::Finish).await;
    let mut set = world.diff(&[row(1, "a", 1), row(1, "a", 2)], &spec()).await.unwrap();
    assert_eq!(set.summary().counts.duplicate_keys, 2);
    assert!(all(set.as_mut()).await.unwrap().is_empty());
    set.finish().await.unwrap();
    assert_eq!(look(&world, &[row(1, "a", 1)]).await.len(), 1);
}

#[tokio::test]
async fn the_same_row_in_full_is_not_in_doubt() {
    let world = World::new();
    let rows = [row(1, "a", 1)];
    world.run(&rows, &spec()).await.unwrap();
    let mut full = spec();
    full.full = true;
    let mut set = world.diff(&rows, &full).await.unwrap();
    let changes = all(set.as_mut()).await.unwrap();
    set.announce(&[&changes[0]]).await.unwrap();
    drop(set);
    assert!(look(&world, &rows).await.is_empty());
}
