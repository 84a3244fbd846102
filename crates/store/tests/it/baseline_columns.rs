//! Which columns count, and what happens when these change between runs.

use warren_engine::change::{Change, Op};
use warren_engine::model::ColumnType;
use warren_engine::ports::{Baseline, Compare, DiffSpec, DiffSummary};
use warren_engine::row::Batch;

use crate::baseline_world::{Rows, World, all, cells, row, schema, spec};

fn by(columns: &[&str]) -> DiffSpec {
    DiffSpec { compare: Compare::These(columns.iter().map(|&name| name.into()).collect()), ..spec() }
}

/// Rows of `id` and `name` alone; the query does not yield `size` any more.
fn narrow(rows: &[(i64, &str)]) -> Rows {
    let mut batch = Batch::default();
    for (id, name) in rows {
        let mut cells = batch.cells();
        cells.text(name);
        cells.int(*id);
        batch.end_row();
    }
    Rows::new(schema(&[("name", ColumnType::Text), ("id", ColumnType::Int)]), vec![batch])
}

/// Rows whose `size` is text.
fn retyped(rows: &[(i64, &str, &str)]) -> Rows {
    let mut batch = Batch::default();
    for (id, name, size) in rows {
        let mut cells = batch.cells();
        cells.int(*id);
        cells.text(name);
        cells.text(size);
        batch.end_row();
    }
    let columns = [("id", ColumnType::Int), ("name", ColumnType::Text), ("size", ColumnType::Text)];
    Rows::new(schema(&columns), vec![batch])
}

/// A run in which everything is accepted and finished, or nothing.
async fn run(world: &World, mut rows: Rows, spec: &DiffSpec, accept: bool) -> (DiffSummary, Vec<Change>) {
    let mut set = world.baseline().diff(&mut rows, spec, &|_, _| ()).await.unwrap();
    let summary = set.summary().clone();
    let changes = all(set.as_mut()).await.unwrap();
    if accept {
        set.advance(&changes.iter().collect::<Vec<_>>()).await.unwrap();
    }
    set.finish().await.unwrap();
    (summary, changes)
}

fn ids(changes: &[Change]) -> Vec<i64> {
    let mut ids: Vec<i64> = changes.iter().map(|change| cells(&change.row).0).collect();
    ids.sort_unstable();
    ids
}

