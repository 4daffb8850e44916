//! The engine with real containers: crun (or what `KEELSON_RUNTIME` names) on busybox, each test in a mount namespace
//! and below a cgroup of its own. Needs root, as in `./mkimage.sh tools`; elsewhere the tests are skipped.
//!
//! - `world`: one engine and its surroundings; `place`: where it lives
//! - `pid1`: plays PID 1: keeps descriptors, reaps, starts the engine again
//! - `order`, `restarts`, `crash`, `broken`, `output`, `requests`, `sockets`, `definitions`, `upgrade`, `kills`, `failpoints`,
//!   `commands`, `crowd`: the tests

mod broken;
mod commands;
mod crash;
mod crowd;
mod definitions;
mod failpoints;
mod kills;
mod order;
mod output;
mod pid1;
mod place;
mod requests;
mod restarts;
mod sockets;
mod upgrade;
mod world;

/// A loop that ends at once when it is asked to.
const PATIENT: &str = "[sh, -c, \"trap 'exit 0' TERM; while :; do sleep 1000 & wait $$!; done\"]";
