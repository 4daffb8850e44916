//! `keelson network`.
//!
//! - `status`: what the network is

mod status;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use keelson_config::Diagnostics;
use keelson_config::instance::{CONFIG_DIRECTORY, NETWORK_FILE};
use keelson_config::network::Network;
use keelson_config::network::trial::{TRIAL_FILE, Trial};
use keelson_config::sources::nocloud;
use keelson_config::yaml::{self, Node};
use keelson_sys::durable::{Access, Tree};

use crate::arguments::{self, Config};
use crate::config;
use crate::failure::Failure;
use crate::output::Output;

/// Where the network service writes.
const DIRECTORY: &str = "/run/keelson/network";

/// How long making it last may take, in seconds.
const CONFIRMING_S: u64 = 120;
/// Where the configuration has it.
const KEY: &str = "keelson.network";

/// Runs a command about the network.
pub(crate) fn run(command: arguments::Network, output: &mut Output<'_>) -> Result<(), Failure> {
    match command {
        arguments::Network::Status => status::status(output),
        arguments::Network::Apply { file, confirm } => apply(&file, confirm, output),
        arguments::Network::Confirm => confirm(output),
    }
}

fn apply(file: &Path, time: Option<Duration>, output: &mut Output<'_>) -> Result<(), Failure> {
    let bytes = config::read(file)?;
    let name = file.display().to_string();
    let document = String::from_utf8_lossy(&bytes).into_owned();
    let node = check(&document, &name, output)?;
    let Some(time) = time else {
        return keep(node, output);
    };
    let network = config::network_with(KEY, node)?.unwrap_or_else(Network::dhcp_everywhere);
    let trial = Trial {
        boot_id: boot_id()?,
        ends_at_s: now_s().saturating_add(time.as_secs()),
        document,
        network,
    };
    write_trial(Some(&trial))?;
    if output.json {
        return output.value(&serde_json::json!({"ends_at_s": trial.ends_at_s}));
    }
    let time = humantime::format_duration(time);
    output.text(&format!(
        "The network is what {name} says, for {time}; `keelson network confirm` keeps it.\n"
    ))
}

/// The document's content, when nothing of it is an error.
fn check(document: &str, name: &str, output: &mut Output<'_>) -> Result<Node, Failure> {
    let mut diagnostics = Diagnostics::new("");
    let found = nocloud::network_config_of(document.as_bytes(), name, &mut diagnostics);
    let messages = diagnostics.into_sorted();
    if !messages.is_empty() {
        config::report(messages, output)?;
    }
    match (found, yaml::parse(document)) {
        (Some(_), Ok(parsed)) => Ok(parsed.root),
        _ => Err(Failure::Failed(format!("{name}: nothing is in it"))),
    }
}

fn confirm(output: &mut Output<'_>) -> Result<(), Failure> {
    let boot_id = boot_id()?;
    let trial = read_trial()?.filter(|trial| trial.holds(&boot_id, now_s()));
    let Some(mut trial) = trial else {
        return Err(Failure::Failed(
            "nothing is tried out: its time is over, or there was nothing".to_owned(),
        ));
    };
    // It must not end while it is made to last.
    trial.ends_at_s = now_s().saturating_add(CONFIRMING_S);
    write_trial(Some(&trial))?;
    let parsed = yaml::parse(&trial.document);
    let parsed =
        parsed.map_err(|error| Failure::Failed(format!("{TRIAL_FILE}: {}", error.message)))?;
    keep(parsed.root, output)
}

/// Makes a document the configuration's. What is tried out ends: it is what the configuration says by now, or is another one.
fn keep(node: Node, output: &mut Output<'_>) -> Result<(), Failure> {
    config::replace(KEY, node)?;
    // Something else in the configuration may be wrong, which is said and changes nothing here.
    let applied = config::run(Config::Apply, output);
    write_trial(None)?;
    applied
}

fn boot_id() -> Result<String, Failure> {
    let id = fs::read_to_string("/proc/sys/kernel/random/boot_id");
    let id = id.map_err(|error| Failure::Failed(format!("read the boot's id: {error}")))?;
    Ok(id.trim().to_owned())
}

/// Seconds since the machine's start.
fn now_s() -> u64 {
    let uptime = fs::read_to_string("/proc/uptime").unwrap_or_default();
    let seconds = uptime.split('.').next();
    seconds
        .and_then(|seconds| seconds.parse().ok())
        .unwrap_or(0)
}

fn trial_path() -> PathBuf {
    let network = Path::new(NETWORK_FILE).with_file_name(TRIAL_FILE);
    Path::new(CONFIG_DIRECTORY).join(network)
}

/// What is tried out.
fn read_trial() -> Result<Option<Trial>, Failure> {
    let path = trial_path();
    let unreadable = |error: io::Error| config::unreadable(&path.display().to_string(), &error);
    match fs::read(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(unreadable(error)),
        Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| unreadable(error.into())),
    }
}

/// Writes what is tried out, or takes it away; the network service hears of it.
fn write_trial(trial: Option<&Trial>) -> Result<(), Failure> {
    let config = Tree::open(Path::new(CONFIG_DIRECTORY))
        .map_err(|error| config::unreadable(CONFIG_DIRECTORY, &error))?;
    let path = Path::new(NETWORK_FILE).with_file_name(TRIAL_FILE);
    let written = match trial {
        Some(trial) => serde_json::to_vec(trial)
            .map_err(io::Error::other)
            .and_then(|json| config.write(&path, &json, Access::root(0o600))),
        None => config.remove(&path),
    };
    written.map_err(|error| {
        let hint = match error.kind() {
            io::ErrorKind::PermissionDenied => " (use sudo)",
            _ => "",
        };
        Failure::Failed(format!("write {}: {error}{hint}", trial_path().display()))
    })
}
