//! One type per kind of recipe.

use serde::{Deserialize, Deserializer, de::Error};

use super::{Directory, Extract, FileEntry, Group, TreePath, User};

/// `system-services/NAME/image.yml`: the root file system of one system container.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ServiceImage {
    /// The image's name: it becomes `/usr/lib/keelson/images/NAME`.
    #[serde(deserialize_with = "image_name")]
    pub(crate) image: String,
    /// Debian packages; what they depend on comes with them.
    #[serde(default)]
    pub(crate) packages: Vec<String>,
    /// Packages that come along as dependencies and are left out.
    #[serde(default)]
    pub(crate) without: Vec<String>,
    /// Programs of this project, put into `/usr/bin`.
    #[serde(default)]
    pub(crate) programs: Vec<String>,
    /// Patterns of paths that are taken from the packages; all of them when there are none.
    #[serde(default)]
    pub(crate) keep: Vec<String>,
    /// Patterns of paths that are not taken from the packages.
    #[serde(default)]
    pub(crate) drop: Vec<String>,
    /// Position-independent programs of the packages that get a fixed address.
    #[serde(default)]
    pub(crate) prelink: Vec<TreePath>,
    /// Programs of the packages that lose the list of symbols that they export.
    #[serde(default)]
    pub(crate) unexport: Vec<TreePath>,
    /// Directories that are made.
    #[serde(default)]
    pub(crate) directories: Vec<Directory>,
    /// Files and links that are made.
    #[serde(default)]
    pub(crate) files: Vec<FileEntry>,
    /// Users.
    #[serde(default)]
    pub(crate) users: Vec<User>,
    /// Groups.
    #[serde(default)]
    pub(crate) groups: Vec<Group>,
}

/// `kernel.yml`: the kernel package and which of its modules go onto the root.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Kernel {
    /// Debian's meta package of the flavour, such as `linux-image-cloud-amd64`.
    pub(crate) package: String,
    /// Patterns of module files below `kernel/` that go onto the root; what they depend on comes with them.
    pub(crate) modules: Vec<String>,
    /// Patterns of module files that are left out again, unless another module depends on them.
    #[serde(default)]
    pub(crate) without: Vec<String>,
}

/// `initrd.yml`: what is in the initial RAM disk.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Initrd {
    /// Programs of this project.
    pub(crate) programs: Vec<Program>,
    /// Names of modules; what they depend on comes with them, and built-in ones need no file.
    pub(crate) modules: Vec<String>,
    /// Debian packages that are unpacked whole, with their dependencies.
    #[serde(default)]
    pub(crate) packages: Vec<String>,
    /// Packages of that closure that are left out.
    #[serde(default)]
    pub(crate) without: Vec<String>,
    /// Patterns of paths that are kept from those packages.
    #[serde(default)]
    pub(crate) keep: Vec<String>,
    /// Directories that are made.
    #[serde(default)]
    pub(crate) directories: Vec<Directory>,
    /// Files and links that are made.
    #[serde(default)]
    pub(crate) files: Vec<FileEntry>,
    /// Level of zstd, 1 to 19.
    pub(crate) zstd_level: u8,
}

/// `root.yml`: the read-only root, and what every service image in it has.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Root {
    /// Programs of this project.
    pub(crate) programs: Vec<Program>,
    /// Single files of Debian packages.
    #[serde(default)]
    pub(crate) extract: Vec<Extract>,
    /// Directories that are made.
    #[serde(default)]
    pub(crate) directories: Vec<Directory>,
    /// Files and links that are made.
    #[serde(default)]
    pub(crate) files: Vec<FileEntry>,
    /// What every service image has.
    pub(crate) every_image: EveryImage,
    /// How the file system is compressed.
    pub(crate) erofs: Erofs,
    /// The same for `build --quick`.
    pub(crate) erofs_quick: Erofs,
}

/// What every service image has beside its own recipe, which has the last word.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct EveryImage {
    /// Patterns of paths that are not taken from packages.
    pub(crate) drop: Vec<String>,
    /// Directories that are made.
    pub(crate) directories: Vec<Directory>,
    /// Files and links that are made.
    pub(crate) files: Vec<FileEntry>,
}

/// How mkfs.erofs compresses.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Erofs {
    /// Algorithms with their options, as mkfs.erofs takes them; the first is used where no rule matches.
    pub(crate) algorithms: Vec<String>,
    /// Most bytes that are compressed into one piece.
    pub(crate) cluster_bytes: u32,
    /// Options of mkfs.erofs's `-E`.
    #[serde(default)]
    pub(crate) features: Vec<String>,
    /// Other algorithms or cluster sizes for some files; the first rule that matches counts.
    #[serde(default)]
    pub(crate) rules: Vec<ErofsRule>,
}

/// Files that are compressed in their own way.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ErofsRule {
    /// Extended regular expression on the path, as mkfs.erofs's hints file takes it.
    pub(crate) paths: String,
    /// Place in `algorithms`, from 0.
    pub(crate) algorithm: usize,
    /// Most bytes that are compressed into one piece.
    pub(crate) cluster_bytes: u32,
}

/// `disk.yml`: the disk image's partitions and boot loader.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Disk {
    /// Size of the EFI system partition.
    pub(crate) esp_mib: u64,
    /// Size of each of the two OS slots.
    pub(crate) slot_mib: u64,
    /// Size of the state partition as shipped; it grows at the first boot.
    pub(crate) state_mib: u64,
    /// Size of the partition of GRUB's core image.
    pub(crate) bios_mib: u64,
    /// How long systemd-boot shows its menu.
    pub(crate) menu_seconds: u32,
    /// Debian package with systemd-boot and the stub of the unified kernel image.
    pub(crate) boot_package: String,
    /// Path of the boot loader in that package.
    pub(crate) boot_loader: TreePath,
    /// Path of the stub in that package.
    pub(crate) boot_stub: TreePath,
    /// Path of the stub of add-ons in that package.
    pub(crate) boot_addon_stub: TreePath,
    /// What starts machines without UEFI.
    pub(crate) grub: Grub,
    /// Kernel command line; the builder puts the slot and its root hash before it.
    pub(crate) command_line: Vec<String>,
}

/// GRUB for machines without UEFI.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Grub {
    /// Debian package with its images and modules.
    pub(crate) package: String,
    /// The folder of that package that holds them.
    pub(crate) folder: TreePath,
    /// The modules that are part of the core image.
    pub(crate) modules: Vec<String>,
}

/// A program of this project and where it goes.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Program {
    /// Name of the binary in the workspace.
    pub(crate) name: String,
    /// Where it goes.
    pub(crate) path: TreePath,
    /// Cargo profile it is built with.
    #[serde(default)]
    pub(crate) profile: Profile,
}

/// Cargo profiles that are shipped.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Profile {
    /// Small, aborts on a panic.
    #[default]
    Release,
    /// Small, unwinds: for PID 1, which outlives a panic.
    Pid1,
}

impl Profile {
    /// The name that cargo knows it by, which is also its folder's.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Release => "release",
            Self::Pid1 => "pid1",
        }
    }
}

fn image_name<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let name = String::deserialize(deserializer)?;
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if name.is_empty() || !name.bytes().all(allowed) {
        return Err(D::Error::custom(format!(
            "image name {name:?} may have lower-case letters, digits and `-` only"
        )));
    }
    Ok(name)
}
