//! Power cuts at any moment: first boot, growth of the state partition, fetching, writing, switching, judging and going back.
//!
//! A machine is taken through all of that once, with a database in Docker, and everything that it has its disk do is logged. Then the disk is
//! made what a cut at a random moment leaves ([`Replay`]), as often as wanted, and looked at from the outside; some of these disks are
//! started.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use keelson_boot_entries::Entry;
use keelson_uki as uki;

use crate::harness::disk::{self, Random};
use crate::harness::esp::Esp;
use crate::harness::lab::{Lab, SETTLE_DEADLINE};
use crate::harness::machine::{Boot, Machine};
use crate::harness::postgres::Postgres;
use crate::harness::process;
use crate::harness::registry::Registry;
use crate::harness::release::{self, FIRST, SECOND};
use crate::harness::replay::{self, Replay};
use crate::harness::ssh::Ssh;
use crate::harness::status::Status;
use crate::harness::vm::Vm;
use crate::tests::upgrade::{
    OFF_DEADLINE, UPGRADE_DEADLINE, VERDICT_DEADLINE, configure, expect_versions, running,
};

/// Cuts in each part of the machine's life, and how many of all these disks are started: in an ordinary run, and in a soak test.
const USUAL: (usize, usize) = (10, 1);
const SOAK: (usize, usize) = (40, 20);
const TOOL_DEADLINE: Duration = Duration::from_secs(120);
const DISK_BYTES: u64 = 4 << 30;

/// A part of the machine's life.
struct Part {
    name: &'static str,
    /// The moment at which it ended.
    end: usize,
    /// Rows that were acknowledged before it began.
    rows: u32,
}

/// A machine whose disk is logged, one log a boot.
struct Recording {
    disk: PathBuf,
    logs: Vec<PathBuf>,
    parts: Vec<Part>,
    rows: u32,
    acknowledged: u32,
}

pub(super) fn a_database_lives_through_upgrades_and_a_power_cut_at_any_moment_of_them(
    lab: &mut Lab,
) -> Result<()> {
    let image = release::image(lab.out(), FIRST)?.disk();
    let mut recording = Recording {
        disk: disk::copy(&image, &lab.dir().join("recorded.raw"))?,
        logs: Vec::new(),
        parts: Vec::new(),
        rows: 0,
        acknowledged: 0,
    };
    grow(&recording.disk)?;
    live(lab, &mut recording)?;
    let past = disk::copy(&image, &lab.dir().join("past.raw"))?;
    grow(&past)?;
    cut(lab, &recording, &past)?;
    for used in recording.logs {
        fs::remove_file(used).context("removing a log")?;
    }
    Ok(())
}

/// From the first boot to the second version, back, and forth again.
fn live(lab: &Lab, recording: &mut Recording) -> Result<()> {
    let out = lab.out().to_owned();
    let registry = Registry::start()?;
    let repository = format!("127.0.0.1:{}/keelson", registry.port);
    let layout = lab.dir().join("layout");
    release::push(&out, SECOND, &release::keys(&out), &repository, &layout)?;

    let (vm, ssh) = recording.boot(lab)?;
    Status::wait_settled(&ssh, SETTLE_DEADLINE)?;
    recording.ends("first boot")?;
    let database = Postgres::start(&ssh)?;
    recording.add(&database, 40)?;
    recording.ends("database")?;

    configure(&ssh, &registry, &repository)?;
    let forwarded = ssh.reverse(registry.port)?;
    ssh.check_within("keelson os upgrade --version 2.0.0", UPGRADE_DEADLINE)?;
    drop(forwarded);
    recording.ends("upgrade")?;
    recording.add(&database, 10)?;
    let (vm, ssh) = recording.reboot(lab, vm, &ssh)?;
    ssh.check_within(
        &format!("until keelson os history | grep -q 'upgraded from {FIRST} to {SECOND}'; do sleep 0.5; done"),
        VERDICT_DEADLINE,
    )?;
    recording.ends("judging")?;
    let database = recording.find(&ssh)?;
    recording.add(&database, 10)?;

    ssh.check("keelson os rollback")?;
    let (vm, ssh) = recording.reboot(lab, vm, &ssh)?;
    Status::wait_settled(&ssh, SETTLE_DEADLINE)?;
    expect_running(&ssh, FIRST)?;
    recording.ends("going back")?;
    let database = recording.find(&ssh)?;
    recording.add(&database, 10)?;

    let forwarded = ssh.reverse(registry.port)?;
    ssh.check_within("keelson os upgrade --version 2.0.0", UPGRADE_DEADLINE)?;
    drop(forwarded);
    let (mut vm, ssh) = recording.reboot(lab, vm, &ssh)?;
    let good = [(SECOND, "running next good"), (FIRST, "good")];
    ssh.check_within(
        "until keelson os status --json | grep -q '\"trial\": *null'; do sleep 0.5; done",
        VERDICT_DEADLINE,
    )?;
    expect_versions(&ssh, &good)?;
    let database = recording.find(&ssh)?;
    recording.add(&database, 10)?;
    vm.qmp.execute("system_powerdown", serde_json::json!({}))?;
    vm.wait_off(OFF_DEADLINE)?;
    recording.ends("upgrade once more")
}

