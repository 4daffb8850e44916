//! Small calls of PID 1: the watchdog, the kernel's entropy pool, swap, the loopback interface.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;
use std::time::Duration;

mod request {
    //! The ioctls, by their names in the kernel's headers.
    nix::ioctl_readwrite!(wdioc_settimeout, b'W', 6, libc::c_int);
    nix::ioctl_write_ptr_bad!(rndaddentropy, 0x4008_5203, super::PoolInfo);
}

/// The most that is credited at once, in bytes.
pub const SEED_BYTES: usize = 512;

/// `struct rand_pool_info` of linux/random.h with room for a seed.
#[repr(C)]
struct PoolInfo {
    entropy_bits: libc::c_int,
    size_bytes: libc::c_int,
    bytes: [u8; SEED_BYTES],
}

/// Sets a watchdog's timeout; returns the one that the device has chosen, which is near it.
///
/// # Errors
/// What the WDIOC_SETTIMEOUT ioctl reports.
pub fn set_watchdog_timeout(device: &File, timeout: Duration) -> io::Result<Duration> {
    let mut seconds = libc::c_int::try_from(timeout.as_secs()).unwrap_or(libc::c_int::MAX);
    // SAFETY: WDIOC_SETTIMEOUT reads and writes one int at the address given.
    unsafe { request::wdioc_settimeout(device.as_raw_fd(), &raw mut seconds) }?;
    Ok(Duration::from_secs(u64::try_from(seconds).unwrap_or(0)))
}

/// Ends swapping to a file or device; what is there goes back to memory.
///
/// # Errors
/// What swapoff(2) reports.
pub fn swap_off(path: &std::path::Path) -> io::Result<()> {
    use std::os::unix::ffi::OsStrExt as _;
    let path = std::ffi::CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: the path is a C string that outlives the call.
    match unsafe { libc::swapoff(path.as_ptr()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Feeds a seed into the kernel's entropy pool and credits this much of it; `random` is /dev/urandom, open for
/// writing.
///
/// # Errors
/// What the RNDADDENTROPY ioctl reports; `InvalidInput` for more than [`SEED_BYTES`].
pub fn credit_entropy(random: &File, seed: &[u8], entropy_bits: u16) -> io::Result<()> {
    let mut info = PoolInfo {
        entropy_bits: entropy_bits.into(),
        size_bytes: 0,
        bytes: [0; SEED_BYTES],
    };
    info.bytes
        .get_mut(..seed.len())
        .ok_or(io::ErrorKind::InvalidInput)?
        .copy_from_slice(seed);
    info.size_bytes = libc::c_int::try_from(seed.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: the structure has the kernel's layout, says its own length, and the kernel only reads it.
    unsafe { request::rndaddentropy(random.as_raw_fd(), &raw const info) }?;
    Ok(())
}

/// Sets a network interface up.
///
/// # Errors
/// What socket(2) and the SIOCGIFFLAGS and SIOCSIFFLAGS ioctls report.
pub fn interface_up(name: &str) -> io::Result<()> {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
    let socket = socket(
        AddressFamily::Inet,
        SockType::Datagram,
        SockFlag::SOCK_CLOEXEC,
        None,
    )?;
    // SAFETY: `ifreq` is plain data; all zeroes is a valid value of it.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    if name.len() >= request.ifr_name.len() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    for (place, byte) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *place = libc::c_char::from_ne_bytes([byte]);
    }
    // SAFETY: the ioctl reads the name and writes the flags of the structure given.
    if unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFFLAGS, &raw mut request) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: after SIOCGIFFLAGS the union holds the flags.
    unsafe { request.ifr_ifru.ifru_flags |= libc::c_short::try_from(libc::IFF_UP).unwrap_or(1) };
    // SAFETY: the ioctl only reads the structure given.
    if unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw mut request) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_interface_can_be_set_up_twice() {
        // Needs CAP_NET_ADMIN; without it the kernel's refusal must come back as an error.
        for _ in 0..2 {
            if let Err(error) = interface_up("lo") {
                assert_eq!(error.raw_os_error(), Some(libc::EPERM));
            }
        }
    }

    #[test]
    fn an_unknown_or_overlong_interface_is_an_error() {
        assert!(interface_up("nothing9").is_err());
        assert!(interface_up("an-interface-name-that-is-too-long").is_err());
    }

    #[test]
    fn a_seed_that_is_too_long_is_refused() {
        let file = File::open("/dev/null").unwrap();
        let error = credit_entropy(&file, &[0; SEED_BYTES + 1], 0).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    }
}
