//! Bits that change where the operating system is kept (docs/corruption.md): what is damaged is not used, and where there is another version
//! the machine ends in that.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::harness::disk::{self, Partition};
use crate::harness::esp::Esp;
use crate::harness::lab::{BOOT_DEADLINE, Lab, SETTLE_DEADLINE};
use crate::harness::machine::{Boot, Machine, Network};
use crate::harness::release::{self, FIRST, SECOND};
use crate::harness::ssh::Ssh;
use crate::harness::status::Status;
use crate::harness::{process, vm::Vm};

const TOOL_DEADLINE: Duration = Duration::from_secs(120);
const OFF_DEADLINE: Duration = Duration::from_secs(60);
/// A boot that finds damage, or a machine that leaves its version in order; and the boot after it.
const RETURN_DEADLINE: Duration = Duration::from_secs(300);
const SECTOR_BYTES: u64 = 512;
/// What PID 1 says before it starts the machine again.
const LEAVES: &str = "this version is given up; restarting, version 1.0.0 is next";
/// A file of the root that no boot reads.
const UNREAD: &str = "/usr/lib/keelson/images/console/usr/bin/rsync";

pub(super) fn one_flipped_bit_in_each_part_has_the_verdict_that_the_table_says(
    lab: &mut Lab,
) -> Result<()> {
    // The primary partition table: the kernel refuses it, and it is written anew from the backup.
    let raw = disk::copy(&lab.shipped.disk(), &lab.dir().join("table.raw"))?;
    disk::flip_bit(&raw, SECTOR_BYTES + 40)?;
    let machine = with_network(lab, direct(lab, &raw, "table")?)?;
    let (mut vm, ssh) = lab.boot(&machine)?;
    vm.serial.wait_for_all(
        &["the primary partition table of vda is damaged; restoring it from its backup"],
        Duration::ZERO,
    )?;
    ensure!(Status::read(&ssh)?.state.persistent, "the state is gone");
    ssh.check("echo chest >chest && echo island >island && sync")?;
    vm.qmp.execute("system_powerdown", json!({}))?;
    vm.wait_off(OFF_DEADLINE)?;
    drop(vm);

    // The backup; a file's data and another one's inode; the log.
    let raw = disk::flatten(&machine.disks[0].path, &lab.dir().join("used.raw"))?;
    no_problems(&raw)?;
    let size_bytes = fs::metadata(&raw)?.len();
    disk::flip_bit(&raw, size_bytes - SECTOR_BYTES + 40)?;
    let state = disk::partition(&raw, "KEELSON_STATE")?;
    let files = Files::of(lab, &raw, state)?;
    let home = "/home/keelson";
    disk::flip_bit(&raw, files.data(&format!("{home}/chest"))?)?;
    disk::flip_bit(&raw, files.inode(&format!("{home}/island"))? + 4)?;
    disk::flip_bit(&raw, files.find("/log", b"Linux version")?)?;
    let machine = with_network(lab, direct(lab, &raw, "used")?)?;
    let (vm, ssh) = lab.boot(&machine)?;
    ensure!(Status::read(&ssh)?.state.persistent, "the state is gone");
    // Nothing says so: ext4 has no checksums of data.
    ensure!(
        ssh.check("cat chest")? == "bhest",
        "the bit is not where it should be"
    );
    // That of this boot only: the log ends where it is damaged, and goes on there.
    let said = ssh.check_within(
        "until keelson service logs kernel | grep -c 'Linux version'; do sleep 0.5; done",
        SETTLE_DEADLINE,
    )?;
    let said = said.lines().last().unwrap_or_default();
    ensure!(said == "1", "{said} boots are in the log");
    // The last: ext4 takes its first error for a reason to write nothing any more.
    let (_, refused) = ssh.check_fails("cat island")?;
    ensure!(
        refused.contains("Bad message") || refused.contains("cleaning"),
        "a damaged inode is read: {refused}"
    );
    drop(vm);

    // The state's superblock: memory in its place, and nothing is written over it.
    let raw = disk::copy(&lab.shipped.disk(), &lab.dir().join("state.raw"))?;
    let state = disk::partition(&raw, "KEELSON_STATE")?;
    disk::flip_bit(&raw, state.start_bytes + 1024 + 0x20)?;
    says(
        lab,
        &direct(lab, &raw, "state")?,
        &["the state partition /dev/vda4", "state is kept in memory"],
    )?;

    // The slot's hash tree, on a disk that has no other version.
    let raw = disk::copy(&lab.shipped.disk(), &lab.dir().join("tree.raw"))?;
    let slot = disk::partition(&raw, "keelson-a")?;
    let line = lab.shipped.cmdline()?;
    let tree: u64 = word(&line, "keelson.hashoffset=")?.parse()?;
    // The block behind the superblock is the top of the tree.
    disk::flip_bit(&raw, slot.start_bytes + tree + 4096)?;
    says(
        lab,
        &direct(lab, &raw, "tree")?,
        &[
            "dm-verity refuses hash block",
            "there is no other version to go back to",
        ],
    )?;

    // The EFI system partition's boot sector: the firmware finds no boot loader.
    let raw = disk::copy(&lab.shipped.disk(), &lab.dir().join("esp.raw"))?;
    let esp = disk::partition(&raw, "esp")?;
    // Its size of a sector.
    disk::flip_bit(&raw, esp.start_bytes + 11)?;
    let machine = Machine {
        boot: Boot::Uefi,
        ..direct(lab, &raw, "esp")?
    };
    says(lab, &machine, &["BdsDxe: failed to load"])
}

