//! RabbitMQ: a virtual host for a test on the shared broker, or a broker of its own for a test that
//! stops, kills or starves it.

mod broker;
mod gate;
mod management;
mod vhost;

use crate::place::variable;

pub use broker::Broker;
pub use gate::{Gate, Point};
pub use management::Management;
pub use vhost::{Received, User, Vhost};

/// `amqp://guest:guest@127.0.0.1:PORT/%2f`, the broker that all tests share.
#[must_use]
pub fn url() -> String {
    variable("WARREN_TEST_RABBIT_URL")
}

/// The same with TLS; signed by [`crate::tls::ca`]. It verifies a client certificate and does not demand one.
#[must_use]
pub fn tls_url() -> String {
    variable("WARREN_TEST_RABBITS_URL")
}

/// `http://guest:guest@127.0.0.1:PORT`
#[must_use]
pub fn management_url() -> String {
    variable("WARREN_TEST_RABBIT_MGMT")
}

/// The management API of the shared broker with TLS.
#[must_use]
pub fn management_tls_url() -> String {
    variable("WARREN_TEST_RABBIT_MGMT_TLS")
}

/// A fresh virtual host on the shared broker, removed with all its queues when dropped.
#[must_use]
pub fn vhost() -> Vhost {
    Vhost::create(Management::new(&management_url()), url(), tls_url())
}
