//! Everything down: processes, file systems, machine. Bounded in time, and honest about what it leaves.

use crate::root::{cgroups, seed};
use crate::supervisor::watchdog::Watchdog;
use crate::{files, kexec, kmsg, rescue};
use anyhow::Context as _;
use keelson_sys::control::Action;
use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::reboot::{RebootMode, reboot};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;
use std::panic::catch_unwind;
use std::path::Path;
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// How long what is left may take to end by itself, and then to die.
const TERM_DEADLINE: Duration = Duration::from_millis(500);
const KILL_DEADLINE: Duration = Duration::from_millis(1500);
/// How long unmounting may take.
const UNMOUNT_DEADLINE: Duration = Duration::from_millis(3500);
/// As long as data goes to the disks there is patience, but no longer than this many times.
const UNMOUNT_ROUNDS: u32 = 20;
/// Where the storage service keeps its swap file.
const SWAP_FILE: &str = "/state/storage/swap";
/// Kernel file systems: nothing in them is worth a word when they stay.
const KERNEL_ONLY: [&str; 5] = ["/proc", "/sys", "/dev", "/run", "/"];

/// Brings everything down and the machine with it. Does not return.
pub(crate) fn finish(action: Action, mut watchdog: Option<Watchdog>) -> ! {
    if let Some(watchdog) = &mut watchdog {
        watchdog.feed();
    }
    if catch_unwind(end_processes).is_err() {
        kmsg::error("ending processes was cut short by an internal error (see above)");
    }
    let action = match action {
        Action::Kexec => prepare_kexec(),
        other => other,
    };
    if let Some(watchdog) = &mut watchdog {
        watchdog.feed();
    }
    let words = match unmount_within(UNMOUNT_DEADLINE, watchdog.as_mut()) {
        Some(left) if left.is_empty() => "everything is unmounted clean".to_owned(),
        Some(left) => format!("still in use: {}", left.join(", ")),
        None => "unmounting did not end (a disk or server that does not answer?)".to_owned(),
    };
    kmsg::error(format_args!("{words}; {action}"));
    if let Some(watchdog) = watchdog {
        watchdog.stop();
    }
    let mode = match action {
        Action::Reboot => RebootMode::RB_AUTOBOOT,
        Action::Kexec => RebootMode::RB_KEXEC,
        Action::Poweroff => RebootMode::RB_POWER_OFF,
        Action::Halt => RebootMode::RB_HALT_SYSTEM,
    };
    let Err(error) = reboot(mode);
    kmsg::error(format_args!("{action}: {error}"));
    if action == Action::Kexec {
        let Err(error) = reboot(RebootMode::RB_AUTOBOOT);
        kmsg::error(format_args!("restart: {error}"));
    }
    rescue::stay()
}

/// Loads the next kernel. The firmware is the other way when there is none.
fn prepare_kexec() -> Action {
    match catch_unwind(kexec::load) {
        Ok(Ok(())) => return Action::Kexec,
        Ok(Err(error)) => kmsg::error(format_args!(
            "no kexec: {error:#}; restarting by the firmware"
        )),
        Err(_) => kmsg::error("kexec was cut short by an internal error (see above)"),
    }
    Action::Reboot
}

/// Flushes and unmounts on a thread of its own, because a disk that does not answer holds whoever asks it for
/// ever. `None` when it has not ended in time.
fn unmount_within(patience: Duration, mut watchdog: Option<&mut Watchdog>) -> Option<Vec<String>> {
    let (sender, receiver) = mpsc::channel();
    let thread = std::thread::Builder::new()
        .stack_size(256 * 1024)
        .spawn(move || {
            kmsg::tolerate("keep a random seed", seed::save_at_shutdown());
            // What is on good disks first: what is swapped out to a bad one may not come back.
            nix::unistd::sync();
            end_swapping();
            nix::unistd::sync();
            // Nobody listens any more when the time is up.
            let _ = sender.send(unmount_all());
        });
    kmsg::tolerate("start the thread that unmounts", thread);
    let mut before = u64::MAX;
    for _ in 0..UNMOUNT_ROUNDS {
        if let Ok(left) = receiver.recv_timeout(patience) {
            return Some(left);
        }
        // A large slow disk may have much to write; one that does not answer writes nothing.
        let unwritten = unwritten_kib();
        if unwritten >= before {
            return None;
        }
        before = unwritten;
        if let Some(watchdog) = watchdog.as_mut() {
            watchdog.feed();
        }
    }
    None
}

/// What is still to be written to disks, in KiB (`Dirty` and `Writeback` of proc_meminfo(5)).
fn unwritten_kib() -> u64 {
    let text = files::get("/proc/meminfo").unwrap_or_default();
    let lines = text.lines().filter_map(|line| {
        let value = line
            .strip_prefix("Dirty:")
            .or_else(|| line.strip_prefix("Writeback:"))?;
        value.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()
    });
    lines.fold(0, u64::saturating_add)
}

/// A file system with a swap file that is in use cannot be unmounted.
fn end_swapping() {
    let swaps = files::get("/proc/swaps").unwrap_or_default();
    for line in swaps.lines().skip(1) {
        // The path is that of a container which has ended.
        let name = line.split_whitespace().next().unwrap_or_default();
        let name = name.rsplit('/').next().unwrap_or_default();
        let path = match line.split_whitespace().nth(1) {
            Some("file") => Path::new(SWAP_FILE).to_owned(),
            _ => Path::new("/dev").join(name),
        };
        kmsg::tolerate(
            "end swapping",
            keelson_sys::machine::swap_off(&path)
                .with_context(|| format!("swapoff {}", path.display())),
        );
    }
}

