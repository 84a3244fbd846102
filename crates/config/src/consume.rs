//! From a trigger as written to what a consumer is told to do.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use warren_connectors::BrokerConfig;
use warren_engine::codes;
use warren_engine::consume::key::{GroupKey, JqKey};
use warren_engine::consume::plan::{ConsumePlan, DeadLetter, Ordering, ParkingMax, Retry, RetryMode};
use warren_engine::pipeline::document::BodyForm;
use warren_engine::pipeline::jq;
use warren_engine::pipeline::plan::PipelinePlan;
use warren_engine::sqs;

use super::de;
use super::faults::Fault;
use super::model::unknown_name;
use super::pipeline::PipelineReader;
use super::raw::consume::{RawConsume, RawDeadLetter, RawOrdering, RawRetryMode};
use super::raw::expression::PipelineRef;
use super::text::Span;
use super::tree::Node;

/// A trigger with the names of what it connects.
#[derive(Debug, Clone)]
pub struct ProjectTrigger {
    /// The broker it consumes from; one of [`Project::brokers`](super::project::Project::brokers).
    pub broker: String,
    /// What the consumer is told to do.
    pub plan: ConsumePlan,
    /// What is done with each message.
    pub pipeline: Arc<PipelinePlan>,
}

/// Compiles triggers.
pub struct ConsumeReader<'r, 'a> {
    /// The pipelines that were read.
    pub pipelines: &'r BTreeMap<String, Arc<PipelinePlan>>,
    /// The names under `pipelines`, also of what is broken.
    pub pipeline_names: &'r [String],
    /// The brokers that were read.
    pub broker_configs: &'r BTreeMap<String, BrokerConfig>,
    /// For pipelines that stand in a trigger.
    pub steps: PipelineReader<'a>,
    /// Whether bodies are recorded.
    pub record_bodies: bool,
}

impl ConsumeReader<'_, '_> {
    /// The trigger of an entry. `None`: something is wrong with it, and was told, here or where it points.
    pub fn trigger(&mut self, name: &str, path: &str, key: Span, node: &Node) -> Option<ProjectTrigger> {
        self.steps.places.note(path, key, node);
        let raw: RawConsume = match de::read(node, path) {
            Ok(raw) => raw,
            Err(fault) => {
                self.steps.faults.push(fault);
                return None;
            }
        };
        let before = self.steps.faults.len();
        if !self.steps.brokers.contains(&raw.from) {
            self.steps.faults.push(unknown_name("broker", &raw.from, node, "from", self.steps.brokers, key));
        }
        let at = |name: &str| node.get(name).map_or(key, |node| node.span);
        let pipeline = self.pipeline(&raw, path, key, node);
        let form = if raw.binary { BodyForm::Base64 } else { BodyForm::Text };
        let ordering = self.ordering(&raw.ordering, form, at("ordering"));
        let defaults = ConsumePlan::new(name, &raw.queue, DeadLetter::Drop);
        let spans = |spans: &Option<Vec<_>>, otherwise: &[Duration]| match spans {
            Some(spans) => spans.iter().map(|span: &warren_connectors::kit::setting::Span| span.0).collect(),
            None => otherwise.to_vec(),
        };
        let plan = ConsumePlan {
            auto_ack: raw.auto_ack,
            binary: raw.binary,
            concurrency: raw.concurrency.unwrap_or(defaults.concurrency),
            max_timeout: raw.max_timeout.map_or(defaults.max_timeout, |span| span.0),
            expiration: match raw.expiration {
                None => defaults.expiration,
                Some(span) => Some(span.0).filter(|span| !span.is_zero()),
            },
            allow_redelivery: raw.allow_redelivery.unwrap_or(true),
            message_bytes_max: raw.max_message_size.map_or(defaults.message_bytes_max, |size| size.0.0),
            ordering: match ordering {
                // What a FIFO queue promises is kept unless somebody says otherwise.
                _ if self.is_fifo(&raw) && node.get("ordering").is_none() => {
                    Ordering::Key(Arc::new(GroupKey))
                }
                ordering => ordering.unwrap_or(Ordering::None),
            },
            retry: Retry {
                in_place: spans(&raw.retry.in_place, &defaults.retry.in_place),
                delays: spans(&raw.retry.delays, &defaults.retry.delays),
                forever: false,
                mode: match raw.retry.mode {
                    RawRetryMode::Auto => RetryMode::Auto,
                    RawRetryMode::DelayQueues => RetryMode::DelayQueues,
                    RawRetryMode::Visibility => RetryMode::Visibility,
                    RawRetryMode::Parking => RetryMode::Parking,
                    RawRetryMode::Requeue => RetryMode::Requeue,
                },
            },
            parking: ParkingMax {
                messages: raw.parking.messages.unwrap_or(defaults.parking.messages),
                bytes: raw.parking.size.map_or(defaults.parking.bytes, |size| size.0.0),
            },
            dead_letter: match &raw.dead_letter {
                RawDeadLetter::Queue(queue) => DeadLetter::Queue(queue.clone()),
                RawDeadLetter::Broker => DeadLetter::Broker,
                RawDeadLetter::Drop => DeadLetter::Drop,
            },
            record_bodies: self.record_bodies,
            ..defaults
        };
        let pipeline = pipeline?;
        self.contradictions(&plan, &raw, &pipeline, &at);
        (self.steps.faults.len() == before).then_some(ProjectTrigger { broker: raw.from, plan, pipeline })
    }

