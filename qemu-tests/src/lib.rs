//! Boots Keelson in QEMU and shows that it does what it promises.
//!
//! * [`api`]: the same calls of Docker's API to two engines, and their answers side by side
//! * [`bench`]: how long Docker takes to answer and how much memory is used then, beside two references
//! * [`harness`]: virtual machines and the ways to talk to them; knows nothing of single tests
//! * [`tests`]: one file a topic; each test's name is the sentence that it proves
//! * [`runner`]: checks, the list of tests, the report

pub mod api;
pub mod bench;
pub mod harness;
pub mod runner;
pub mod tests;
