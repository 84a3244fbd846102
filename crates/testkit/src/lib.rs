//! What the integration tests of all crates share: where the private servers are, a place of one's
//! own on each of them, waiting without sleeping, and a client of RabbitMQ that is not ours.
//!
//! `./test` starts the servers and exports their addresses; a missing address is a panic that says so.
//! Everything here panics on failure with what was tried: it is for tests only.
//!
//! - [`rabbit`]: a virtual host for a test ([`rabbit::vhost`]), a whole broker for one that stops it
//!   ([`rabbit::Broker`]), and the management API, to set up and to look
//! - [`pg`], [`mysql`]: a database for a test
//! - [`sqs`]: a server like SQS, with an account for a test; and a scriptable one that fails as told
//! - [`receiver`]: an HTTP server that fails as told
//! - [`wait`]: until a named state holds
//! - [`python`]: scripts with `pika`, to see messages as somebody else's client does
//! - [`tls`]: the certificates of the run
//!
//! It deliberately uses none of our connectors: a fault in one must not hide itself.

pub mod expected;
mod http;
pub mod mysql;
pub mod pg;
mod place;
pub mod python;
pub mod rabbit;
pub mod receiver;
mod server;
pub mod sqs;
pub mod tls;
pub mod wait;

pub use place::{Scratch, root, scratch, scripts, soak};
pub use wait::wait_until;
