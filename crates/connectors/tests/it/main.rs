//! Connectors against real servers, which `./test` starts, and against files.

mod embedded;
mod rabbitmq;
