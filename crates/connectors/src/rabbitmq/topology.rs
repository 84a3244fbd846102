//! Queues, exchanges and bindings: declaring and deleting, asking whether they are there, getting one message.
//!
//! Nothing in Warren declares by itself; this is for those parts a user asks to, and for tests. Each call has a channel of its
//! own, since the broker answers a refusal by closing it.

use std::sync::Arc;

use warren_engine::codes;
use warren_engine::failure::{Failure, FailureKind};
use warren_engine::message::{HeaderValue, Headers, Message};

use super::Rabbit;
use super::connection::channel::{Content, OpenChannel, Reply};
use super::failures::{CallFault, Gone};
use super::wire::method::{Answer, Binding, Call, ConsumeOptions, ExchangeSpec, Method, QueueSpec};

/// How full a queue is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueState {
    /// Its name.
    pub name: String,
    /// Messages ready to be delivered.
    pub messages: u32,
    /// Consumers.
    pub consumers: u32,
}

/// The type of a queue, as far as it decides how the queue is consumed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum QueueKind {
    Classic,
    Quorum,
    Stream,
    /// Of a plugin, or of a broker newer than this program.
    Other(String),
    /// The broker does not tell.
    Unknown,
}

impl QueueKind {
    /// A type as the management API names it.
    pub(super) fn of_name(name: &str) -> QueueKind {
        match name {
            "classic" => QueueKind::Classic,
            "quorum" => QueueKind::Quorum,
            "stream" => QueueKind::Stream,
            other => QueueKind::Other(other.to_owned()),
        }
    }

    /// The type that the broker names when it refuses an argument of a consumer: "… of queue type rabbit_classic_queue".
    pub(super) fn of_refusal(text: &str) -> QueueKind {
        let Some((_, module)) = text.rsplit_once(" of queue type ") else { return QueueKind::Unknown };
        let name = module.strip_prefix("rabbit_").unwrap_or(module);
        QueueKind::of_name(name.strip_suffix("_queue").unwrap_or(name))
    }

    /// Why a queue of this type cannot be consumed; `None`: it can.
    pub(super) fn refusal(&self, queue: &str) -> Option<Failure> {
        let (detail, remedy) = match self {
            QueueKind::Classic | QueueKind::Quorum | QueueKind::Unknown => return None,
            QueueKind::Stream => (
                "it is a stream: messages stay in it after they are acknowledged, and a consumer would have to choose and \
                 store the offset where it begins, which Warren does not do"
                    .to_owned(),
                "Bind a quorum queue to the exchange that feeds the stream, and consume that.",
            ),
            QueueKind::Other(kind) => (
                format!("its type is `{kind}`, and Warren consumes classic and quorum queues"),
                "Bind a quorum queue to the exchange that feeds the queue, and consume that.",
            ),
        };
        let what = format!("consume from queue `{queue}`");
        Some(Failure::new(FailureKind::Invalid, codes::QUEUE_MISFIT, what).detail(detail).remedy(remedy))
    }
}

/// A message taken from a queue with its way there. It has been acknowledged.
#[derive(Debug, Clone, PartialEq)]
pub struct Taken {
    /// The message.
    pub message: Message,
    /// The exchange it was published to.
    pub exchange: String,
    /// Its routing key.
    pub routing_key: String,
    /// Whether it was delivered before.
    pub redelivered: bool,
}

impl Rabbit {
    /// Declares a queue. One that is there with the same settings stays as it is.
    ///
    /// # Errors
    /// One of other settings is there, the user may not, or the broker cannot be reached.
    pub async fn declare_queue(&self, spec: &QueueSpec) -> Result<QueueState, Failure> {
        let what = || format!("declare queue `{}`", spec.name);
        queue_state(self.ask(Call::QueueDeclare(spec), what).await?, what)
    }

    /// Asks whether a queue is there, and how full.
    ///
    /// # Errors
    /// It is not there ([`NotFound`](warren_engine::failure::FailureKind::NotFound)), the user may not ask, or the broker
    /// cannot be reached.
    pub async fn queue_state(&self, queue: &str) -> Result<QueueState, Failure> {
        let what = || format!("look for queue `{queue}`");
        queue_state(self.ask(Call::QueuePassive { queue }, what).await?, what)
    }

