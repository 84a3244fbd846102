//! The key of a message: by a jq expression over its document, or its group in a FIFO queue of SQS.

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::{Map, Value};
use tokio::time::Instant;

use super::plan::KeyOf;
use crate::codes;
use crate::delivery::Job;
use crate::failure::{Failure, FailureKind};
use crate::outcome::{Attempt, Trace};
use crate::pipeline::document::{BodyForm, document};
use crate::pipeline::jq::{Expression, Scope};

/// The key by an expression, which sees what a pipeline receives.
#[derive(Clone)]
pub struct JqKey {
    /// The expression.
    pub expression: Expression,
    /// How the body is shown to it.
    pub form: BodyForm,
}

/// The key is the group of a FIFO queue, in which SQS keeps the order too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GroupKey;

#[async_trait]
impl KeyOf for GroupKey {
    async fn key(&self, job: &Job, _: i64) -> Result<String, Failure> {
        Ok(job.envelope.system.get("MessageGroupId").cloned().unwrap_or_default())
    }
}

#[async_trait]
impl KeyOf for JqKey {
    async fn key(&self, job: &Job, received_at_ms: i64) -> Result<String, Failure> {
        let failed = |detail: String| {
            Failure::new(FailureKind::Invalid, codes::INVALID_VALUE, "find the message's key")
                .detail(detail)
                .remedy("correct `ordering.key`, or what the messages hold")
        };
        let attempt = Attempt {
            consumer: "".into(),
            number: 1,
            again: false,
            received_at_ms,
            deadline: Instant::now(),
            trace: Trace::default(),
        };
        let input = Arc::new(document(job, &attempt, self.form)?);
        let steps = Arc::new(Value::Object(Map::new()));
        let scope = Scope { input: &input, steps: &steps, message: &input, now_ms: received_at_ms };
        match self.expression.one(&scope).await {
            Ok(Value::String(key)) => Ok(key),
            Ok(Value::Null) => Err(failed(format!("`{}` yields null", self.expression.text()))),
            Ok(other) => Ok(other.to_string()),
            Err(error) => Err(failed(error.to_string())),
        }
    }
}
