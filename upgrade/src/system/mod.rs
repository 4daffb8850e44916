//! The operating system on its disk: what is asked of the service comes together here.
//!
//! - [`upgrade`]: another version into the other slot
//! - [`kexec`]: starting again without the firmware
//! - [`rollback`]: back to what is there
//! - [`reset`]: the state partition made anew
//! - [`trial`]: the verdict on this boot
//! - [`policy`]: what is done without being asked

mod kexec;
mod policy;
mod reset;
mod rollback;
mod trial;
mod upgrade;

use std::fs;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use crate::checks::Checker;
use crate::disk::{SystemDisk, slot_of};
use crate::entry::{Entry, compare_versions};
use crate::esp::{Esp, Loader};
use crate::health::Engine;
use crate::journal::Journal;
use crate::protocol::{Happened, Offer, Slot, Status};
use crate::release::document::Description;
use crate::release::find;
use crate::release::signature::Keys;
use crate::settings::Settings;
use crate::source::{Reader, Source};
use policy::{Plan, rfc3339};

/// Where everything is.
#[derive(Clone, Debug)]
pub struct Paths {
    /// `/sys/class/block`
    pub block: PathBuf,
    /// `/dev`
    pub devices: PathBuf,
    /// `/proc/cmdline`
    pub command_line: PathBuf,
    /// `/proc/sys/kernel/random/boot_id`
    pub boot_id: PathBuf,
    /// `os-release` of the running system.
    pub os_release: PathBuf,
    /// The release keys that it trusts.
    pub keys: PathBuf,
    /// The service's directory on the state partition.
    pub state: PathBuf,
    /// What the configuration says.
    pub settings: PathBuf,
    /// Where the EFI system partition is mounted when it is needed.
    pub esp: PathBuf,
    /// The log service's query socket.
    pub log: PathBuf,
    /// The machine's id.
    pub machine_id: PathBuf,
    /// What the network service says, a directory.
    pub network: PathBuf,
    /// Where PID 1 looks for what kexec starts.
    pub kexec: PathBuf,
    /// `/sys/kernel/security/lockdown`
    pub lockdown: PathBuf,
}

/// The word of the kernel's command line that media have.
const LIVE: &str = "keelson.live=1";

/// Mounts a device at a directory, perhaps to be read only.
pub type Mount = fn(&Path, &Path, bool) -> Result<Esp>;

/// The operating system.
#[derive(Debug)]
pub struct System {
    /// How the EFI system partition is mounted.
    mount: Mount,
    paths: Paths,
    reader: Reader,
    engine: Engine,
    checker: Checker,
    /// Held by an upgrade or a rollback.
    changing: Mutex<()>,
    /// Held while the EFI system partition is mounted.
    mounting: Mutex<()>,
    /// The trial that this boot is.
    trial: Mutex<Option<String>>,
    /// What comes by itself.
    plan: Mutex<Plan>,
}

impl System {
    /// The system that is described by these.
    pub fn new(paths: Paths, reader: Reader, engine: Engine, mount: Mount) -> Self {
        let checker = Checker {
            exchange: reader.clone(),
            engine: engine.socket.clone(),
        };
        System {
            mount,
            paths,
            reader,
            engine,
            checker,
            changing: Mutex::default(),
            mounting: Mutex::default(),
            trial: Mutex::default(),
            plan: Mutex::default(),
        }
    }

    /// How it stands.
    ///
    /// # Errors
    /// The running version or the EFI system partition cannot be read.
    pub fn status(&self) -> Result<Status> {
        let settings = self.settings()?;
        let plan = self.plan();
        let mut status = Status {
            version: self.version()?,
            slots: Vec::new(),
            trial: self.trial.lock().map_or(None, |trial| trial.clone()),
            source: settings.source,
            trusts: !self.keys()?.is_empty(),
            unable: None,
            policy: settings.policy.as_str().to_owned(),
            next_check: plan.next_check.map(rfc3339),
            last_check: plan.last_check,
            next_restart: plan.next_restart.map(rfc3339),
            floor: self
                .journal()
                .and_then(|journal| journal.floor())
                .ok()
                .flatten(),
        };
        let entries = self
            .disk()
            .and_then(|disk| self.esp(&disk, true)?.entries());
        let entries = match entries {
            Ok(entries) => entries,
            Err(error) => {
                status.unable = Some(format!("{error:#}"));
                return Ok(status);
            }
        };
        for (place, entry) in entries.iter().enumerate() {
            status.slots.push(Slot {
                version: entry.version.clone(),
                running: entry.version == status.version,
                next: place == 0,
                standing: match entry.tries {
                    None => "good",
                    Some(_) if entry.is_bad() => "given up",
                    Some(_) => "on trial",
                }
                .to_owned(),
            });
        }
        Ok(status)
    }

