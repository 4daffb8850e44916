//! The user engine's first process: starts containerd and dockerd side by side, keeps both running, and stops the
//! applications in order when the machine goes down.
//!
//! - [`supervisor`]: the loop over signals, dockerd's word and time; [`stop`]: the orderly end
//! - [`daemon`]: one of the two daemons: its process, and when it is started again
//! - [`settings`]: dockerd's configuration, the user's merged over ours
//! - [`bridge`]: which network docker0 is
//! - [`cgroup`]: a subtree for the daemons and one for the applications
//! - [`events`]: waiting for dockerd to have read its configuration again
//! - [`paths`]: where everything is
//!
//! Applications do not depend on either daemon: their shims are children of this process, dockerd runs with live
//! restore. Only the end of this process, PID 1 of the container, ends them.

pub mod bridge;
pub mod cgroup;
pub mod daemon;
pub mod events;
pub mod paths;
pub mod settings;
pub mod stop;
pub mod supervisor;
