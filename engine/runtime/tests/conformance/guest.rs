//! Being PID 1 of a virtual machine that only runs the suite.
//!
//! The initrd is a file system that nothing can pivot away from, so its contents are copied to a tmpfs that becomes the
//! root first. Kernel command line: `conformance.arguments=a,b` are passed on.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::Context as _;
use nix::mount::{MsFlags, mount};
use nix::sys::reboot::{RebootMode, reboot};

const RUNTIMES: &str = "keelson-runtime=/usr/bin/keelson-runtime crun=/usr/bin/crun";

/// Sets the machine up, runs the suite and turns the machine off.
pub(crate) fn main() -> ! {
    if std::env::var_os("KEELSON_RUNTIMES").is_none() {
        // Only returns when something failed.
        if let Err(error) = enter_tmpfs() {
            println!("conformance: FAILED to set the machine up: {error:#}");
        }
    } else if let Err(error) = mount_kernel_file_systems().and_then(|()| run()) {
        println!("conformance: FAILED: {error:#}");
    }
    // PID 1 must not return; without power management the kernel halts.
    let Err(error) = reboot(RebootMode::RB_POWER_OFF);
    panic!("power off: {error}");
}

fn run() -> anyhow::Result<()> {
    let command_line = fs::read_to_string("/proc/cmdline")?;
    let passed = command_line
        .split_whitespace()
        .find_map(|word| word.strip_prefix("conformance.arguments="));
    let arguments: Vec<&str> = passed
        .map(|text| text.split(',').collect())
        .unwrap_or_default();
    // A child, so that PID 1 stays alive whatever happens to the suite.
    let status = Command::new("/init")
        .args(arguments)
        .status()
        .context("run the suite")?;
    println!("conformance: ended, {status}");
    Ok(())
}

fn enter_tmpfs() -> anyhow::Result<()> {
    let root = Path::new("/new-root");
    fs::create_dir_all(root)?;
    mount(
        Some("tmpfs"),
        root,
        Some("tmpfs"),
        MsFlags::empty(),
        Some("mode=755"),
    )
    .context("mount a tmpfs")?;
    for entry in fs::read_dir("/")? {
        let entry = entry?;
        if entry.path() != root {
            copy(&entry.path(), &root.join(entry.file_name()))?;
        }
    }
    std::env::set_current_dir(root)?;
    mount(Some("."), "/", None::<&str>, MsFlags::MS_MOVE, None::<&str>)
        .context("move the tmpfs to /")?;
    nix::unistd::chroot(".").context("change the root")?;
    std::env::set_current_dir("/")?;
    let error = std::os::unix::process::CommandExt::exec(
        Command::new("/init").env("KEELSON_RUNTIMES", RUNTIMES),
    );
    Err(error).context("run /init again")
}

fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    let kind = fs::symlink_metadata(from)?.file_type();
    if kind.is_symlink() {
        std::os::unix::fs::symlink(fs::read_link(from)?, to)?;
    } else if kind.is_dir() {
        fs::create_dir_all(to)?;
        for entry in fs::read_dir(from)? {
            let entry = entry?;
            copy(&entry.path(), &to.join(entry.file_name()))?;
        }
    } else if kind.is_file() {
        fs::copy(from, to).with_context(|| format!("copy {}", from.display()))?;
    }
    Ok(())
}

fn mount_kernel_file_systems() -> anyhow::Result<()> {
    for (kind, place) in [
        ("proc", "/proc"),
        ("sysfs", "/sys"),
        ("devtmpfs", "/dev"),
        ("tmpfs", "/run"),
        ("tmpfs", "/tmp"),
        ("cgroup2", "/sys/fs/cgroup"),
    ] {
        fs::create_dir_all(place).with_context(|| format!("make {place}"))?;
        mount(
            Some(kind),
            place,
            Some(kind),
            MsFlags::empty(),
            None::<&str>,
        )
        .with_context(|| format!("mount {place}"))?;
    }
    fs::create_dir_all("/dev/pts")?;
    mount(
        Some("devpts"),
        "/dev/pts",
        Some("devpts"),
        MsFlags::empty(),
        Some("ptmxmode=0666"),
    )
    .context("mount /dev/pts")?;
    // crun reads "-" from there.
    std::os::unix::fs::symlink("/proc/self/fd/0", "/dev/stdin")?;
    // Processes and enabled controllers do not go together in a cgroup other than the root.
    fs::create_dir_all("/dev/shm")?;
    Ok(())
}
