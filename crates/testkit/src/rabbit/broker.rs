//! A broker of a test's own, which it may stop, kill, pause and starve. Up in about four seconds:
//! put such tests into a module named `own_broker`, of which few run at a time.

use std::path::PathBuf;

use super::{Management, Vhost};
use crate::place::{unique, variable};
use crate::server::{servers, values};

/// A whole RabbitMQ node. Data and ports stay the same over stop, kill and start; dropping it
/// removes everything.
#[derive(Debug)]
pub struct Broker {
    folder: PathBuf,
    url: String,
    tls_url: String,
    management: Management,
}

impl Broker {
    /// A running broker.
    #[must_use]
    pub fn start() -> Broker {
        Broker::start_with(&[])
    }

    /// One whose TLS listener refuses clients without a certificate.
    #[must_use]
    pub fn start_with_client_certificates() -> Broker {
        Broker::start_with(&[("RABBIT_REQUIRE_CLIENT_CERT".to_owned(), "1".to_owned())])
    }

    /// One where a client's certificate is its login (EXTERNAL), by the common name; see [`Broker::certified_user`].
    #[must_use]
    pub fn start_with_certificates_as_logins() -> Broker {
        let lines =
            "auth_mechanisms.1 = EXTERNAL\nauth_mechanisms.2 = PLAIN\nssl_cert_login_from = common_name";
        Broker::start_with(&[
            ("RABBIT_PLUGINS".to_owned(), "rabbitmq_auth_mechanism_ssl".to_owned()),
            ("RABBIT_CONF".to_owned(), lines.to_owned()),
        ])
    }

    /// Makes a user without a password.
    pub fn certified_user(&self, name: &str) {
        let body = serde_json::json!({"password_hash": "", "tags": ""});
        self.management.request("PUT", &format!("/api/users/{name}"), &body);
    }

    /// One with further lines of `rabbitmq.conf`: `max_message_size = 1048576`.
    #[must_use]
    pub fn start_with_configuration(lines: &str) -> Broker {
        Broker::start_with(&[("RABBIT_CONF".to_owned(), lines.to_owned())])
    }

    fn start_with(settings: &[(String, String)]) -> Broker {
        // The name tells `scripts/servers all remove` what runs in it, should the test be killed.
        let folder = PathBuf::from(variable("WARREN_TEST_DIR")).join(unique("rabbit-server-x"));
        let printed = values(&servers("rabbit", "start", &folder, &[], settings));
        let value =
            |name: &str| printed.get(name).unwrap_or_else(|| panic!("the script prints {name}")).clone();
        Broker {
            folder,
            url: value("url"),
            tls_url: value("tls_url"),
            management: Management::new(&value("management")),
        }
    }

    /// `amqp://guest:guest@127.0.0.1:PORT/%2f`
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// `amqps://guest:guest@127.0.0.1:PORT/%2f`
    #[must_use]
    pub fn tls_url(&self) -> &str {
        &self.tls_url
    }

    #[must_use]
    pub fn management(&self) -> &Management {
        &self.management
    }

    /// A virtual host on this broker; drop it before the broker, or leave it.
    #[must_use]
    pub fn vhost(&self) -> Vhost {
        Vhost::create(self.management.clone(), self.url.clone(), self.tls_url.clone())
    }

    /// Starts it again after [`Broker::stop`] or [`Broker::kill`]; returns when it answers.
    pub fn start_again(&self) {
        self.verb("start", &[]);
    }

    /// A clean stop: clients hear of it. Takes about six seconds.
    pub fn stop(&self) {
        self.verb("stop", &[]);
    }

    /// SIGKILL: clients see their connections break, unconfirmed messages may be lost.
    pub fn kill(&self) {
        self.verb("kill", &[]);
    }

    /// SIGSTOP: connections stay open and nothing comes any more, as with a network that swallows.
    pub fn pause(&self) {
        self.verb("pause", &[]);
    }

    /// Ends a [`Broker::pause`].
    pub fn resume(&self) {
        self.verb("resume", &[]);
    }

    /// `rabbitmqctl` with these arguments; what it printed.
    pub fn ctl(&self, arguments: &[&str]) -> String {
        self.verb("ctl", arguments)
    }

    /// Raises the memory alarm: publishers are blocked (`connection.blocked`) until
    /// [`Broker::unblock_publishers`].
    pub fn block_publishers(&self) {
        self.ctl(&["set_vm_memory_high_watermark", "0.000001"]);
    }

    /// Clears the memory alarm.
    pub fn unblock_publishers(&self) {
        self.ctl(&["set_vm_memory_high_watermark", "absolute", "2GiB"]);
    }

    fn verb(&self, verb: &str, arguments: &[&str]) -> String {
        servers("rabbit", verb, &self.folder, arguments, &[])
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        // Also when the test panics; a second panic here would end the process without the first's text.
        let removed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.verb("remove", &[])));
        if removed.is_err() {
            eprintln!("the broker in {} was not removed", self.folder.display());
        }
    }
}