pub(super) fn a_version_whose_slot_decays_is_left_for_the_other_one(lab: &mut Lab) -> Result<()> {
    let raw = two_versions(lab)?;
    // A block that each boot reads: found in the initrd, of a version that was good long ago.
    let second = disk::partition(&raw, "keelson-b")?;
    disk::flip_bit(&raw, second.start_bytes + 1024 + 64)?;
    let machine = uefi(lab, &raw)?;
    let vm = lab.boot_to(&machine, LEAVES)?;
    let ssh = Ssh::connect(&vm, &lab.key, RETURN_DEADLINE)?;
    went_back(&ssh, "dm-verity refuses data block 0")
}

pub(super) fn a_version_that_decays_while_it_runs_is_left_in_order_for_the_other_one(
    lab: &mut Lab,
) -> Result<()> {
    let raw = two_versions(lab)?;
    let second = disk::partition(&raw, "keelson-b")?;
    let root = release::folder(lab.out(), SECOND).join("root.img");
    disk::flip_bit(&raw, second.start_bytes + place_of(&root, UNREAD)? + 100)?;
    let machine = uefi(lab, &raw)?;
    let (vm, ssh) = lab.boot(&machine)?;
    ensure!(running(&ssh)? == SECOND, "it is not the second version");
    ssh.check("echo kept >treasure && sync")?;
    // The connection ends with the machine.
    let _ = ssh.run("cat /usr/bin/rsync >/dev/null");
    vm.serial.wait_for(LEAVES, RETURN_DEADLINE)?;
    vm.serial
        .wait_for("everything is unmounted clean; reboot", OFF_DEADLINE)?;
    drop(ssh);
    let ssh = Ssh::connect(&vm, &lab.key, RETURN_DEADLINE)?;
    ensure!(ssh.check("cat treasure")? == "kept", "a file is lost");
    went_back(&ssh, "dm-verity refuses data block")
}

