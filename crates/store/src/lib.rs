//! What Warren remembers, in versioned formats.

pub mod baseline;
pub mod in_flight;
pub mod messages;
pub mod parking;
pub mod state;
pub mod subscriptions;

mod database;

/// Fills with random bytes that nobody can guess.
///
/// # Panics
/// The system has none to give, which no system that Warren runs on says once it has started.
pub fn random(bytes: &mut [u8]) {
    use ring::rand::SecureRandom;
    ring::rand::SystemRandom::new().fill(bytes).expect("a running system gives random numbers");
}
