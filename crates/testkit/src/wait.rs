//! Waiting for a state by name. Tests do not sleep to let something happen: they say what they
//! wait for, and for how long at most.

use std::time::{Duration, Instant};

/// Polling is cheap on loopback, and a test that waits long is one that fails.
const POLL: Duration = Duration::from_millis(20);

/// Waits until `condition` holds, asking fifty times a second.
///
/// # Panics
/// When it does not hold within `deadline`, naming `what`.
pub fn wait_until(what: &str, deadline: Duration, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < deadline, "waited {deadline:?} in vain until {what}");
        pause("between two looks", POLL);
    }
}

/// [`wait_until`] for asynchronous tests: other tasks run meanwhile, `condition` must not block long.
///
/// # Panics
/// When it does not hold within `deadline`, naming `what`.
pub async fn wait_until_async(what: &str, deadline: Duration, mut condition: impl AsyncFnMut() -> bool) {
    let start = Instant::now();
    while !condition().await {
        assert!(start.elapsed() < deadline, "waited {deadline:?} in vain until {what}");
        tokio::time::sleep(POLL).await;
    }
}

/// Waits until `look` finds something, and returns it.
///
/// # Panics
/// When nothing was found within `deadline`, naming `what`.
pub fn wait_for<T>(what: &str, deadline: Duration, mut look: impl FnMut() -> Option<T>) -> T {
    let mut found = None;
    wait_until(what, deadline, || {
        found = look();
        found.is_some()
    });
    found.expect("wait_until returns only when it was found")
}

/// Lets time pass on purpose, where time itself is what the test is about: a kill at a random
/// moment, a lease that must expire. `_why` is for the reader. Never to let something happen.
#[expect(clippy::disallowed_methods, reason = "the one place where a test may sleep")]
pub fn pause(_why: &str, duration: Duration) {
    std::thread::sleep(duration);
}
