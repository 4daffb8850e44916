//! What is installed: the system that runs, be it from a disk or from a medium that is live.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use uuid::Uuid;

use super::boot::{self, BootFile};
use super::verity::Tree;
use crate::disk::{esp_beside_root, slot_of, under_root};
use crate::entry::Entry;
use crate::esp::Esp;
use crate::uki::{self, grub};

/// Where the boot loader is on an EFI system partition, once for machines that know its name and once for those that do not.
const LOADERS: [&str; 2] = ["EFI/systemd/systemd-bootx64.efi", "EFI/BOOT/BOOTX64.EFI"];
const SETTINGS: &str = "loader/loader.conf";
/// What the boot loader hands to firmware in setup mode; signed images have it.
const KEYS: &str = "loader/keys/auto";

/// Where everything is.
#[derive(Clone, Debug)]
pub struct Paths {
    /// `/sys/class/block`
    pub block: PathBuf,
    /// `/dev`
    pub devices: PathBuf,
    /// `/proc/cmdline`
    pub command_line: PathBuf,
    /// `os-release` of the running system.
    pub os_release: PathBuf,
    /// Where the EFI system partition is mounted.
    pub esp: PathBuf,
    /// The boot files of a live system, laid out as on an EFI system partition; empty or not there on others.
    pub live: PathBuf,
}

/// What starts machines without UEFI.
#[derive(Clone, Debug)]
pub struct Bios {
    /// The first sector's program.
    pub program: Vec<u8>,
    /// What is in GRUB's partition.
    pub core: Vec<u8>,
    /// How GRUB starts the version.
    pub entry: String,
}

/// What is put onto a disk.
#[derive(Debug)]
pub struct Medium {
    /// The version.
    pub version: String,
    /// GUID of the slot that it is in.
    pub slot: Uuid,
    /// The root image.
    pub root: File,
    /// Its tree, which knows each of its blocks.
    pub tree: Tree,
    /// The files of the EFI system partition.
    pub files: Vec<BootFile>,
    /// GRUB, for machines without UEFI.
    pub bios: Bios,
    /// The unified kernel image is signed.
    pub signed: bool,
    // Unmounted when the files are no longer read.
    _esp: Esp,
}

impl Medium {
    /// The system that runs. `mount` mounts a device at a directory, to be read only.
    ///
    /// # Errors
    /// Its root or its boot files cannot be found, or are not what they should be.
    pub fn running(paths: &Paths, mount: fn(&Path, &Path, bool) -> Result<Esp>) -> Result<Self> {
        let line = read(&paths.command_line)?;
        let version = version(&read(&paths.os_release)?)?;
        let esp = if paths.live.join("EFI/Linux").is_dir() {
            Esp::of_directory(&paths.live)
        } else {
            let esp = esp_beside_root(&paths.block, &paths.devices)
                .context("find the boot files of the system that runs")?;
            mount(&esp, &paths.esp, true)?
        };
        let root = paths.devices.join(under_root(&paths.block)?);
        let root = File::open(&root).with_context(|| format!("open {}", root.display()))?;
        Self::of(esp, version, root, word(&line, "keelson.roothash=")?)
    }

    /// The version with this root hash, whose boot files are on `esp`.
    ///
    /// # Errors
    /// There is no such version, or it is damaged.
    pub fn of(esp: Esp, version: String, root: File, root_hash: &str) -> Result<Self> {
        let mut found = None;
        for entry in esp.entries()? {
            let line = esp.command_line(&entry)?;
            if entry.version == version && word(&line, "keelson.roothash=")? == root_hash {
                found = Some((entry, line));
                break;
            }
        }
        let (entry, line) = found.with_context(|| {
            format!("there is no unified kernel image of version {version}, which runs")
        })?;
        let hash_offset = word(&line, "keelson.hashoffset=")?
            .parse()
            .context("read keelson.hashoffset")?;
        let tree = Tree::read(&root, hash_offset, root_hash)?;
        let slot = slot_of(&line).context("the kernel image names no slot")?;
        let image = esp.image(&entry);
        let signed = uki::is_signed(&mut File::open(&image)?)?;
        let read = |path: &str| {
            let path = esp.root().join(path);
            fs::read(&path).with_context(|| format!("read {}", path.display()))
        };
        let bios = Bios {
            program: read(grub::BOOT)?,
            core: read(grub::CORE)?,
            entry: grub::entry(&mut File::open(&image)?)?,
        };
        let files = files(&esp, &image, &version)?;
        Ok(Medium {
            slot: Uuid::parse_str(&slot).context("read the slot's name")?,
            version,
            root,
            tree,
            files,
            bios,
            signed,
            _esp: esp,
        })
    }
}

/// The files of a new EFI system partition; the kernel image is one that is known to be good.
fn files(esp: &Esp, image: &Path, version: &str) -> Result<Vec<BootFile>> {
    let root = esp.root();
    let loader = LOADERS
        .iter()
        .map(|path| root.join(path))
        .find(|path| path.is_file())
        .context("there is no boot loader beside the running system's kernel image")?;
    let file = |from: &Path, path: &str| BootFile {
        path: path.to_owned(),
        from: from.to_owned(),
    };
    let mut files: Vec<BootFile> = LOADERS.iter().map(|path| file(&loader, path)).collect();
    for path in [SETTINGS, grub::CONFIGURATION, grub::BOOT, grub::CORE] {
        files.push(file(&root.join(path), path));
    }
    files.extend(boot::files_of(root, KEYS)?);
    let entry = format!("EFI/Linux/{}", Entry::good(version));
    files.push(file(image, &entry));
    Ok(files)
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("read {}", path.display()))
}

fn version(os_release: &str) -> Result<String> {
    let mut lines = os_release.lines();
    let version = lines.find_map(|line| line.strip_prefix("IMAGE_VERSION="));
    let version = version.context("os-release names no IMAGE_VERSION")?;
    ensure!(
        crate::entry::is_version(version),
        "`{version}` is no version"
    );
    Ok(version.to_owned())
}

/// The first word counts, as in the boot.
fn word<'l>(line: &'l str, start: &str) -> Result<&'l str> {
    let mut words = line.split_ascii_whitespace();
    match words.find_map(|word| word.strip_prefix(start)) {
        Some(value) => Ok(value),
        None => bail!("the kernel's command line has no {start}"),
    }
}
