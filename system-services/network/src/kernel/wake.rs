//! Packets that wake the machine, over ethtool's generic netlink family (networking/ethtool-netlink of the kernel's
//! documentation).

use std::io;

use netlink_packet_core::{
    DecodeError, DefaultNla, Emitable, NLA_F_NESTED, NLM_F_ACK, ParseableParametrized,
};
use netlink_packet_generic::{GenlFamily, GenlHeader};

use super::generic::Family;
use super::{Kernel, KernelError};

/// `ETHTOOL_MSG_WOL_SET`.
const SET: u8 = 10;
/// `ETHTOOL_A_WOL_HEADER` and in it `ETHTOOL_A_HEADER_DEV_INDEX`.
const HEADER: u16 = 1;
const DEVICE: u16 = 1;
/// `ETHTOOL_A_WOL_MODES` and in it `ETHTOOL_A_BITSET_NOMASK`, `_SIZE`, `_VALUE`.
const MODES: u16 = 2;
const NO_MASK: u16 = 1;
const SIZE: u16 = 2;
const VALUE: u16 = 4;
/// `WAKE_MAGIC`: the packet that has the card's address sixteen times.
const MAGIC: u32 = 1 << 5;

#[derive(Clone, Debug)]
struct WakeOnLan(Vec<DefaultNla>);

impl GenlFamily for WakeOnLan {
    fn family_name() -> &'static str {
        "ethtool"
    }

    fn command(&self) -> u8 {
        SET
    }

    fn version(&self) -> u8 {
        1
    }
}

impl Emitable for WakeOnLan {
    fn buffer_len(&self) -> usize {
        self.0.as_slice().buffer_len()
    }

    fn emit(&self, buffer: &mut [u8]) {
        self.0.as_slice().emit(buffer);
    }
}

impl ParseableParametrized<[u8], GenlHeader> for WakeOnLan {
    /// What is answered is of no interest: whether it was done stands in the acknowledgement.
    fn parse_with_param(_: &[u8], _: GenlHeader) -> Result<Self, DecodeError> {
        Ok(Self(Vec::new()))
    }
}

fn nested(kind: u16, attributes: &[DefaultNla]) -> DefaultNla {
    let mut bytes = vec![0; attributes.buffer_len()];
    attributes.emit(&mut bytes);
    DefaultNla::new(kind | NLA_F_NESTED, bytes)
}

impl Kernel {
    /// Has a link's card wake the machine by a magic packet, or not.
    ///
    /// # Errors
    /// What the kernel answers: not every card can do it.
    pub fn set_wake_on_lan(&self, index: u32, wakes: bool) -> Result<(), KernelError> {
        let modes: u32 = if wakes { MAGIC } else { 0 };
        let number = |kind: u16, number: u32| DefaultNla::new(kind, number.to_ne_bytes().to_vec());
        let header = nested(HEADER, &[number(DEVICE, index)]);
        let bits = [
            DefaultNla::new(NO_MASK, Vec::new()),
            number(SIZE, u32::BITS),
            number(VALUE, modes),
        ];
        let question = WakeOnLan(vec![header, nested(MODES, &bits)]);
        let set = |question| -> io::Result<()> {
            let family = Family::find(WakeOnLan::family_name())?;
            family.ask::<WakeOnLan>(question, NLM_F_ACK).map(drop)
        };
        match set(question) {
            // What cannot be done is not done.
            Err(error) if !wakes && error.raw_os_error() == Some(libc::EOPNOTSUPP) => Ok(()),
            other => other,
        }
        .map_err(|source| KernelError {
            doing: "setting wake-on-LAN".to_owned(),
            source,
        })
    }
}
