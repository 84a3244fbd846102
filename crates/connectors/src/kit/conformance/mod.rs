//! What every connector of a kind must do, as functions that its tests call. Part of the library only with the feature
//! `conformance`, which this crate's own tests switch on.
#![expect(clippy::missing_panics_doc, reason = "a case that does not hold panics; that is what it is for")]

pub mod broker;
