//! The wall clock of the machine.

use std::time::{SystemTime, UNIX_EPOCH};

use warren_engine::ports::Clock;

/// The machine's clock. It may jump, as such clocks do; nothing but what people read and what is kept how long
/// depends on it.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now_ms(&self) -> i64 {
        match SystemTime::now().duration_since(UNIX_EPOCH) {
            Ok(since) => i64::try_from(since.as_millis()).unwrap_or(i64::MAX),
            Err(before) => i64::try_from(before.duration().as_millis()).map_or(i64::MIN, |ms| -ms),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_is_in_milliseconds() {
        // 2020-01-01 and 2200-01-01.
        assert!((1_577_836_800_000..7_258_118_400_000).contains(&SystemClock.now_ms()));
    }
}
