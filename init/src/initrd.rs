//! The initrd stage: from the kernel to the verified root.
//!
//! Mounts what is needed, loads the modules of the boot disk, opens the slot with dm-verity, mounts the state
//! partition (or memory), and becomes the program of the same name on the new root.

use crate::cmdline::{Options, State};
use crate::kmod::background::{Background, Urgency};
use crate::kmod::{Library, coldplug};
use crate::storage::{slot, state};
use crate::timeline::{Timeline, now_us};
use crate::uevent::Socket;
use crate::{HURRY, NEXT_PROGRAM, fallback, files, kmsg, rescue};
use anyhow::{Context as _, Result, anyhow};
use nix::mount::{MsFlags, mount};
use std::convert::Infallible;
use std::ffi::CString;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

/// Where the new root is put together.
const ROOT: &str = "/sysroot";
/// Modules that no device asks for, in the order in which they are needed. Those that the kernel has built in and
/// those that the initrd does not carry are skipped.
const MODULES: [&str; 4] = ["sha256-ssse3", "dm-verity", "erofs", "ext4"];
/// Mounts that move to the new root.
const MOVED: [&str; 4] = ["dev", "proc", "sys", "run"];

/// Runs the stage. Ends in exec, or in a message, a rescue shell and a restart.
pub(crate) fn run() -> ! {
    let start_us = now_us();
    let outcome = std::panic::catch_unwind(|| stage(start_us));
    let reason = match outcome {
        Ok(Err(error)) => format!("{error:#}"),
        Ok(Ok(never)) => match never {},
        Err(_) => "internal error in the initrd (see above)".to_owned(),
    };
    let rescue = std::panic::catch_unwind(|| {
        slot::close(Path::new(ROOT));
        files::get("/proc/cmdline").is_ok_and(|text| Options::parse(&text).rescue)
    });
    rescue::last_resort(&reason, rescue.unwrap_or(false))
}

fn stage(start_us: u64) -> Result<Infallible> {
    let mut timeline = Timeline::default();
    mount_kernel_file_systems()?;
    kmsg::report_panics();
    // Grace periods of the kernel's read-copy-update stand in the way of mounts, modules and network set-up at every
    // step; the real root goes back to the sparing kind when the engine is up.
    kmsg::tolerate("hurry the kernel", files::set(HURRY, "1"));
    let options = Options::parse(&files::get("/proc/cmdline")?);
    options.complaints.iter().for_each(kmsg::error);
    // Subscribed before the devices are listed, so that none is missed between the two.
    let mut events = Socket::open().context("subscribe to kernel events")?;
    let mut modules = Background::new(Library::open()?);
    timeline.measure("initrd.modules", || {
        kmsg::tolerate("let the kernel call modprobe", link_modprobe());
        MODULES
            .iter()
            .for_each(|name| modules.request(name, Urgency::Root));
        coldplug()
            .iter()
            .for_each(|alias| modules.request_device(alias));
        modules.start();
    });
    let found = timeline.measure("initrd.slot", || {
        slot::find(&options, &mut modules, &mut events)
    })?;
    modules.hold_devices();
    let root = Path::new(ROOT);
    files::make_directory(root)?;
    let mounted = timeline.measure("initrd.root", || {
        slot::mount_root(&found, &options, &mut modules, &mut events, root)
    });
    if let Err(error) = &mounted
        && !options.rescue
    {
        fallback::leave(&options, &format!("{error:#}"));
    }
    mounted?;
    let outcome = timeline.measure("initrd.state", || {
        if options.state != State::Ram {
            modules.wait_for("ext4");
            if !state::is_present(&options.state) {
                // Perhaps on a disk whose driver is still on its way.
                modules.wait_for_all();
            }
        }
        let target = root.join("state");
        state::mount(&options.state, options.reset, &found.disk, root, &target)
    })?;
    modules.stop(&mut timeline);
    files::make_directory("/run/keelson/boot")?;
    std::fs::write("/run/keelson/state.json", outcome.to_json())
        .context("write /run/keelson/state.json")?;
    std::fs::write("/run/keelson/slot", format!("{}\n", found.title))
        .context("write /run/keelson/slot")?;
    timeline.add("initrd", start_us);
    timeline.write().context("write the time line")?;
    switch_root(root)
}

fn mount_kernel_file_systems() -> Result<()> {
    let nothing = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    for (kind, target, flags, data) in [
        ("devtmpfs", "/dev", MsFlags::MS_NOSUID, "mode=755"),
        ("proc", "/proc", nothing, ""),
        ("sysfs", "/sys", nothing, ""),
        (
            "tmpfs",
            "/run",
            MsFlags::MS_NOSUID | MsFlags::MS_NODEV,
            "mode=755",
        ),
    ] {
        files::make_directory(target)?;
        mount(Some(kind), target, Some(kind), flags, Some(data))
            .with_context(|| format!("mount {kind} at {target}"))?;
    }
    Ok(())
}

/// The kernel asks /sbin/modprobe for what nobody thought of.
fn link_modprobe() -> Result<()> {
    files::make_directory("/sbin")?;
    let link = Path::new("/sbin/modprobe");
    if std::fs::symlink_metadata(link).is_err() {
        std::os::unix::fs::symlink("/init", link).context("link /sbin/modprobe")?;
    }
    Ok(())
}

/// Moves to the new root and becomes its program. Memory that the initrd takes is freed.
fn switch_root(root: &Path) -> Result<Infallible> {
    for name in MOVED {
        let target = root.join(name);
        mount(
            Some(&Path::new("/").join(name)),
            &target,
            None::<&str>,
            MsFlags::MS_MOVE,
            None::<&str>,
        )
        .with_context(|| format!("move /{name} to the new root"))?;
    }
    let device = std::fs::metadata("/").context("look at the initrd")?.dev();
    delete_tree(Path::new("/"), device);
    std::env::set_current_dir(root).context("enter the new root")?;
    mount(Some("."), "/", None::<&str>, MsFlags::MS_MOVE, None::<&str>)
        .context("move the new root to /")?;
    nix::unistd::chroot(".").context("change the root")?;
    std::env::set_current_dir("/").context("enter the new root")?;
    let program = CString::new(NEXT_PROGRAM)?;
    let result = nix::unistd::execv(&program, &[&program]);
    Err(anyhow!("{result:?}").context(format!("start {NEXT_PROGRAM}")))
}

/// Deletes what is on the initrd's own file system; the new root, mounted on a directory of it, is another.
/// What cannot be deleted only costs memory.
fn delete_tree(directory: &Path, device: u64) {
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        match std::fs::symlink_metadata(&path) {
            Ok(data) if data.dev() != device => {}
            Ok(data) if data.is_dir() => {
                delete_tree(&path, device);
                // Holds a mount point, then.
                let _ = std::fs::remove_dir(&path);
            }
            Ok(_) => drop(kmsg::tolerate(
                format_args!("delete {}", path.display()),
                std::fs::remove_file(&path),
            )),
            Err(_) => {}
        }
    }
}
