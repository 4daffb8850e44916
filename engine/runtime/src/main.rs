//! `keelson-runtime`: the OCI runtime command line on libcontainer, as a small static program.
//!
//! It is single-threaded on purpose: libcontainer allocates between `clone` and `exec`, which deadlocks
//! in a process with threads. Each command is one short-lived process.
//!
//! - [`arguments`]: the command line
//! - [`config`]: `config.json` made explicit, and refused where libcontainer would silently ignore a part
//! - [`create`], [`lifecycle`], [`exec`], [`update`]: the commands
//! - [`cgroup`]: freezing and removing a container's cgroup
//! - [`init_namespace`]: mount work that libcontainer leaves out, done in the container's mount namespace
//! - [`program`]: the last steps in the container's process before its program takes over
//! - [`terminal`]: pseudo terminals, and sending them to who asked for one
//! - [`record`]: where a container's records lie, and which process its init is
//! - [`first_error`]: turns libcontainer's trace events into one line that names the cause

mod arguments;
mod cgroup;
mod config;
mod create;
mod exec;
mod first_error;
mod init_namespace;
mod lifecycle;
mod program;
mod record;
mod terminal;
mod update;

use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;

use arguments::{Command, Invocation};

fn main() -> ExitCode {
    let invocation = match Invocation::parse(std::env::args_os()) {
        Ok(invocation) => invocation,
        Err(error) => {
            eprintln!("keelson-runtime: {error:#}");
            return ExitCode::FAILURE;
        }
    };
    match run(&invocation) {
        Ok(code) => code,
        Err(error) => {
            let line = format!("{}: {}", invocation.command, one_line(&error));
            match &invocation.log {
                Some(log) => append_to_log(log, &line),
                // With a log, stderr is the container's.
                None => eprintln!("keelson-runtime: {line}"),
            }
            ExitCode::FAILURE
        }
    }
}

fn run(invocation: &Invocation) -> anyhow::Result<ExitCode> {
    let root = &invocation.root;
    match &invocation.command {
        Command::Create(options) => create::create(root, options)?,
        Command::Start { id } => lifecycle::start(root, id)?,
        Command::State { id } => println!("{}", lifecycle::state(root, id)?),
        Command::Pause { id } => lifecycle::pause(root, id)?,
        Command::Resume { id } => lifecycle::resume(root, id)?,
        Command::Update(options) => update::update(root, options)?,
        Command::Kill { id, signal } => lifecycle::kill(root, id, *signal)?,
        Command::Delete { id, force } => lifecycle::delete(root, id, *force)?,
        Command::Exec(options) => return exec::exec(root, options),
        Command::Version => println!(
            "keelson-runtime version {}\nspec: {}",
            env!("CARGO_PKG_VERSION"),
            libcontainer::oci_spec::runtime::VERSION
        ),
    }
    Ok(ExitCode::SUCCESS)
}

/// The error and its causes on one line, each said once: libcontainer's errors often repeat their cause.
fn one_line(error: &anyhow::Error) -> String {
    let mut line = String::new();
    for cause in error.chain() {
        let text = cause.to_string().replace('\n', " ");
        if line.contains(&text) {
            continue;
        }
        if !line.is_empty() {
            line.push_str(": ");
        }
        line.push_str(&text);
    }
    line
}

/// The form that callers of OCI runtimes read from `--log`: one JSON object a line.
fn append_to_log(path: &Path, message: &str) {
    let entry = serde_json::json!({ "level": "error", "msg": message });
    let written = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .and_then(|mut file| writeln!(file, "{entry}"));
    if let Err(error) = written {
        eprintln!("keelson-runtime: write the log {}: {error}", path.display());
    }
}
