//! Tests of what is remembered, from outside.

mod baseline;
mod baseline_columns;
mod baseline_damage;
mod baseline_golden;
mod baseline_model;
mod baseline_world;
