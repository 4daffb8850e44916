//! System calls and ioctls that no crate wraps: the only crate with unsafe code
//!
//! - [`control`]: the protocol between PID 1 and the system engine
//! - [`evdev`]: input devices
//! - [`notify`]: sd_notify, the service's side
#![allow(unsafe_code)] // The one place where it may stand; each block says why it is sound.

pub mod control;
pub mod evdev;
pub mod notify;
