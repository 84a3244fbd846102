//! The certificates of the run; `scripts/lib/tls.sh` makes them.

use std::path::PathBuf;

use crate::place::variable;

fn file(name: &str) -> PathBuf {
    PathBuf::from(variable("WARREN_TEST_TLS_DIR")).join(name)
}

/// The authority that signed the servers' certificates and the client's.
#[must_use]
pub fn ca() -> PathBuf {
    file("ca.pem")
}

/// An authority that signed no server's certificate: with it every server must be refused.
#[must_use]
pub fn stranger_ca() -> PathBuf {
    file("stranger-ca.pem")
}

/// The servers' certificate, for `localhost` and `127.0.0.1`.
#[must_use]
pub fn server_certificate() -> PathBuf {
    file("server.pem")
}

/// Its key, PKCS#8.
#[must_use]
pub fn server_key() -> PathBuf {
    file("server.key")
}

/// A client certificate, `CN=warren_cert`.
#[must_use]
pub fn client_certificate() -> PathBuf {
    file("client.pem")
}

/// Its key, PKCS#8.
#[must_use]
pub fn client_key() -> PathBuf {
    file("client.key")
}

/// Certificate and key of a client no server knows, `CN=nobody`.
#[must_use]
pub fn nobody() -> (PathBuf, PathBuf) {
    (file("nobody.pem"), file("nobody.key"))
}

/// Certificate and key of a client with the name of [`client_certificate`], signed by [`stranger_ca`].
#[must_use]
pub fn stranger() -> (PathBuf, PathBuf) {
    (file("stranger.pem"), file("stranger.key"))
}