    /// All that happened.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn history(&self) -> Result<Vec<Happened>> {
        self.journal()?.history()
    }

    /// The releases of a source, by their tags, the newest first.
    ///
    /// # Errors
    /// The source cannot be reached.
    pub fn list(&self, source: Option<&str>) -> Result<Vec<Offer>> {
        let version = self.version()?;
        let tags = self.source(source)?.tags()?;
        let found = tags.iter().filter_map(|tag| Description::version_of(tag));
        let mut versions: Vec<String> = found.collect();
        versions.sort_by(|left, right| compare_versions(right, left));
        versions.dedup();
        let offer = |offered: String| Offer {
            newer: compare_versions(&offered, &version).is_gt(),
            version: offered,
            created: None,
            size_bytes: None,
        };
        Ok(versions.into_iter().map(offer).collect())
    }

    /// The release that a source recommends.
    ///
    /// # Errors
    /// The source cannot be reached, or the release is not to be trusted.
    pub fn check(&self, source: Option<&str>) -> Result<Offer> {
        let version = self.version()?;
        let mut source = self.source(source)?;
        let target = source.target().to_owned();
        let release = find(&mut source, &target, &self.keys()?)?;
        Ok(Offer {
            newer: compare_versions(&release.description.version, &version).is_gt(),
            size_bytes: Some(release.root.size + release.uki.size),
            created: Some(release.description.created),
            version: release.description.version,
        })
    }

    fn source(&self, name: Option<&str>) -> Result<Source> {
        let configured = self.settings()?.source;
        let name = name.map(str::to_owned).or(configured).context(
            "there is no source of releases: name one with --source, or set keelson.upgrade.source",
        )?;
        Ok(Source::new(&self.reader, &name))
    }

    fn keys(&self) -> Result<Keys> {
        Ok(Keys::read(&self.paths.keys)?)
    }

    fn settings(&self) -> Result<Settings> {
        Settings::read(&self.paths.settings)
    }

    /// No lower version is taken unless somebody names it: the highest that was good on this machine, or the one that runs.
    fn floor(&self) -> Result<String> {
        let (running, floor) = (self.version()?, self.journal()?.floor()?);
        Ok(floor
            .filter(|floor| compare_versions(floor, &running).is_gt())
            .unwrap_or(running))
    }

    fn deadline(&self) -> Duration {
        self.settings().unwrap_or_default().deadline()
    }

    /// The version that runs.
    fn version(&self) -> Result<String> {
        let text = read(&self.paths.os_release)?;
        let version = text
            .lines()
            .find_map(|line| line.strip_prefix("IMAGE_VERSION="));
        version
            .map(str::to_owned)
            .context("os-release names no IMAGE_VERSION")
    }

    fn boot_id(&self) -> Result<String> {
        Ok(read(&self.paths.boot_id)?.trim().to_owned())
    }

    fn journal(&self) -> Result<Journal> {
        Journal::open(&self.paths.state)
    }

    /// The slot that the command line names.
    fn slot(&self) -> Result<Option<String>> {
        Ok(slot_of(&read(&self.paths.command_line)?))
    }

    /// Whether it was started from a medium that is not written to: an optical disc, a stick, the network (`keelson.live=1`).
    fn is_live(&self) -> Result<bool> {
        let line = read(&self.paths.command_line)?;
        Ok(line.split_ascii_whitespace().any(|word| word == LIVE))
    }

    fn disk(&self) -> Result<SystemDisk> {
        if self.is_live()? {
            bail!("this is a live system: it is not on a disk of its own");
        }
        let Some(slot) = self.slot()? else {
            bail!("this system does not run from a slot of a disk");
        };
        SystemDisk::find(&self.paths.block, &self.paths.devices, &slot)
    }

    /// Mounts the EFI system partition, as soon as nobody else of this service has it.
    fn esp(&self, disk: &SystemDisk, read_only: bool) -> Result<Mounted<'_>> {
        // Whoever panicked with it has left nothing half done: each change is one step.
        let held = self.mounting.lock().unwrap_or_else(PoisonError::into_inner);
        let loader = Loader::of(&read(&self.paths.command_line)?);
        let esp = (self.mount)(&disk.esp.node, &self.paths.esp, read_only)?.seen_by(loader);
        Ok(Mounted { esp, _held: held })
    }

    /// Has the slots to itself.
    fn change(&self) -> Result<MutexGuard<'_, ()>> {
        match self.changing.try_lock() {
            Ok(held) => Ok(held),
            Err(TryLockError::Poisoned(held)) => Ok(held.into_inner()),
            Err(TryLockError::WouldBlock) => bail!("an upgrade is under way already"),
        }
    }

    fn entries(&self, esp: &Esp, disk: &SystemDisk) -> Result<Entries> {
        let version = self.version()?;
        let mut entries = Entries::default();
        for entry in esp.entries()? {
            let slot = esp
                .command_line(&entry)
                .ok()
                .and_then(|line| slot_of(&line));
            if slot.as_deref() == Some(disk.current.guid.as_str()) && entry.version == version {
                // After a power cut it may be there under two names of one file: the better one counts, and the other must not be removed,
                // or the file would be.
                entries.running = entries.running.or(Some(entry));
            } else if slot.as_deref() == Some(disk.other.guid.as_str()) && entries.other.is_none() {
                entries.other = Some(entry);
            } else {
                entries.stale.push(entry);
            }
        }
        Ok(entries)
    }
}

