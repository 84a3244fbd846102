//! The configuration: text with places, then raw types as written, then a checked plan, in that order and never backwards.
//!
//! | stage | module |
//! |---|---|
//! | files and places in them | [`text`], [`gather`] |
//! | YAML as a tree with places, variables filled in | [`tree`], [`node`], [`fill`], [`hidden`] |
//! | what may be written, with a comment on every key | [`raw`], [`schema`], [`reference`](mod@reference) |
//! | the tree checked, and read by serde | [`walk`], [`wants`], [`de`] |
//! | what was meant, checked and compiled | [`model`], [`template`], [`trigger`], [`plan`], [`pipeline`], [`consume`], [`hub`] |
//! | all of it, section by section, with the place of every subject | [`reading`], [`project`], [`places`] |
//! | an entry read again, with its files as they are now | [`renewal`] |
//! | the cases that a pipeline is tested with | [`cases`] |
//! | what is wrong, for people and programs | [`faults`] |
//!
//! Every stage goes on after a fault where it can, so that all of them are told at once. Only this module reads configuration text,
//! and nothing here opens a connection.

pub mod cases;
pub mod consume;
pub mod de;
pub mod examples;
pub mod faults;
pub mod fill;
pub mod gather;
pub mod hidden;
pub mod hub;
pub mod model;
pub mod node;
pub mod parts;
pub mod pipeline;
mod places;
pub mod plan;
pub mod project;
pub mod raw;
pub mod reading;
pub mod reference;
pub mod renewal;
pub mod schema;
pub mod template;
pub mod text;
pub mod tree;
pub mod trigger;
pub mod walk;
pub mod wants;

pub use faults::{Colours, Fault, Faults};
pub use fill::Environment;
pub use project::{Project, ProjectModel, ProjectSync, StateSettings};
pub use reading::{load, load_with};
pub use schema::schema;
