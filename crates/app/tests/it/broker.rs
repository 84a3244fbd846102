//! A sync whose broker goes away, holds it back, closes its connections, or wants certificates.

mod connections;
mod own_broker;
mod soak;
mod tls;
