//! The rabbitmq broker.
