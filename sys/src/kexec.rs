//! Loading the kernel that reboot(2) starts without the firmware (kexec_file_load(2)).

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;

/// Loads a kernel, its initial RAM disk and its command line, all of which the kernel copies; whatever was loaded before is forgotten.
/// `reboot(RB_KEXEC)` starts it.
///
/// # Errors
/// What kexec_file_load(2) reports: `EPERM` without CAP_SYS_BOOT or when the kernel is told not to, `ENOEXEC` for a file that is no
/// kernel, `EKEYREJECTED` and its like for a signature that a locked-down kernel wants and does not accept; `InvalidInput` for a command line
/// with a NUL.
pub fn load(kernel: &File, initrd: &File, command_line: &str) -> io::Result<()> {
    const NO_FLAGS: libc::c_ulong = 0;
    let line = CString::new(command_line)?;
    let bytes = line.as_bytes_with_nul();
    // SAFETY: both descriptors are open during the call, and the kernel reads the command line within its length only.
    let result = unsafe {
        libc::syscall(
            libc::SYS_kexec_file_load,
            kernel.as_raw_fd(),
            initrd.as_raw_fd(),
            bytes.len(),
            bytes.as_ptr(),
            NO_FLAGS,
        )
    };
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_kernel_is_refused() {
        let empty = tempfile::tempfile().unwrap();
        assert!(load(&empty, &empty, "quiet").is_err());
        let error = load(&empty, &empty, "quiet\0").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    }
}
