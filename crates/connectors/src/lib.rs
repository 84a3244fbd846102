//! The outside world, a folder a system.

pub mod embedded;
pub mod kit;
pub mod mysql;
pub mod postgres;
pub mod rabbitmq;
pub mod sqlite;
