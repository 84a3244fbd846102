//! The promise itself: whatever happened on the way, after a clean run the last message of each key equals its row,
//! and the last message of a key that is gone is a removal.
//!
//! Random runs, with the baseline's real files and the state's real file, are held against a model that sees only the source
//! and the queue. What goes wrong on the way: nacks, lost confirms, lost messages, a destination that is away, unknown
//! queues, reads that break, full disks, runs that are stopped, and processes that die at any moment. See [`model`] for
//! what is asserted after each run.
//!
//! A case that fails prints its seed and what it did; `WARREN_TRUTH_SEED=n` plays it alone.

mod model;
mod world;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};

use fastrand::Rng;
use warren_engine::memory::Fault;
use warren_engine::run::{RunKind, RunState};

use self::model::Model;
use self::world::{Cells, Compared, World};

/// Cases of an ordinary run; twenty times as many with `./test --soak`.
const CASES: u64 = 600;

#[test]
fn after_the_last_clean_run_the_last_message_of_each_key_is_its_row() {
    if let Some(seed) = std::env::var("WARREN_TRUTH_SEED").ok().and_then(|seed| seed.parse().ok()) {
        Case::play(seed);
        return;
    }
    let sums = play(CASES);
    // A test in which nothing went wrong has shown nothing.
    let all = [
        sums.died,
        sums.stopped,
        sums.failed,
        sums.interrupted,
        sums.duplicates,
        sums.sent_again,
        sums.removed,
        sums.rejected,
    ];
    assert!(all.iter().all(|&count| count > CASES / 25), "{sums:?}");
}

mod soak {
    #[test]
    fn the_last_message_of_each_key_is_its_row_however_long_it_is_tried() {
        super::play(if warren_testkit::soak() { super::CASES * 20 } else { 20 });
    }
}

/// Plays so many cases, of new seeds each time.
fn play(cases: u64) -> Sums {
    let first: u64 = fastrand::u64(..) >> 16;
    println!("seeds {first} to {}", first + cases - 1);
    let next = AtomicU64::new(first);
    let mut sums = Sums::default();
    std::thread::scope(|scope| {
        let play = || {
            let mut sums = Sums::default();
            loop {
                let seed = next.fetch_add(1, Ordering::Relaxed);
                if seed >= first + cases {
                    return sums;
                }
                sums.add(&Case::play(seed));
            }
        };
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(play)).collect();
        for thread in threads {
            sums.add(&thread.join().unwrap());
        }
    });
    println!("{sums:?}");
    sums
}

/// What happened, over all cases.
#[derive(Debug, Default)]
struct Sums {
    runs: u64,
    messages: u64,
    removed: u64,
    /// In one run.
    duplicates: u64,
    /// In a later run.
    sent_again: u64,
    rejected: u64,
    died: u64,
    stopped: u64,
    failed: u64,
    interrupted: u64,
    /// See [`Model::went_back`].
    went_back: u64,
}

impl Sums {
    fn add(&mut self, other: &Sums) {
        self.runs += other.runs;
        self.messages += other.messages;
        self.removed += other.removed;
        self.duplicates += other.duplicates;
        self.sent_again += other.sent_again;
        self.rejected += other.rejected;
        self.died += other.died;
        self.stopped += other.stopped;
        self.failed += other.failed;
        self.interrupted += other.interrupted;
        self.went_back += other.went_back;
    }
}

/// What goes wrong in a run.
#[derive(Debug, Clone, PartialEq)]
enum Trouble {
    None,
    /// The next messages have these faults.
    Faults(Vec<Option<Fault>>),
    /// So many messages go, and then the destination is away for good.
    Away(usize),
    /// So many messages go, and then each one is refused.
    Storm(usize),
    /// The read breaks after so many rows.
    BrokenRead(usize),
    /// The disk is full after so many steps of the baseline.
    FullDisk(usize),
}

/// How a run is ended from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    No,
    /// It is asked to stop when it is polled for the n-th time.
    Stop(usize),
    /// The process dies when it is polled for the n-th time.
    Death(usize),
}

/// One run, and what happens in the source before it.
#[derive(Debug)]
struct Step {
    writes: Vec<(i64, Option<Cells>)>,
    nulls: usize,
    /// A key that stands in the result twice.
    twice: Option<i64>,
    trouble: Trouble,
    cut: Cut,
    full: bool,
    keep_rows: bool,
    compared: Compared,
    no_guard: bool,
}

struct Case {
    rng: Rng,
    keys: i64,
    /// Whether the columns that count change from run to run.
    switching: bool,
    compared: Compared,
    world: World,
    model: Model,
    sums: Sums,
    told: Story,
}

/// What a case did; printed if it fails.
struct Story(u64, String);

impl Drop for Story {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the case of seed {}:\n{}", self.0, self.1);
        }
    }
}

impl Case {
    fn play(seed: u64) -> Sums {
        let mut rng = Rng::with_seed(seed);
        let switching = rng.u8(..4) == 0;
        let keys = if rng.u8(..8) == 0 { 300 } else { rng.i64(3..30) };
        let world = World::new(rng.usize(1..6), rng.usize(1..4));
        let compared =
            if switching { Compared::Name } else { rng.choice([Compared::All, Compared::Used]).unwrap() };
        let model = Model::new(!switching, world.in_flight_max());
        let told = Story(seed, String::new());
        let mut case = Case { rng, keys, switching, compared, world, model, sums: Sums::default(), told };
        for _ in 0..case.rng.usize(2..10) {
            let step = case.step();
            case.run(&step);
        }
        case.end();
        case.sums.runs += 3;
        case.sums.messages = case.model.messages() as u64;
        case.sums.removed = case.model.removals() as u64;
        case.sums.duplicates = case.model.duplicates() as u64;
        case.sums.sent_again = case.model.sent_again() as u64;
        case.sums.went_back = case.model.went_back() as u64;
        std::mem::take(&mut case.sums)
    }