    /// The type of a queue. AMQP has no question for it: a consumer with an invalid `x-stream-offset` is refused by every type
    /// of queue, each with other words, and before it takes a message.
    ///
    /// # Errors
    /// The queue does not exist, the user may not read it, or the broker cannot be reached.
    pub(super) async fn queue_kind(&self, queue: &str) -> Result<QueueKind, Failure> {
        const INVALID_OFFSET: &str = "5x";
        let what = || format!("look at queue `{queue}`");
        let channel = self.channel(what).await?;
        let offset = ("x-stream-offset".to_owned(), HeaderValue::Text(INVALID_OFFSET.to_owned()));
        let arguments: Headers = [offset].into_iter().collect();
        let options = ConsumeOptions { no_local: false, no_ack: false, exclusive: false, nowait: false };
        match channel.ask(Call::Consume { queue, options, arguments: &arguments }).await {
            Err(CallFault::Gone(gone)) => match &*gone {
                Gone::Channel(close) if close.code == 406 => Ok(match QueueKind::of_refusal(&close.text) {
                    QueueKind::Unknown if close.text.contains("invalid_stream_offset_arg") => {
                        QueueKind::Stream
                    }
                    kind => kind,
                }),
                gone => Err(gone.failure(what())),
            },
            Err(fault) => Err(fault.failure(what())),
            // A broker without streams knows no offsets. The channel ends here, and what it delivered goes back.
            Ok(_) => Ok(QueueKind::Unknown),
        }
    }

    /// Deletes a queue with its messages; yields how many. One that is not there is no error.
    ///
    /// # Errors
    /// The user may not, or the broker cannot be reached.
    pub async fn delete_queue(&self, queue: &str) -> Result<u32, Failure> {
        let what = || format!("delete queue `{queue}`");
        count(&self.ask(Call::QueueDelete { queue }, what).await?, what)
    }

    /// Throws away the messages of a queue that are ready; yields how many.
    ///
    /// # Errors
    /// It is not there, the user may not, or the broker cannot be reached.
    pub async fn purge_queue(&self, queue: &str) -> Result<u32, Failure> {
        let what = || format!("purge queue `{queue}`");
        count(&self.ask(Call::QueuePurge { queue }, what).await?, what)
    }

    /// Declares an exchange. One that is there with the same settings stays as it is.
    ///
    /// # Errors
    /// One of other settings is there, the user may not, or the broker cannot be reached.
    pub async fn declare_exchange(&self, spec: &ExchangeSpec) -> Result<(), Failure> {
        self.tell(Call::ExchangeDeclare(spec), || format!("declare exchange `{}`", spec.name)).await
    }

    /// Asks whether an exchange is there.
    ///
    /// # Errors
    /// It is not there ([`NotFound`](warren_engine::failure::FailureKind::NotFound)), the user may not ask, or the broker
    /// cannot be reached.
    pub async fn find_exchange(&self, exchange: &str) -> Result<(), Failure> {
        self.tell(Call::ExchangePassive { exchange }, || format!("look for exchange `{exchange}`")).await
    }

    /// Deletes an exchange. One that is not there is no error.
    ///
    /// # Errors
    /// The user may not, or the broker cannot be reached.
    pub async fn delete_exchange(&self, exchange: &str) -> Result<(), Failure> {
        self.tell(Call::ExchangeDelete { exchange }, || format!("delete exchange `{exchange}`")).await
    }

    /// Binds a queue to an exchange.
    ///
    /// # Errors
    /// One of them is not there, the user may not, or the broker cannot be reached.
    pub async fn bind(&self, binding: &Binding) -> Result<(), Failure> {
        self.tell(Call::QueueBind(binding), || {
            format!("bind queue `{}` to exchange `{}`", binding.queue, binding.exchange)
        })
        .await
    }

    /// Takes a binding away, which must be given exactly as it was made.
    ///
    /// # Errors
    /// The user may not, or the broker cannot be reached.
    pub async fn unbind(&self, binding: &Binding) -> Result<(), Failure> {
        self.tell(Call::QueueUnbind(binding), || {
            format!("unbind queue `{}` from exchange `{}`", binding.queue, binding.exchange)
        })
        .await
    }

