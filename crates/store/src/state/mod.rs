//! Runs, what became of each row, and leases.
