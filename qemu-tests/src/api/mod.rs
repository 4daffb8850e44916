//! The same calls of Docker's API to two engines, and their answers side by side.
//!
//! * [`tour`]: the calls, made with an unmodified client library
//! * [`compare`]: the answers field by field; `differences.yml` lists where they may differ, and why

pub mod compare;
pub mod tour;
