//! System calls and ioctls that no crate wraps: the only crate with unsafe code
//!
//! - [`control`]: the protocol between PID 1 and the system engine
#![allow(unsafe_code)] // The one place where it may stand; each block says why it is sound.

pub mod control;