/// Looks at the disk after cuts in each part, and starts some of what they leave.
fn cut(lab: &Lab, recording: &Recording, past: &Path) -> Result<()> {
    let (in_each, started) = if lab.soak { SOAK } else { USUAL };
    let mut random = Random::new(lab.random_seed);
    let mut replay = Replay::open(past, &recording.logs)?;
    let moments = recording.moments(in_each, &mut random);
    let to_start = places(moments.len(), started, &mut random);
    let mut begin = 0;
    for part in &recording.parts {
        let megabytes = replay.written(begin..part.end) / 1_000_000;
        let writes = part.end - begin;
        println!("      {}: {writes} writes, {megabytes} MB", part.name);
        begin = part.end;
    }
    let mut found: BTreeMap<String, usize> = BTreeMap::new();
    for (place, (part, moment)) in moments.iter().enumerate() {
        let at = || {
            format!(
                "after write {moment} of {}, in {}",
                recording.writes(),
                part.name
            )
        };
        replay.cut(*moment, &mut random)?;
        let next = look(past, lab.dir()).with_context(at)?;
        *found.entry(next.clone()).or_default() += 1;
        if to_start.contains(&place) {
            let ran = start(lab, past, part.rows).with_context(at)?;
            println!("      started {}: {next} was next, {ran} runs", at());
        }
    }
    println!(
        "      {} power cuts looked at, {} of them started; next was {found:?}; random seed {}",
        moments.len(),
        to_start.len(),
        lab.random_seed
    );
    Ok(())
}

/// `count` different places below `length`.
fn places(length: usize, count: usize, random: &mut Random) -> Vec<usize> {
    let mut places: Vec<usize> = (0..length).collect();
    while places.len() > count.min(length) {
        let drop = (random.next() % places.len() as u64) as usize;
        places.remove(drop);
    }
    places
}

impl Recording {
    fn boot(&mut self, lab: &Lab) -> Result<(Vm, Ssh)> {
        let log = lab.dir().join(format!("writes-{}.log", self.logs.len()));
        fs::write(&log, b"").context("making a log")?;
        let mut machine = Machine::new(Boot::Uefi)
            .with_logged(&self.disk, &log)
            .with_raw(&lab.seed()?);
        machine.reboots = false;
        self.logs.push(log);
        let vm = lab.start(&machine)?;
        let ssh = lab.ssh(&vm)?;
        Ok((vm, ssh))
    }

    fn reboot(&mut self, lab: &Lab, mut vm: Vm, ssh: &Ssh) -> Result<(Vm, Ssh)> {
        // The connection may end before the command does.
        let _ = ssh.run("keelson reboot");
        vm.wait_off(OFF_DEADLINE).context("rebooting")?;
        drop(vm);
        self.boot(lab)
    }

    fn add(&mut self, database: &Postgres<'_>, count: u32) -> Result<()> {
        database.add(count)?;
        self.rows += count;
        Ok(())
    }

    /// The database after a boot, with every row.
    fn find<'s>(&self, ssh: &'s Ssh) -> Result<Postgres<'s>> {
        let database = Postgres::find(ssh)?;
        let rows = database.rows()?;
        ensure!(rows == self.rows, "{rows} rows instead of {}", self.rows);
        Ok(database)
    }

    /// Ends a part of the machine's life here.
    fn ends(&mut self, name: &'static str) -> Result<()> {
        let mut end = 0;
        for log in &self.logs {
            end += replay::entries_so_far(log)?;
        }
        self.parts.push(Part {
            name,
            end,
            rows: self.acknowledged,
        });
        self.acknowledged = self.rows;
        Ok(())
    }

    fn writes(&self) -> usize {
        self.parts.last().map_or(0, |part| part.end)
    }

    /// Random moments in the order of time, `in_each` in each part.
    fn moments(&self, in_each: usize, random: &mut Random) -> Vec<(&Part, usize)> {
        let mut moments = Vec::new();
        let mut begin = 0;
        for part in &self.parts {
            let length = (part.end - begin).max(1) as u64;
            let mut some: Vec<usize> = (0..in_each)
                .map(|_| begin + (random.next() % length) as usize)
                .collect();
            some.sort_unstable();
            moments.extend(some.into_iter().map(|moment| (part, moment)));
            begin = part.end;
        }
        moments
    }
}

