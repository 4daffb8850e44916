//! The system engine: runs the operating system's own services as containers.
//!
//! - [`api`]: types of the HTTP API on `/run/keelson/system.sock`

pub mod api;
