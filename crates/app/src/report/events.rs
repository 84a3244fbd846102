//! One JSON line per event on stdout.

use serde_json::{Value, json};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use warren_engine::sync::watch::{Event, Watch};

use crate::report::{line, summary};

/// Figures of rows read and sent are told at most this often.
const FIGURES_EVERY: Duration = Duration::from_millis(500);

/// Tells a run's events as JSON lines.
pub struct Events {
    sync: String,
    told: Mutex<Told>,
}

struct Told {
    figures: Option<Instant>,
    waiting: Option<String>,
}

impl Events {
    /// The events of a sync.
    pub fn new(sync: &str) -> Events {
        Events { sync: sync.to_owned(), told: Mutex::new(Told { figures: None, waiting: None }) }
    }

    fn tell(&self, event: &str, mut fields: Value) {
        fields["event"] = event.into();
        fields["sync"] = self.sync.clone().into();
        line(&fields.to_string());
    }

    fn due(&self) -> bool {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let due = told.figures.is_none_or(|at| at.elapsed() >= FIGURES_EVERY);
        if due {
            told.figures = Some(Instant::now());
        }
        due
    }
}

impl Watch for Events {
    fn event(&self, event: Event<'_>) {
        match event {
            Event::State(state) => self.tell("state", json!({ "state": state })),
            Event::Read { rows, bytes } => {
                if self.due() {
                    self.tell("read", json!({ "rows": rows, "bytes": bytes }));
                }
            }
            Event::Planned(counts) => self.tell("planned", json!({ "counts": counts })),
            Event::Sent(counts) => {
                if self.due() {
                    self.tell("sent", json!({ "counts": counts }));
                }
            }
            Event::Rejected(outcome) => self.tell("rejected", summary::outcome_json(outcome)),
            Event::Waiting(waiting) => {
                let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
                if told.waiting != waiting {
                    self.tell("waiting", json!({ "reason": waiting }));
                    told.waiting = waiting;
                }
            }
        }
    }
}
