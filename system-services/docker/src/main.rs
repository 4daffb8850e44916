//! Supervises containerd and dockerd inside the user engine's container. The parts are in the library.

use keelson_docker::paths::Paths;
use keelson_docker::supervisor;
use std::process::ExitCode;

fn main() -> ExitCode {
    match supervisor::run(Paths::from_environment()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("<3>{error:#}");
            ExitCode::FAILURE
        }
    }
}
