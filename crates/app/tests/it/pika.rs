//! What a receiver sees: messages read with Python's `pika`, a client that is not ours, and compared to the last
//! property and header.

mod properties;
mod routes;

use warren_testkit::pg::{self, Database};
use warren_testkit::rabbit::{self, Vhost};
use warren_testkit::{Scratch, scratch};

use crate::program::Program;

/// A table and a virtual host, before there is a configuration.
struct Place {
    vhost: Vhost,
    database: Database,
    folder: Scratch,
}

impl Place {
    fn with(statements: &str) -> Place {
        let place = Place { vhost: rabbit::vhost(), database: pg::database(), folder: scratch("pika") };
        place.database.sql(statements);
        place
    }

    /// The program with a configuration of this sync, indented by four spaces, of the table `orders` by `id`.
    fn program(&self, sync: &str) -> Program {
        Program::configured(
            self.folder.path(),
            &format!(
                "sources:\n  shop: {{type: postgres, url: \"{}\"}}\n\
                 models:\n  orders: {{source: shop, primary_key: id, table: orders}}\n\
                 brokers:\n  rabbit: {{type: rabbitmq, url: \"{}\"}}\n\
                 syncs:\n  orders:\n    model: orders\n    to: rabbit\n{sync}",
                self.database.url(),
                self.vhost.url(),
            ),
        )
    }
}
