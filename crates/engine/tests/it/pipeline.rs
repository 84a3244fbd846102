//! Messages through pipelines, with the outside in memory.

mod build;
mod control;
mod documents;
mod permanent;
mod steps;
