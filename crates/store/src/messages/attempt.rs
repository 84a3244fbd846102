//! One attempt as bytes, and back.
//!
//! What is asked for most comes first, so that an attempt nobody wants is passed over without being read to its end. Its status and its body are
//! kept apart: the first may change once, the second is seldom read.

use std::borrow::Cow;
use std::collections::BTreeMap;

use bytes::Bytes;
use warren_engine::consume::record::{MessageError, MessageRun, MessageRunId, MessageStatus, StepRecord};
use warren_engine::delivery::Envelope;
use warren_engine::failure::FailureName;
use warren_engine::message::Properties;

use super::RecordedMessage;
use crate::packed::Damaged;
use crate::packed::bytes::{Reader, put_bytes, put_number, put_signed};
use crate::packed::properties::{next_properties, put_properties};

const HAS_BODY: u8 = 1;
/// The message is known by its id, which is then not written again among its properties.
const NAMED_BY_ID: u8 = 2;
const HAS_CLASS: u8 = 4;
const HAS_NEXT: u8 = 8;
const HAS_ERROR: u8 = 16;
const REDELIVERED: u8 = 32;
const HAS_COUNT: u8 = 64;

/// An attempt to be written.
pub(super) struct Written<'a> {
    pub(super) consumer: &'a str,
    /// What it is looked up by: its id, or its print.
    pub(super) message: Cow<'a, str>,
    pub(super) attempt: u32,
    pub(super) status: MessageStatus,
    pub(super) class: Option<&'a str>,
    pub(super) received_at: i64,
    pub(super) started_at: i64,
    pub(super) ended_at: i64,
    pub(super) next_at: Option<i64>,
    pub(super) error: Option<&'a MessageError>,
    pub(super) steps: &'a [StepRecord],
    pub(super) properties: &'a Properties,
    pub(super) envelope: &'a Envelope,
    pub(super) body_bytes: u64,
    pub(super) body: Option<&'a [u8]>,
}

