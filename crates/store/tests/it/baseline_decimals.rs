//! Decimals by value: another scale is no change, and baselines that printed decimals as they were written go on as they are.

use warren_engine::change::Op;
use warren_engine::model::ColumnType;
use warren_engine::ports::{Baseline, Compare, DiffSpec};
use warren_engine::row::Batch;
use xxhash_rust::xxh3::xxh3_64;

use crate::baseline_world::{Rows, World, schema, spec};

/// Rows of a decimal key and a decimal price. Columns of the type `any` are printed as they are written, so with these a
/// test makes what older versions made.
fn rows(kind: ColumnType, rows: &[(&str, &str)]) -> Rows {
    let mut batch = Batch::default();
    for (id, price) in rows {
        let mut cells = batch.cells();
        cells.decimal(id);
        cells.decimal(price);
        cells.text("a");
        cells.array(1, |cells| cells.decimal(price));
        batch.end_row();
    }
    let list = if kind == ColumnType::Decimal { ColumnType::Array } else { kind };
    let columns = [("id", kind), ("price", kind), ("name", ColumnType::Text), ("list", list)];
    Rows::new(schema(&columns), vec![batch])
}

const NEW: ColumnType = ColumnType::Decimal;
const OLD: ColumnType = ColumnType::Any;

/// What a run finds, with what it says of columns; everything is accepted.
async fn run(world: &World, mut rows: Rows, spec: &DiffSpec) -> (Vec<Op>, Option<String>) {
    let mut set = world.baseline().diff(&mut rows, spec, &|_, _| ()).await.unwrap();
    let said = set.summary().columns_changed.clone();
    let mut ops = Vec::new();
    loop {
        let some = set.next(10).await.unwrap();
        if some.is_empty() {
            break;
        }
        ops.extend(some.iter().map(|change| change.op));
        if said.is_none() {
            set.advance(&some.iter().collect::<Vec<_>>()).await.unwrap();
        }
    }
    set.finish().await.unwrap();
    (ops, said)
}

async fn nothing(world: &World, rows: Rows, spec: &DiffSpec) {
    assert_eq!(run(world, rows, spec).await, (vec![], None));
}

/// Makes a baseline one of an older format: what its manifest does not say is as it was then.
fn make_older(world: &World) {
    let path = world.path().join("manifest.json");
    let text = std::fs::read_to_string(&path).unwrap();
    let mut manifest: serde_json::Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
    let fields = manifest.as_object_mut().unwrap();
    assert!(fields.remove("written_rows").is_some() && fields.remove("written_keys").is_some());
    fields.insert("format".into(), 2.into());
    let line = manifest.to_string();
    std::fs::write(&path, format!("{line}\nxxh3 {:016x}\n", xxh3_64(line.as_bytes()))).unwrap();
}

/// Whether the manifest says that there may be prints of rows, and of keys, as they were written.
fn written(world: &World) -> (bool, bool) {
    let text = std::fs::read_to_string(world.path().join("manifest.json")).unwrap();
    (text.contains("\"written_rows\":true"), text.contains("\"written_keys\":true"))
}

#[tokio::test]
async fn another_scale_is_no_change_of_a_key_or_a_value() {
    let world = World::new();
    assert_eq!(run(&world, rows(NEW, &[("1.0", "2.50"), ("2.0", "-0.0")]), &spec()).await.0.len(), 2);
    nothing(&world, rows(NEW, &[("1.00", "2.5000"), ("2.00", "0")]), &spec()).await;
    nothing(&world, rows(NEW, &[("1", "2.5"), ("2", "0.00")]), &spec()).await;
    let changed = run(&world, rows(NEW, &[("1", "2.51"), ("2", "0")]), &spec()).await;
    assert_eq!(changed, (vec![Op::Changed], None));
    assert_eq!(
        run(&world, rows(NEW, &[("1.0", "2.510"), ("2.01", "0")]), &spec()).await.0,
        [Op::Removed, Op::Added]
    );
}

#[tokio::test]
async fn values_of_an_older_baseline_are_taken_as_they_are_and_count_by_value_from_then_on() {
    for keep_rows in [true, false] {
        let spec = DiffSpec { keep_rows, ..spec() };
        let world = World::new();
        run(&world, rows(OLD, &[("1", "2.50"), ("2", "3.00"), ("3", "4")]), &spec).await;
        make_older(&world);
        // One changed meanwhile; the others are what they were.
        let now = run(&world, rows(NEW, &[("1", "2.50"), ("2", "3.00"), ("3", "5.0")]), &spec).await;
        assert_eq!(now, (vec![Op::Changed], None));
        assert_eq!(written(&world), (false, false));
        nothing(&world, rows(NEW, &[("1.0", "2.5"), ("2", "3"), ("3.00", "5")]), &spec).await;
    }
}

#[tokio::test]
async fn an_older_baseline_keeps_both_kinds_of_prints_until_all_rows_are_settled() {
    let world = World::new();
    let compare = Compare::These(["price".into()].into());
    let spec = DiffSpec { compare, ..spec() };
    run(&world, rows(OLD, &[("1", "2.50"), ("2", "3.00")]), &spec).await;
    make_older(&world);
    // A run in which nothing is accepted.
    let mut set =
        world.baseline().diff(&mut rows(NEW, &[("1", "2.50"), ("2", "9")]), &spec, &|_, _| ()).await.unwrap();
    assert_eq!(set.next(10).await.unwrap().len(), 1);
    set.finish().await.unwrap();
    assert_eq!(written(&world), (true, true));
    // The columns that count change as well.
    let all = DiffSpec { compare: Compare::AllBut([].into()), ..spec.clone() };
    assert_eq!(run(&world, rows(NEW, &[("1", "2.5"), ("2", "9")]), &all).await, (vec![Op::Changed], None));
    assert_eq!(written(&world), (false, false));
    nothing(&world, rows(NEW, &[("1.0", "2.50"), ("2", "9.0")]), &all).await;
}

#[tokio::test]
async fn keys_of_an_older_baseline_stay_as_they_are_written_while_some_have_zeros() {
    let world = World::new();
    run(&world, rows(OLD, &[("1.0", "1"), ("2.0", "1")]), &spec()).await;
    make_older(&world);
    nothing(&world, rows(NEW, &[("1.0", "1"), ("2.0", "1")]), &spec()).await;
    assert_eq!(written(&world), (false, true));
    // Another scale of such keys stops the run, and sends nothing.
    let (_, said) = run(&world, rows(NEW, &[("1.00", "1"), ("2.00", "1")]), &spec()).await;
    assert!(said.unwrap().contains("decimal places"));
    // A key that comes and one that goes are none of that.
    let ops = run(&world, rows(NEW, &[("1.0", "1"), ("3.0", "1")]), &spec()).await;
    assert_eq!(ops, (vec![Op::Removed, Op::Added], None));
}

#[tokio::test]
async fn keys_of_an_older_baseline_count_by_value_once_none_has_zeros() {
    let world = World::new();
    run(&world, rows(OLD, &[("1", "1"), ("20", "1"), ("3.0", "1")]), &spec()).await;
    make_older(&world);
    // The one with a zero is gone.
    assert_eq!(run(&world, rows(NEW, &[("1", "1"), ("20", "1")]), &spec()).await, (vec![Op::Removed], None));
    assert_eq!(written(&world), (false, false));
    nothing(&world, rows(NEW, &[("1.00", "1"), ("20.00", "1")]), &spec()).await;
}
