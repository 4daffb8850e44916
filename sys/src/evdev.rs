//! Input devices (`linux/input.h`): which keys one has, and hearing of one key only.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Event type: a key or button.
pub const EV_KEY: u16 = 0x01;
/// The power key.
pub const KEY_POWER: u16 = 116;
/// Size of `struct input_event` on 64-bit machines.
pub const EVENT_BYTES: usize = 24;

const KEY_CODES: usize = 0x300;
/// 0x20 of them, in the whole longs that the kernel insists on.
const EVENT_TYPES: usize = 64;

/// `struct input_mask`: which codes of one type the kernel passes on to this file descriptor.
#[repr(C)]
#[derive(Debug)]
pub struct InputMask {
    event_type: u32,
    codes_bytes: u32,
    codes: u64,
}

nix::ioctl_read_buf!(
    /// `EVIOCGBIT(EV_KEY)`
    get_key_bits, b'E', 0x20 + EV_KEY as u8, u8
);
nix::ioctl_write_ptr!(
    /// `EVIOCSMASK`
    set_mask, b'E', 0x93, InputMask
);

/// Whether the device can send this key.
///
/// # Errors
/// What ioctl(2) reports: the descriptor is no input device, or the device is gone.
pub fn has_key(device: BorrowedFd<'_>, code: u16) -> io::Result<bool> {
    let mut bits = [0_u8; KEY_CODES / 8];
    // SAFETY: the request number carries the buffer's length, and the kernel writes no more than that.
    unsafe { get_key_bits(device.as_raw_fd(), &mut bits) }?;
    Ok(bit_is_set(&bits, code))
}

/// Asks the kernel to pass on only events of this one key, so that this process never sees what is typed.
///
/// # Errors
/// What ioctl(2) reports.
pub fn listen_to_key_only(device: BorrowedFd<'_>, code: u16) -> io::Result<()> {
    let mut codes = [0_u8; KEY_CODES / 8];
    set_bit(&mut codes, code);
    apply_mask(device, u32::from(EV_KEY), &codes)?;
    // The mask of type 0 says which types pass at all.
    let mut types = [0_u8; EVENT_TYPES / 8];
    set_bit(&mut types, EV_KEY);
    apply_mask(device, 0, &types)
}

fn apply_mask(device: BorrowedFd<'_>, event_type: u32, bits: &[u8]) -> io::Result<()> {
    let mask = InputMask {
        event_type,
        codes_bytes: u32::try_from(bits.len()).map_err(io::Error::other)?,
        codes: bits.as_ptr() as u64,
    };
    // SAFETY: the kernel reads `codes_bytes` bytes at `codes`, which are `bits`, alive until the call returns.
    unsafe { set_mask(device.as_raw_fd(), &raw const mask) }?;
    Ok(())
}

fn bit_is_set(bits: &[u8], index: u16) -> bool {
    bits.get(usize::from(index / 8))
        .is_some_and(|byte| byte & (1 << (index % 8)) != 0)
}

fn set_bit(bits: &mut [u8], index: u16) {
    if let Some(byte) = bits.get_mut(usize::from(index / 8)) {
        *byte |= 1 << (index % 8);
    }
}

/// One event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event {
    /// `EV_*`
    pub event_type: u16,
    /// Which key, axis ...
    pub code: u16,
    /// For keys: 0 released, 1 pressed, 2 repeated.
    pub value: i32,
}

/// The events in what was read from a device. Bytes behind the last whole one are ignored: the kernel passes whole
/// events only.
pub fn events(bytes: &[u8]) -> impl Iterator<Item = Event> + '_ {
    bytes.chunks_exact(EVENT_BYTES).map(|chunk| Event {
        event_type: u16::from_ne_bytes([chunk[16], chunk[17]]),
        code: u16::from_ne_bytes([chunk[18], chunk[19]]),
        value: i32::from_ne_bytes([chunk[20], chunk[21], chunk[22], chunk[23]]),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn bits_are_found_where_they_were_set_and_nowhere_beyond() {
        let mut bits = [0; KEY_CODES / 8];
        set_bit(&mut bits, KEY_POWER);
        assert!(bit_is_set(&bits, KEY_POWER));
        assert!(!bit_is_set(&bits, KEY_POWER + 1));
        assert!(!bit_is_set(&bits, u16::MAX));
    }

    #[test]
    fn events_are_read_and_a_torn_one_is_left_out() {
        let mut bytes = vec![0; 16];
        bytes.extend(EV_KEY.to_ne_bytes());
        bytes.extend(KEY_POWER.to_ne_bytes());
        bytes.extend(1_i32.to_ne_bytes());
        bytes.extend([7; 10]);
        let expected = Event {
            event_type: EV_KEY,
            code: KEY_POWER,
            value: 1,
        };
        assert_eq!(events(&bytes).collect::<Vec<_>>(), [expected]);
    }

    #[test]
    fn what_is_no_input_device_is_refused() {
        let file = std::fs::File::open("/dev/null").unwrap();
        assert!(has_key(file.as_fd(), KEY_POWER).is_err());
        assert!(listen_to_key_only(file.as_fd(), KEY_POWER).is_err());
    }
}