/// The first version runs and says why.
fn went_back(ssh: &Ssh, why: &str) -> Result<()> {
    ensure!(running(ssh)? == FIRST, "it is not the first version");
    let history = ssh.check_within(
        "until keelson os history --json | grep -q 'went back'; do sleep 0.5; done; keelson os history --json",
        RETURN_DEADLINE,
    )?;
    let history: Value = serde_json::from_str(&history).context("reading the history")?;
    let last = history.as_array().and_then(|list| list.last());
    let last = last.context("no history")?;
    ensure!(last["from"] == SECOND && last["to"] == FIRST, "{last}");
    ensure!(
        last["why"].as_str().is_some_and(|text| text.contains(why)),
        "{last}"
    );
    let status = ssh.check("keelson os status | sed '1,/^VERSION/d' | tr -s ' '")?;
    ensure!(
        status == format!("{FIRST} running next good\n{SECOND} given up"),
        "{status}"
    );
    Ok(())
}

/// The version that runs, as soon as the upgrade service says it.
fn running(ssh: &Ssh) -> Result<String> {
    let status = ssh.check_within(
        "until keelson os status --json 2>/dev/null; do sleep 0.5; done",
        SETTLE_DEADLINE,
    )?;
    let status: Value = serde_json::from_str(&status).context("reading the status")?;
    Ok(status["version"].as_str().context("no version")?.to_owned())
}

/// A disk with both versions, both good; the second one is started.
fn two_versions(lab: &Lab) -> Result<PathBuf> {
    let raw = disk::copy(
        &release::image(lab.out(), FIRST)?.disk(),
        &lab.dir().join("both.raw"),
    )?;
    let second = release::image(lab.out(), SECOND)?;
    let from = Esp::of(&second.disk())?;
    let name = from.kernel_image()?;
    Esp::of(&raw)?.write(&name, &from.read(&name)?)?;
    let slot = disk::partition(&raw, "keelson-b")?;
    let root = release::folder(lab.out(), SECOND).join("root.img");
    let mut write = Command::new("dd");
    write.arg(format!("if={}", root.display()));
    write.arg(format!("of={}", raw.display()));
    write.args([
        "bs=1M",
        "conv=notrunc,sparse",
        "oflag=seek_bytes",
        "status=none",
    ]);
    write.arg(format!("seek={}", slot.start_bytes));
    process::check(&mut write, TOOL_DEADLINE)?;
    let line = second.cmdline()?;
    let guid = word(&line, "keelson.slot=PARTUUID=")?;
    let mut sgdisk = Command::new("sgdisk");
    sgdisk.arg("-u").arg(format!("{}:{guid}", slot.number));
    process::check(sgdisk.arg(&raw), TOOL_DEADLINE)?;
    Ok(raw)
}

/// Where the second piece of a file of an erofs image is, in bytes.
fn place_of(image: &Path, path: &str) -> Result<u64> {
    let mut dump = Command::new("dump.erofs");
    dump.arg("-e").arg(format!("--path={path}")).arg(image);
    let text = process::check(&mut dump, TOOL_DEADLINE)?;
    let line = text
        .lines()
        .find(|line| line.trim_start().starts_with("1:"));
    let place = line.and_then(|line| line.split(':').nth(2)?.split("..").next());
    let place = place.with_context(|| format!("{path} is not where it should be: {text}"))?;
    Ok(place.trim().parse()?)
}

/// Files of a state partition, as debugfs finds them.
struct Files {
    state: Partition,
    image: PathBuf,
}

impl Files {
    fn of(lab: &Lab, raw: &Path, state: Partition) -> Result<Self> {
        let image = lab.dir().join("state.img");
        disk::extract_whole(raw, state, &image)?;
        Ok(Files { state, image })
    }

    fn ask(&self, question: &str) -> Result<String> {
        let mut debugfs = Command::new("debugfs");
        debugfs.args(["-R", question]).arg(&self.image);
        process::check(&mut debugfs, TOOL_DEADLINE)
    }

    /// The first byte of a file's data on the disk.
    fn data(&self, path: &str) -> Result<u64> {
        let block: u64 = self.ask(&format!("bmap {path} 0"))?.trim().parse()?;
        Ok(self.state.start_bytes + block * 4096)
    }

