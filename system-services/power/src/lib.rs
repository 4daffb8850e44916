//! The power service: takes the machine down when its power key is pressed or somebody who may asks for it.
//!
//! - [`config`]: the settings
//! - [`action`]: what can be asked, and asking the engine for it
//! - [`keys`]: power keys, those plugged in later included
//! - [`socket`]: requests on the power socket
//! - [`history`]: boots and shutdowns as last(1) tells them

pub mod action;
pub mod config;
pub mod history;
pub mod keys;
pub mod socket;
