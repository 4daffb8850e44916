//! The state partition: found, grown to the end of its disk, checked when it asks for it, mounted. When it cannot
//! be used state is kept in memory; a partition is never formatted, unless somebody wishes a factory reset ([`reset`]).

use super::ext4::{SUPERBLOCK_BYTES, SUPERBLOCK_OFFSET, Superblock};
use super::gpt::{SECTOR_BYTES, Write};
use super::partition::{self, Device};
use super::reset;
use crate::cmdline::State;
use crate::kmsg;
use anyhow::{Context as _, Result, bail, ensure};
use keelson_sys::{block, control::quote_json};
use nix::mount::{MsFlags, mount as mount_fs};
use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt as _, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The directories of /state, with their modes.
const DIRECTORIES: [(&str, u32); 5] = [
    ("config", 0o755),
    ("docker", 0o711),
    ("engine", 0o700),
    ("log", 0o755),
    ("home", 0o755),
];

/// Where state is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// On this partition.
    Persistent(PathBuf),
    /// In memory, for this reason.
    Memory(String),
}

impl Outcome {
    /// The content of /run/keelson/state.json.
    pub(crate) fn to_json(&self) -> String {
        let mut text = String::new();
        match self {
            Self::Persistent(device) => {
                text.push_str("{\"persistent\":true,\"device\":");
                quote_json(&device.to_string_lossy(), &mut text);
            }
            Self::Memory(reason) => {
                text.push_str("{\"persistent\":false,\"reason\":");
                quote_json(reason, &mut text);
            }
        }
        text.push_str("}\n");
        text
    }
}

/// Mounts the state partition at `target`, or memory when that cannot be; says so on the console. With `reset` it is made anew.
pub(crate) fn mount(
    wanted: &State,
    reset: bool,
    slot_disk: &str,
    root: &Path,
    target: &Path,
) -> Result<Outcome> {
    let outcome = match find(wanted, slot_disk) {
        Ok(device) => match open(&device, reset, root, target) {
            Ok(()) => Outcome::Persistent(device.node()),
            Err(error) => Outcome::Memory(format!(
                "the state partition {} cannot be used: {error:#}",
                device.node().display()
            )),
        },
        Err(error) => Outcome::Memory(format!("{error:#}")),
    };
    if let Outcome::Memory(reason) = &outcome {
        kmsg::error(format_args!(
            "{reason}; state is kept in memory and will be lost at the next boot"
        ));
        mount_fs(
            Some("tmpfs"),
            target,
            Some("tmpfs"),
            MsFlags::MS_NODEV,
            Some("size=50%,mode=755"),
        )
        .context("mount memory at /state")?;
    }
    for (name, mode) in DIRECTORIES {
        let path = target.join(name);
        let made = match std::fs::create_dir(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
            other => other
                .and_then(|()| std::fs::set_permissions(&path, PermissionsExt::from_mode(mode))),
        };
        kmsg::tolerate(format_args!("make directory /state/{name}"), made);
    }
    Ok(outcome)
}

/// Whether what the command line means by the state partition is there.
pub(crate) fn is_present(wanted: &State) -> bool {
    find(wanted, "").is_ok()
}

fn find(wanted: &State, slot_disk: &str) -> Result<Device> {
    let mut devices = partition::list(Path::new("/sys/class/block"));
    partition::identify(&mut devices);
    choose(wanted, slot_disk, devices)
}

fn choose(wanted: &State, slot_disk: &str, devices: Vec<Device>) -> Result<Device> {
    let fits = |device: &Device| match wanted {
        State::Ram => false,
        State::Device(node) => device.node() == *node,
        State::PartLabel(label) => device.label.as_ref() == Some(label),
    };
    let mut fitting: Vec<Device> = devices.into_iter().filter(fits).collect();
    fitting.sort_by_key(|device| device.disk != slot_disk);
    match (fitting.into_iter().next(), wanted) {
        (Some(device), _) => Ok(device),
        (None, State::Ram) => bail!("the kernel command line asks for no state partition"),
        (None, State::Device(node)) => bail!("there is no {}", node.display()),
        (None, State::PartLabel(label)) => bail!("there is no partition named {label}"),
    }
}

