//! Processes by descriptor (pidfd_open(2), pidfd_send_signal(2)): no race with numbers that are used again.

use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};

/// Opens a descriptor of the process with that number. It becomes readable when the process ends.
///
/// # Errors
/// `ESRCH` when there is no such process.
pub fn open(pid: i32) -> io::Result<OwnedFd> {
    // SAFETY: pidfd_open takes no pointers.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    let fd = RawFd::try_from(fd).map_err(|_| io::Error::from_raw_os_error(libc::EBADF))?;
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor was just made and nobody else owns it; the kernel sets close-on-exec.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Sends a signal to the process behind a descriptor of [`open`].
///
/// # Errors
/// `ESRCH` when it has ended and was reaped.
pub fn send_signal(process: impl AsFd, signal: i32) -> io::Result<()> {
    // SAFETY: a null siginfo pointer is allowed and means what kill(2) would send.
    let result = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            process.as_fd().as_raw_fd(),
            signal,
            std::ptr::null::<libc::siginfo_t>(),
            0,
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_reaches_the_process_behind_the_descriptor() {
        let mut child = std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .unwrap();
        let process = open(i32::try_from(child.id()).unwrap()).unwrap();
        send_signal(&process, libc::SIGKILL).unwrap();
        let status = child.wait().unwrap();
        assert!(!status.success());
        assert_eq!(
            send_signal(&process, 0).unwrap_err().raw_os_error(),
            Some(libc::ESRCH)
        );
    }

    #[test]
    fn there_is_no_descriptor_of_a_process_that_does_not_exist() {
        assert!(open(i32::MAX).is_err());
    }
}
