//! The configuration as written: one type a section, a comment on every key.
//!
//! The comments are the reference: schema, documentation and error messages come from these types and nothing else.
//! No `flatten`, `untagged` or `tag`: serde buffers for them, and what is buffered has lost its place.

pub mod attribute;
pub mod consume;
pub mod expression;
pub mod forms;
pub mod hub;
pub mod pipeline;
pub mod section;
pub mod sync;
pub mod varying;
