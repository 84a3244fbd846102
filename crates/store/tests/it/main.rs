//! What is remembered, on a real disk: with other processes, kills, damage and full disks.

#![allow(clippy::unwrap_used, reason = "what a test sets up is there, or the test fails")]

mod baseline;
mod baseline_columns;
mod baseline_damage;
mod baseline_decimals;
mod baseline_doubts;
mod baseline_golden;
mod baseline_model;
mod baseline_world;
mod consume_golden;
mod messages;
mod parking;
mod state;
mod subscriptions;
