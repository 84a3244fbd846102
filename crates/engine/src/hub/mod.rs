//! The hub: HTTP in front of exchanges and queues. What RabbitHub did and what a W3C WebSub hub does, without input or output.
//!
//! A delivery to a callback is the loop of [`consume`](crate::consume) with another handler; nothing of it is written twice.
//!
//! | idea | module |
//! |---|---|
//! | what somebody asks of a subscription | [`request`] |
//! | a queue or an exchange of a virtual host | [`resource`] |
//! | who hears of what, for how long, and how that goes | [`subscription`] |
//! | paths and parameters of requests | [`path`], [`params`] |
//! | what is published by HTTP, with all of AMQP's types | [`publish`], [`typed`] |
//! | tokens; descriptions; export and import | [`token`]; [`describe`]; [`batch`] |
//! | what the operator decides | [`settings`] |
//! | the world: the topology, the users, the stored subscriptions | [`ports`] |
//! | all subscriptions, and what is done to them | [`registry`] |
//! | asking a callback whether it agrees | [`verify`] |
//! | URLs that others give us and we call | [`callback`] |
//! | what is granted, and when it ends | [`lease`] |
//! | the queue of a subscription | [`topology`] |
//! | what is done later, and again until it works | [`chores`] |
//! | a consumer for each active subscription | [`delivering`] |
//! | the handler that posts a message to a callback | [`push`] |
//! | what a failed delivery means | [`trouble`] |
//! | signatures | [`sign`] |
//! | topics that are URLs | [`websub`] |

pub mod batch;
pub mod callback;
pub mod chores;
pub mod delivering;
pub mod describe;
pub mod lease;
pub mod params;
pub mod path;
pub mod ports;
pub mod publish;
pub mod push;
pub mod registry;
pub mod request;
pub mod resource;
pub mod settings;
pub mod sign;
pub mod subscription;
pub mod token;
pub mod topology;
pub mod trouble;
pub mod typed;
pub mod verify;
pub mod websub;

pub use registry::{Hub, HubPorts};
