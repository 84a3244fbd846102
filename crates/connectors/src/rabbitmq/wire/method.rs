//! The methods of AMQP 0-9-1 that a client sends and understands.

use warren_engine::message::Headers;

use super::field::{Reader, put_short, put_sized, put_u16, put_u32, put_u64};
use super::frame::{self, METHOD};
use super::table::{put_table, table};
use super::{Malformed, Unsayable};

const CONNECTION: u16 = 10;
const CHANNEL: u16 = 20;
const EXCHANGE: u16 = 40;
const QUEUE: u16 = 50;
/// The class of messages.
pub(crate) const BASIC: u16 = 60;
const CONFIRM: u16 = 85;
/// `basic.publish` within its class.
pub(crate) const BASIC_PUBLISH: u16 = 40;

/// Why a connection or channel was closed, in the broker's words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Close {
    pub(crate) code: u16,
    pub(crate) text: String,
    /// Class and method that failed, where the broker says.
    pub(crate) class: u16,
    pub(crate) method: u16,
}

/// A method that the broker sends.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Method {
    ConnectionStart {
        server: Headers,
        mechanisms: String,
    },
    ConnectionSecure,
    ConnectionTune {
        channel_max: u16,
        frame_max: u32,
        heartbeat: u16,
    },
    ConnectionOpenOk,
    ConnectionClose(Close),
    ConnectionCloseOk,
    ConnectionBlocked {
        reason: String,
    },
    ConnectionUnblocked,
    ChannelFlow {
        active: bool,
    },
    ChannelClose(Close),
    ChannelCloseOk,
    Return {
        code: u16,
        text: String,
        exchange: String,
        routing_key: String,
    },
    Deliver {
        tag: u64,
        redelivered: bool,
        exchange: String,
        routing_key: String,
    },
    GetOk {
        tag: u64,
        redelivered: bool,
        exchange: String,
        routing_key: String,
    },
    Ack {
        tag: u64,
        multiple: bool,
    },
    Nack {
        tag: u64,
        multiple: bool,
    },
    /// The broker ended a consumer.
    Cancel,
    /// An answer to a call.
    Answer(Answer),
}

/// What a call is answered with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    /// Done, and nothing to say.
    Ok,
    QueueDeclared {
        name: String,
        messages: u32,
        consumers: u32,
    },
    /// Messages purged or deleted with a queue.
    Count(u32),
    ConsumeOk {
        consumer: String,
    },
    GetEmpty,
}

/// Reads the payload of a method frame.
pub(crate) fn method(payload: &[u8]) -> Result<Method, Malformed> {
    let mut reader = Reader::new(payload);
    let (class, id) = (reader.u16()?, reader.u16()?);
    Ok(match (class, id) {
        (BASIC, 80) => Method::Ack { tag: reader.u64()?, multiple: reader.u8()? & 1 != 0 },
        (BASIC, 60) => {
            reader.short()?; // the consumer: there is one on a channel
            Method::Deliver {
                tag: reader.u64()?,
                redelivered: reader.u8()? & 1 != 0,
                exchange: reader.short_text()?,
                routing_key: reader.short_text()?,
            }
        }
        (BASIC, 120) => Method::Nack { tag: reader.u64()?, multiple: reader.u8()? & 1 != 0 },
        (BASIC, 50) => Method::Return {
            code: reader.u16()?,
            text: reader.short_text()?,
            exchange: reader.short_text()?,
            routing_key: reader.short_text()?,
        },
        (BASIC, 71) => Method::GetOk {
            tag: reader.u64()?,
            redelivered: reader.u8()? & 1 != 0,
            exchange: reader.short_text()?,
            routing_key: reader.short_text()?,
        },
        (BASIC, 72) => Method::Answer(Answer::GetEmpty),
        (BASIC, 21) => Method::Answer(Answer::ConsumeOk { consumer: reader.short_text()? }),
        (BASIC, 30) => Method::Cancel,
        (BASIC, 11 | 31 | 111) | (CONFIRM, 11) | (EXCHANGE, 11 | 21 | 31 | 51) | (QUEUE, 21 | 51) => {
            Method::Answer(Answer::Ok)
        }
        (QUEUE, 11) => Method::Answer(Answer::QueueDeclared {
            name: reader.short_text()?,
            messages: reader.u32()?,
            consumers: reader.u32()?,
        }),
        (QUEUE, 31 | 41) => Method::Answer(Answer::Count(reader.u32()?)),
        (CHANNEL, 11) => Method::Answer(Answer::Ok),
        (CHANNEL, 20) => Method::ChannelFlow { active: reader.u8()? & 1 != 0 },
        (CHANNEL, 40) => Method::ChannelClose(close(&mut reader)?),
        (CHANNEL, 41) => Method::ChannelCloseOk,
        (CONNECTION, 10) => {
            reader.take(2)?; // protocol version, which the header settled
            let server = table(&mut reader)?;
            let mechanisms = String::from_utf8_lossy(reader.long()?).into_owned();
            Method::ConnectionStart { server, mechanisms }
        }
        (CONNECTION, 20) => Method::ConnectionSecure,
        (CONNECTION, 30) => Method::ConnectionTune {
            channel_max: reader.u16()?,
            frame_max: reader.u32()?,
            heartbeat: reader.u16()?,
        },
        (CONNECTION, 41) => Method::ConnectionOpenOk,
        (CONNECTION, 50) => Method::ConnectionClose(close(&mut reader)?),
        (CONNECTION, 51) => Method::ConnectionCloseOk,
        (CONNECTION, 60) => Method::ConnectionBlocked { reason: reader.short_text()? },
        (CONNECTION, 61) => Method::ConnectionUnblocked,
        _ => return Err(Malformed("the broker sent a method that a client does not expect")),
    })
}