impl<'a> Written<'a> {
    pub(super) fn of_run(run: &'a MessageRun) -> Written<'a> {
        let message = &run.job.message;
        Written {
            consumer: &run.consumer,
            message: match &message.properties.message_id {
                Some(id) => id.into(),
                None => format!("print:{:032x}", run.print).into(),
            },
            attempt: run.attempt,
            status: run.status,
            class: run.class,
            received_at: run.received_at,
            started_at: run.started_at,
            ended_at: run.ended_at,
            next_at: run.next_at,
            error: run.error.as_ref(),
            steps: &run.steps,
            properties: &message.properties,
            envelope: &run.job.envelope,
            body_bytes: message.body.len() as u64,
            body: run.with_body.then_some(&message.body[..]),
        }
    }

    /// One that was read before.
    pub(super) fn of_recorded(recorded: &'a RecordedMessage) -> Written<'a> {
        Written {
            consumer: &recorded.consumer,
            message: recorded.message.as_str().into(),
            attempt: recorded.attempt,
            status: recorded.status,
            class: recorded.class.as_deref(),
            received_at: recorded.received_at,
            started_at: recorded.started_at,
            ended_at: recorded.ended_at,
            next_at: recorded.next_at,
            error: recorded.error.as_ref(),
            steps: &recorded.steps,
            properties: &recorded.properties,
            envelope: &recorded.envelope,
            body_bytes: recorded.body_bytes,
            body: recorded.body.as_deref(),
        }
    }

    /// Writes all but the status and the body.
    pub(super) fn put(&self, out: &mut Vec<u8>) {
        let named_by_id = self.properties.message_id.as_deref() == Some(&*self.message);
        let bit = |is: bool, bit: u8| if is { bit } else { 0 };
        out.push(
            bit(self.body.is_some(), HAS_BODY)
                | bit(named_by_id, NAMED_BY_ID)
                | bit(self.class.is_some(), HAS_CLASS)
                | bit(self.next_at.is_some(), HAS_NEXT)
                | bit(self.error.is_some(), HAS_ERROR)
                | bit(self.envelope.redelivered, REDELIVERED)
                | bit(self.envelope.delivery_count.is_some(), HAS_COUNT),
        );
        put_number(out, self.body_bytes);
        put_bytes(out, self.consumer.as_bytes());
        put_bytes(out, self.message.as_bytes());
        put_signed(out, self.ended_at);
        put_signed(out, self.started_at.wrapping_sub(self.ended_at));
        put_signed(out, self.received_at.wrapping_sub(self.ended_at));
        put_number(out, self.attempt.into());
        if let Some(next_at) = self.next_at {
            put_signed(out, next_at.wrapping_sub(self.ended_at));
        }
        if let Some(class) = self.class {
            put_bytes(out, class.as_bytes());
        }
        if let Some(error) = self.error {
            put_error(out, error);
        }
        put_number(out, self.steps.len() as u64);
        for step in self.steps {
            put_step(out, step);
        }
        put_properties(out, self.properties, !named_by_id);
        put_envelope(out, self.envelope);
    }
}

/// An attempt in a block or journal, read as far as it is needed to know whether it is wanted.
pub(super) struct View<'a> {
    pub(super) consumer: &'a str,
    pub(super) message: &'a str,
    pub(super) ended_at: i64,
    /// How many bytes of the bodies are its own.
    pub(super) body_kept: usize,
    body_bytes: u64,
    flags: u8,
    rest: Reader<'a>,
}

impl<'a> View<'a> {
    pub(super) fn of(bytes: &'a [u8]) -> Result<View<'a>, Damaged> {
        let mut rest = Reader(bytes);
        let flags = rest.byte()?;
        let body_bytes = rest.number()?;
        let body_kept = if flags & HAS_BODY == 0 { 0 } else { body_bytes };
        let body_kept = usize::try_from(body_kept).map_err(|_| Damaged("a length is too large"))?;
        let (consumer, message) = (rest.text()?, rest.text()?);
        let ended_at = rest.signed()?;
        Ok(View { consumer, message, ended_at, body_kept, body_bytes, flags, rest })
    }

    /// All of it, with its body where that was kept.
    pub(super) fn whole(
        &self,
        id: MessageRunId,
        status: MessageStatus,
        body: &[u8],
    ) -> Result<RecordedMessage, Damaged> {
        let mut rest = self.rest;
        let at = self.ended_at;
        let started_at = at.wrapping_add(rest.signed()?);
        let received_at = at.wrapping_add(rest.signed()?);
        let attempt = u32::try_from(rest.number()?).map_err(|_| Damaged("an attempt has no such number"))?;
        let has = |flag: u8| self.flags & flag != 0;
        let next_at = if has(HAS_NEXT) { Some(at.wrapping_add(rest.signed()?)) } else { None };
        let class = if has(HAS_CLASS) { Some(rest.text()?.to_owned()) } else { None };
        let error = if has(HAS_ERROR) { Some(error(&mut rest)?) } else { None };
        let mut steps = Vec::new();
        for _ in 0..rest.size()? {
            steps.push(step(&mut rest)?);
        }
        let mut properties = next_properties(&mut rest)?;
        if has(NAMED_BY_ID) {
            properties.message_id = Some(self.message.to_owned());
        }
        let envelope = envelope(&mut rest, has(REDELIVERED), has(HAS_COUNT))?;
        rest.end()?;
        Ok(RecordedMessage {
            id,
            consumer: self.consumer.to_owned(),
            message: self.message.to_owned(),
            attempt,
            status,
            class,
            received_at,
            started_at,
            ended_at: at,
            next_at,
            error,
            steps,
            properties,
            envelope,
            body_bytes: self.body_bytes,
            body: has(HAS_BODY).then(|| Bytes::copy_from_slice(body)),
        })
    }
}

/// A status as a byte; never changed once released.
pub(super) fn status_byte(status: MessageStatus) -> u8 {
    match status {
        MessageStatus::Ok => 0,
        MessageStatus::Retried => 1,
        MessageStatus::DeadLettered => 2,
        MessageStatus::Rejected => 3,
        MessageStatus::Dropped => 4,
        MessageStatus::Failed => 5,
        MessageStatus::Held => 6,
        MessageStatus::HandedBack => 7,
        MessageStatus::Late => 8,
    }
}

pub(super) fn status_of_byte(byte: u8) -> Result<MessageStatus, Damaged> {
    let found = MessageStatus::ALL.into_iter().find(|status| status_byte(*status) == byte);
    found.ok_or(Damaged("a status that does not exist"))
}

fn put_optional(out: &mut Vec<u8>, text: Option<&str>) {
    out.push(u8::from(text.is_some()));
    if let Some(text) = text {
        put_bytes(out, text.as_bytes());
    }
}

fn optional(reader: &mut Reader<'_>) -> Result<Option<String>, Damaged> {
    if reader.byte()? == 0 { Ok(None) } else { Ok(Some(reader.text()?.to_owned())) }
}

fn put_error(out: &mut Vec<u8>, error: &MessageError) {
    let MessageError { kind, code, message, remedy, status, exit_code, answer } = error;
    put_bytes(out, code.as_bytes());
    put_bytes(out, message.as_bytes());
    put_optional(out, remedy.as_deref());
    put_number(out, status.map_or(0, |status| u64::from(status) + 1));
    // Version 4: the kind, from 1 on, above the lowest bit.
    let kind = kind.map_or(0, |kind| kind as u8 + 1);
    out.push(kind << 1 | u8::from(exit_code.is_some()));
    put_signed(out, exit_code.unwrap_or(0).into());
    put_optional(out, answer.as_deref());
}

fn error(reader: &mut Reader<'_>) -> Result<MessageError, Damaged> {
    let (code, message) = (reader.text()?.to_owned(), reader.text()?.to_owned());
    let remedy = optional(reader)?;
    let status = match reader.number()? {
        0 => None,
        status => Some(u16::try_from(status - 1).map_err(|_| Damaged("an HTTP status is too large"))?),
    };
    let flags = reader.byte()?;
    let has_exit_code = flags & 1 != 0;
    let kind = match flags >> 1 {
        0 => None,
        kind => Some(
            FailureName::ALL
                .get(usize::from(kind) - 1)
                .copied()
                .ok_or(Damaged("a kind that does not exist"))?,
        ),
    };
    let exit_code = i32::try_from(reader.signed()?).map_err(|_| Damaged("an exit code is too large"))?;
    let answer = optional(reader)?;
    let exit_code = has_exit_code.then_some(exit_code);
    Ok(MessageError { kind, code, message, remedy, status, exit_code, answer })
}

fn put_step(out: &mut Vec<u8>, step: &StepRecord) {
    let StepRecord { path, id, took_us, note, error } = step;
    put_bytes(out, path.as_bytes());
    put_optional(out, id.as_deref());
    put_number(out, *took_us);
    put_optional(out, note.as_deref());
    put_optional(out, error.as_deref());
}

fn step(reader: &mut Reader<'_>) -> Result<StepRecord, Damaged> {
    Ok(StepRecord {
        path: reader.text()?.into(),
        id: optional(reader)?,
        took_us: reader.number()?,
        note: optional(reader)?,
        error: optional(reader)?,
    })
}

fn put_envelope(out: &mut Vec<u8>, envelope: &Envelope) {
    // Named one by one, so one that is added cannot be forgotten here.
    let Envelope {
        queue,
        exchange,
        routing_key,
        redelivered: _, // among the flags
        delivery_count,
        delivery_tag,
        consumer_tag,
        system,
    } = envelope;
    for text in [queue, exchange, routing_key, consumer_tag] {
        put_bytes(out, text.as_bytes());
    }
    put_number(out, *delivery_tag);
    if let Some(count) = delivery_count {
        put_number(out, *count);
    }
    put_number(out, system.len() as u64);
    for (name, value) in system {
        put_bytes(out, name.as_bytes());
        put_bytes(out, value.as_bytes());
    }
}

fn envelope(reader: &mut Reader<'_>, redelivered: bool, has_count: bool) -> Result<Envelope, Damaged> {
    let queue = reader.text()?.into();
    let exchange = reader.text()?.into();
    let routing_key = reader.text()?.into();
    let consumer_tag = reader.text()?.into();
    let delivery_tag = reader.number()?;
    let delivery_count = if has_count { Some(reader.number()?) } else { None };
    let mut system = BTreeMap::new();
    for _ in 0..reader.size()? {
        system.insert(reader.text()?.to_owned(), reader.text()?.to_owned());
    }
    Ok(Envelope {
        queue,
        exchange,
        routing_key,
        redelivered,
        delivery_count,
        delivery_tag,
        consumer_tag,
        system,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use warren_engine::message::{HeaderValue, Headers};

    use super::*;

    fn text() -> impl Strategy<Value = Option<String>> {
        proptest::option::of(".{0,12}")
    }

    fn error() -> impl Strategy<Value = MessageError> {
        let kind = proptest::option::of(proptest::sample::select(&FailureName::ALL[..]));
        let texts = (".{0,8}", ".{0,20}", text(), text());
        (kind, texts, any::<Option<u16>>(), any::<Option<i32>>()).prop_map(
            |(kind, (code, message, remedy, answer), status, exit_code)| MessageError {
                kind,
                code,
                message,
                remedy,
                status: status.filter(|status| *status < u16::MAX),
                exit_code,
                answer,
            },
        )
    }

    fn step() -> impl Strategy<Value = StepRecord> {
        (".{0,8}", text(), any::<u64>(), text(), text())
            .prop_map(|(path, id, took_us, note, error)| StepRecord { path, id, took_us, note, error })
    }

    fn recorded() -> impl Strategy<Value = RecordedMessage> {
        let times = (any::<i64>(), any::<i64>(), any::<i64>(), any::<Option<i64>>());
        let envelope = (".{0,8}", ".{0,8}", any::<bool>(), any::<Option<u64>>(), any::<u64>());
        let system = proptest::collection::btree_map(".{0,6}", ".{0,6}", 0..3);
        let body = proptest::option::of(proptest::collection::vec(any::<u8>(), 0..100));
        (
            (".{0,8}", text(), any::<u32>(), proptest::sample::select(&MessageStatus::ALL[..]), text()),
            times,
            proptest::option::of(error()),
            proptest::collection::vec(step(), 0..3),
            (envelope, system),
            (body, any::<bool>(), any::<i64>()),
        )
            .prop_map(|(head, times, error, steps, (envelope, system), (body, by_id, header))| {
                let message = head.1.clone().unwrap_or_else(|| "print:0".to_owned());
                let mut headers = Headers::default();
                headers.set("h", HeaderValue::I64(header));
                RecordedMessage {
                    id: MessageRunId(7),
                    consumer: head.0,
                    message: message.clone(),
                    attempt: head.2,
                    status: head.3,
                    class: head.4,
                    received_at: times.0,
                    started_at: times.1,
                    ended_at: times.2,
                    next_at: times.3,
                    error,
                    steps,
                    properties: Properties {
                        message_id: if by_id { Some(message) } else { head.1 },
                        headers,
                        ..Properties::default()
                    },
                    envelope: Envelope {
                        queue: envelope.0,
                        routing_key: envelope.1,
                        redelivered: envelope.2,
                        delivery_count: envelope.3,
                        delivery_tag: envelope.4,
                        system,
                        ..Envelope::default()
                    },
                    body_bytes: body.as_ref().map_or(9, |body| body.len() as u64),
                    body: body.map(Bytes::from),
                }
            })
    }

    proptest! {
        #[test]
        fn what_is_written_comes_back(recorded in recorded()) {
            let mut bytes = Vec::new();
            Written::of_recorded(&recorded).put(&mut bytes);
            let view = View::of(&bytes).unwrap();
            let body = recorded.body.clone().unwrap_or_default();
            prop_assert_eq!(view.body_kept, body.len());
            prop_assert_eq!(view.whole(recorded.id, recorded.status, &body).unwrap(), recorded.clone());
            prop_assert_eq!(status_of_byte(status_byte(recorded.status)).unwrap(), recorded.status);
        }

        #[test]
        fn damage_is_no_panic(
            recorded in recorded(), at in any::<proptest::sample::Index>(), flip in 1u8..=255, cut in any::<bool>(),
        ) {
            let mut bytes = Vec::new();
            Written::of_recorded(&recorded).put(&mut bytes);
            let at = at.index(bytes.len());
            bytes[at] ^= flip;
            if cut {
                bytes.truncate(at);
            }
            if let Ok(view) = View::of(&bytes) {
                view.whole(recorded.id, recorded.status, &[]).ok();
            }
        }
    }
}
