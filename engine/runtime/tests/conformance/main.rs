//! One table of what an OCI runtime must do, run against several runtimes.
//!
//! `KEELSON_RUNTIMES="NAME=PATH ..." conformance [PATTERN]` prints `ok CASE NAME`, `FAILED CASE NAME: why` or
//! `SKIPPED CASE NAME: why` for each case and runtime, then `N passed, N failed, N skipped`.
//! `conformance --time N` prints how long create, start and delete take instead.
//! Needs root, busybox (static) and a cgroup v2 file system at `/sys/fs/cgroup`.
//! As PID 1 it sets up a virtual machine first and turns it off at the end: see [`guest`].
//!
//! - [`cases`]: the table; [`suite`]: goes through it
//! - [`container`]: makes bundles and drives a runtime; [`console`]: the caller's side of a terminal
//! - [`guest`]: being PID 1; [`timing`]: the stopwatch

mod cases;
mod console;
mod container;
mod guest;
mod suite;
mod timing;

use std::process::ExitCode;

fn main() -> ExitCode {
    if std::process::id() == 1 {
        guest::main();
    }
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match suite::main(&arguments) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("conformance: {error:#}");
            ExitCode::FAILURE
        }
    }
}
