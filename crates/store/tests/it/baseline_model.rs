//! Random runs against a model of the truth.

use std::collections::{BTreeMap, HashMap, HashSet};

use proptest::prelude::*;
use warren_engine::change::{Change, ChangeId, Op};

use crate::baseline_world::{Brief, Cells, Told, World, all, block_on, brief, cells, id, spec};

/// How a run ends.
#[derive(Debug, Clone, Copy)]
enum End {
    Finish,
    /// The process dies; everything that `advance` returned from is there.
    Die,
    /// The power goes: the last bytes of the journal are lost.
    Tear(u16),
}

#[derive(Debug, Clone)]
struct Run {
    /// What happens in the source first: a key gets a row, or loses it.
    writes: Vec<(i64, Option<Told>)>,
    /// Rows that take no part.
    nulls: u8,
    twice: Option<i64>,
    /// One of so many changes is not accepted.
    refuse: usize,
    full: bool,
    keep_rows: bool,
    stop_after: usize,
    end: End,
}

fn a_run() -> impl Strategy<Value = Run> {
    let told = prop::option::weighted(0.7, ("[ab]{0,3}", 0..3_i64));
    let writes = prop::collection::vec((0..24_i64, told), 0..16);
    let end = prop_oneof![3 => Just(End::Finish), 1 => Just(End::Die), 1 => any::<u16>().prop_map(End::Tear)];
    (
        writes,
        0..2_u8,
        prop::option::weighted(0.2, 0..24_i64),
        2..5_usize,
        prop::bool::weighted(0.1),
        prop::bool::weighted(0.8),
        prop_oneof![4 => Just(usize::MAX), 1 => 0..10_usize],
        end,
    )
        .prop_map(|(writes, nulls, twice, refuse, full, keep_rows, stop_after, end)| Run {
            writes,
            nulls,
            twice,
            refuse,
            full,
            keep_rows,
            stop_after,
            end,
        })
}

/// The model: what the source has, and what the destination was told.
#[derive(Default)]
struct Model {
    source: BTreeMap<i64, Told>,
    told: HashMap<i64, Told>,
    doubts: HashMap<i64, InDoubt>,
    accepted: HashSet<ChangeId>,
    /// A consumer that takes each change id once, as one may that was promised at least once.
    consumer: BTreeMap<i64, Told>,
    seen: HashSet<ChangeId>,
    /// After lost bytes: what may have been told instead.
    torn: bool,
}

/// The last change of a key that was announced, and neither told nor withdrawn.
#[derive(Debug, Clone)]
struct InDoubt {
    op: Op,
    before: Option<Told>,
    after: Option<Told>,
}

impl InDoubt {
    /// What is expected of the key now.
    fn expected(&self, now: Option<&Told>, full: bool) -> Option<(Op, Option<Told>, Told)> {
        match now {
            Some(row) if full => Some((Op::Added, None, row.clone())),
            None if full => None,
            now if now == self.after.as_ref() => {
                let row = now.or(self.before.as_ref()).unwrap().clone();
                Some((self.op, self.before.clone().filter(|_| self.op != Op::Added), row))
            }
            None => Some((Op::Removed, self.after.clone(), self.after.clone().unwrap())),
            Some(row) if self.op == Op::Changed => Some((Op::Changed, self.after.clone(), row.clone())),
            Some(row) => Some((Op::Added, None, row.clone())),
        }
    }
}

impl Model {
    fn rows(&self, run: &Run) -> Vec<Cells> {
        let mut rows: Vec<Cells> =
            self.source.iter().map(|(&key, (name, size))| (Some(key), name.clone(), *size)).collect();
        rows.extend((0..run.nulls).map(|at| (None, "null".to_owned(), i64::from(at))));
        if let Some(key) = run.twice {
            // Twice beside what the source has, so two or three times.
            rows.extend([(Some(key), "x".to_owned(), 1), (Some(key), "y".to_owned(), 2)]);
        }
        rows
    }

