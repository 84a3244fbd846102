//! SIGKILL at random moments of a sync of 100,000 rows, again and again, while the rows change.
//!
//! The seed is printed; `WARREN_SEED` gives it back. The moments are as random as the machine, so a seed repeats the
//! rows and the plan of the kills, not each kill to the message.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use fastrand::Rng;
use serde_json::Value;
use warren_testkit::wait::pause;
use warren_testkit::{rabbit, soak};

use crate::program::{Running, total};
use crate::shop::{Heard, Shop};

const ROWS: u32 = 100_000;
/// What may be under way unrecorded: messages of a batch times batches in flight or about to be recorded.
const WINDOW: u64 = 500 * (8 + 2);

/// Pairs of runs.
type Runs = Vec<(u64, u64)>;

/// Where in a run the kill falls.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Part {
    /// While it starts, reads and compares.
    Early,
    /// While it sends.
    Sending,
    /// When about all is sent: the last answers, the new baseline, the record's end.
    Finish,
}

/// How fast runs go on this machine, as learned from those before.
struct Pace {
    begin: Duration,
    per_second: f64,
}

impl Pace {
    fn learn(&mut self, running: &Running, began: Instant) {
        let events = running.events();
        let at = |fits: &dyn Fn(&Value) -> bool| events.iter().rfind(|event| fits(&event.json));
        let Some(sending) = at(&|event| event["event"] == "state" && event["state"] == "sending") else {
            return;
        };
        self.begin = sending.at - began;
        if let Some(sent) = at(&|event| event["event"] == "sent")
            && sent.at - sending.at > Duration::from_millis(400)
        {
            let messages = total(&sent.json["counts"]["sent"]) as f64;
            self.per_second = (messages / (sent.at - sending.at).as_secs_f64()).max(500.0);
        }
    }

    /// Waits for the moment of the kill, or the end of the run.
    fn wait(&self, running: &mut Running, part: Part, random: &mut Rng) {
        if part == Part::Early {
            return pause("a kill at a random moment", self.begin.mul_f64(random.f64()));
        }
        running.wait_for("it sends", Duration::from_secs(120), |event| {
            event["event"] == "state" && event["state"] == "sending"
        });
        let planned = running.find(|event| event["event"] == "planned").unwrap();
        let expected = total(&planned.json["counts"]["planned"]) as f64 / self.per_second;
        let share = if part == Part::Sending { random.f64() * 0.9 } else { 0.9 + random.f64() * 0.3 };
        pause("a kill at a random moment", Duration::from_secs_f64(expected * share));
    }
}

