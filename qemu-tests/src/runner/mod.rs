//! Checks, the list of tests, the report.
//!
//! * [`checks`]: format, lints, dependencies, unit tests, shell syntax, building the images, the OCI runtime
//! * [`lanes`]: the order in which tests run, and which run beside each other
//! * [`report`]: what passed, what failed, and where to look
//! * [`select`]: which tests are meant by the names on the command line

pub mod checks;
pub mod lanes;
pub mod report;
pub mod select;