    /// The first byte of a file's inode on the disk.
    fn inode(&self, path: &str) -> Result<u64> {
        let text = self.ask(&format!("imap {path}"))?;
        let number = |mark: &str| -> Result<u64> {
            let (_, rest) = text.split_once(mark).with_context(|| text.clone())?;
            let digits = rest
                .split(|letter: char| !letter.is_ascii_hexdigit() && letter != 'x')
                .next();
            let digits = digits.unwrap_or_default();
            match digits.strip_prefix("0x") {
                Some(digits) => Ok(u64::from_str_radix(digits, 16)?),
                None => Ok(digits.parse()?),
            }
        };
        Ok(self.state.start_bytes + number("located at block ")? * 4096 + number("offset ")?)
    }

    /// The place on the disk of some bytes within a file of a directory.
    fn find(&self, directory: &str, bytes: &[u8]) -> Result<u64> {
        let content = fs::read(&self.image).context("reading the state partition")?;
        let found: Vec<usize> = content
            .windows(bytes.len())
            .enumerate()
            .filter_map(|(at, window)| (window == bytes).then_some(at))
            .collect();
        for at in found {
            let at = u64::try_from(at)?;
            let text = self.ask(&format!("icheck {}", at / 4096))?;
            let inode = text
                .lines()
                .last()
                .and_then(|line| line.split_whitespace().nth(1));
            let names = self.ask(&format!("ncheck {}", inode.unwrap_or_default()))?;
            if names.contains(directory) {
                return Ok(self.state.start_bytes + at);
            }
        }
        anyhow::bail!("no file below {directory} has these bytes")
    }
}

/// The usual machine with a new disk over `raw`, without network.
fn direct(lab: &Lab, raw: &Path, name: &str) -> Result<Machine> {
    let path = lab.dir().join(format!("{name}.qcow2"));
    let mut machine = Machine::direct(&lab.shipped)?.with_disk(&over(raw, &path)?);
    machine.network = Network::None;
    Ok(machine)
}

/// An overlay that is no larger than what it is over: the backup table stays where it is.
fn over(raw: &Path, path: &Path) -> Result<PathBuf> {
    let mut create = Command::new("qemu-img");
    create.args(["create", "-q", "-f", "qcow2", "-F", "raw", "-b"]);
    create.arg(raw.canonicalize()?).arg(path);
    process::check(&mut create, TOOL_DEADLINE)?;
    Ok(path.to_owned())
}

fn with_network(lab: &Lab, mut machine: Machine) -> Result<Machine> {
    machine.network = Network::User {
        forwards: vec![22],
        page: None,
    };
    Ok(machine.with_raw(&lab.seed()?))
}

/// A machine with UEFI, its disk over `raw`.
fn uefi(lab: &Lab, raw: &Path) -> Result<Machine> {
    let disk = disk::overlay(raw, "raw", &lab.dir().join("disk.qcow2"))?;
    Ok(Machine::new(Boot::Uefi)
        .with_disk(&disk)
        .with_raw(&lab.seed()?))
}

/// Boots until the console has said all of these, which is before there is a prompt.
fn says(lab: &Lab, machine: &Machine, words: &[&str]) -> Result<()> {
    let vm: Vm = lab.start(machine)?;
    vm.serial.wait_for_all(words, BOOT_DEADLINE)
}

fn no_problems(raw: &Path) -> Result<()> {
    let said = process::check(Command::new("sgdisk").arg("-v").arg(raw), TOOL_DEADLINE)?;
    ensure!(said.contains("No problems found"), "sgdisk: {said}");
    Ok(())
}

fn word<'line>(command_line: &'line str, key: &str) -> Result<&'line str> {
    command_line
        .split_whitespace()
        .find_map(|word| word.strip_prefix(key))
        .with_context(|| format!("the command line has no {key}"))
}
