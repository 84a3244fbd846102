//! Counters and histograms in Prometheus' text format. All names are declared here; labels come from the configuration, or are the short
//! names of subscriptions.

use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use warren_engine::consume::record::MessageStatus;
use warren_engine::consume::status::{BOUNDS_MS, Status};

use super::Seen;
use super::hub::{Open, Stage};

/// 7 days.
const SOON_MS: i64 = 7 * 86_400_000;

const STATES: [&str; 6] = ["starting", "consuming", "waiting", "paused", "draining", "stopped"];

/// One number of a trigger: name, kind, help, and how it is read.
type Number = (&'static str, &'static str, &'static str, fn(&Status) -> f64);

const NUMBERS: [Number; 6] = [
    ("warren_messages_received_total", "counter", "Messages received.", |status| {
        status.received.load(Relaxed) as f64
    }),
    ("warren_tries_in_place_total", "counter", "Quick tries in place.", |status| {
        status.in_place.load(Relaxed) as f64
    }),
    ("warren_consumer_reopened_total", "counter", "Consumers lost or refused, and opened again.", |status| {
        status.reconnects.load(Relaxed) as f64
    }),
    ("warren_messages_in_flight", "gauge", "Messages being handled.", |status| {
        status.in_flight.load(Relaxed) as f64
    }),
    ("warren_messages_waiting", "gauge", "Messages received and not started.", |status| {
        status.waiting.load(Relaxed) as f64
    }),
    ("warren_messages_parked", "gauge", "Messages in the local parking lot.", |status| {
        status.parked.load(Relaxed) as f64
    }),
];

/// All numbers of all triggers and subscriptions.
pub(super) fn text(seen: &Seen) -> String {
    let mut out = String::new();
    // Writing to a String does not fail.
    write_all(&mut out, seen).ok();
    if let Some(open) = seen.hub.as_ref().and_then(Stage::open) {
        write_hub(&mut out, &open).ok();
    }
    out
}

/// A consumer with the label that names it.
struct Labelled {
    label: String,
    status: Arc<Status>,
}

fn write_all(out: &mut String, seen: &Seen) -> std::fmt::Result {
    let triggers = seen.triggers.iter();
    let triggers: Vec<Labelled> = triggers
        .map(|(name, status)| Labelled { label: format!("trigger=\"{name}\""), status: status.clone() })
        .collect();
    let of_hub = seen.hub.iter().flat_map(Stage::consumers);
    let subscriptions: Vec<Labelled> =
        of_hub.map(|(id, status)| Labelled { label: format!("subscription=\"{id}\""), status }).collect();
    for (name, kind, help, read) in NUMBERS {
        writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}")?;
        for Labelled { label, status } in triggers.iter().chain(&subscriptions) {
            writeln!(out, "{name}{{{label}}} {}", read(status))?;
        }
    }
    let name = "warren_attempts_total";
    writeln!(
        out,
        "# HELP {name} Attempts that ended, by what became of the message.\n# TYPE {name} counter"
    )?;
    for Labelled { label, status } in triggers.iter().chain(&subscriptions) {
        for ended in MessageStatus::ALL {
            let (word, count) = (ended.as_str(), status.ended(ended));
            writeln!(out, "{name}{{{label},status=\"{word}\"}} {count}")?;
        }
    }
    write_states(out, "warren_trigger_state", "trigger", &triggers)?;
    if seen.hub.is_some() {
        write_states(out, "warren_subscription_state", "consumer of the subscription", &subscriptions)?;
    }
    let name = "warren_handling_seconds";
    writeln!(out, "# HELP {name} How long messages took to be handled.\n# TYPE {name} histogram")?;
    for Labelled { label, status } in triggers.iter().chain(&subscriptions) {
        let counts = status.duration.cumulative();
        let all = counts.last().copied().unwrap_or(0);
        if all == 0 && label.starts_with("subscription") {
            continue; // there may be many that are idle
        }
        for (bound, count) in BOUNDS_MS.iter().zip(&counts) {
            let bound = *bound as f64 / 1000.0;
            writeln!(out, "{name}_bucket{{{label},le=\"{bound}\"}} {count}")?;
        }
        writeln!(out, "{name}_bucket{{{label},le=\"+Inf\"}} {all}")?;
        writeln!(out, "{name}_sum{{{label}}} {}", status.duration.sum_seconds())?;
        writeln!(out, "{name}_count{{{label}}} {all}")?;
    }
    Ok(())
}

fn write_states(out: &mut String, name: &str, what: &str, all: &[Labelled]) -> std::fmt::Result {
    writeln!(out, "# HELP {name} 1 for the state that the {what} is in.\n# TYPE {name} gauge")?;
    for Labelled { label, status } in all {
        let now = status.state();
        for state in STATES {
            let is = u8::from(now.as_str() == state);
            writeln!(out, "{name}{{{label},state=\"{state}\"}} {is}")?;
        }
    }
    Ok(())
}

/// What is seen of the hub as a whole.
fn write_hub(out: &mut String, open: &Open) -> std::fmt::Result {
    let mut gauge = |name: &str, help: &str, samples: &[(&str, usize)]| {
        writeln!(out, "# HELP {name} {help}\n# TYPE {name} gauge")?;
        for (labels, value) in samples {
            writeln!(out, "{name}{labels} {value}")?;
        }
        Ok(())
    };
    let all = open.hub.all();
    let active = all.iter().filter(|subscription| subscription.is_active()).count();
    let states = [("{state=\"active\"}", active), ("{state=\"inactive\"}", all.len() - active)];
    gauge("warren_subscriptions", "Subscriptions that are known.", &states)?;
    let soon = open.hub.ports().clock.now_ms().saturating_add(SOON_MS);
    let ending = open.hub.expiring_before(soon);
    let ending = ending.iter().filter(|subscription| subscription.is_active()).count();
    let help = "Active subscriptions whose lease ends within 7 days.";
    gauge("warren_subscriptions_expiring", help, &[("", ending)])?;
    let help = "What waits to be done: verifications, denials, fetches, queues to be tidied up.";
    gauge("warren_hub_chores", help, &[("", open.hub.chores())])
}