    fn step(&mut self) -> Step {
        let rng = &mut self.rng;
        let mut writes = Vec::new();
        for _ in 0..rng.i64(0..self.keys) {
            let key = rng.i64(0..self.keys);
            let row = (rng.u8(..10) < 7).then(|| Cells::random(rng));
            writes.push((key, row));
        }
        if rng.u8(..30) == 0 {
            writes.extend((0..self.keys).map(|key| (key, None)));
        }
        if self.switching {
            self.compared = rng.choice([Compared::Name, Compared::NameAndSize, Compared::All]).unwrap();
        }
        let few = |rng: &mut Rng| rng.usize(0..20);
        let trouble = match rng.u8(..16) {
            0..=5 => Trouble::None,
            6..=10 => {
                let odds = rng.u8(1..=100);
                let fault = |rng: &mut Rng| {
                    let faults = [Fault::Nack, Fault::NotWritten, Fault::LostConfirm, Fault::LostMessage];
                    (rng.u8(..100) < odds).then(|| rng.choice(faults).unwrap())
                };
                Trouble::Faults((0..rng.usize(1..60)).map(|_| fault(rng)).collect())
            }
            11 | 12 => Trouble::Away(few(rng)),
            13 => Trouble::Storm(few(rng)),
            14 => Trouble::BrokenRead(rng.usize(0..10)),
            _ => Trouble::FullDisk(rng.usize(0..30)),
        };
        let moment = 1 << rng.u32(1..9);
        let moment = rng.usize(moment / 2..moment);
        Step {
            writes,
            nulls: if rng.u8(..8) == 0 { rng.usize(1..4) } else { 0 },
            twice: (rng.u8(..8) == 0).then(|| rng.i64(0..self.keys)),
            trouble,
            cut: match rng.u8(..10) {
                0..=5 => Cut::No,
                6 => Cut::Stop(moment),
                _ => Cut::Death(moment),
            },
            full: rng.u8(..16) == 0,
            keep_rows: rng.u8(..4) > 0,
            compared: self.compared,
            no_guard: rng.bool(),
        }
    }

    fn run(&mut self, step: &Step) {
        writeln!(self.told.1, "{step:?}").unwrap();
        self.sums.runs += 1;
        for (key, row) in &step.writes {
            self.model.write(*key, row.as_ref());
        }
        self.model.result(step.nulls, step.twice);
        let rows = self.model.rows(&mut self.rng);
        self.world.rows(&rows);
        self.world.plan(step.compared, step.keep_rows);
        match &step.trouble {
            Trouble::None => {}
            Trouble::Faults(faults) => self.world.broker.script(faults.iter().copied()),
            Trouble::Away(after) => self.world.script(*after, Fault::NotWritten),
            Trouble::Storm(after) => self.world.script(*after, Fault::Nack),
            Trouble::BrokenRead(after) => self.world.source.break_after((*after).min(rows.len())),
            Trouble::FullDisk(after) => self.world.disk(Some(*after)),
        }
        let kind = if step.full { RunKind::Full } else { RunKind::Changes };
        let ended = self.world.run(kind, step.no_guard, step.cut);
        self.world.disk(None);
        self.world.broker.script_is_over();
        let state = ended.as_ref().map(|record| record.state);
        writeln!(self.told.1, "  -> {state:?}").unwrap();
        let heard = self.world.heard();
        writeln!(self.told.1, "  {heard:?}").unwrap();
        match (&ended, &step.trouble) {
            (Some(record), Trouble::BrokenRead(_)) => {
                assert!(!matches!(record.state, RunState::Success | RunState::Warning), "{record:?}");
                assert!(heard.is_empty(), "a read that broke sent something");
            }
            (Some(record), _) if record.state == RunState::Guarded => {
                assert!(self.model.is_empty() && !step.no_guard && heard.is_empty(), "{record:?}");
            }
            _ => {}
        }
        match state {
            None => self.sums.died += 1,
            Some(RunState::Cancelled) => self.sums.stopped += 1,
            Some(RunState::Failed) => self.sums.failed += 1,
            Some(RunState::Interrupted) => self.sums.interrupted += 1,
            Some(_) => {}
        }
        self.sums.rejected += ended.as_ref().map_or(0, |record| record.counts.rejected_rows());
        let refused = matches!(step.trouble, Trouble::Storm(_) | Trouble::Faults(_));
        // The result as it was, but whole.
        self.world.rows(&self.model.rows(&mut self.rng));
        let unrecorded = match state {
            Some(RunState::Success) => BTreeSet::new(),
            _ if heard.is_empty() => BTreeSet::new(),
            _ => self.world.differing(),
        };
        self.model.after(&heard, ended.as_ref(), &unrecorded, step.full, refused);
    }

    /// The last run, with everything in order: then a look, a run that finds nothing, and where columns were switched
    /// one in full.
    fn end(&mut self) {
        let mut step = Step {
            writes: self.model.mended(),
            nulls: 0,
            twice: None,
            trouble: Trouble::None,
            cut: Cut::No,
            full: false,
            keep_rows: true,
            compared: self.compared,
            no_guard: true,
        };
        self.run(&step);
        self.model.every_key_is_told(self.compared == Compared::Name);
        step.writes.clear();
        let before = self.model.messages();
        self.run(&step);
        assert_eq!(self.model.messages(), before, "nothing differed, and something was sent");
        assert_eq!(self.world.baseline_rows(), self.model.len());
        step.full = true;
        self.run(&step);
        self.model.every_key_is_told(false);
    }
}
