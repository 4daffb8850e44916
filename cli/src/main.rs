//! The keelson command line.
//!
//! It asks the engine over its HTTP API, the log service and the power service over their sockets, and shows the answers
//! to people or, with `--json`, to programs. Exit statuses are those of [`failure::Failure`].
//!
//! - [`arguments`]: the commands
//! - [`service`]: everything about services, and the images of two of them: console and user engine
//! - [`config`]: the machine's configuration
//! - [`network`]: links and addresses
//! - [`os`]: versions of the operating system
//! - [`install`]: the system onto another disk
//! - [`status`]: the whole system at a glance
//! - [`boot`]: the time line, as bars or as an SVG picture
//! - [`power`]: `reboot`, `poweroff`, `halt`, also under their classic names
//! - [`client`]: requests to the engine
//! - [`output`]: standard output; tables, durations, sizes
//! - [`failure`]: what can go wrong, and the exit status of each

mod arguments;
mod boot;
mod client;
mod config;
mod failure;
mod install;
mod network;
mod os;
mod output;
mod power;
mod service;
mod status;

use std::ffi::OsString;
use std::io;
use std::path::Path;
use std::process::ExitCode;

use arguments::{Arguments, Command};
use clap::{CommandFactory, Parser};
use failure::Failure;
use output::Output;

fn main() -> ExitCode {
    let mut arguments: Vec<OsString> = std::env::args_os().collect();
    // `reboot`, `poweroff`, `halt` and `shutdown` are links to this program.
    let name = arguments
        .first()
        .and_then(|path| Path::new(path).file_name())
        .unwrap_or_default()
        .to_owned();
    if let Some(parsed) = power::classic(
        &name.to_string_lossy(),
        arguments.get(1..).unwrap_or_default(),
    ) {
        return match parsed {
            Ok(action) => finish(
                run(Command::Power(action), &mut Output::stdout(false)),
                false,
            ),
            Err(failure) => finish(Err(failure), false),
        };
    }
    if let Some(first) = arguments.first_mut() {
        *first = "keelson".into();
    }
    let arguments = Arguments::parse_from(arguments);
    let json = arguments.json;
    finish(
        run(arguments.command.into(), &mut Output::stdout(json)),
        json,
    )
}

fn run(command: Command, output: &mut Output<'_>) -> Result<(), Failure> {
    match command {
        Command::Service(command) => service::run(command, output),
        Command::Image(service, switch) => service::switch::run(service, switch, output),
        Command::Config(command) => config::run(command, output),
        Command::Network(command) => network::run(command, output),
        Command::Os(command) => os::run(command, output),
        Command::Install(command) => install::run(command, output),
        Command::Status => status::run(output),
        Command::Boot { svg } => boot::run(svg, output),
        Command::Power(action) => power::run(action, output),
        Command::Completion(shell) => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Arguments::command(), "keelson", &mut script);
            output.bytes(&script)
        }
    }
}

/// Says what went wrong, and gives the exit status.
fn finish(result: Result<(), Failure>, json: bool) -> ExitCode {
    let failure = match result {
        Ok(()) => return ExitCode::SUCCESS,
        // Whoever read the output has read enough.
        Err(Failure::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => {
            return ExitCode::SUCCESS;
        }
        Err(failure) => failure,
    };
    if json {
        eprintln!(
            "{}",
            serde_json::json!({"error": failure.to_string(), "status": failure.status()})
        );
    } else {
        eprintln!("keelson: {failure}");
    }
    ExitCode::from(failure.status())
}
