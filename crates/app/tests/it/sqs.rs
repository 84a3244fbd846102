//! Syncs to SQS, with the real program: what boto3 reads back, what is rejected and why, and that a kill loses nothing.

mod messages;
mod soak;
mod trouble;

use serde_json::Value;
use warren_testkit::pg::{self, Database};
use warren_testkit::sqs::{Account, Endpoint, REGION};
use warren_testkit::{Scratch, scratch};

use crate::program::Program;

/// A table `orders` in a database, and the program with a sync of it to the broker `aws`.
struct Place {
    database: Database,
    program: Program,
    _folder: Scratch,
}

impl Place {
    /// `broker` are lines for the broker with four spaces before each, `syncs` all of that section.
    fn new(statements: &str, broker: &str, syncs: &str) -> Place {
        let (database, folder) = (pg::database(), scratch("sqs"));
        database.sql(statements);
        let source = database.url();
        let config = format!(
            "sources:\n  shop: {{type: postgres, url: \"{source}\"}}\n\
             models:\n  orders: {{source: shop, primary_key: id, table: orders}}\n\
             brokers:\n  aws:\n    type: sqs\n    region: {REGION}\n{broker}\
             syncs:\n{syncs}"
        );
        let program = Program::configured(folder.path(), &config);
        Place { database, program, _folder: folder }
    }
}

/// Lines for a broker that is an account of the server.
fn of(account: &Account) -> String {
    let (id, secret, token) = account.key();
    let url = warren_testkit::sqs::url();
    format!(
        "    endpoint_url: {url}\n    access_key: {{id: \"{id}\", secret: \"{secret}\", session_token: \"{token}\"}}\n"
    )
}

/// Lines for a broker that is the scriptable endpoint.
fn at(endpoint: &Endpoint) -> String {
    format!("    endpoint_url: {}\n    access_key: {{id: test, secret: secret}}\n", endpoint.url())
}

/// The codes of rejected rows with how many, sorted.
fn rejections(ended: &Value) -> Vec<(String, u64)> {
    let all = ended["rejections"].as_array().unwrap();
    let mut codes: Vec<_> = all
        .iter()
        .map(|one| (one["code"].as_str().unwrap().to_owned(), one["rows"].as_u64().unwrap()))
        .collect();
    codes.sort();
    codes
}
