//! Partitions, file systems, swap and mounts of the configuration: a service that is there where they are asked for.
//!
//! It is given a [`Plan`] as its one argument, does all of it that the machine's disks allow, tells the engine that it is
//! ready, and ends; when a device is not there yet it stays, and mounts it as soon as it comes. What holds data is never
//! overwritten, unless the configuration says so, and then once.
//!
//! - [`disks`]: partition tables
//! - [`filesystems`]: file systems
//! - [`swap`]: swap file and devices
//! - [`mounts`]: what is mounted
//! - [`probe`]: what is on a device
//! - [`done`]: what was overwritten already
//! - [`waiting`]: for devices

mod disks;
mod done;
mod filesystems;
mod mounts;
mod probe;
mod program;
mod swap;
mod waiting;

use std::collections::BTreeSet;
use std::process::ExitCode;

use anyhow::{Context, Result, anyhow};
use keelson_config::cloud_config::storage::{Disk, Filesystem, Mount, Plan};
use keelson_sys::notify::notify;

use done::Done;
use waiting::Waiting;

/// What became of one thing that was asked for.
pub(crate) enum Outcome {
    /// It is done, now or earlier; with a line for people when there is something to say.
    Done(Option<String>),
    /// Its device is not there.
    Missing,
}

fn main() -> ExitCode {
    let mut failed = Vec::new();
    if let Err(error) = run(&mut failed) {
        failed.push(format!("{error:#}"));
        eprintln!("<3>{error:#}");
    }
    let Some(first) = failed.first() else {
        return ExitCode::SUCCESS;
    };
    // Nobody listens when the program is run by hand.
    if let Err(error) = notify(&format!("STATUS={first}")) {
        eprintln!("<4>tell the engine: {error}");
    }
    ExitCode::FAILURE
}

fn run(failed: &mut Vec<String>) -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let (Some(plan), None) = (arguments.next(), arguments.next()) else {
        anyhow::bail!("usage: keelson-storage PLAN (as JSON)");
    };
    let plan: Plan = serde_json::from_str(&plan).context("read the plan")?;
    let mut done = Done::open()?;
    let mut waiting = Waiting::new()?;
    let mut left = Left::of(&plan);
    left.attempt(&mut done, &mut waiting, failed);
    if let Some(file) = &plan.swap {
        say("swap", swap::file(file), failed);
    }
    for device in left.devices() {
        println!("<4>{device} is not there; it is used as soon as it is");
    }
    notify("READY=1").context("tell the engine")?;
    while !left.is_nothing() {
        waiting.next().context("wait for devices")?;
        left.attempt(&mut done, &mut waiting, failed);
    }
    Ok(())
}

/// What is still to be done.
struct Left<'a> {
    disks: Vec<&'a Disk>,
    filesystems: Vec<&'a Filesystem>,
    mounts: Vec<&'a Mount>,
    /// Places where something could not be mounted.
    broken: Vec<String>,
}

impl<'a> Left<'a> {
    fn of(plan: &'a Plan) -> Self {
        let mut mounts: Vec<&Mount> = plan.mounts.iter().collect();
        mounts.sort_by_key(|mount| mounts::order(mount));
        Left {
            broken: Vec::new(),
            disks: plan.disks.iter().collect(),
            filesystems: plan.filesystems.iter().collect(),
            mounts,
        }
    }

    fn is_nothing(&self) -> bool {
        self.disks.is_empty() && self.filesystems.is_empty() && self.mounts.is_empty()
    }

    /// The devices that are waited for.
    fn devices(&self) -> BTreeSet<&str> {
        let disks = self.disks.iter().map(|disk| disk.device.as_str());
        let filesystems = self.filesystems.iter().map(|it| it.device.as_str());
        let mounts = self.mounts.iter().map(|mount| mount.source.as_str());
        disks.chain(filesystems).chain(mounts).collect()
    }

    /// Does all whose devices are there. They are waited for before they are looked for: one may come in between.
    fn attempt(&mut self, done: &mut Done, waiting: &mut Waiting, failed: &mut Vec<String>) {
        self.disks.retain(|disk| {
            waiting.watch_for(&disk.device);
            let what = format!("disk_setup: {}", disk.device);
            is_missing(&what, disks::set_up(disk, done), failed)
        });
        self.filesystems.retain(|filesystem| {
            waiting.watch_for(&filesystem.device);
            let what = format!("fs_setup: {}", filesystem.device);
            is_missing(&what, filesystems::make(filesystem, done), failed)
        });
        let mut missing: Vec<String> = Vec::new();
        let broken = &mut self.broken;
        self.mounts.retain(|mount| {
            waiting.watch_for(&mount.source);
            let target = mount.target.as_deref();
            let ended = if mounts::depends_on(mount, broken) {
                Err(anyhow!("what it is below could not be mounted"))
            } else if mounts::depends_on(mount, &missing) {
                // It would be hidden by what comes later.
                Ok(Outcome::Missing)
            } else {
                match target {
                    Some(_) => mounts::mount(mount),
                    None => swap::device(mount),
                }
            };
            let is_broken = ended.is_err();
            let what = format!("mounts: {} at {}", mount.source, target.unwrap_or("swap"));
            let is_missing = is_missing(&what, ended, failed);
            if let Some(target) = target {
                match (is_missing, is_broken) {
                    (true, _) => missing.push(target.to_owned()),
                    (_, true) => broken.push(target.to_owned()),
                    _ => {}
                }
            }
            is_missing
        });
    }
}

fn is_missing(what: &str, ended: Result<Outcome>, failed: &mut Vec<String>) -> bool {
    let is_missing = matches!(ended, Ok(Outcome::Missing));
    if !is_missing {
        say(what, ended, failed);
    }
    is_missing
}

fn say(what: &str, ended: Result<Outcome>, failed: &mut Vec<String>) {
    match ended {
        Ok(Outcome::Done(None)) => {}
        Ok(Outcome::Done(Some(line))) => println!("<6>{what}: {line}"),
        Ok(Outcome::Missing) => {
            let message = format!("{what}: there is no such device; nothing is done");
            eprintln!("<3>{message}");
            failed.push(message);
        }
        Err(error) => {
            let message = format!("{what}: {error:#}");
            eprintln!("<3>{message}");
            failed.push(message);
        }
    }
}
