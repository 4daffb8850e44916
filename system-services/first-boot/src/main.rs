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
use keelson_config::cloud_config::KeyImport;
use keelson_config::instance::{INSTANCE_FILE, Instance};
use keelson_config::sources::azure;
use keelson_config::sources::choice::Choice;
use keelson_config::sources::machine::{Machine, Platform};
use keelson_config::sources::{Source, nocloud};
use keelson_config::{Diagnostics, Position};
use keelson_first_boot::stored;
use metadata::What;
use report::Report;
use source::{disks, firmware, guestinfo};
use state::State;

/// Parts of the console's image: `etc` and `usr/share/zoneinfo`.
const CONSOLE_IMAGE: &str = "/usr/share/keelson/console";
/// `/sys/firmware` of the host: containers have an empty one.
const FIRMWARE: &str = "/run/firmware";
const MAX_RECORD_BYTES: u64 = 1024 * 1024;
const SECONDS_PER_DAY: u64 = 86_400;

fn main() -> ExitCode {
    let mut report = Report::new();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (what, root) = match arguments.split_first() {
        None => (None, PathBuf::from("/")),
        Some((word, options)) if word == "fetch" => match fetching(options) {
            Ok((what, root)) => (Some(what), root),
            Err(why) => {
                eprintln!("<3>{why}");
                return ExitCode::from(2);
            }
        },
        Some(_) => {
            eprintln!("usage: keelson-first-boot [fetch [--documents] [--keys=ID]...]");
            return ExitCode::from(2);
        }
    };
    let fetches = what.is_some();
    let ended = match what {
        None => run(&mut report),
        Some(what) => metadata::run(&root, what, &mut report),
    };
    let is_done = fetches && ended.is_ok();
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
    // All that could be fetched is there: that some of it is wrong is no reason to fetch it again.
    match is_done {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}

/// What is to be fetched, and the directory that all paths are below, which is for tests.
fn fetching(options: &[String]) -> Result<(What, PathBuf), String> {
    let mut what = What::default();
    let mut root = PathBuf::from("/");
    for option in options {
        if option == "--documents" {
            what.documents_only = true;
        } else if let Some(names) = option.strip_prefix("--datasources=") {
            let names = names.split(',').filter(|name| !name.is_empty());
            what.datasources = Some(names.map(str::to_owned).collect());
        } else if let Some(address) = option.strip_prefix("--seed-from=") {
            what.seed_from = Some(address.to_owned());
        } else if let Some(id) = option.strip_prefix("--keys=") {
            let import = KeyImport::parse(id, Position::default());
            what.imports
                .push(import.map_err(|why| format!("--keys: {why}"))?);
        } else if option.starts_with('-') {
            return Err(format!("`{option}` is no option"));
        } else {
            root = option.into();
        }
    }
    Ok((what, root))
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
    let machine = machine::read(Path::new("/"), choice(&state, report));
    let platform = machine.platform();
    if let Some(seed_from) = machine.nocloud().and_then(|asked| asked.seed_from)
        && !nocloud::is_address(&seed_from)
    {
        report.error(format!("ds=nocloud: `{seed_from}` is no address that begins with http:// or https://; disks are looked at"));
    }
    // An address that somebody gave counts before a disk that is there.
    let found = match &platform {
        Some(Platform::NoCloud(_)) => None,
        _ if machine.wants_none() => Some(nameless(&state)),
        _ => {
            let found = find(&machine, &mut diagnostics, report);
            metadata::overrule(&machine, found)
        }
    };
    let found = found.map(|found| with_kept(&state, found));
    // Azure's disc does not say all: its service is asked as well.
    let platform = platform.filter(|platform| match &found {
        None => true,
        Some(found) => found.from_disk.is_some() && *platform == Platform::Azure,
    });
    let is_found = found.is_some();
    let source = match found {
        Some(source) => source,
        None => {
            let kept = kept(&state, platform.as_ref(), report);
            match machine.allows(&kept.platform) {
                true => kept,
                false => nameless(&state),
            }
        }
    };
    if let Some(platform) = &platform
        && is_of_another_machine(&source, &machine)
    {
        report.warning(&format!(
            "{} said it to another machine: nothing of it is applied before it is asked",
            source.place
        ));
        apply::wait_for_source(&state, &machine, platform, report);
        return Ok(());
    }
    report.info(&format!(
        "instance `{}`, from {}",
        source.instance_id, source.place
    ));
    if is_found
        && source.platform != Source::default().platform
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

/// Whether this machine is a copy of the one that `source` was said to.
fn is_of_another_machine(source: &Source, machine: &Machine) -> bool {
    let this = machine.dmi("product_uuid");
    let other = source.machine.as_deref();
    !this.is_empty() && other.is_some_and(|other| !other.eq_ignore_ascii_case(this))
}

/// The data source that there is now, in the machine itself.
fn find(machine: &Machine, diagnostics: &mut Diagnostics, report: &mut Report) -> Option<Source> {
    let devices = source::block_devices(Path::new("/sys"), Path::new("/dev"));
    let uuid = machine.dmi("product_uuid");
    let mut unreadable = Vec::new();
    let found = disks::find(&devices, machine, |problem| {
        unreadable.push(problem);
    });
    unreadable
        .into_iter()
        .for_each(|problem| report.error(problem));
    let is_allowed = |source: &Source| machine.allows(&source.platform);
    found
        .and_then(|found| found.read(uuid, diagnostics))
        .filter(is_allowed)
        .or_else(|| firmware::find(Path::new(FIRMWARE), uuid, diagnostics, report))
        .filter(is_allowed)
        .or_else(|| guestinfo::find(machine, diagnostics, report))
        .filter(is_allowed)
}

/// Which data sources the layers allow that are there before any is asked.
fn choice(state: &State, report: &mut Report) -> Choice {
    let line = std::fs::read_to_string("/proc/cmdline").unwrap_or_else(|error| {
        report.warning(&format!("read the kernel command line: {error}"));
        String::new()
    });
    // What cannot be read is said when all layers are put together.
    let inputs = stored::inputs(&state.config, Source::default(), &line, &mut |_| ());
    keelson_config::layers::choice(&inputs)
}

/// What a disk says, with what its platform's service said at an earlier boot beside it.
fn with_kept(state: &State, mut found: Source) -> Source {
    if found.from_disk.is_none() {
        return found;
    }
    let kept = stored::kept(&state.config).ok().flatten();
    let is_it = |kept: &Source| {
        kept.platform == found.platform && azure::is_same(&kept.instance_id, &found.instance_id)
    };
    let Some(kept) = kept.filter(is_it) else {
        return found;
    };
    // As it was spelled when it became this instance.
    found.instance_id.clone_from(&kept.instance_id);
    match kept.from_disk.as_ref().is_none_or(|disk| disk.answered) {
        true => found.with_service(kept),
        false => found,
    }
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
