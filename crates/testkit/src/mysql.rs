//! MariaDB: the addresses, and a database for a test. Statements go through the `mariadb` client.

use std::process::Command;

use crate::place::{unique, variable};
use crate::server::output;

/// User `warren`, password `secret`, who may do everything; database `warren`.
#[must_use]
pub fn url() -> String {
    variable("WARREN_TEST_MYSQL_URL")
}

/// User `warren_tls`, password `secret`, who is let in with TLS only. See [`crate::tls`].
#[must_use]
pub fn tls_url() -> String {
    variable("WARREN_TEST_MYSQL_TLS_URL")
}

/// A fresh database (`utf8mb4`); dropped with the value.
#[must_use]
pub fn database() -> Database {
    let name = unique("test");
    sql(&url(), &format!("CREATE DATABASE {name}"));
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

    #[must_use]
    pub fn url(&self) -> String {
        in_database(&url(), &self.name)
    }

    #[must_use]
    pub fn tls_url(&self) -> String {
        in_database(&tls_url(), &self.name)
    }

    /// Runs statements and returns the rows: columns with tabs between, a line each.
    pub fn sql(&self, statements: &str) -> String {
        sql(&self.url(), statements)
    }

    /// Ends all other connections to this database, as a server that goes away would.
    pub fn disconnect(&self) {
        let list = format!("SELECT id FROM information_schema.processlist WHERE db = '{}'", self.name);
        for id in sql(&url(), &list).lines() {
            // It may have ended by itself since.
            mariadb(&url(), &format!("KILL {id}")).output().ok();
        }
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        // The server is deleted after the run anyway; a failure here must not hide the test's own.
        mariadb(&url(), &format!("DROP DATABASE IF EXISTS {}", self.name)).output().ok();
    }
}

/// Runs statements at `url`; columns come back with tabs between, a line a row.
///
/// # Panics
/// When one fails.
pub fn sql(url: &str, statements: &str) -> String {
    String::from_utf8(output(&mut mariadb(url, statements))).expect("the database speaks UTF-8")
}

fn mariadb(url: &str, statements: &str) -> Command {
    let address = url.strip_prefix("mysql://").expect("the URL is mysql://");
    let (user_info, place) = address.split_once('@').expect("the URL has a user");
    let (user, password) = user_info.split_once(':').expect("the URL has a password");
    let (host_port, database) = place.split_once('/').expect("the URL has a database");
    let (host, port) = host_port.split_once(':').expect("the URL has a port");
    let mut command = Command::new("mariadb");
    command.args(["--no-defaults", "--batch", "--skip-column-names", "--default-character-set=utf8mb4"]);
    command.args(["-h", host, "-P", port, "-u", user, "-D", database, "-e", statements]);
    command.env("MYSQL_PWD", password);
    command
}

/// `url` with its database replaced.
fn in_database(url: &str, database: &str) -> String {
    let (start, _) = url.rsplit_once('/').expect("the URL names a database");
    format!("{start}/{database}")
}