fn close(reader: &mut Reader<'_>) -> Result<Close, Malformed> {
    Ok(Close { code: reader.u16()?, text: reader.short_text()?, class: reader.u16()?, method: reader.u16()? })
}

/// What a queue is declared with.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct QueueSpec {
    /// Its name; empty: the broker chooses one.
    pub name: String,
    /// Whether it outlives a restart of the broker.
    pub durable: bool,
    /// Whether it belongs to this connection and dies with it.
    pub exclusive: bool,
    /// Whether it is deleted with its last consumer.
    pub auto_delete: bool,
    /// Arguments, such as `x-queue-type`.
    pub arguments: Headers,
}

/// What an exchange is declared with.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ExchangeSpec {
    /// Its name.
    pub name: String,
    /// `direct`, `fanout`, `topic`, `headers` or a plugin's.
    pub kind: String,
    /// Whether it outlives a restart of the broker.
    pub durable: bool,
    /// Whether it is deleted with its last binding.
    pub auto_delete: bool,
    /// Whether clients may not publish to it.
    pub internal: bool,
    /// Arguments, such as `alternate-exchange`.
    pub arguments: Headers,
}

/// What binds a queue to an exchange.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Binding {
    /// The queue that gets messages.
    pub queue: String,
    /// The exchange they come from.
    pub exchange: String,
    /// What the exchange chooses by.
    pub routing_key: String,
    /// Arguments, such as `x-match`.
    pub arguments: Headers,
}

