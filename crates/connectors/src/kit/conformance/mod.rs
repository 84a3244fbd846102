//! What every connector of a kind must do, as functions that its tests call. Part of the library only with the feature
//! `conformance`, which this crate's own tests switch on.

pub mod broker;