/// The mounted EFI system partition, which nobody else of this service has.
struct Mounted<'s> {
    // Unmounted before the lock is given back.
    esp: Esp,
    _held: MutexGuard<'s, ()>,
}

impl Deref for Mounted<'_> {
    type Target = Esp;

    fn deref(&self) -> &Esp {
        &self.esp
    }
}

/// Boot entries by what they start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Entries {
    /// What runs.
    running: Option<Entry>,
    /// What is in the other slot.
    other: Option<Entry>,
    /// What can no longer be started.
    stale: Vec<Entry>,
}

/// Whether a release may be taken; `floor` is the highest version that was good here. `asked_for` is the version that somebody named, who may take
/// an older one, or one that is out of date.
fn may_take(
    description: &Description,
    running: &str,
    floor: &str,
    asked_for: Option<&str>,
    now: &str,
) -> Result<()> {
    let version = &description.version;
    if description.architecture != architecture() {
        bail!(
            "version {version} is for {}, this machine is {}",
            description.architecture,
            architecture()
        );
    }
    if version == running {
        bail!("version {version} runs already");
    }
    match asked_for {
        Some(asked_for) if asked_for == version => return Ok(()),
        Some(asked_for) => bail!("the release is version {version}, not {asked_for}"),
        None => {}
    }
    if compare_versions(version, running).is_lt() {
        bail!(
            "version {version} is older than {running}, which runs: name it with --version to go back to it"
        );
    }
    if compare_versions(version, floor).is_lt() {
        bail!(
            "version {version} is older than {floor}, which was good on this machine: whoever offers it may be replaying an old release; name it with --version to take it all the same"
        );
    }
    // Times of the same form compare as texts do.
    if description.expires.as_deref().is_some_and(|end| end <= now) {
        let end = description.expires.as_deref().unwrap_or_default();
        bail!(
            "version {version} has expired on {end}: whoever offers it may be hiding newer ones; name it with --version to take it all the same"
        );
    }
    Ok(())
}

/// This machine's processor, in Go's words.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("read {}", path.display()))
}

#[cfg(test)]
mod tests;