    fn expected(&self, run: &Run) -> Brief {
        let mut brief = Brief::new();
        let skipped = |key: i64| run.twice == Some(key) || self.doubts.contains_key(&key);
        for (&key, in_doubt) in self.doubts.iter().filter(|(key, _)| run.twice != Some(**key)) {
            brief.extend(in_doubt.expected(self.source.get(&key), run.full).map(|change| (key, change)));
        }
        for (&key, row) in &self.source {
            let told = self.told.get(&key);
            let change = match told {
                _ if skipped(key) => continue,
                _ if run.full => (Op::Added, None, row.clone()),
                None => (Op::Added, None, row.clone()),
                Some(told) if told == row => continue,
                Some(told) => (Op::Changed, Some(told.clone()), row.clone()),
            };
            brief.insert(key, change);
        }
        for (&key, told) in &self.told {
            if self.source.contains_key(&key) || skipped(key) || run.full {
                continue;
            }
            brief.insert(key, (Op::Removed, Some(told.clone()), told.clone()));
        }
        brief
    }

    fn accept(&mut self, change: &Change, run: &Run) {
        // The same change is never accepted twice, unless its acceptance was lost or it is sent on purpose.
        let new = self.accepted.insert(id(change));
        assert!(new || self.torn || run.full, "accepted twice: {change:?}");
        let (key, row) = cells(&change.row);
        self.doubts.remove(&key);
        match change.op {
            Op::Removed => self.told.remove(&key),
            Op::Added | Op::Changed => self.told.insert(key, row),
        };
    }

    fn doubt(&mut self, change: &Change) {
        let (key, row) = cells(&change.row);
        // In full the same row again: it was told, whether it arrives or not.
        if change.op == Op::Added && !self.doubts.contains_key(&key) && self.told.get(&key) == Some(&row) {
            return;
        }
        let before = match self.doubts.get(&key) {
            Some(doubt) if doubt.after == (change.op != Op::Removed).then(|| row.clone()) => {
                doubt.before.clone()
            }
            Some(doubt) => doubt.after.clone(),
            None => self.told.get(&key).cloned(),
        };
        let after = (change.op != Op::Removed).then_some(row);
        self.doubts.insert(key, InDoubt { op: change.op, before, after });
    }

    /// The message arrives.
    fn deliver(&mut self, change: &Change, turn: usize, run: &Run) {
        // As the engine does: what is sent on purpose has ids of its own.
        let again = if run.full { turn.to_string() } else { String::new() };
        if !self.seen.insert(ChangeId::of("sync", change, &again)) {
            return;
        }
        let (key, row) = cells(&change.row);
        match change.op {
            Op::Removed => self.consumer.remove(&key),
            Op::Added | Op::Changed => self.consumer.insert(key, row),
        };
    }
}

/// Once a run kept no rows, a previous row may be missing; which ones, other tests say.
fn same(expected: &Brief, found: &Brief, may_lack_previous: bool) -> bool {
    expected.len() == found.len()
        && expected.iter().zip(found).all(|((key, (op, previous, row)), (found_key, found))| {
            let lean = may_lack_previous && found.1.is_none();
            let row_fits = *row == found.2 || (lean && *op == Op::Removed);
            key == found_key && *op == found.0 && (lean || *previous == found.1) && row_fits
        })
}

async fn play(runs: Vec<Run>) {
    let world = World::new();
    let mut model = Model::default();
    let mut ever_lean = false;
    for (turn, run) in runs.into_iter().enumerate() {
        ever_lean |= !run.keep_rows;
        for (key, row) in &run.writes {
            match row {
                Some(row) => model.source.insert(*key, row.clone()),
                None => model.source.remove(key),
            };
        }
        let mut spec = spec();
        (spec.full, spec.keep_rows) = (run.full, run.keep_rows);
        let mut set = world.diff(&model.rows(&run), &spec).await.unwrap();
        let mut changes = all(set.as_mut()).await.unwrap();
        let expected = model.expected(&run);
        let found = brief(&changes);
        assert!(same(&expected, &found, ever_lean), "expected {expected:?}\nfound {found:?}");
        assert_eq!(set.summary().counts.null_keys, u64::from(run.nulls));

        // Answers come in any order, some not at all.
        changes.reverse();
        let before = (model.told.clone(), model.doubts.clone());
        let tears = matches!(run.end, End::Tear(_));
        for (at, some) in changes.chunks(4).enumerate().take(run.stop_after) {
            let number = |change: &Change| cells(&change.row).0 as usize + at;
            let (refused, accepted): (Vec<_>, Vec<_>) =
                some.iter().partition(|change| number(change).is_multiple_of(run.refuse));
            // Without power what was announced may be forgotten, so then nothing is.
            let refused = if tears { Vec::new() } else { refused };
            if !tears && at % 3 != 2 {
                set.announce(&accepted).await.unwrap();
            }
            set.announce(&refused).await.unwrap();
            set.advance(&accepted).await.unwrap();
            for change in accepted {
                model.accept(change, &run);
                model.deliver(change, turn, &run);
            }
            let (withdrawn, open): (Vec<_>, Vec<_>) =
                refused.into_iter().partition(|change| (number(change) / run.refuse).is_multiple_of(3));
            set.withdraw(&withdrawn).await.unwrap();
            for change in open {
                model.doubt(change);
                if (number(change) / run.refuse) % 3 == 1 {
                    model.deliver(change, turn, &run);
                }
            }
        }
        match run.end {
            End::Finish => set.finish().await.unwrap(),
            End::Die => drop(set),
            End::Tear(bytes) => {
                drop(set);
                tear(&world, bytes);
                recover_torn(&world, &mut model, before).await;
            }
        }
    }
    // A last run without a fault: everything is told.
    let rows = model.rows(&calm());
    for change in world.run(&rows, &spec()).await.unwrap() {
        model.deliver(&change, usize::MAX, &calm());
    }
    assert!(model.torn || model.consumer == model.source, "{:?}, not {:?}", model.consumer, model.source);
    assert!(world.run(&rows, &spec()).await.unwrap().is_empty());
    assert_eq!(world.baseline().info().await.unwrap().map_or(0, |info| info.rows), model.source.len() as u64);
}

