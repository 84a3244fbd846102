//! `publish` and `reply`: a message of ours, confirmed before the run goes on.

use serde_json::Value;

use super::document::header_of;
use super::http::bytes_of;
use super::plan::{Given, Pairs, PublishRoute, PublishStep, ReplyStep};
use super::run::{Done, Runner, kind_of};
use super::scope::{Scope, Text};
use super::trouble::Trouble;
use crate::codes;
use crate::failure::{Failure, FailureKind};
use crate::message::{Headers, Message, Outbound, Properties, Receipt, Route};
use crate::ports::Broker;

impl Runner<'_> {
    /// Publishes, and waits for the confirm. The value goes on.
    pub async fn publish(self, step: &PublishStep, scope: &Scope<'_>) -> Result<Done, Trouble> {
        let route = match &step.route {
            PublishRoute::Queue(queue) => Route::Queue(scope.text(queue)?),
            PublishRoute::Exchange { exchange, routing_key } => {
                Route::Exchange { exchange: scope.text(exchange)?, routing_key: scope.text(routing_key)? }
            }
        };
        let (body, media_type) = bytes_of(&step.body, scope).await?;
        let mut properties =
            Properties { content_type: media_type.map(str::to_owned), ..Properties::default() };
        for (name, value) in pairs("properties", &step.properties, scope).await? {
            if self.is_handed_on(step, &name, &value) {
                continue;
            }
            let given = match &step.properties {
                Pairs::Named(named) => named.iter().find(|(other, _)| *other == name).map(|(_, given)| given),
                Pairs::Computed(_) => None,
            };
            let repeats = || match given {
                Some(given) => scope.repeats_given(given),
                None => scope.repeats_pairs(&step.properties),
            };
            set_property(&mut properties, &name, &value)
                .map_err(|failure| Trouble::of_input(failure, repeats()))?;
        }
        let headers = pairs("headers", &step.headers, scope).await?;
        properties.headers =
            headers.iter().map(|(name, value)| (name.clone(), header_of(value))).collect::<Headers>();
        let Some(broker) = self.outside.brokers.get(&step.to) else {
            return Err(
                Failure::internal(format!("publish to broker `{}`, which is not there", step.to)).into()
            );
        };
        let note = route.to_string();
        let sent = send(broker.as_ref(), Outbound { route, message: Message { body, properties } }).await;
        sent.map_err(|failure| match failure.kind {
            FailureKind::Invalid => Trouble::of_input(failure, step.repeats(scope)),
            _ => blamed(failure, &step.route).into(),
        })?;
        Ok(Done::same().note(note))
    }

    /// Whether a property is the `userId` of the message, in a map of properties that an expression handed on. A broker takes it only
    /// from that user's login, so it is left out unless it is asked for by its other name, `user_id`.
    fn is_handed_on(&self, step: &PublishStep, name: &str, value: &Value) -> bool {
        let user_id = self.job.message.properties.user_id.as_deref();
        matches!(step.properties, Pairs::Computed(_)) && name == "userId" && value.as_str() == user_id
    }

    /// Answers the message. The value goes on.
    pub async fn reply(self, step: &ReplyStep, scope: &Scope<'_>) -> Result<Done, Trouble> {
        let asked = &self.job.message.properties;
        let Some(queue) = asked.reply_to.clone().filter(|queue| !queue.is_empty()) else {
            let failure =
                Failure::new(FailureKind::Invalid, codes::NO_REPLY_TO, "the message has no `replyTo`");
            return Err(Trouble::reject(
                failure.remedy("let the sender set it, or answer only where it is set, with `choose`"),
            ));
        };
        let Some(broker) = &self.outside.origin else {
            return Err(Failure::internal("reply without the broker the message came from").into());
        };
        let (body, media_type) = bytes_of(&step.body, scope).await?;
        let properties = Properties {
            content_type: media_type.map(str::to_owned),
            correlation_id: asked.correlation_id.clone().or_else(|| asked.message_id.clone()),
            ..Properties::default()
        };
        let route = Route::Queue(queue);
        let note = route.to_string();
        // Who asked and is gone will not come back for the answer.
        send(broker.as_ref(), Outbound { route, message: Message { body, properties } }).await.map_err(
            |failure| match failure.kind {
                FailureKind::NotFound | FailureKind::Unroutable => Trouble::reject(failure),
                FailureKind::Invalid => Trouble::of_input(failure, scope.repeats(&step.body.expression)),
                _ => failure.into(),
            },
        )?;
        Ok(Done::same().note(note))
    }
}

impl PublishStep {
    /// Whether its message is the same in every attempt.
    fn repeats(&self, scope: &Scope<'_>) -> bool {
        let route = match &self.route {
            PublishRoute::Queue(queue) => scope.repeats_text(queue),
            PublishRoute::Exchange { exchange, routing_key } => {
                scope.repeats_text(exchange) && scope.repeats_text(routing_key)
            }
        };
        route
            && scope.repeats(&self.body.expression)
            && scope.repeats_pairs(&self.properties)
            && scope.repeats_pairs(&self.headers)
    }
}

