//! First process of the console's container.
//!
//! The console's root is fresh at each boot. This program gives it what the machine's configuration says (accounts, files,
//! host keys), keeps a getty on each console and sshd running, runs the scripts of a new instance once, and reaps. It does
//! not wait for first-boot: what that writes is taken over when it appears.
//!
//! - [`console`]: the whole, as a loop over events
//! - [`events`]: signals, changed files, a changed hostname
//! - [`children`]: programs that are started again when they end
//! - [`accounts`]: `/etc/passwd` and its like, in both directions
//! - [`layers`]: the files that a cloud-config writes
//! - [`host_keys`]: sshd's keys
//! - [`scripts`]: what runs once per instance
//! - [`terminals`]: the consoles that the kernel has
//! - [`log`]: what people are told

mod accounts;
mod children;
mod console;
mod events;
mod host_keys;
mod layers;
mod log;
mod scripts;
mod terminals;

use std::process::ExitCode;

fn main() -> ExitCode {
    match console::run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            log::error(&format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}
