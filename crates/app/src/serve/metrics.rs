//! Counters and histograms in Prometheus' text format. All names are declared here; labels come from the configuration.

use std::fmt::Write;
use std::sync::atomic::Ordering::Relaxed;

use warren_engine::consume::record::MessageStatus;
use warren_engine::consume::status::{BOUNDS_MS, Status};

use super::Statuses;

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

/// All numbers of all triggers.
pub(super) fn text(statuses: &Statuses) -> String {
    let mut out = String::new();
    // Writing to a String does not fail.
    write_all(&mut out, statuses).ok();
    out
}

fn write_all(out: &mut String, statuses: &Statuses) -> std::fmt::Result {
    for (name, kind, help, read) in NUMBERS {
        writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}")?;
        for (trigger, status) in statuses.iter() {
            writeln!(out, "{name}{{trigger=\"{trigger}\"}} {}", read(status))?;
        }
    }
    let name = "warren_attempts_total";
    writeln!(
        out,
        "# HELP {name} Attempts that ended, by what became of the message.\n# TYPE {name} counter"
    )?;
    for (trigger, status) in statuses.iter() {
        for ended in MessageStatus::ALL {
            let (word, count) = (ended.as_str(), status.ended(ended));
            writeln!(out, "{name}{{trigger=\"{trigger}\",status=\"{word}\"}} {count}")?;
        }
    }
    let name = "warren_trigger_state";
    writeln!(out, "# HELP {name} 1 for the state that the trigger is in.\n# TYPE {name} gauge")?;
    for (trigger, status) in statuses.iter() {
        let now = status.state();
        for state in STATES {
            let is = u8::from(now.as_str() == state);
            writeln!(out, "{name}{{trigger=\"{trigger}\",state=\"{state}\"}} {is}")?;
        }
    }
    let name = "warren_handling_seconds";
    writeln!(out, "# HELP {name} How long messages took to be handled.\n# TYPE {name} histogram")?;
    for (trigger, status) in statuses.iter() {
        let counts = status.duration.cumulative();
        for (bound, count) in BOUNDS_MS.iter().zip(&counts) {
            let bound = *bound as f64 / 1000.0;
            writeln!(out, "{name}_bucket{{trigger=\"{trigger}\",le=\"{bound}\"}} {count}")?;
        }
        let all = counts.last().copied().unwrap_or(0);
        writeln!(out, "{name}_bucket{{trigger=\"{trigger}\",le=\"+Inf\"}} {all}")?;
        writeln!(out, "{name}_sum{{trigger=\"{trigger}\"}} {}", status.duration.sum_seconds())?;
        writeln!(out, "{name}_count{{trigger=\"{trigger}\"}} {all}")?;
    }
    Ok(())
}
