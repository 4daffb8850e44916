//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Builds Keelson's images and boots them.
#[derive(Debug, Parser)]
#[command(name = "mkimage.sh", version, about)]
pub(crate) struct Arguments {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Build the images into out/.
    Build(Build),
    /// Build what is missing and boot it in QEMU, with its serial console in this terminal.
    Run(Run),
    /// Build twice in separate folders and compare the outputs.
    CheckReproducible(CheckReproducible),
    /// Make the keys that builds are signed with, or what a set of them lacks.
    Keys(Keys),
    /// Make a signed release from a built image, for `keelson os upgrade`; `release --help` shows its options.
    Release(Release),
    /// Remove what builds and runs left in out/, except the tool root and downloads.
    Clean,
}

/// Options of `build`.
#[derive(Debug, Args)]
pub(crate) struct Build {
    /// Take Debian packages in the versions that the archive has now.
    #[arg(long)]
    pub(crate) update: bool,
    /// Compress lightly: done in seconds, and larger than what is shipped.
    #[arg(long)]
    pub(crate) quick: bool,
    /// Folder of further services: the image has those of each of its folders too.
    #[arg(long, value_name = "FOLDER")]
    pub(crate) services: Vec<PathBuf>,
    /// Where the files go instead of out/.
    #[arg(long, value_name = "FOLDER")]
    pub(crate) output: Option<PathBuf>,
    /// Sign for UEFI Secure Boot with the keys in this folder (see `keys`).
    #[arg(long, value_name = "FOLDER")]
    pub(crate) sign: Option<PathBuf>,
    /// The version of the operating system instead of the sources' own.
    #[arg(long, value_name = "VERSION", value_parser = version)]
    pub(crate) version: Option<String>,
    /// The flavour of kernel and firmware: `cloud`, for virtual machines, or one of images/flavours/.
    #[arg(long, value_name = "NAME")]
    pub(crate) flavour: Option<String>,
    /// The disk image in another format too; may be given more than once.
    #[arg(long, value_name = "FORMAT")]
    pub(crate) format: Vec<Format>,
    /// An image for optical discs and sticks too, for UEFI and BIOS.
    #[arg(long)]
    pub(crate) iso: bool,
    /// What machines are started with from the network, too.
    #[arg(long)]
    pub(crate) netboot: bool,
}

/// Formats of disk images beside the raw one, by the names that qemu-img has for them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Format {
    /// QEMU, Proxmox, OpenStack.
    Qcow2,
    /// VMware, VirtualBox.
    Vmdk,
    /// Hyper-V.
    Vhdx,
}

impl Format {
    /// qemu-img's name for it, which is also the file's extension.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Qcow2 => "qcow2",
            Self::Vmdk => "vmdk",
            Self::Vhdx => "vhdx",
        }
    }
}

/// Options of `keys`.
#[derive(Debug, Args)]
pub(crate) struct Keys {
    /// Folder of the set.
    #[arg(long, default_value = "out/keys", value_name = "FOLDER")]
    pub(crate) output: PathBuf,
}

/// What may be a version: boot entries and tags of releases are named after it.
fn version(text: &str) -> Result<String, String> {
    let is_version = text.len() <= 64
        && text.starts_with(|first: char| first.is_ascii_digit())
        && text
            .chars()
            .all(|letter| letter.is_ascii_alphanumeric() || ".-~".contains(letter));
    match is_version {
        true => Ok(text.to_owned()),
        false => {
            Err("a digit, then letters, digits, `.`, `-`, `~`; at most 64 characters".to_owned())
        }
    }
}

/// Options of `release`.
#[derive(Debug, Args)]
#[command(disable_help_flag = true)]
pub(crate) struct Release {
    /// They are keelson-release's.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) options: Vec<String>,
}

/// Options of `run`.
#[derive(Debug, Args)]
pub(crate) struct Run {
    /// Build with light compression, as `build --quick` does.
    #[arg(long)]
    pub(crate) quick: bool,
    /// Sign with the keys in this folder, and boot with Secure Boot: the first boot enrols them.
    #[arg(long, value_name = "FOLDER")]
    pub(crate) sign: Option<PathBuf>,
    /// Memory of the machine, as QEMU takes it.
    #[arg(long, default_value = "2G", value_name = "SIZE")]
    pub(crate) memory: String,
    /// Processors of the machine.
    #[arg(long, default_value_t = 2)]
    pub(crate) cpus: u32,
    /// Size of the disk when it is made.
    #[arg(long, default_value = "8G", value_name = "SIZE")]
    pub(crate) disk_size: String,
    /// Port of this machine (127.0.0.1) that leads to the guest's SSH.
    #[arg(long, default_value_t = 2222, value_name = "PORT")]
    pub(crate) ssh_port: u16,
    /// Make the disk anew from the current build; what was on it is lost.
    #[arg(long)]
    pub(crate) fresh: bool,
    /// NoCloud seed: a folder with user-data and meta-data, or an image labelled `cidata`.
    #[arg(long, value_name = "FOLDER|IMAGE", conflicts_with = "no_seed")]
    pub(crate) seed: Option<PathBuf>,
    /// Attach no seed at all: nobody can log in then.
    #[arg(long)]
    pub(crate) no_seed: bool,
    /// Password of the user `keelson` in the seed that is made; a random one when not given.
    #[arg(long, conflicts_with_all = ["seed", "no_seed"])]
    pub(crate) password: Option<String>,
    /// Further arguments for QEMU.
    #[arg(last = true, value_name = "QEMU-ARGUMENTS")]
    pub(crate) qemu: Vec<String>,
}

/// Options of `check-reproducible`.
#[derive(Debug, Args)]
pub(crate) struct CheckReproducible {
    /// Compile our programs once and use them in both builds.
    #[arg(long)]
    pub(crate) same_programs: bool,
    /// Sign both builds with the keys in this folder.
    #[arg(long, value_name = "FOLDER")]
    pub(crate) sign: Option<PathBuf>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn arguments_after_the_dashes_are_qemus() {
        let arguments =
            Arguments::parse_from(["x", "run", "--memory", "1G", "--", "-device", "foo"]);
        let Command::Run(run) = arguments.command else {
            panic!("not run")
        };
        assert_eq!(run.qemu, ["-device", "foo"]);
        assert_eq!(run.memory, "1G");
    }

    #[test]
    fn an_unknown_option_is_refused() {
        assert!(Arguments::try_parse_from(["x", "build", "--fats"]).is_err());
    }
}
