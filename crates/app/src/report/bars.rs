//! Progress bars for a person on a terminal.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use warren_engine::run::{RunCounts, RunState};
use warren_engine::size::ByteSize;
use warren_engine::sync::watch::{Event, Watch};

use crate::report::figures::count;

/// Shows one run as it goes: a spinner while rows are read, then a bar.
pub struct Bars {
    bar: ProgressBar,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    total: u64,
    waiting: Option<String>,
}

impl Bars {
    /// A bar for a sync, drawn on stderr.
    pub fn new(sync: &str) -> Bars {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(10));
        bar.set_prefix(sync.to_owned());
        bar.set_style(spinner());
        bar.enable_steady_tick(Duration::from_millis(120));
        Bars { bar, inner: Mutex::default() }
    }

    /// Takes the bar off the screen.
    pub fn clear(&self) {
        self.bar.finish_and_clear();
    }

    fn sent(&self, counts: &RunCounts) {
        let rejected = counts.rejected.total();
        self.bar.set_position(counts.sent.total() + counts.skipped.total() + rejected + counts.held.total());
        let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let mut message = String::new();
        if rejected > 0 {
            message = format!("{} rejected", count(rejected));
        }
        if let Some(waiting) = &inner.waiting {
            message = format!("waiting: {waiting}");
        }
        self.bar.set_message(message);
    }
}

impl Watch for Bars {
    fn event(&self, event: Event<'_>) {
        match event {
            Event::State(RunState::Sending) => {
                let total = self.inner.lock().unwrap_or_else(PoisonError::into_inner).total;
                self.bar.set_length(total);
                self.bar.set_style(bar());
            }
            Event::State(state) => self.bar.set_message(state.as_str()),
            Event::Read { rows, bytes } => {
                self.bar.set_message(format!("querying: {} rows, {}", count(rows), ByteSize(bytes)));
            }
            Event::Planned(counts) => {
                self.inner.lock().unwrap_or_else(PoisonError::into_inner).total = counts.planned.total();
            }
            Event::Sent(counts) => self.sent(counts),
            Event::Rejected(_) => {}
            Event::Waiting(waiting) => {
                let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
                if inner.waiting != waiting {
                    self.bar.set_message(
                        waiting.as_ref().map(|waiting| format!("waiting: {waiting}")).unwrap_or_default(),
                    );
                    inner.waiting = waiting;
                }
            }
        }
    }
}

fn spinner() -> ProgressStyle {
    template("{spinner} {prefix}  {msg}  {elapsed}")
}

fn bar() -> ProgressStyle {
    template("{spinner} {prefix}  [{bar:30}] {human_pos}/{human_len}  {per_sec}  {eta}  {wide_msg}")
}

fn template(text: &str) -> ProgressStyle {
    // Invariant: the templates above are valid; were one not, the plain style would do.
    ProgressStyle::with_template(text).unwrap_or_else(|_| ProgressStyle::default_spinner())
}
