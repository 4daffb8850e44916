//! `keelson-network`: addresses, routes and names for the machine's wired interfaces. The library has the parts.

use std::env;
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, anyhow};
use keelson_network::bridge;
use keelson_network::service::{self, Directories};
use keelson_network::{log, log::set_level};

const USAGE: &str = "usage: keelson-network [--run DIRECTORY] [--state DIRECTORY] [--sys-class-net DIRECTORY] [--proc-sys-net DIRECTORY]";

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            log!(Error, "{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    if let Some(level) = env::var_os("KEELSON_LOG") {
        set_level(&level.to_string_lossy()).map_err(|message| anyhow!(message))?;
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("starting the runtime")?;
    let mut arguments = env::args_os().skip(1);
    match env::args_os().nth(1) {
        Some(word) if word == "connect" => {
            let parser = lexopt::Parser::from_args(arguments.skip(1));
            let link = bridge::Link::parse(parser).context(bridge::USAGE)?;
            return runtime.block_on(bridge::connect(&link));
        }
        Some(word) if word == "remove" => {
            let name = arguments.nth(1).and_then(|name| name.into_string().ok());
            let name = name.context(bridge::USAGE)?;
            return runtime.block_on(bridge::remove(&name));
        }
        Some(word) if word == "route" => {
            let mut next = |at| arguments.nth(at)?.into_string().ok();
            let (pid, gateway) = (next(1), next(0));
            let pid = pid.and_then(|pid| pid.parse().ok());
            let gateway = gateway.and_then(|gateway| gateway.parse().ok());
            let (pid, gateway) = pid.zip(gateway).context(bridge::USAGE)?;
            return runtime.block_on(bridge::route(pid, gateway));
        }
        _ => {}
    }
    let directories = directories(arguments)?;
    std::fs::create_dir_all(&directories.state).unwrap_or_else(|error| {
        log!(
            Warning,
            "{}: {error}; leases are not kept",
            directories.state.display()
        )
    });
    runtime.block_on(service::run(directories))
}

fn directories(arguments: impl Iterator<Item = OsString>) -> Result<Directories> {
    use lexopt::prelude::Long;
    let mut directories = Directories {
        run: PathBuf::from("/run/keelson/network"),
        state: PathBuf::from("/state/config/network"),
        sys_class_net: PathBuf::from("/sys/class/net"),
        proc_sys_net: PathBuf::from("/proc/sys/net"),
        iptables: PathBuf::from("/usr/lib/keelson/images/docker"),
    };
    let mut parser = lexopt::Parser::from_args(arguments);
    while let Some(argument) = parser.next().context(USAGE)? {
        let directory = match argument {
            Long("run") => &mut directories.run,
            Long("state") => &mut directories.state,
            Long("sys-class-net") => &mut directories.sys_class_net,
            Long("proc-sys-net") => &mut directories.proc_sys_net,
            Long("iptables") => &mut directories.iptables,
            other => return Err(anyhow!(other.unexpected()).context(USAGE)),
        };
        *directory = parser.value().context(USAGE)?.into();
    }
    Ok(directories)
}
