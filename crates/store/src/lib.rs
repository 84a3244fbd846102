//! What Warren remembers, in versioned formats.

pub mod baseline;
pub mod state;
