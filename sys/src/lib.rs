//! System calls and ioctls that no crate wraps: the only crate with unsafe code
//!
//! - [`block`]: block devices, partitions, loop devices, growth of ext4
//! - [`control`]: the protocol between PID 1 and the system engine
//! - [`device_mapper`]: dm-verity devices
//! - [`durable`]: durable writes into trees that others may write to
//! - [`inherited`]: descriptors left open by the parent process
//! - [`kexec`]: the next kernel, without the firmware
//! - [`machine`]: watchdog, entropy pool, loopback interface
//! - [`evdev`]: input devices
//! - [`notify`]: sd_notify, the service's side
//! - [`packet`]: packet sockets
//! - [`pidfd`]: processes by descriptor
//! - [`process`]: children with a control socket, a cgroup, a terminal
//! - [`socket`]: what the kernel knows of a connection
#![allow(unsafe_code)] // The one place where it may stand; each block says why it is sound.

pub mod block;
pub mod control;
pub mod device_mapper;
pub mod durable;
pub mod evdev;
pub mod inherited;
pub mod kexec;
pub mod machine;
pub mod notify;
pub mod packet;
pub mod pidfd;
pub mod process;
pub mod socket;
