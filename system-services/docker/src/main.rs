//! Supervises containerd and dockerd inside the user engine's container. The parts are in the library. With the word `reload` it
//! tells the one that runs there to look whether its settings have changed.

use keelson_docker::paths::Paths;
use keelson_docker::supervisor;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::process::ExitCode;

fn main() -> ExitCode {
    let result = match std::env::args().nth(1).as_deref() {
        Some("reload") => kill(Pid::from_raw(1), Signal::SIGUSR1).map_err(Into::into),
        _ => supervisor::run(Paths::from_environment()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("<3>{error:#}");
            ExitCode::FAILURE
        }
    }
}
