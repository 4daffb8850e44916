//! Applies the user's configuration at first boot: a one-shot service.
//!
//! It looks for a NoCloud seed on the disks that are there, applies it when its instance-id is new, and ends. It never waits,
//! and what is wrong with a seed costs that part of it alone. Exit status: 0, or 1 when something that was asked for was
//! not done.
//!
//! - [`seed`]: finds and reads the seed
//! - [`apply`]: applies it
//! - [`accounts`]: users and groups
//! - [`password`]: hashes of passwords
//! - [`state`]: where things are kept
//! - [`report`]: what people are told

mod accounts;
mod apply;
mod password;
mod report;
mod seed;
mod state;

use std::io;
use std::path::Path;
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use accounts::{Accounts, Day};
use anyhow::{Context as _, Result};
use apply::{Context, Outcome};
use report::Report;
use state::State;

/// `/etc` of the console's image.
const CONSOLE_ETC: &str = "/usr/share/keelson/console-etc";
const SECONDS_PER_DAY: u64 = 86_400;

fn main() -> ExitCode {
    let mut report = Report::new();
    if let Err(error) = run(&mut report) {
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
    let image_accounts = read_image_accounts()
        .with_context(|| format!("read the console's accounts in {CONSOLE_ETC}"))?;
    let today = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |time| time.as_secs() / SECONDS_PER_DAY);
    let context = Context {
        state: &state,
        image_accounts: &image_accounts,
        today: Day(today),
    };
    apply::prepare(&context, report);

    let devices = seed::block_devices(Path::new("/sys"), Path::new("/dev"));
    let mut unreadable = Vec::new();
    let found = seed::find(&devices, |problem| unreadable.push(problem));
    unreadable
        .into_iter()
        .for_each(|problem| report.error(problem));
    let Some(seed) = found else {
        report.info("no seed: none of the disks is labelled cidata");
        return Ok(());
    };
    match apply::apply(&context, &seed, report) {
        Outcome::Known => report.info(&format!("the seed on {} is applied already", seed.device)),
        Outcome::Applied { hostname } => {
            report.info(&format!("applied the seed on {}", seed.device));
            if let Some(hostname) = hostname {
                keelson_sys::notify::notify(&format!("X_KEELSON_HOSTNAME={hostname}"))
                    .context("tell the engine the hostname")?;
            }
        }
    }
    Ok(())
}

/// The console's accounts. An image may do without some of the files, but not without `passwd`.
fn read_image_accounts() -> io::Result<Accounts> {
    Accounts::read(
        |name| match std::fs::read_to_string(Path::new(CONSOLE_ETC).join(name)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && name != "passwd" => Ok(None),
            other => other.map(Some),
        },
    )
}
