//! The rescue shell, and what happens when there is no root to go on with.

use crate::kmsg;
use anyhow::{Context as _, Result};
use keelson_sys::process::{Setup, spawn};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::reboot::{RebootMode, reboot};
use nix::sys::wait::{WaitStatus, wait};
use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

const SHELL: &str = "/usr/lib/keelson/busybox";
/// How long somebody at the console has to ask for a shell before the machine starts again.
const ANSWER_DEADLINE: Duration = Duration::from_secs(30);

/// The terminals that the kernel's console is on.
pub(crate) fn consoles() -> Vec<PathBuf> {
    let active = std::fs::read_to_string("/sys/class/tty/console/active").unwrap_or_default();
    terminals(&active)
}

fn terminals(active: &str) -> Vec<PathBuf> {
    // tty0 means the terminal in front, which is the first one here.
    active
        .split_ascii_whitespace()
        .map(|name| Path::new("/dev").join(if name == "tty0" { "tty1" } else { name }))
        .collect()
}

/// Starts a shell on a terminal; returns its process number.
pub(crate) fn start_shell(terminal: &Path) -> Result<i32> {
    let open = || {
        OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NOCTTY)
            .open(terminal)
    };
    let mut file = open().with_context(|| format!("open {}", terminal.display()))?;
    let banner =
        b"\r\nKeelson rescue shell: `exit` ends it, `reboot -f` starts the machine again.\r\n";
    file.write_all(banner)
        .with_context(|| format!("write to {}", terminal.display()))?;
    let mut command = Command::new(SHELL);
    command
        .args(["sh", "-l"])
        .env_clear()
        .envs([
            ("PATH", "/usr/lib/keelson:/usr/sbin:/usr/bin:/sbin:/bin"),
            ("HOME", "/"),
            ("TERM", "linux"),
            ("PS1", "rescue# "),
        ])
        .current_dir("/")
        .stdin(file.try_clone().context("duplicate the terminal")?)
        .stdout(file.try_clone().context("duplicate the terminal")?)
        .stderr(file);
    let setup = Setup {
        controlling_terminal: true,
        ..Setup::default()
    };
    spawn(&mut command, &setup).with_context(|| format!("start {SHELL} on {}", terminal.display()))
}

/// Nothing can go on from here: says so, offers a shell to whoever sits at the console, and starts the machine
/// again, which gives the boot loader its chance to choose another slot.
pub(crate) fn last_resort(reason: &str, shell_at_once: bool) -> ! {
    kmsg::error(reason);
    let terminal = if shell_at_once {
        consoles().pop()
    } else {
        ask_for_shell()
    };
    if let Some(terminal) = terminal {
        match start_shell(&terminal) {
            Ok(shell) => wait_for(shell),
            Err(error) => kmsg::error(format_args!("no rescue shell: {error:#}")),
        }
    }
    kmsg::error("restarting");
    nix::unistd::sync();
    let Err(error) = reboot(RebootMode::RB_AUTOBOOT);
    kmsg::error(format_args!("restart: {error}"));
    stay()
}

/// There is nothing left to do but to be there: PID 1 must not end, and the messages can be read.
pub(crate) fn stay() -> ! {
    loop {
        std::thread::park();
    }
}

/// Waits for Enter on any console; gives the console it came from.
fn ask_for_shell() -> Option<PathBuf> {
    let seconds = ANSWER_DEADLINE.as_secs();
    let shell = if Path::new(SHELL).exists() {
        "press Enter for a rescue shell, or wait: "
    } else {
        ""
    };
    kmsg::error(format_args!(
        "this boot cannot go on; {shell}restarting in {seconds} s, the boot loader may then choose another slot"
    ));
    let open = |path: PathBuf| {
        let flags = libc::O_NOCTTY | libc::O_NONBLOCK;
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(flags)
            .open(&path)
            .ok()?;
        Some((path, file))
    };
    let mut terminals: Vec<(PathBuf, File)> = consoles().into_iter().filter_map(open).collect();
    let deadline = Instant::now().checked_add(ANSWER_DEADLINE)?;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return None;
        }
        let mut waiting: Vec<PollFd<'_>> = terminals
            .iter()
            .map(|(_, file)| PollFd::new(file.as_fd(), PollFlags::POLLIN))
            .collect();
        let timeout = PollTimeout::try_from(left.saturating_add(Duration::from_millis(1)))
            .unwrap_or(PollTimeout::MAX);
        let failed = poll(&mut waiting, timeout).is_err();
        drop(waiting);
        let mut answered = None;
        terminals.retain_mut(|(path, file)| match file.read(&mut [0; 64]) {
            // Hung up: a terminal without anybody behind it.
            Ok(0) => false,
            Ok(_) => {
                answered = Some(path.clone());
                true
            }
            Err(error) => error.kind() == std::io::ErrorKind::WouldBlock,
        });
        if answered.is_some() || failed {
            return answered.filter(|_| Path::new(SHELL).exists());
        }
    }
}

/// Reaps until this child is gone.
fn wait_for(child: i32) {
    loop {
        match wait() {
            Ok(WaitStatus::Exited(pid, _) | WaitStatus::Signaled(pid, _, _))
                if pid.as_raw() == child =>
            {
                return;
            }
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(_) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_console_of_the_kernel_is_a_terminal() {
        assert_eq!(
            terminals("tty0 ttyS0\n"),
            [PathBuf::from("/dev/tty1"), PathBuf::from("/dev/ttyS0")]
        );
        assert_eq!(terminals(""), Vec::<PathBuf>::new());
    }
}
