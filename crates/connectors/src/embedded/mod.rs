//! The embedded broker: RabbitMQ's queues and exchanges in one local file.
//!
//! In go messages by [`Broker::publish`](warren_engine::ports::Broker::publish), out come deliveries; beside that
//! [`Embedded`] lets the command line and the console declare, look and delete. It speaks no wire protocol and never grows a
//! cluster: other processes of the machine open the same file.
//!
//! | idea | module |
//! |---|---|
//! | what the configuration says | `config` |
//! | the file and its tables | `schema` |
//! | one write transaction | `ledger`, with `declare`, `deposit` (in) and `take` (out) |
//! | the thread that runs them | `writer`, with `taker` (consumers) and `watch` (what nobody tells it) |
//! | which queues a message goes to | `topology`, `matching` |
//! | properties as bytes | `properties` |
//! | processes that died | `holder` |
//! | reading beside the writer | `look` |
//! | the ports | `broker`, `consumer`; what they share: `shared`; beside them: `manage`, and `estate` for a hub |
//!
//! `README.md` in this folder says what is promised and where RabbitMQ differs.

mod broker;
mod config;
mod consumer;
mod declare;
mod deposit;
mod estate;
mod fault;
mod holder;
mod ledger;
mod look;
mod manage;
mod matching;
mod properties;
mod schema;
mod shared;
mod take;
mod taker;
mod topology;
mod watch;
mod writer;

use std::path::Path;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use warren_engine::failure::Failure;
use warren_engine::ports::Broker;

pub use broker::Embedded;
pub use config::{Argument, BindingConfig, Config, ExchangeConfig, ExchangeKind, Overflow, QueueConfig};
pub use declare::Binding;
pub use estate::estate;
pub use look::{ExchangeState, PeekedMessage, QueueState};
pub use topology::QueueSettings;

/// Opens an embedded broker as a port; see [`Embedded::open`].
///
/// # Errors
/// The file cannot be written or is damaged; a declaration is at odds with the file.
pub fn broker(name: &str, config: &Config, folder: &Path) -> Result<Arc<dyn Broker>, Failure> {
    Ok(Arc::new(Embedded::open(name, config, folder)?))
}

/// The wall clock in milliseconds since the epoch. Expiry must mean the same to all processes and after a restart, so no
/// clock of one process will do.
fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64)
}
