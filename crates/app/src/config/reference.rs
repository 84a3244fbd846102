//! The reference page of the configuration, written from the schema.