fn open(device: &Device, reset: bool, root: &Path, target: &Path) -> Result<()> {
    ensure!(!device.read_only, "it cannot be written");
    reset::if_wished(device, reset, root).context("factory reset")?;
    let node = device.node();
    let file = File::open(&node).context("open it")?;
    let superblock = read_superblock(&file)?;
    if let Some(number) = device.number {
        let grown = grow_partition(device, number);
        kmsg::tolerate(
            format_args!("let the state partition {} grow", node.display()),
            grown,
        );
    }
    if superblock.has_errors {
        let name = node.display();
        kmsg::error(format_args!(
            "the state partition {name} is marked as damaged"
        ));
        match checker(root) {
            Some(program) => check(&program, &node)?,
            // The kernel marks it read-only as soon as it meets the damage: better than nothing of it.
            None => kmsg::error("there is no e2fsck to check it with; it is used as it is"),
        }
    }
    if let Err(error) = mount_ext4(&node, target) {
        kmsg::error(format_args!(
            "the state partition {} cannot be mounted: {error}",
            node.display()
        ));
        let program = checker(root).context("there is no e2fsck to check it with")?;
        check(&program, &node)?;
        mount_ext4(&node, target).context("mount it after the check")?;
    }
    Ok(())
}

/// Grows the file system of the state partition at `target` to its partition, when there is one. Nobody waits for it.
pub(crate) fn grow(target: &Path) -> Result<()> {
    let mounts = crate::files::get("/proc/mounts")?;
    let Some(node) = ext4_node(&mounts, target) else {
        return Ok(());
    };
    let device = File::open(node).with_context(|| format!("open {node}"))?;
    grow_file_system(&device, target).with_context(|| format!("let the file system on {node} grow"))
}

/// The device of the ext4 file system that is mounted at `target`, from /proc/mounts (proc_mounts(5)).
fn ext4_node<'a>(mounts: &'a str, target: &Path) -> Option<&'a str> {
    let mut found = mounts.lines().filter_map(|line| {
        let mut words = line.split(' ');
        match (words.next(), words.next(), words.next()) {
            (Some(node), Some(place), Some("ext4")) if Path::new(place) == target => Some(node),
            _ => None,
        }
    });
    found.next()
}

fn read_superblock(file: &File) -> Result<Superblock> {
    let mut bytes = [0; SUPERBLOCK_BYTES];
    file.read_exact_at(&mut bytes, SUPERBLOCK_OFFSET)
        .context("read its superblock")?;
    Superblock::parse(&bytes)
        .context("it holds no ext4 file system (what is on it was left as it is)")
}

fn mount_ext4(node: &Path, target: &Path) -> nix::Result<()> {
    mount_fs(
        Some(node),
        target,
        Some("ext4"),
        MsFlags::empty(),
        Some("errors=remount-ro"),
    )
}

/// Rewrites the partition table when there is room behind the partition: the backup at the new end of the disk
/// first, flushed, then the primary one, flushed, then the kernel's own idea of it.
fn grow_partition(device: &Device, number: u32) -> Result<()> {
    let disk_node = device.disk_node();
    let disk = OpenOptions::new()
        .read(true)
        .write(true)
        .open(&disk_node)
        .context("open the disk")?;
    let disk_bytes = block::size_bytes(&disk).context("size of the disk")?;
    let table = partition::read_table(&disk_node)?;
    let Some(growth) = table.plan_growth(disk_bytes, number)? else {
        return Ok(());
    };
    write_flushed(&disk, &growth.backup).context("write the backup partition table")?;
    write_flushed(&disk, &growth.primary).context("write the partition table")?;
    let start_bytes = growth.first_lba.saturating_mul(SECTOR_BYTES);
    let sectors = growth
        .last_lba
        .saturating_sub(growth.first_lba)
        .saturating_add(1);
    let length_bytes = sectors.saturating_mul(SECTOR_BYTES);
    block::resize_partition(&disk, number, start_bytes, length_bytes).context("tell the kernel")?;
    kmsg::info(format_args!(
        "partition {} has grown to {} MiB",
        device.name,
        length_bytes >> 20
    ));
    Ok(())
}