fn calm() -> Run {
    Run {
        writes: Vec::new(),
        nulls: 0,
        twice: None,
        refuse: 2,
        full: false,
        keep_rows: true,
        stop_after: usize::MAX,
        end: End::Finish,
    }
}

/// Cuts the newest row file, which is the journal if the run wrote one.
fn tear(world: &World, bytes: u16) {
    let manifest = std::fs::read_to_string(world.path().join("manifest.json")).unwrap_or_default();
    let Some(journal) =
        (1..500).map(|number| format!("rows-{number}")).rfind(|name| world.path().join(name).exists())
    else {
        return;
    };
    if manifest.contains(&format!("\"number\":{},", &journal[5..])) {
        return;
    }
    let path = world.path().join(journal);
    let start = std::fs::read(&path).unwrap();
    // The header was synced before the journal got its name, and stays.
    let header = 24 + u64::from(u32::from_le_bytes(start[12..16].try_into().unwrap()));
    let length = (start.len() as u64).saturating_sub(u64::from(bytes) % 600).max(header);
    std::fs::OpenOptions::new().write(true).open(path).unwrap().set_len(length).unwrap();
}

/// Each key is now told what it was told before the run or in it; which, the baseline says.
async fn recover_torn(world: &World, model: &mut Model, before: (HashMap<i64, Told>, HashMap<i64, InDoubt>)) {
    let mut set = world.diff(&model.rows(&calm()), &spec()).await.unwrap();
    let found = brief(&all(set.as_mut()).await.unwrap());
    drop(set);
    let expected_now = model.expected(&calm());
    let told_now = std::mem::replace(&mut model.told, before.0);
    let doubts_now = std::mem::replace(&mut model.doubts, before.1);
    let expected_before = model.expected(&calm());
    let (told, source) = (told_now.keys().chain(model.told.keys()), model.source.keys());
    let in_doubt = doubts_now.keys().chain(model.doubts.keys());
    let keys: HashSet<i64> = told.chain(in_doubt).chain(source).copied().collect();
    for key in keys {
        let [found, now, before] = [&found, &expected_now, &expected_before]
            .map(|brief| brief.get(&key).map(|(op, _, row)| (*op, row.clone())));
        let fits = |expected: &Option<(Op, Told)>| {
            found.as_ref().map(|found| found.0) == expected.as_ref().map(|expected| expected.0)
        };
        assert!(fits(&now) || fits(&before), "key {key}: {found:?}, neither {now:?} nor {before:?}");
        if fits(&now) {
            match told_now.get(&key) {
                Some(told) => model.told.insert(key, told.clone()),
                None => model.told.remove(&key),
            };
            match doubts_now.get(&key) {
                Some(doubt) => model.doubts.insert(key, doubt.clone()),
                None => model.doubts.remove(&key),
            };
        }
    }
    model.torn = true;
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_baseline_is_what_was_told(runs in prop::collection::vec(a_run(), 1..12)) {
        block_on(play(runs));
    }
}
