//! Random bytes that nobody can guess, from the system.

use warren_engine::failure::Failure;

/// Fills with random bytes.
///
/// # Errors
/// The system has none to give, which no system does once it has booted.
pub fn fill(bytes: &mut [u8]) -> Result<(), Failure> {
    let random = rustls::crypto::ring::default_provider().secure_random;
    random.fill(bytes).map_err(|_| Failure::internal("get random numbers of the system"))
}