/// Ends what the engine has left: containers at once, they had their time; then everything else, first with a
/// word.
fn end_processes() {
    for group in cgroups::OTHERS {
        kmsg::tolerate(
            "end a control group",
            files::set(cgroups::file(group, "cgroup.kill"), "1"),
        );
    }
    for (signal, patience) in [
        (Signal::SIGTERM, TERM_DEADLINE),
        (Signal::SIGKILL, KILL_DEADLINE),
    ] {
        match kill(Pid::from_raw(-1), signal) {
            Ok(()) | Err(Errno::ESRCH) => {}
            Err(error) => kmsg::error(format_args!("end all processes: {error}")),
        }
        if reap_until(patience) {
            return;
        }
        kmsg::info(format_args!(
            "after {signal} these are left: {}",
            survivors().join(", ")
        ));
    }
    kmsg::error(format_args!(
        "some processes do not die: {}; going on",
        survivors().join(", ")
    ));
}

/// The processes that are still there but for PID 1 and the kernel's own, for people.
fn survivors() -> Vec<String> {
    let number = |entry: std::fs::DirEntry| entry.file_name().to_str()?.parse::<u32>().ok();
    let processes = std::fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(number);
    let describe = |pid: u32| {
        // The kernel's own have no command line; one that has ended meanwhile has none either.
        let command = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        let name = files::get(format!("/proc/{pid}/comm")).ok()?;
        (pid != 1 && !command.is_empty()).then(|| format!("{name} ({pid})"))
    };
    processes.filter_map(describe).collect()
}

/// Reaps children until there are none; false when time is up before.
fn reap_until(patience: Duration) -> bool {
    let mut children = SigSet::empty();
    children.add(Signal::SIGCHLD);
    let started = Instant::now();
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Err(Errno::ECHILD) => return true,
            Ok(status) if status.pid().is_some() => continue,
            _ => {}
        }
        let left = patience.saturating_sub(started.elapsed());
        if left.is_zero() {
            return false;
        }
        // SIGCHLD is blocked and stays pending, so none is missed between the two calls.
        let _ = keelson_sys::process::wait_for_signal(&children, left);
    }
}

/// Unmounts everything, the newest first, again as long as that brings something. What stays is made read-only.
/// Gives a sentence for each that holds data and stays.
fn unmount_all() -> Vec<String> {
    loop {
        let mounts = mounts();
        let before = mounts.len();
        for target in mounts
            .iter()
            .rev()
            .filter(|target| !KERNEL_ONLY.contains(&target.as_str()))
        {
            // First for the file system itself: when it is mounted in a namespace whose processes have just died
            // it is clean from here on, whenever the last reference goes. Refused for those that hold no data.
            let _ = mount(
                None::<&str>,
                target.as_str(),
                None::<&str>,
                MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY,
                None::<&str>,
            );
            // Whether it worked shows in the next look at the list.
            let _ = umount2(target.as_str(), MntFlags::empty());
        }
        let after = self::mounts();
        if after.len() < before {
            continue;
        }
        let stays = |target: &String| !KERNEL_ONLY.iter().any(|kernel| is_below(target, kernel));
        return after
            .into_iter()
            .filter(stays)
            .map(|target| describe(&target))
            .collect();
    }
}

/// `/` itself is read-only by nature; what is below a kernel file system is one.
fn is_below(target: &str, kernel: &str) -> bool {
    target == kernel
        || (kernel != "/"
            && target
                .strip_prefix(kernel)
                .is_some_and(|rest| rest.starts_with('/')))
}

fn describe(target: &str) -> String {
    let read_only = nix::sys::statvfs::statvfs(target).is_ok_and(|status| {
        status
            .flags()
            .contains(nix::sys::statvfs::FsFlags::ST_RDONLY)
    });
    format!(
        "{target} ({})",
        if read_only {
            "made read-only"
        } else {
            "writable"
        }
    )
}

/// The mount points, the oldest first.
fn mounts() -> Vec<String> {
    let text =
        kmsg::tolerate("list mounts", files::get("/proc/self/mountinfo")).unwrap_or_default();
    text.lines().filter_map(mount_point).collect()
}

/// The fifth field of a line of mountinfo (proc_pid_mountinfo(5)); white space in it is written in octal.
fn mount_point(line: &str) -> Option<String> {
    let field = line.split(' ').nth(4)?;
    let mut parts = field.split('\\');
    let mut bytes = parts.next()?.as_bytes().to_vec();
    for part in parts {
        let (code, rest) = part.split_at_checked(3)?;
        bytes.push(u8::from_str_radix(code, 8).ok()?);
        bytes.extend_from_slice(rest.as_bytes());
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_points_are_unescaped() {
        let line = r"36 35 98:0 /mnt1 /mnt\0402\134x rw,noatime master:1 - ext3 /dev/root rw,errors=continue";
        assert_eq!(mount_point(line).as_deref(), Some(r"/mnt 2\x"));
        assert_eq!(mount_point("36 35"), None);
        assert_eq!(mount_point(r"1 2 3 4 /a\9"), None);
    }

    #[test]
    fn only_what_holds_data_is_worth_a_word() {
        assert!(
            is_below("/sys/fs/cgroup", "/sys") && is_below("/", "/") && is_below("/run", "/run")
        );
        assert!(!is_below("/state", "/") && !is_below("/system", "/sys"));
    }
}
