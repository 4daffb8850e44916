//! Starting a child with what `std::process::Command` alone cannot give it: a control socket at a fixed number,
//! a cgroup from its first instruction on, a controlling terminal; and iptables, which one image has.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd, RawFd};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// What is set up between fork and exec.
#[derive(Debug, Default)]
pub struct Setup<'a> {
    /// A descriptor that the program finds under number 3.
    pub fd3: Option<BorrowedFd<'a>>,
    /// An open `cgroup.procs`: the child moves itself there.
    pub cgroup_procs: Option<&'a File>,
    /// A session of its own, with standard input as the controlling terminal.
    pub controlling_terminal: bool,
    /// Written to the child's oom_score_adj.
    pub oom_score_adj: Option<i32>,
}

/// A call of iptables, by the name that it is called by (`iptables-restore`, `ip6tables`): that of the image whose root directory is
/// `image`, with its own loader and libraries. Further arguments follow.
pub fn iptables(image: &Path, name: &str) -> Command {
    let at = |path: &str| image.join(path);
    let libraries = at("usr/lib/x86_64-linux-gnu");
    let mut command = Command::new(at("usr/lib64/ld-linux-x86-64.so.2"));
    command.env("XTABLES_LIBDIR", libraries.join("xtables"));
    command.arg("--library-path").arg(libraries);
    command.arg(at("usr/sbin/xtables-nft-multi")).arg(name);
    command
}

/// Starts `command`; returns the child's process number. Reaping is the caller's business.
///
/// # Errors
/// What fork, the set-up or exec report.
pub fn spawn(command: &mut Command, setup: &Setup<'_>) -> io::Result<i32> {
    let fd3: Option<RawFd> = setup.fd3.map(|fd| fd.as_raw_fd());
    let cgroup: Option<RawFd> = setup.cgroup_procs.map(|file| file.as_raw_fd());
    let terminal = setup.controlling_terminal;
    let score = setup.oom_score_adj.map(|score| score.to_string());
    // SAFETY: between fork and exec the closure makes system calls only: no allocation, no locks. The descriptors
    // stay open until `spawn` has returned.
    unsafe {
        command.pre_exec(move || {
            if let Some(procs) = cgroup {
                check(libc::write(procs, b"0".as_ptr().cast(), 1) == 1)?;
            }
            if let Some(score) = &score {
                let file = libc::open(
                    c"/proc/self/oom_score_adj".as_ptr(),
                    libc::O_WRONLY | libc::O_CLOEXEC,
                );
                check(file >= 0)?;
                check(libc::write(file, score.as_ptr().cast(), score.len()) >= 0)?;
                libc::close(file);
            }
            if terminal {
                // Fails when the child leads a session already, which is as good.
                libc::setsid();
                check(libc::ioctl(0, libc::TIOCSCTTY, 1) == 0)?;
            }
            match fd3 {
                Some(3) => check(libc::fcntl(3, libc::F_SETFD, 0) == 0)?,
                Some(fd) => check(libc::dup2(fd, 3) == 3)?,
                None => {}
            }
            Ok(())
        });
    }
    let child = command.spawn()?;
    i32::try_from(child.id()).map_err(|_| io::ErrorKind::InvalidData.into())
}

/// Waits until one of these blocked signals is pending, and takes it off the queue; false when the time is up.
///
/// # Errors
/// What sigtimedwait(2) reports.
pub fn wait_for_signal(signals: &nix::sys::signal::SigSet, timeout: Duration) -> io::Result<bool> {
    let timeout = libc::timespec {
        tv_sec: libc::time_t::try_from(timeout.as_secs()).unwrap_or(libc::time_t::MAX),
        tv_nsec: timeout.subsec_nanos().into(),
    };
    // SAFETY: both structures live until the call returns; no information about the signal is asked for.
    if unsafe { libc::sigtimedwait(signals.as_ref(), std::ptr::null_mut(), &raw const timeout) }
        >= 0
    {
        return Ok(true);
    }
    match io::Error::last_os_error() {
        error if matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EINTR)) => Ok(false),
        error => Err(error),
    }
}

fn check(ok: bool) -> io::Result<()> {
    if ok {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read as _;
    use std::os::fd::AsFd as _;

    #[test]
    fn the_child_finds_its_descriptor_under_number_3() {
        let (reader, writer) = nix::unistd::pipe().unwrap();
        let setup = Setup {
            fd3: Some(writer.as_fd()),
            ..Setup::default()
        };
        let pid = spawn(
            Command::new("/bin/sh").args(["-c", "echo here >&3"]),
            &setup,
        )
        .unwrap();
        drop(writer);
        let mut text = String::new();
        File::from(reader).read_to_string(&mut text).unwrap();
        assert_eq!(text, "here\n");
        // SAFETY: waits for our own child; the status is not asked for.
        assert_eq!(unsafe { libc::waitpid(pid, std::ptr::null_mut(), 0) }, pid);
    }

    #[test]
    fn a_failed_set_up_is_reported_by_spawn() {
        let file = File::open("/dev/null").unwrap();
        let setup = Setup {
            cgroup_procs: Some(&file),
            ..Setup::default()
        };
        let error = spawn(&mut Command::new("/bin/true"), &setup).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EBADF));
    }
}
