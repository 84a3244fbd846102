//! Connectors against real servers, which `./test` starts.

mod rabbitmq;
