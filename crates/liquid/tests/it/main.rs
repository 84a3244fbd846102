//! Tests of the crate from outside.

mod cases;
mod data;
mod drive;
mod limits;
mod page;
mod properties;
mod reads;