/// Tools of others find a whole system on the disk: what the boot loader takes next has a slot in which every block is right. Gives its
/// version.
fn look(disk: &Path, dir: &Path) -> Result<String> {
    let esp = dir.join("esp.raw");
    let partition = disk::partition(disk, "esp")?;
    disk::extract_whole(disk, partition, &esp)?;
    // It may not have been unmounted; nothing else may be wrong with it that a repair would have to decide.
    process::run(
        Command::new("fsck.vfat").arg("-a").arg(&esp),
        &[],
        TOOL_DEADLINE,
    )?;
    process::check(Command::new("fsck.vfat").arg("-n").arg(&esp), TOOL_DEADLINE)
        .context("the EFI system partition")?;
    let next = next_entry(disk)?;
    let image = Esp::of(disk)?.read(&format!("EFI/Linux/{next}"))?;
    let line = uki::command_line(&mut std::io::Cursor::new(image))
        .with_context(|| format!("reading {next}"))?;
    verify(disk, dir, &line).with_context(|| format!("what {next} starts"))?;
    let state = dir.join("state.raw");
    disk::extract_whole(disk, disk::partition(disk, "KEELSON_STATE")?, &state)?;
    let checked = process::run(
        Command::new("e2fsck").args(["-f", "-p"]).arg(&state),
        &[],
        TOOL_DEADLINE,
    )?;
    ensure!(
        matches!(checked.status.code(), Some(0 | 1)),
        "the state partition: {}",
        checked.text()
    );
    Ok(next.version)
}

/// The entry that systemd-boot takes.
fn next_entry(disk: &Path) -> Result<Entry> {
    let names = Esp::of(disk)?.list("EFI/Linux")?;
    let mut entries: Vec<Entry> = names.iter().filter_map(|name| Entry::parse(name)).collect();
    entries.sort_by(Entry::cmp_as_loader);
    let next = entries.into_iter().next();
    next.with_context(|| format!("no entry among {names:?}"))
}

/// Has veritysetup read the slot that a command line names.
fn verify(disk: &Path, dir: &Path, line: &str) -> Result<()> {
    let word = |key: &str| {
        line.split_whitespace()
            .find_map(|word| word.strip_prefix(key))
            .with_context(|| format!("{line} has no {key}"))
    };
    let slot = word("keelson.slot=PARTUUID=")?;
    let (hash, offset) = (word("keelson.roothash=")?, word("keelson.hashoffset=")?);
    let Some(partition) = disk::partition_of(disk, slot)? else {
        bail!("no partition is called {slot}");
    };
    let file = dir.join("slot.raw");
    disk::extract_whole(disk, partition, &file)?;
    let mut veritysetup = Command::new("veritysetup");
    veritysetup
        .args(["verify", &format!("--hash-offset={offset}")])
        .args([&file, &file])
        .arg(hash);
    process::check(&mut veritysetup, TOOL_DEADLINE).map(drop)
}

/// Starts what a cut has left: the old version or the new one, with Docker, the database and every row that was acknowledged.
fn start(lab: &Lab, disk: &Path, rows: u32) -> Result<String> {
    let overlay = lab.dir().join("started.qcow2");
    let machine = Machine::new(Boot::Uefi)
        .with_disk(&disk::overlay(disk, "raw", &overlay)?)
        .with_raw(&lab.seed()?);
    let (mut vm, ssh) = lab.boot(&machine)?;
    let status = Status::wait_settled(&ssh, SETTLE_DEADLINE)?;
    ensure!(status.state.persistent, "{:?}", status.failures);
    let version = running(&ssh)?;
    ensure!(
        [FIRST, SECOND].contains(&version.as_str()),
        "{version} runs"
    );
    if rows > 0 {
        let found = Postgres::find(&ssh)?.rows()?;
        ensure!(found >= rows, "{found} rows are left of {rows}");
    }
    vm.qmp.execute("system_powerdown", serde_json::json!({}))?;
    vm.wait_off(OFF_DEADLINE)?;
    fs::remove_file(overlay).context("removing an overlay")?;
    Ok(version)
}

fn expect_running(ssh: &Ssh, version: &str) -> Result<()> {
    let runs = running(ssh)?;
    ensure!(runs == version, "{runs} runs instead of {version}");
    Ok(())
}

fn grow(disk: &Path) -> Result<()> {
    let file = fs::File::options().write(true).open(disk);
    file.and_then(|file| file.set_len(DISK_BYTES))
        .with_context(|| format!("growing {}", disk.display()))
}