/// Whose fault it is that a place does not exist or may not be used: a name that was made from the message is the message's, a constant
/// one the operator's.
fn blamed(failure: Failure, route: &PublishRoute) -> Failure {
    let is_made = |text: &Text| matches!(text, Text::Template(_));
    let (place, key) = match route {
        PublishRoute::Queue(queue) => (is_made(queue), false),
        PublishRoute::Exchange { exchange, routing_key } => (is_made(exchange), is_made(routing_key)),
    };
    let of_message = match failure.code {
        codes::NO_SUCH_QUEUE | codes::NO_SUCH_EXCHANGE | codes::ACCESS_REFUSED | codes::NOT_ALLOWED => place,
        codes::UNROUTABLE => place || key,
        _ => false,
    };
    if of_message { failure.of_message() } else { failure }
}

/// Publishes one message; anything but a confirm is a failure.
async fn send(broker: &dyn Broker, outbound: Outbound) -> Result<(), Failure> {
    match broker.publish(&[outbound]).await.pop() {
        Some(Receipt::Accepted(_)) => Ok(()),
        Some(Receipt::Refused(failure) | Receipt::Unknown(failure)) => Err(failure),
        None => Err(Failure::internal("publish a message: the broker gave no receipt")),
    }
}

async fn pairs(key: &str, pairs: &Pairs, scope: &Scope<'_>) -> Result<Vec<(String, Value)>, Trouble> {
    match pairs {
        Pairs::Named(named) => {
            let mut found = Vec::with_capacity(named.len());
            for (name, given) in named {
                let value = match given {
                    Given::Text(text) => scope.text(text)?.into(),
                    Given::Value(value) => value.clone(),
                };
                found.push((name.clone(), value));
            }
            Ok(found)
        }
        Pairs::Computed(expression) => match scope.one(expression).await? {
            Value::Object(entries) => Ok(entries.into_iter().collect()),
            Value::Null => Ok(Vec::new()),
            other => {
                let what = format!("`{key}` yields {}, and an object is wanted", kind_of(&other));
                let failure = Failure::new(FailureKind::Invalid, codes::EXPRESSION_FAILED, what);
                Err(Trouble::of_input(failure, scope.repeats(expression)))
            }
        },
    }
}

/// The properties, by the names of the document and by those of the configuration.
pub const PROPERTY_NAMES: [(&str, &str); 12] = [
    ("appId", "app_id"),
    ("contentEncoding", "content_encoding"),
    ("contentType", "content_type"),
    ("correlationId", "correlation_id"),
    ("deliveryMode", "delivery_mode"),
    ("expiration", "expiration"),
    ("messageId", "message_id"),
    ("priority", "priority"),
    ("replyTo", "reply_to"),
    ("type", "type"),
    ("userId", "user_id"),
    ("timestamp", "timestamp"),
];

/// Sets a property, by the name it has in the document or in the configuration; null leaves it as it is.
///
/// # Errors
/// There is no such property, or it does not take the value.
pub fn set_property(properties: &mut Properties, name: &str, value: &Value) -> Result<(), Failure> {
    let wrong = |wants: &str| {
        let what = format!("the property `{name}` takes {wants}");
        Failure::new(FailureKind::Invalid, codes::INVALID_PROPERTY, what)
    };
    let text = || match value {
        Value::String(text) => Ok(Some(text.clone())),
        Value::Number(number) => Ok(Some(number.to_string())),
        _ => Err(wrong("text")),
    };
    let number = |most: u64| {
        let read = match value {
            Value::Number(number) => number.as_u64(),
            Value::String(text) => text.trim().parse().ok(),
            _ => None,
        };
        read.filter(|number| *number <= most).ok_or_else(|| wrong(&format!("a whole number up to {most}")))
    };
    let delivery_mode = || match number(2) {
        Ok(mode @ 1..) => Ok(mode),
        _ => Err(wrong("1 (not persistent) or 2 (persistent)")),
    };
    if value.is_null() {
        return Ok(());
    }
    let known = PROPERTY_NAMES.iter().find(|(one, other)| *one == name || *other == name);
    match known.map_or(name, |(_, name)| name) {
        "app_id" => properties.app_id = text()?,
        "content_encoding" => properties.content_encoding = text()?,
        "content_type" => properties.content_type = text()?,
        "correlation_id" => properties.correlation_id = text()?,
        "delivery_mode" => properties.persistent = delivery_mode()? == 2,
        "expiration" => properties.expiration = Some(number(u64::from(u32::MAX))?.to_string()),
        "message_id" => properties.message_id = text()?,
        "priority" => properties.priority = u8::try_from(number(255)?).ok(),
        "reply_to" => properties.reply_to = text()?,
        "type" => properties.kind = text()?,
        "user_id" => properties.user_id = text()?,
        "timestamp" => properties.timestamp = Some(number(u64::MAX)?),
        // Of the document, and without meaning in AMQP 0-9-1.
        "classId" | "clusterId" => {}
        _ => return Err(wrong("nothing: there is no such property")),
    }
    Ok(())
}
