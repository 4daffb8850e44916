//! Applies the machine's configuration, at each boot: a one-shot service.
//!
//! It looks for a data source on the disks that are there, puts the layers of the configuration together, applies them, and ends.
//! It never waits, and what is wrong with a document costs that part of it alone. Exit status: 0, or 1 when something that was
//! asked for was not done. `keelson-first-boot fetch` is another service, which asks data sources on the network.
//!
//! - [`source`]: finds and reads data sources on disks
//! - [`machine`]: what the machine says of itself
//! - [`metadata`]: the other service
//! - [`layers`]: what the configuration is, of all its parts
//! - [`apply`]: applies it
//! - [`accounts`]: users and groups
//! - [`password`]: hashes of passwords
//! - [`state`]: where things are kept
//! - [`report`]: what people are told

mod accounts;
mod apply;
mod layers;
mod machine;
mod metadata;
mod password;
mod report;
mod source;
mod state;

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use accounts::{Accounts, Day};
use anyhow::{Context as _, Result};
use apply::Context;
use keelson_config::Diagnostics;
use keelson_config::instance::{INSTANCE_FILE, Instance};
use keelson_config::sources::Source;
use keelson_config::sources::machine::Platform;
use keelson_first_boot::stored;
use report::Report;
use source::disks;
use state::State;

/// Parts of the console's image: `etc` and `usr/share/zoneinfo`.
const CONSOLE_IMAGE: &str = "/usr/share/keelson/console";
const MAX_RECORD_BYTES: u64 = 1024 * 1024;
const SECONDS_PER_DAY: u64 = 86_400;

fn main() -> ExitCode {
    let mut report = Report::new();
    let mut arguments = std::env::args_os().skip(1);
    let ended = match (arguments.next(), arguments.next(), arguments.next()) {
        (None, _, _) => run(&mut report),
        // The directory that all paths are below is for tests.
        (Some(word), root, None) if word == "fetch" => {
            metadata::run(&root.map_or_else(|| "/".into(), PathBuf::from), &mut report)
        }
        _ => {
            eprintln!("usage: keelson-first-boot [fetch]");
            return ExitCode::from(2);
        }
    };
    if let Err(error) = ended {
        report.error(format!("{error:#}"));
    }
    let Some(first) = report.errors().first() else {
        return ExitCode::SUCCESS;
    };
    // What `keelson status` shows. Nobody listens when the program is run by hand.
    if let Err(error) = keelson_sys::notify::notify(&format!("STATUS={first}")) {
        report.warning(&format!("tell the engine: {error}"));
    }
    ExitCode::FAILURE
}

fn run(report: &mut Report) -> Result<()> {
    let state = State::open(Path::new("/"))?;
    let image = Path::new(CONSOLE_IMAGE);
    let image_accounts = read_image_accounts(image)
        .with_context(|| format!("read the console's accounts in {CONSOLE_IMAGE}/etc"))?;
    let today = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |time| time.as_secs() / SECONDS_PER_DAY);
    let boot_id =
        std::fs::read_to_string("/proc/sys/kernel/random/boot_id").context("read the boot's id")?;
    let context = Context {
        state: &state,
        image_accounts: &image_accounts,
        image,
        today: Day(today),
        boot_id: boot_id.trim(),
    };
    let mut diagnostics = Diagnostics::new("");
    let machine = machine::read(Path::new("/"));
    let platform = machine.platform();
    // An address that somebody gave counts before a disk that is there.
    let found = match &platform {
        Some(Platform::NoCloud(_)) => None,
        _ if machine.wants_none() => Some(nameless(&state)),
        _ => metadata::overrule(&machine, find(&mut diagnostics, report)),
    };
    let platform = platform.filter(|_| found.is_none());
    let source = match found {
        Some(source) => source,
        None => kept(&state, platform.as_ref(), report),
    };
    report.info(&format!(
        "instance `{}`, from {}",
        source.instance_id, source.place
    ));
    if source.platform != Source::default().platform
        && let Err(error) = stored::keep(&state.config, &source)
    {
        report.error(format!("write /state/config/source: {error}"));
    }
    let wanted = layers::assemble(
        &state,
        source,
        &machine,
        platform.as_ref(),
        &mut diagnostics,
        report,
    );
    report.diagnostics(diagnostics);
    let outcome = apply::apply(&context, &wanted, report);
    match outcome.is_new {
        true => report.info("a new instance: all is applied"),
        false => report.info("the same instance as before: its settings are applied"),
    }
    if let Some(hostname) = outcome.hostname {
        keelson_sys::notify::notify(&format!("X_KEELSON_HOSTNAME={hostname}"))
            .context("tell the engine the hostname")?;
    }
    Ok(())
}

/// The data source that there is now.
fn find(diagnostics: &mut Diagnostics, report: &mut Report) -> Option<Source> {
    let devices = source::block_devices(Path::new("/sys"), Path::new("/dev"));
    let mut unreadable = Vec::new();
    let found = disks::find(&devices, |problem| unreadable.push(problem));
    unreadable
        .into_iter()
        .for_each(|problem| report.error(problem));
    found?.read(diagnostics)
}

/// What the data source said last, or what holds when there never was one.
fn kept(state: &State, platform: Option<&Platform>, report: &mut Report) -> Source {
    match stored::kept(&state.config) {
        Ok(Some(source)) => {
            let why = match platform {
                Some(_) => "is asked when there is a network",
                None => "is away",
            };
            report.info(&format!(
                "{} {why}: what it said last is used",
                source.place
            ));
            source
        }
        Ok(None) => nameless(state),
        Err(error) => {
            report.error(format!(
                "read /state/config/source: {error}; it is not used"
            ));
            nameless(state)
        }
    }
}

/// Nothing is said of the machine: it stays the instance that it is.
fn nameless(state: &State) -> Source {
    let record = state
        .config
        .read(Path::new(INSTANCE_FILE), MAX_RECORD_BYTES);
    let known = record.ok().flatten();
    let known = known.and_then(|record| Instance::from_json(&record).ok());
    let mut source = Source::default();
    if let Some(known) = known.filter(|known| !known.instance_id.is_empty()) {
        source.instance_id = known.instance_id;
    }
    source
}

/// The console's accounts. An image may do without some of the files, but not without `passwd`.
fn read_image_accounts(image: &Path) -> io::Result<Accounts> {
    Accounts::read(
        |name| match std::fs::read_to_string(image.join("etc").join(name)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && name != "passwd" => Ok(None),
            other => other.map(Some),
        },
    )
}