/// A method that a client sends.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Call<'a> {
    StartOk {
        client: &'a Headers,
        mechanism: &'a str,
        response: &'a [u8],
    },
    TuneOk {
        channel_max: u16,
        frame_max: u32,
        heartbeat: u16,
    },
    Open {
        vhost: &'a str,
    },
    ConnectionClose {
        code: u16,
        text: &'a str,
    },
    ConnectionCloseOk,
    ChannelOpen,
    ChannelClose {
        code: u16,
        text: &'a str,
    },
    ChannelCloseOk,
    ChannelFlowOk {
        active: bool,
    },
    ExchangeDeclare(&'a ExchangeSpec),
    ExchangePassive {
        exchange: &'a str,
    },
    ExchangeDelete {
        exchange: &'a str,
    },
    QueueDeclare(&'a QueueSpec),
    QueuePassive {
        queue: &'a str,
    },
    QueueDelete {
        queue: &'a str,
    },
    QueuePurge {
        queue: &'a str,
    },
    QueueBind(&'a Binding),
    QueueUnbind(&'a Binding),
    Qos {
        prefetch: u16,
    },
    Consume {
        queue: &'a str,
        options: ConsumeOptions,
        arguments: &'a Headers,
    },
    Cancel {
        consumer: &'a str,
    },
    Get {
        queue: &'a str,
    },
    Ack {
        tag: u64,
        multiple: bool,
    },
    /// To where the queue sends what is rejected.
    Reject {
        tag: u64,
    },
    /// Back to the queue. RabbitMQ 4.3 counts it as a delivery that was returned, and a reject as one that failed.
    Requeue {
        tag: u64,
    },
    ConfirmSelect,
}

/// How to consume.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ConsumeOptions {
    /// Not what this connection published; RabbitMQ ignores it.
    pub(crate) no_local: bool,
    /// The broker forgets a message once it is sent.
    pub(crate) no_ack: bool,
    /// No other consumer of the queue.
    pub(crate) exclusive: bool,
    /// No answer.
    pub(crate) nowait: bool,
}

impl Call<'_> {
    /// Writes the method as a frame.
    pub(crate) fn put(&self, out: &mut Vec<u8>, channel: u16) -> Result<(), Unsayable> {
        let start = out.len();
        let (class, id) = self.id();
        let written = frame::put(out, METHOD, channel, |out| {
            put_u16(out, class);
            put_u16(out, id);
            self.put_arguments(out)
        });
        if written.is_err() {
            out.truncate(start);
        }
        written
    }

    fn id(&self) -> (u16, u16) {
        match self {
            Call::StartOk { .. } => (CONNECTION, 11),
            Call::TuneOk { .. } => (CONNECTION, 31),
            Call::Open { .. } => (CONNECTION, 40),
            Call::ConnectionClose { .. } => (CONNECTION, 50),
            Call::ConnectionCloseOk => (CONNECTION, 51),
            Call::ChannelOpen => (CHANNEL, 10),
            Call::ChannelFlowOk { .. } => (CHANNEL, 21),
            Call::ChannelClose { .. } => (CHANNEL, 40),
            Call::ChannelCloseOk => (CHANNEL, 41),
            Call::ExchangeDeclare(_) | Call::ExchangePassive { .. } => (EXCHANGE, 10),
            Call::ExchangeDelete { .. } => (EXCHANGE, 20),
            Call::QueueDeclare(_) | Call::QueuePassive { .. } => (QUEUE, 10),
            Call::QueueBind(_) => (QUEUE, 20),
            Call::QueuePurge { .. } => (QUEUE, 30),
            Call::QueueDelete { .. } => (QUEUE, 40),
            Call::QueueUnbind(_) => (QUEUE, 50),
            Call::Qos { .. } => (BASIC, 10),
            Call::Consume { .. } => (BASIC, 20),
            Call::Cancel { .. } => (BASIC, 30),
            Call::Get { .. } => (BASIC, 70),
            Call::Ack { .. } => (BASIC, 80),
            Call::Reject { .. } => (BASIC, 90),
            Call::Requeue { .. } => (BASIC, 120),
            Call::ConfirmSelect => (CONFIRM, 10),
        }
    }

    fn put_arguments(&self, out: &mut Vec<u8>) -> Result<(), Unsayable> {
        const QUEUE_NAME: &str = "the queue's name";
        const EXCHANGE_NAME: &str = "the exchange's name";
        const PASSIVE: u8 = 1;
        match *self {
            Call::StartOk { client, mechanism, response } => {
                put_table(out, client)?;
                put_short(out, "the login mechanism", mechanism)?;
                put_sized(out, |out| {
                    out.extend_from_slice(response);
                    Ok::<(), Unsayable>(())
                })?;
                put_short(out, "the locale", "en_US")
            }
            Call::TuneOk { channel_max, frame_max, heartbeat } => {
                put_u16(out, channel_max);
                put_u32(out, frame_max);
                put_u16(out, heartbeat);
                Ok(())
            }
            Call::Open { vhost } => {
                put_short(out, "the vhost's name", vhost)?;
                out.extend_from_slice(&[0, 0]); // reserved: a short string and a bit
                Ok(())
            }
            Call::ConnectionClose { code, text } | Call::ChannelClose { code, text } => {
                put_u16(out, code);
                put_short(out, "the reason", text)?;
                put_u32(out, 0); // no method of the broker's failed
                Ok(())
            }
            Call::ChannelOpen => {
                out.push(0); // reserved: a short string
                Ok(())
            }
            Call::ConnectionCloseOk | Call::ChannelCloseOk => Ok(()),
            Call::ChannelFlowOk { active } => {
                out.push(active.into());
                Ok(())
            }
            Call::ExchangeDeclare(spec) => {
                put_u16(out, 0);
                put_short(out, EXCHANGE_NAME, &spec.name)?;
                put_short(out, "the exchange's type", &spec.kind)?;
                out.push(bits([false, spec.durable, spec.auto_delete, spec.internal]));
                put_table(out, &spec.arguments)
            }
            Call::ExchangePassive { exchange } => {
                put_u16(out, 0);
                put_short(out, EXCHANGE_NAME, exchange)?;
                put_short(out, "the exchange's type", "direct")?; // ignored where the declare is passive
                out.push(PASSIVE);
                put_table(out, &Headers::default())
            }
            Call::ExchangeDelete { exchange } => {
                put_u16(out, 0);
                put_short(out, EXCHANGE_NAME, exchange)?;
                out.push(0); // also if it is in use
                Ok(())
            }
            Call::QueueDeclare(spec) => {
                put_u16(out, 0);
                put_short(out, QUEUE_NAME, &spec.name)?;
                out.push(bits([false, spec.durable, spec.exclusive, spec.auto_delete]));
                put_table(out, &spec.arguments)
            }
            Call::QueuePassive { queue } => {
                put_u16(out, 0);
                put_short(out, QUEUE_NAME, queue)?;
                out.push(PASSIVE);
                put_table(out, &Headers::default())
            }
            Call::QueueDelete { queue } => {
                put_u16(out, 0);
                put_short(out, QUEUE_NAME, queue)?;
                out.push(0); // also if it is in use or has messages
                Ok(())
            }
            Call::QueuePurge { queue } => {
                put_u16(out, 0);
                put_short(out, QUEUE_NAME, queue)?;
                out.push(0);
                Ok(())
            }
            Call::QueueBind(binding) => {
                put_binding(out, binding)?;
                out.push(0); // with an answer
                put_table(out, &binding.arguments)
            }
            Call::QueueUnbind(binding) => {
                put_binding(out, binding)?;
                put_table(out, &binding.arguments)
            }
            Call::Qos { prefetch } => {
                put_u32(out, 0); // no bound by bytes, which RabbitMQ does not have
                put_u16(out, prefetch);
                out.push(0); // for each consumer
                Ok(())
            }
            Call::Consume { queue, options, arguments } => {
                put_u16(out, 0);
                put_short(out, QUEUE_NAME, queue)?;
                put_short(out, "the consumer's tag", "")?; // the broker makes one up
                out.push(bits([options.no_local, options.no_ack, options.exclusive, options.nowait]));
                put_table(out, arguments)
            }
            Call::Cancel { consumer } => {
                put_short(out, "the consumer's tag", consumer)?;
                out.push(0); // with an answer
                Ok(())
            }
            Call::Get { queue } => {
                put_u16(out, 0);
                put_short(out, QUEUE_NAME, queue)?;
                out.push(0); // to be acknowledged
                Ok(())
            }
            Call::Ack { tag, multiple } => {
                put_u64(out, tag);
                out.push(multiple.into());
                Ok(())
            }
            Call::Reject { tag } => {
                put_u64(out, tag);
                out.push(0); // not back to the queue
                Ok(())
            }
            Call::Requeue { tag } => {
                put_u64(out, tag);
                out.push(bits([false, true, false, false])); // this one only, back to the queue
                Ok(())
            }
            Call::ConfirmSelect => {
                out.push(0); // with an answer
                Ok(())
            }
        }
    }
}

fn put_binding(out: &mut Vec<u8>, binding: &Binding) -> Result<(), Unsayable> {
    put_u16(out, 0);
    put_short(out, "the queue's name", &binding.queue)?;
    put_short(out, "the exchange's name", &binding.exchange)?;
    put_short(out, "the routing key", &binding.routing_key)
}

/// Packs flags, the first into the lowest bit.
fn bits(flags: [bool; 4]) -> u8 {
    flags.iter().enumerate().fold(0, |bits, (at, flag)| bits | u8::from(*flag) << at)
}
