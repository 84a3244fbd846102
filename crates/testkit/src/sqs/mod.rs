//! SQS: the server that `./test` starts (`moto`), which keeps its rules and never fails; and [`Endpoint`], which does what it is told.

mod endpoint;
mod queue;
mod rules;

use std::time::Duration;

use serde_json::{Value, json};

use crate::http::Base;
use crate::place::{unique, variable};
use crate::python::python;

pub use endpoint::{Call, Endpoint, EntryFault, Fate};
pub use queue::{Arrival, QueueSettings, Stored};

/// The region that all of it is in.
pub const REGION: &str = "eu-west-1";

/// The address of the server.
#[must_use]
pub fn url() -> String {
    variable("WARREN_TEST_SQS_URL")
}

/// An account of one's own, empty: whoever signs with its key sees only its queues. The server tells accounts apart by the role
/// that a key was given out for.
///
/// # Panics
/// When the server gives no key.
#[must_use]
pub fn account() -> Account {
    let number: u128 = unique("").bytes().fold(7, |sum: u128, byte| {
        sum.wrapping_mul(0x0100_0000_01b3).wrapping_add(byte.into()) % 900_000_000_000
    });
    let id = (100_000_000_000 + number).to_string();
    let mut account = Account { id, key: String::new(), secret: String::new(), token: String::new() };
    let role = account.role_arn();
    let body = format!(
        "Action=AssumeRole&Version=2011-06-15&RoleSessionName=test&RoleArn={}",
        role.replace(':', "%3A").replace('/', "%2F")
    );
    let answer = ask("sts", "none", &[("content-type", "application/x-www-form-urlencoded")], &body);
    let text = |tag: &str| {
        let (_, rest) =
            answer.split_once(&format!("<{tag}>")).unwrap_or_else(|| panic!("no {tag}: {answer}"));
        rest.split('<').next().unwrap_or_default().to_owned()
    };
    (account.key, account.secret, account.token) =
        (text("AccessKeyId"), text("SecretAccessKey"), text("SessionToken"));
    account
}

/// Asks the server, which looks at whose key it is, and not whether the signature is right.
fn ask(service: &str, key: &str, headers: &[(&str, &str)], body: &str) -> String {
    let base = url();
    let address = base.strip_prefix("http://").expect("the URL is http");
    let credential = format!("{key}/20260101/{REGION}/{service}/aws4_request");
    let authorization = format!("AWS4-HMAC-SHA256 Credential={credential}, SignedHeaders=host, Signature=0");
    let mut all = vec![("authorization", authorization.as_str())];
    all.extend(headers);
    let response =
        Base::send(address, "POST", "/", &all, body).unwrap_or_else(|error| panic!("{body}: {error}"));
    let text = String::from_utf8_lossy(&response.body).into_owned();
    assert_eq!(response.status, 200, "{body}: {text}");
    text
}

/// See [`account`].
#[derive(Debug)]
pub struct Account {
    id: String,
    key: String,
    secret: String,
    token: String,
}

impl Account {
    /// A role of it that may do everything.
    #[must_use]
    pub fn role_arn(&self) -> String {
        format!("arn:aws:iam::{}:role/test", self.id)
    }

    /// A key to it: id, secret, session token.
    #[must_use]
    pub fn key(&self) -> (&str, &str, &str) {
        (&self.key, &self.secret, &self.token)
    }

    /// Its twelve digits.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Makes a queue, with attributes by SQS's names; `.fifo` at the end of its name makes it a FIFO queue. Returns its URL.
    pub fn queue(&self, name: &str, attributes: &[(&str, &str)]) -> String {
        let mut all = json!({});
        if name.strip_suffix(".fifo").is_some() {
            all["FifoQueue"] = json!("true");
        }
        for (attribute, value) in attributes {
            all[attribute] = json!(value);
        }
        let answer = self.ask("CreateQueue", &json!({"QueueName": name, "Attributes": all}));
        answer["QueueUrl"].as_str().expect("the answer has a URL").to_owned()
    }

    /// Deletes a queue.
    pub fn delete(&self, name: &str) {
        self.ask("DeleteQueue", &json!({"QueueUrl": self.queue_url(name)}));
    }

    /// The URL of a queue.
    #[must_use]
    pub fn queue_url(&self, name: &str) -> String {
        format!("{}/{}/{name}", url(), self.id)
    }

    /// The ARN of a queue.
    #[must_use]
    pub fn queue_arn(&self, name: &str) -> String {
        format!("arn:aws:sqs:{REGION}:{}:{name}", self.id)
    }

    /// Asks the server, as whoever has this account.
    ///
    /// # Panics
    /// When it refuses.
    pub fn ask(&self, action: &str, body: &Value) -> Value {
        let target = format!("AmazonSQS.{action}");
        let headers = [("content-type", "application/x-amz-json-1.0"), ("x-amz-target", target.as_str())];
        let text = ask("sqs", &self.key, &headers, &body.to_string());
        if text.is_empty() { Value::Null } else { serde_json::from_str(&text).expect("the answer is JSON") }
    }

    /// How many messages a queue holds, hidden ones as well.
    #[must_use]
    pub fn depth(&self, name: &str) -> u64 {
        let answer = self
            .ask("GetQueueAttributes", &json!({"QueueUrl": self.queue_url(name), "AttributeNames": ["All"]}));
        [
            "ApproximateNumberOfMessages",
            "ApproximateNumberOfMessagesNotVisible",
            "ApproximateNumberOfMessagesDelayed",
        ]
        .iter()
        .map(|name| {
            answer["Attributes"][name].as_str().and_then(|text| text.parse::<u64>().ok()).unwrap_or(0)
        })
        .sum()
    }

    /// Takes all messages off a queue with `boto3`, until `count` have come: each with `Body`, `MessageAttributes`, `Attributes` (the
    /// system's), as `boto3` gives them; bytes as `{"base64": …}`.
    ///
    /// # Panics
    /// When they do not come within `deadline`.
    #[must_use]
    pub fn drain(&self, name: &str, count: usize, deadline: Duration) -> Vec<Value> {
        let arguments = [
            url(),
            [&*self.key, &self.secret, &self.token].join(" "),
            REGION.to_owned(),
            name.to_owned(),
            count.to_string(),
            deadline.as_secs().to_string(),
        ];
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let printed = python("sqs_drain.py", &arguments);
        printed.lines().map(|line| serde_json::from_str(line).expect("the script prints JSON")).collect()
    }
}