#[test]
fn kill_nine_loses_nothing_and_repeats_only_what_was_under_way() {
    // Fewer rounds also change fewer rows, so that the plain run of all tests stays short.
    let (kills, shares) = if soak() { (50, [0.0, 0.05, 0.3, 1.0]) } else { (5, [0.0, 0.02, 0.05, 0.1]) };
    let seed = std::env::var("WARREN_SEED").map_or_else(|_| fastrand::u64(..), |seed| seed.parse().unwrap());
    println!("seed {seed}");
    let mut random = Rng::with_seed(seed);
    let vhost = rabbit::vhost();
    let shop = Shop::open(&vhost, ROWS);
    let mut pace = Pace { begin: Duration::from_secs(1), per_second: 20_000.0 };
    let mut heard = Heard::default();
    let mut killed: BTreeMap<Part, usize> = BTreeMap::new();
    let mut ended_before = 0;
    while killed.values().sum::<usize>() < kills {
        let part = match random.u8(..100) {
            0..15 => Part::Early,
            15..85 => Part::Sending,
            _ => Part::Finish,
        };
        let began = Instant::now();
        let mut running = shop.program.start(&["sync", "customers"]);
        pace.wait(&mut running, part, &mut random);
        let ended = running.kill();
        pace.learn(&running, began);
        match ended.code {
            None => *killed.entry(part).or_default() += 1,
            Some(0) => ended_before += 1,
            Some(_) => panic!("{ended:#?}"),
        }
        // Sometimes the queue is read, and sometimes the next run comes at once.
        if random.u8(..5) == 0 {
            heard.listen(&vhost);
        }
        shop.change(random.choice(shares).unwrap(), random.f64());
    }
    let last = shop.program.sync("customers", 0);
    assert_eq!(last["state"], "success");
    let after = shop.program.sync("customers", 0);
    assert_eq!(total(&after["counts"]["planned"]), 0, "all was told: {after}");
    heard.listen(&vhost);

    let runs = shop.program.runs();
    let (interrupted, whole): (Vec<&Value>, Vec<&Value>) =
        runs.iter().partition(|run| run["state"] == "interrupted");
    assert!(whole.iter().all(|run| run["state"] == "success"), "{whole:#?}");
    // A kill before the run was on record leaves none, and one after its end a whole one.
    let unseen =
        killed.get(&Part::Early).copied().unwrap_or(0) + killed.get(&Part::Finish).copied().unwrap_or(0);
    assert!(
        interrupted.len() + unseen >= kills,
        "{} of {kills} are on record as interrupted",
        interrupted.len()
    );

    let figures = Figures::of(&runs, &heard);
    println!("kills {killed:?}, runs that ended before their kill {ended_before}");
    println!("messages {}, rows at the end {}", heard.messages, shop.rows().len());
    let lost = heard.wrong(&shop.rows());
    println!("lost {}", lost.len());
    // A run that was killed in between may have been about to tell the key something else.
    let killed_runs: BTreeSet<u64> = interrupted.iter().map(|run| run["run"].as_u64().unwrap()).collect();
    let (went_back, renamed): (Runs, Runs) = heard
        .renamed
        .iter()
        .copied()
        .partition(|(before, after)| killed_runs.range(before + 1..*after).next().is_some());
    println!("rows told again because they went back {}", went_back.len());
    println!("repeated per kill: {}", spread(&figures.repeated));
    println!("repeated per kill while sending: {}", spread(&figures.repeated_of_sending));
    println!("taken by the broker and not recorded per kill while sending: {}", spread(&figures.unrecorded));
    assert!(lost.is_empty(), "{lost:#?}");
    assert_eq!(renamed, [], "repetitions had another change id");
    heard.assert_same();
    let most = figures.repeated.iter().chain(&figures.unrecorded).max().unwrap();
    assert!(*most <= WINDOW, "{most} messages were repeated or unrecorded after one kill");
    for run in &whole {
        let id = run["run"].as_u64().unwrap();
        assert_eq!(heard.repeated.get(&id), None, "nothing of a whole run is repeated");
        assert_eq!(heard.of_run(id), total(&run["counts"]["sent"]), "run {id} counts what it sent");
    }
}

/// A number for each kill.
struct Figures {
    repeated: Vec<u64>,
    repeated_of_sending: Vec<u64>,
    unrecorded: Vec<u64>,
}

impl Figures {
    fn of(runs: &[Value], heard: &Heard) -> Figures {
        let mut figures =
            Figures { repeated: Vec::new(), repeated_of_sending: Vec::new(), unrecorded: Vec::new() };
        for run in runs.iter().filter(|run| run["state"] == "interrupted") {
            let id = run["run"].as_u64().unwrap();
            let repeated = heard.repeated.get(&id).copied().unwrap_or(0);
            figures.repeated.push(repeated);
            if heard.of_run(id) > 0 {
                figures.repeated_of_sending.push(repeated);
                // What was recorded was taken by the broker, so this cannot be negative.
                figures.unrecorded.push(heard.of_run(id) - total(&run["counts"]["sent"]));
            }
        }
        figures
    }
}

fn spread(figures: &[u64]) -> String {
    let mut sorted = figures.to_vec();
    sorted.sort_unstable();
    match (sorted.first(), sorted.get(sorted.len() / 2), sorted.last()) {
        (Some(min), Some(median), Some(max)) => {
            format!(
                "{} kills, min {min}, median {median}, max {max}, {} in all",
                sorted.len(),
                sorted.iter().sum::<u64>()
            )
        }
        _ => "no kill".to_owned(),
    }
}