    fn is_fifo(&self, raw: &RawConsume) -> bool {
        let kind = self.broker_configs.get(&raw.from).map(BrokerConfig::kind);
        kind == Some("sqs") && sqs::is_fifo(&raw.queue)
    }

    fn pipeline(
        &mut self,
        raw: &RawConsume,
        path: &str,
        key: Span,
        node: &Node,
    ) -> Option<Arc<PipelinePlan>> {
        match &raw.pipeline {
            PipelineRef::Named(name) => {
                if !self.pipeline_names.contains(name) {
                    let fault = unknown_name("pipeline", name, node, "pipeline", self.pipeline_names, key);
                    self.steps.faults.push(fault);
                }
                self.pipelines.get(name).cloned()
            }
            PipelineRef::Inline => self.steps.pipeline(node.get("pipeline")?, &format!("{path}.pipeline")),
        }
    }

    fn ordering(&mut self, raw: &RawOrdering, form: BodyForm, span: Span) -> Option<Ordering> {
        let expression = match raw {
            RawOrdering::None => return Some(Ordering::None),
            RawOrdering::Queue => return Some(Ordering::Queue),
            RawOrdering::Key(expression) => expression,
        };
        match jq::Expression::compile(&expression.0) {
            Ok(expression) => Some(Ordering::Key(Arc::new(JqKey { expression, form }))),
            Err(errors) => {
                for error in errors {
                    let message =
                        format!("the expression of `ordering.key` cannot be read: {}", error.message);
                    let fault = Fault::new(codes::INVALID_VALUE, span, message);
                    self.steps.faults.push(match error.hint {
                        Some(hint) => fault.remedy(hint),
                        None => fault.remedy("write a jq expression such as `.headers.customer`"),
                    });
                }
                None
            }
        }
    }

    /// Settings that are each valid and do not go together.
    fn contradictions(
        &mut self,
        plan: &ConsumePlan,
        raw: &RawConsume,
        pipeline: &PipelinePlan,
        at: &dyn Fn(&str) -> Span,
    ) {
        let mut conflict = |span: Span, message: String, remedy: &str| {
            self.steps.faults.push(Fault::new(codes::CONFLICTING_KEYS, span, message).remedy(remedy));
        };
        let steps = pipeline.timeout_sum();
        if steps > plan.max_timeout {
            conflict(
                at("max_timeout"),
                format!(
                    "the pipeline's steps may take {} s together, and `max_timeout` is {} s",
                    steps.as_secs_f64(),
                    plan.max_timeout.as_secs_f64()
                ),
                "give the steps shorter timeouts, or the trigger a longer `max_timeout`",
            );
        }
        if plan.max_timeout.is_zero() {
            conflict(
                at("max_timeout"),
                "`max_timeout` is nothing".to_owned(),
                "give a run the time it needs",
            );
        }
        let ordered = !matches!(plan.ordering, Ordering::None);
        if ordered && plan.retry.mode == RetryMode::Visibility {
            conflict(
                at("retry"),
                "a delay by the broker does not keep an order: what was received behind a message overtakes it"
                    .to_owned(),
                "write `mode: auto` or `mode: parking`, or `ordering: none`",
            );
        }
        if ordered && plan.retry.mode == RetryMode::DelayQueues {
            conflict(
                at("retry"),
                "delay queues do not keep an order: what comes behind overtakes a message in them".to_owned(),
                "write `mode: auto` or `mode: parking`, or leave out `ordering`",
            );
        }
        if let DeadLetter::Queue(queue) = &plan.dead_letter
            && *queue == plan.queue
        {
            conflict(
                at("dead_letter"),
                format!("dead letters of queue `{queue}` would go to the same queue, and round and round"),
                "name another queue",
            );
        }
        let kind = self.broker_configs.get(&raw.from).map(BrokerConfig::kind);
        if plan.retry.mode == RetryMode::Visibility && kind.is_some_and(|kind| kind != "sqs") {
            conflict(
                at("retry"),
                format!(
                    "a broker of type {} cannot delay a message it has delivered",
                    kind.unwrap_or_default()
                ),
                "write `mode: auto`",
            );
        }
    }
}