    /// Takes one message from a queue, for good; `None` if it is empty.
    ///
    /// # Errors
    /// The queue is not there, the user may not, or the broker cannot be reached.
    pub async fn take_one(&self, queue: &str) -> Result<Option<Taken>, Failure> {
        let what = || format!("get a message from queue `{queue}`");
        let channel = self.channel(what).await?;
        match channel.ask(Call::Get { queue }).await.map_err(|fault| fault.failure(what()))? {
            Reply::Plain(Answer::GetEmpty) => Ok(None),
            Reply::Content(content) => {
                let Content { method, properties, body } = *content;
                let Method::GetOk { tag, redelivered, exchange, routing_key } = method else {
                    return Err(CallFault::Unexpected.failure(what()));
                };
                channel.send(Call::Ack { tag, multiple: false }).map_err(|fault| fault.failure(what()))?;
                let message = Message { body, properties };
                Ok(Some(Taken { message, exchange, routing_key, redelivered }))
            }
            Reply::Plain(_) | Reply::Closed => Err(CallFault::Unexpected.failure(what())),
        }
    }

    async fn channel(&self, what: impl Fn() -> String) -> Result<OpenChannel, Failure> {
        let connection = self.side().await?;
        let channel = connection.channel().await.map_err(|fault| fault.failure(what()))?;
        Ok(channel)
    }

    async fn ask(&self, call: Call<'_>, what: impl Fn() -> String) -> Result<Answer, Failure> {
        let channel = self.channel(&what).await?;
        match channel.ask(call).await.map_err(|fault| fault.failure(what()))? {
            Reply::Plain(answer) => Ok(answer),
            Reply::Content(_) | Reply::Closed => Err(CallFault::Unexpected.failure(what())),
        }
    }

    async fn tell(&self, call: Call<'_>, what: impl Fn() -> String) -> Result<(), Failure> {
        match self.ask(call, &what).await? {
            Answer::Ok => Ok(()),
            Answer::QueueDeclared { .. } | Answer::Count(_) | Answer::ConsumeOk { .. } | Answer::GetEmpty => {
                Err(CallFault::Unexpected.failure(what()))
            }
        }
    }

    /// What the broker says of itself: product and version.
    ///
    /// # Errors
    /// It cannot be reached.
    pub async fn server(&self) -> Result<(String, String), Failure> {
        let connection: Arc<_> = self.side().await?;
        let server = &connection.shared.server;
        Ok((server.product.clone(), server.version.clone()))
    }
}

fn queue_state(answer: Answer, what: impl Fn() -> String) -> Result<QueueState, Failure> {
    match answer {
        Answer::QueueDeclared { name, messages, consumers } => Ok(QueueState { name, messages, consumers }),
        Answer::Ok | Answer::Count(_) | Answer::ConsumeOk { .. } | Answer::GetEmpty => {
            Err(CallFault::Unexpected.failure(what()))
        }
    }
}

fn count(answer: &Answer, what: impl Fn() -> String) -> Result<u32, Failure> {
    match answer {
        Answer::Count(count) => Ok(*count),
        Answer::Ok | Answer::QueueDeclared { .. } | Answer::ConsumeOk { .. } | Answer::GetEmpty => {
            Err(CallFault::Unexpected.failure(what()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_broker_names_the_type_of_a_queue_when_it_refuses_an_argument() {
        let kind = |name: &str, queue_type: &str| {
            let text = format!(
                "PRECONDITION_FAILED - invalid arg 'x-priority' for queue '{name}' in vhost '/'{queue_type}"
            );
            QueueKind::of_refusal(&text)
        };
        assert_eq!(kind("q", " of queue type rabbit_classic_queue"), QueueKind::Classic);
        assert_eq!(kind("q", " of queue type rabbit_quorum_queue"), QueueKind::Quorum);
        assert_eq!(kind("q", " of queue type rabbit_stream_queue"), QueueKind::Stream);
        let odd = " of queue type rabbit_mqtt_qos0_queue";
        assert_eq!(kind("q", odd), QueueKind::Other("mqtt_qos0".to_owned()));
        assert_eq!(kind("q", ""), QueueKind::Unknown);
        assert_eq!(
            kind("a of queue type rabbit_stream_queue", " of queue type rabbit_classic_queue"),
            QueueKind::Classic
        );
    }
}