#[tokio::test]
async fn a_column_that_does_not_count_is_no_difference() {
    let world = World::new();
    let ignoring = DiffSpec { compare: Compare::AllBut(["size".into()].into()), ..spec() };
    world.run(&[row(1, "a", 1)], &ignoring).await.unwrap();
    assert!(world.run(&[row(1, "a", 2)], &ignoring).await.unwrap().is_empty());
    assert_eq!(world.run(&[row(1, "b", 2)], &ignoring).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_template_that_uses_another_column_sends_nothing_by_itself() {
    let world = World::new();
    let before: Vec<_> = (0..40).map(|id| row(id, "a", id)).collect();
    world.run(&before, &by(&["name"])).await.unwrap();
    // Meanwhile `size` changed everywhere, which did not count, and `name` in one row, which did.
    let mut now: Vec<_> = (0..40).map(|id| row(id, "a", id + 100)).collect();
    now[7].1 = "b".into();
    let (summary, changes) = run(&world, Rows::of(&now), &by(&["name", "size"]), true).await;
    assert_eq!((ids(&changes), summary.columns_changed), (vec![7], None));
    // From now on `size` counts, and what it is now is what was told.
    assert!(world.run(&now, &by(&["name", "size"])).await.unwrap().is_empty());
    now[9].2 = 0;
    assert_eq!(ids(&world.run(&now, &by(&["size", "name"])).await.unwrap()), [9]);
    // And back again: what `size` is does not count any more.
    now[3].2 = 0;
    now[4].1 = "b".into();
    assert_eq!(ids(&world.run(&now, &by(&["name"])).await.unwrap()), [4]);
    now[5].2 = 0;
    assert!(world.run(&now, &by(&["name"])).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_baseline_of_the_key_alone_compares_all_columns_without_sending_all() {
    for (compare, keep_rows) in [(&["id"][..], true), (&["id"], false), (&[], true), (&[], false)] {
        let world = World::new();
        let old = DiffSpec { keep_rows, ..by(compare) };
        let all = DiffSpec { keep_rows, ..spec() };
        let mut rows: Vec<_> = (0..40).map(|id| row(id, "a", id)).collect();
        world.run(&rows, &old).await.unwrap();
        // A row changed meanwhile, which nobody compared; one goes and one comes.
        rows[7].1 = "b".into();
        rows.remove(9);
        rows.push(row(40, "a", 40));
        let (summary, changes) = run(&world, Rows::of(&rows), &all, true).await;
        assert_eq!((ids(&changes), summary.columns_changed), (vec![9, 40], None));
        rows[3].2 = 0;
        assert_eq!(ids(&world.run(&rows, &all).await.unwrap()), [3]);
        assert!(world.run(&rows, &all).await.unwrap().is_empty());
    }
}

#[tokio::test]
async fn fewer_columns_are_compared_by_more_where_rows_are_not_kept() {
    let world = World::new();
    let lean = |columns: &[&str]| DiffSpec { keep_rows: false, ..by(columns) };
    world.run(&[row(1, "a", 1), row(2, "b", 2)], &lean(&["name", "size"])).await.unwrap();
    // Whether `name` of row 2 changed as well cannot be told, so the row is sent rather than forgotten.
    let now = [row(1, "a", 1), row(2, "b", 3)];
    assert_eq!(ids(&world.run(&now, &lean(&["name"])).await.unwrap()), [2]);
    assert!(world.run(&[row(1, "a", 9), row(2, "b", 9)], &lean(&["name"])).await.unwrap().is_empty());
}

#[tokio::test]
async fn columns_are_reconciled_though_the_run_that_changed_them_died() {
    let world = World::new();
    let mut rows: Vec<_> = (0..10).map(|id| row(id, "a", id)).collect();
    world.run(&rows, &by(&["name"])).await.unwrap();
    rows[1].1 = "b".into();
    rows[2].1 = "b".into();
    let mut set = world.diff(&rows, &by(&["name", "size"])).await.unwrap();
    let changes = all(set.as_mut()).await.unwrap();
    assert_eq!(ids(&changes), [1, 2]);
    set.advance(&[&changes[0]]).await.unwrap();
    let told = cells(&changes[0].row).0;
    drop(set);
    let (summary, changes) = run(&world, Rows::of(&rows), &by(&["name", "size"]), true).await;
    assert_eq!((ids(&changes), summary.columns_changed), (vec![3 - told], None));
    assert!(world.run(&rows, &by(&["name", "size"])).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_column_gone_from_the_query_is_taken_out_of_the_prints_where_rows_are_kept() {
    let world = World::new();
    world.run(&[row(1, "a", 1), row(2, "b", 2)], &spec()).await.unwrap();
    let (summary, changes) = run(&world, narrow(&[(1, "a"), (2, "B")]), &spec(), true).await;
    assert_eq!((ids(&changes), summary.columns_changed), (vec![2], None));
    assert_eq!(cells(changes[0].previous.as_ref().unwrap()), (2, ("b".to_owned(), 2)));
    let (_, changes) = run(&world, narrow(&[(1, "a"), (2, "B")]), &spec(), true).await;
    assert!(changes.is_empty());
    // The column comes back: a new column, so nothing by itself.
    assert!(world.run(&[row(1, "a", 5), row(2, "B", 6)], &spec()).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_column_gone_from_the_query_is_said_where_rows_are_not_kept() {
    let world = World::new();
    let lean = DiffSpec { keep_rows: false, ..spec() };
    world.run(&[row(1, "a", 1), row(2, "b", 2)], &lean).await.unwrap();
    let sentence = "columns that count changed since the last run: `size` is gone from the query";
    // Nothing accepted: the run was stopped, and the next one says it again.
    for accept in [false, true] {
        let (summary, changes) = run(&world, narrow(&[(1, "a"), (2, "b")]), &lean, accept).await;
        assert_eq!((summary.columns_changed.as_deref(), ids(&changes)), (Some(sentence), vec![1, 2]));
        assert!(changes.iter().all(|change| change.op == Op::Changed));
    }
    let (summary, changes) = run(&world, narrow(&[(1, "a"), (2, "b")]), &lean, true).await;
    assert_eq!((summary.columns_changed, changes.len()), (None, 0));
}

#[tokio::test]
async fn a_column_of_another_type_is_said() {
    let world = World::new();
    world.run(&[row(1, "a", 1), row(2, "b", 2)], &spec()).await.unwrap();
    let now = || retyped(&[(1, "a", "1"), (2, "b", "2")]);
    for accept in [false, true] {
        let (summary, changes) = run(&world, now(), &spec(), accept).await;
        let sentence = summary.columns_changed.unwrap();
        assert_eq!(sentence, "columns that count changed since the last run: `size` was integer and is text");
        assert_eq!(ids(&changes), [1, 2]);
    }
    let (summary, changes) = run(&world, now(), &spec(), true).await;
    assert_eq!((summary.columns_changed, changes.len()), (None, 0));
}

#[tokio::test]
async fn another_key_is_said() {
    let world = World::new();
    world.run(&[row(1, "a", 1), row(2, "b", 2)], &spec()).await.unwrap();
    let other = DiffSpec { key: vec!["id".into(), "name".into()], ..spec() };
    let (summary, changes) = run(&world, Rows::of(&[row(1, "a", 1), row(2, "b", 2)]), &other, false).await;
    assert_eq!(
        summary.columns_changed.unwrap(),
        "columns that count changed since the last run: the key was `id` and is `id, name`"
    );
    assert_eq!((summary.counts.planned.added, summary.counts.planned.removed), (2, 2));
    assert_eq!(changes.len(), 4);
}
