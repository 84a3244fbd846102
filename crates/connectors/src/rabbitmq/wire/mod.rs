//! The bytes of AMQP 0-9-1: frames, methods, properties and field tables, to and from the engine's words.
//!
//! Pure: no input or output, no clock. Nothing here panics on any bytes; what does not follow the protocol is
//! [`Malformed`], and what cannot be said in the protocol is [`Unsayable`].

pub(crate) mod content;
pub(crate) mod field;
pub(crate) mod frame;
pub(crate) mod method;
pub(crate) mod publish;
pub(crate) mod table;

/// Bytes of the broker that do not follow the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(pub &'static str);

/// A value that AMQP has no way to say.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unsayable {
    /// A short string may have 255 bytes.
    #[error("{what} has {bytes} bytes; AMQP allows 255")]
    TooLong {
        /// Which value.
        what: &'static str,
        /// How long it is.
        bytes: usize,
    },
    /// All properties and headers must fit one frame.
    #[error("properties and headers take {bytes} bytes; a frame of this connection takes {allowed}")]
    HeadersTooLarge {
        /// What they take, encoded.
        bytes: usize,
        /// What fits.
        allowed: usize,
    },
    /// Headers nested too deep.
    #[error("headers are nested deeper than {0} levels")]
    TooDeep(usize),
    /// RabbitMQ closes the connection when it reads an infinite number or a NaN.
    #[error("a header is an infinite number or not a number")]
    NotFinite,
}
