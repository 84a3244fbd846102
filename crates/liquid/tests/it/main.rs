//! Tests of the crate from outside.

mod cases;
mod data;
mod limits;
mod reads;
