//! The log service: collects what the system prints and keeps it on disk.
//!
//! - [`config`]: the settings
//! - [`handover`], [`pipes`], [`spool`], [`lines`]: the containers' output
//! - [`kmsg`]: the kernel's messages; [`syslog`]: those of programs that use syslog(3)
//! - [`store`], [`ring`], [`record`], [`positions`], [`sync`]: what is kept, and how it survives crashes and power cuts
//! - `budget`: how much of it each service may have
//! - [`reader`], [`query`]: who asks
//! - [`forward`]: sends the log to syslog servers, as a service of its own
//! - [`clock`]: the time on records; [`watch`]: waiting for descriptors
//!
//! Everything runs on one thread, except fdatasync(2). No line is dropped: when the disk is slow the pipes fill up
//! and the services wait.

mod budget;
pub mod clock;
pub mod config;
pub mod forward;
pub mod handover;
pub mod kmsg;
pub mod lines;
pub mod pipes;
pub mod positions;
pub mod query;
pub mod reader;
pub mod record;
pub mod ring;
pub mod spool;
pub mod store;
pub mod sync;
pub mod syslog;
pub mod watch;
