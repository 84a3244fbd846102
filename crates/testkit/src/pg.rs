//! PostgreSQL: the addresses, and a database for a test. Statements go through `psql`.

use std::path::PathBuf;
use std::process::Command;

use crate::place::{unique, variable};
use crate::server::{output, servers, values};

/// The superuser, without a password: `postgres://postgres@127.0.0.1:PORT/postgres`.
#[must_use]
pub fn admin_url() -> String {
    variable("WARREN_TEST_PG_ADMIN_URL")
}

/// User `warren`, password `secret` (scram), owner of the database `warren`.
#[must_use]
pub fn url() -> String {
    variable("WARREN_TEST_PG_URL")
}

/// User `warren_tls`, password `secret`, who is let in with TLS only. See [`crate::tls`].
#[must_use]
pub fn tls_url() -> String {
    variable("WARREN_TEST_PG_TLS_URL")
}

/// User `warren_cert`, who is let in with TLS and the client certificate only.
#[must_use]
pub fn cert_url() -> String {
    variable("WARREN_TEST_PG_CERT_URL")
}

/// A fresh database that belongs to `warren`; dropped with the value.
#[must_use]
pub fn database() -> Database {
    let name = unique("test");
    sql(&admin_url(), &format!("CREATE DATABASE {name} OWNER warren"));
    Database { name }
}

/// See [`database`].
#[derive(Debug)]
pub struct Database {
    name: String,
}

impl Database {
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// As `warren`, its owner.
    #[must_use]
    pub fn url(&self) -> String {
        in_database(&url(), &self.name)
    }

    /// As the superuser.
    #[must_use]
    pub fn admin_url(&self) -> String {
        in_database(&admin_url(), &self.name)
    }

    /// As `warren_tls`, who owns nothing here: grant what the test needs.
    #[must_use]
    pub fn tls_url(&self) -> String {
        in_database(&tls_url(), &self.name)
    }

    /// Runs statements as `warren` and returns the rows as `psql -At` prints them: `a|b` a line.
    pub fn sql(&self, statements: &str) -> String {
        sql(&self.url(), statements)
    }

    /// Ends all other connections to this database, as a server that goes away would.
    pub fn disconnect(&self) {
        sql(
            &admin_url(),
            &format!(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{}'",
                self.name
            ),
        );
    }

    /// How many connections there are to this database.
    #[must_use]
    pub fn connections(&self) -> usize {
        let count = format!("SELECT count(*) FROM pg_stat_activity WHERE datname = '{}'", self.name);
        sql(&admin_url(), &count).trim().parse().expect("a count is a number")
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        // The cluster is deleted after the run anyway; a failure here must not hide the test's own.
        psql(&admin_url(), &format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.name)).output().ok();
    }
}

/// A server of a test's own, which it may stop and kill; put such tests into a module named `own_broker`. Data and port stay the same; dropping
/// it removes everything.
#[derive(Debug)]
pub struct Server {
    folder: PathBuf,
    url: String,
}

impl Server {
    /// A running one. What is committed survives a kill.
    #[must_use]
    pub fn start() -> Server {
        // The name tells `scripts/servers all remove` what runs in it, should the test be killed.
        let folder = PathBuf::from(variable("WARREN_TEST_DIR")).join(unique("postgres-server-x"));
        let mut server = Server { folder, url: String::new() };
        let printed = values(&server.verb("start"));
        printed.get("url").expect("the script prints url").clone_into(&mut server.url);
        server
    }

    /// User `warren`, owner of the database `warren`.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Runs statements as `warren`; see [`sql`].
    pub fn sql(&self, statements: &str) -> String {
        sql(&self.url, statements)
    }

    /// A clean stop, which ends all connections.
    pub fn stop(&self) {
        self.verb("stop");
    }

    /// SIGKILL.
    pub fn kill(&self) {
        self.verb("kill");
    }

    /// Starts it again; returns when it answers.
    pub fn start_again(&self) {
        self.verb("start");
    }

    fn verb(&self, verb: &str) -> String {
        let options = ("PG_OPTS".to_owned(), "-c synchronous_commit=on".to_owned());
        servers("postgres", verb, &self.folder, &[], &[options])
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Also when the test panics; a second panic here would end the process without the first's text.
        let removed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.verb("remove")));
        if removed.is_err() {
            eprintln!("the database in {} was not removed", self.folder.display());
        }
    }
}

/// Runs statements at `url`; rows come back as `psql -At` prints them.
///
/// # Panics
/// When one fails.
pub fn sql(url: &str, statements: &str) -> String {
    String::from_utf8(output(&mut psql(url, statements))).expect("the database speaks UTF-8")
}

fn psql(url: &str, statements: &str) -> Command {
    let mut command = Command::new(variable("WARREN_TEST_PG_PSQL"));
    command.args(["--no-psqlrc", "-At", "-q", "-v", "ON_ERROR_STOP=1", "-d", url, "-c", statements]);
    command.env_clear();
    command
}

/// `url` with its database replaced.
fn in_database(url: &str, database: &str) -> String {
    let (start, rest) = url.rsplit_once('/').expect("the URL names a database");
    let options = rest.split_once('?').map(|(_, options)| format!("?{options}")).unwrap_or_default();
    format!("{start}/{database}{options}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_database_is_replaced_and_options_stay() {
        let url = "postgres://a:b@127.0.0.1:1/warren?sslmode=require";
        assert_eq!(in_database(url, "x"), "postgres://a:b@127.0.0.1:1/x?sslmode=require");
        assert_eq!(in_database("postgres://a@127.0.0.1:1/postgres", "x"), "postgres://a@127.0.0.1:1/x");
    }
}
