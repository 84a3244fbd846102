//! The least that the other side allows: throw-away clients that do nothing else.

pub mod amqp;
pub mod copy;
pub mod post;
pub mod relay;