fn write_flushed(disk: &File, write: &Write) -> std::io::Result<()> {
    disk.write_all_at(&write.bytes, write.offset)?;
    disk.sync_all()
}

/// Grows the mounted file system to its partition. Also after a power cut between the two growths.
fn grow_file_system(device: &File, target: &Path) -> Result<()> {
    let device_bytes = block::size_bytes(device).context("size of the partition")?;
    let superblock = read_superblock(device)?;
    if let Some(blocks) = superblock.blocks_to_fill(device_bytes) {
        let directory = File::open(target).context("open the mount point")?;
        block::grow_ext4(&directory, blocks).context("resize")?;
        kmsg::info(format_args!(
            "the state file system has grown to {} MiB",
            device_bytes >> 20
        ));
    }
    Ok(())
}

/// The e2fsck of the initrd or of the root.
fn checker(root: &Path) -> Option<PathBuf> {
    const PROGRAM: &str = "usr/lib/keelson/e2fsck";
    [Path::new("/").join(PROGRAM), root.join(PROGRAM)]
        .into_iter()
        .find(|path| path.exists())
}

/// Runs e2fsck: first the repairs that are safe, then, when those do not do, all of them.
fn check(program: &Path, node: &Path) -> Result<()> {
    for option in ["-p", "-y"] {
        kmsg::error(format_args!(
            "checking {} (e2fsck {option})",
            node.display()
        ));
        let status = Command::new(program)
            .arg(option)
            .arg(node)
            .status()
            .context("run e2fsck")?;
        // e2fsck(8): 0 no errors, 1 and 2 errors corrected, 4 errors left, 8 and more did not run.
        match status.code() {
            Some(code) if code & !3 == 0 => {
                kmsg::error(format_args!("{} is in order again", node.display()));
                return Ok(());
            }
            Some(code) => kmsg::error(format_args!("e2fsck {option}: exit status {code}")),
            None => kmsg::error(format_args!("e2fsck {option}: {status}")),
        }
    }
    bail!("e2fsck cannot repair it (what is on it was left as it is)")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(name: &str, disk: &str, label: &str) -> Device {
        Device {
            name: name.into(),
            disk: disk.into(),
            label: Some(label.into()),
            ..Device::default()
        }
    }

    #[test]
    fn the_slots_own_disk_is_preferred() {
        let devices = vec![
            device("vda4", "vda", "KEELSON_STATE"),
            device("vdb4", "vdb", "KEELSON_STATE"),
        ];
        let wanted = State::PartLabel("KEELSON_STATE".into());
        assert_eq!(
            choose(&wanted, "vdb", devices.clone()).unwrap().name,
            "vdb4"
        );
        assert_eq!(
            choose(&wanted, "vdc", devices.clone()).unwrap().name,
            "vda4"
        );
        assert_eq!(
            choose(&State::Device("/dev/vda4".into()), "vdb", devices)
                .unwrap()
                .name,
            "vda4"
        );
    }

    #[test]
    fn what_is_missing_is_named() {
        for (wanted, text) in [
            (
                State::Ram,
                "the kernel command line asks for no state partition",
            ),
            (State::Device("/dev/x".into()), "there is no /dev/x"),
            (
                State::PartLabel("L".into()),
                "there is no partition named L",
            ),
        ] {
            assert_eq!(
                choose(&wanted, "vda", Vec::new()).unwrap_err().to_string(),
                text
            );
        }
    }

    #[test]
    fn the_record_for_others_is_json() {
        assert_eq!(
            Outcome::Persistent("/dev/vda4".into()).to_json(),
            "{\"persistent\":true,\"device\":\"/dev/vda4\"}\n"
        );
        assert_eq!(
            Outcome::Memory("a \"b\"".into()).to_json(),
            "{\"persistent\":false,\"reason\":\"a \\\"b\\\"\"}\n"
        );
    }
}
