//! How long a query may take, and which key says so: for the failure of one that took longer.

use std::time::Duration;

use warren_engine::codes;
use warren_engine::failure::{Failure, FailureKind};
use warren_engine::model::Model;

/// A limit with the key that sets it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limit {
    pub(crate) after: Duration,
    /// Such as "the model's `timeout`".
    key: &'static str,
}

impl Limit {
    /// That of a model's query: its own, or else its source's.
    pub(crate) fn of_model(model: &Model, of_source: Option<Duration>) -> Option<Limit> {
        match (model.timeout, of_source) {
            (Some(after), _) => Some(Limit { after, key: "the model's `timeout`" }),
            (None, Some(after)) => Some(Limit { after, key: "the source's `statement_timeout`" }),
            (None, None) => None,
        }
    }

    /// That of an `sql` step.
    pub(crate) fn of_step(after: Duration) -> Limit {
        Limit { after, key: "the step's `timeout`" }
    }

    /// The failure of what took longer than a limit, or was ended without one.
    pub(crate) fn passed(limit: Option<Limit>, what: &str) -> Failure {
        let failure = Failure::new(FailureKind::Timeout, codes::QUERY_TIMEOUT, what);
        match limit {
            Some(Limit { after, key }) => failure
                .detail(format!("it took longer than {after:?}, which {key} allows"))
                .remedy(format!("Raise {key}, or make the query faster.")),
            None => failure.detail("the server ended it").remedy(
                "No limit is configured here: the server's own limit or an administrator ended the query.",
            ),
        }
    }
}
