//! Counters and histograms in Prometheus' text format. All names are declared here; labels come from the configuration.

use std::fmt::Write;
use std::sync::atomic::Ordering::Relaxed;

use warren_engine::consume::record::MessageStatus;
use warren_engine::consume::status::{BOUNDS_MS, Status};
use warren_engine::failure::FailureName;

use crate::Statuses;
use crate::hub_slot::Open;

/// 7 days.
const SOON_MS: i64 = 7 * 86_400_000;
const STATES: [&str; 7] = ["starting", "consuming", "waiting", "paused", "blocked", "draining", "stopped"];

/// One number of a trigger: name, kind, help, and how it is read.
type Number = (&'static str, &'static str, &'static str, fn(&Status) -> f64);

const NUMBERS: [Number; 8] = [
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
    (
        "warren_keys_full",
        "gauge",
        "Keys with as much parked as may be, so that more is dead-lettered.",
        |status| status.full_lanes.load(Relaxed) as f64,
    ),
    ("warren_needs_operator", "gauge", "1 while an operator must act.", |status| {
        f64::from(u8::from(status.needs_operator().is_some()))
    }),
];

/// Sums over the consumers of all subscriptions that are active now.
type Sum = (&'static str, &'static str, fn(&Status) -> f64);

const HUB_NUMBERS: [Sum; 4] = [
    ("warren_hub_needs_operator", "Consumers of subscriptions for which an operator must act.", |status| {
        f64::from(u8::from(status.needs_operator().is_some()))
    }),
    ("warren_hub_messages_in_flight", "Messages being posted to callbacks.", |status| {
        status.in_flight.load(Relaxed) as f64
    }),
    ("warren_hub_messages_waiting", "Messages received for callbacks and not started.", |status| {
        status.waiting.load(Relaxed) as f64
    }),
    ("warren_hub_messages_parked", "Messages for callbacks in the local parking lot.", |status| {
        status.parked.load(Relaxed) as f64
    }),
];

/// All numbers of all triggers, and of the hub while it runs.
pub(super) fn text(statuses: &Statuses, hub: Option<&Open>) -> String {
    let mut out = String::new();
    // Writing to a String does not fail.
    write_all(&mut out, statuses).ok();
    if let Some(hub) = hub {
        write_hub(&mut out, hub).ok();
    }
    out
}

/// Of the hub sums alone: who subscribes is no label.
fn write_hub(out: &mut String, open: &Open) -> std::fmt::Result {
    let all = open.hub.all();
    let active = all.iter().filter(|subscription| subscription.is_active()).count();
    let waiting = open.hub.waiting();
    let name = "warren_hub_subscriptions";
    let help =
        "Subscriptions. `waiting` is active and not delivered to: its queue or the broker cannot be used.";
    writeln!(out, "# HELP {name} {help}\n# TYPE {name} gauge")?;
    writeln!(out, "{name}{{state=\"active\"}} {}", active.saturating_sub(waiting))?;
    writeln!(out, "{name}{{state=\"waiting\"}} {waiting}")?;
    writeln!(out, "{name}{{state=\"inactive\"}} {}", all.len() - active)?;
    let soon = open.hub.ports().clock.now_ms().saturating_add(SOON_MS);
    let ending = open.hub.expiring_before(soon);
    let ending = ending.iter().filter(|subscription| subscription.is_active()).count();
    let name = "warren_hub_subscriptions_expiring";
    writeln!(
        out,
        "# HELP {name} Active subscriptions whose lease ends within 7 days.\n# TYPE {name} gauge\n{name} {ending}"
    )?;
    let name = "warren_hub_chores";
    let help = "Verifications, denials, fetches and tidying up that are not over.";
    writeln!(out, "# HELP {name} {help}\n# TYPE {name} gauge\n{name} {}", open.hub.chores())?;
    let name = "warren_hub_topic_fetches_total";
    writeln!(out, "# HELP {name} Fetches of WebSub topics, by how they ended.\n# TYPE {name} counter")?;
    let fetches = open.hub.fetches();
    let results =
        [("new", &fetches.handed_out), ("unchanged", &fetches.unchanged), ("failed", &fetches.failed)];
    for (result, count) in results {
        writeln!(out, "{name}{{result=\"{result}\"}} {}", count.load(Relaxed))?;
    }
    let statuses = open.hub.consumers();
    let name = "warren_hub_consumers";
    writeln!(out, "# HELP {name} Consumers of subscriptions, by their state.\n# TYPE {name} gauge")?;
    for state in STATES {
        let count = statuses.iter().filter(|(_, status)| status.state().as_str() == state).count();
        writeln!(out, "{name}{{state=\"{state}\"}} {count}")?;
    }
    for (name, help, read) in HUB_NUMBERS {
        let sum: f64 = statuses.iter().map(|(_, status)| read(status)).sum();
        writeln!(out, "# HELP {name} {help}\n# TYPE {name} gauge\n{name} {sum}")?;
    }
    let name = "warren_hub_failures_total";
    writeln!(out, "# HELP {name} Deliveries that failed, by kind of failure.\n# TYPE {name} counter")?;
    for kind in FailureName::ALL {
        let count = open.delivering.failures().of(kind);
        writeln!(out, "{name}{{kind=\"{}\"}} {count}", kind.as_str())?;
    }
    Ok(())
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
    let name = "warren_failures_total";
    writeln!(out, "# HELP {name} Attempts that failed, by kind of failure.\n# TYPE {name} counter")?;
    for (trigger, status) in statuses.iter() {
        for kind in FailureName::ALL {
            let count = status.failures().of(kind);
            writeln!(out, "{name}{{trigger=\"{trigger}\",kind=\"{}\"}} {count}", kind.as_str())?;
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
