//! Generic netlink (networking/generic_netlink of the kernel's documentation): one question, and what is answered.

use std::fmt::Debug;
use std::io;

use netlink_packet_core::{
    Emitable, NLM_F_ACK, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
    ParseableParametrized,
};
use netlink_packet_generic::ctrl::nlas::GenlCtrlAttrs;
use netlink_packet_generic::ctrl::{GenlCtrl, GenlCtrlCmd};
use netlink_packet_generic::{GenlFamily, GenlHeader, GenlMessage};
use netlink_sys::protocols::NETLINK_GENERIC;
use netlink_sys::{Socket, SocketAddr};

/// A connection to one family of the kernel's.
pub(super) struct Family {
    socket: Socket,
    id: u16,
}

impl Family {
    /// Finds the family; the kernel loads its module for that where it has one of that name.
    ///
    /// # Errors
    /// What the kernel answers: there may be no such family.
    pub(super) fn find(name: &str) -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_GENERIC)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        let mut family = Family { socket, id: 0 };
        let question = GenlCtrl {
            cmd: GenlCtrlCmd::GetFamily,
            nlas: vec![GenlCtrlAttrs::FamilyName(name.to_owned())],
        };
        let answers = family.ask(question, NLM_F_ACK)?;
        let attributes = answers.into_iter().flat_map(|answer| answer.nlas);
        let id = attributes
            .into_iter()
            .find_map(|attribute| match attribute {
                GenlCtrlAttrs::FamilyId(id) => Some(id),
                _ => None,
            });
        family.id = id.ok_or(io::ErrorKind::NotFound)?;
        Ok(family)
    }

    /// Asks, and gives what is answered until the kernel says that this was all. With `NLM_F_ACK` it says so after what it was
    /// asked to do, with `NLM_F_DUMP` after everything that there is.
    ///
    /// # Errors
    /// What the kernel answers, or an answer that cannot be read.
    pub(super) fn ask<F>(&self, question: F, flags: u16) -> io::Result<Vec<F>>
    where
        F: GenlFamily + Emitable + ParseableParametrized<[u8], GenlHeader> + Clone + Debug,
    {
        let mut payload = GenlMessage::from_payload(question);
        payload.set_resolved_family_id(self.id);
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | flags;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::from(payload));
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        self.socket.send(&bytes, 0)?;
        let mut answers = Vec::new();
        loop {
            let (received, _) = self.socket.recv_from_full()?;
            let mut rest = received.as_slice();
            while !rest.is_empty() {
                let message =
                    NetlinkMessage::<GenlMessage<F>>::deserialize(rest).map_err(|error| {
                        io::Error::new(io::ErrorKind::InvalidData, error.to_string())
                    })?;
                let length = message.header.length as usize;
                match message.payload {
                    NetlinkPayload::InnerMessage(answer) => answers.push(answer.into_parts().1),
                    NetlinkPayload::Done(_) => return Ok(answers),
                    NetlinkPayload::Error(error) if error.code.is_none() => return Ok(answers),
                    NetlinkPayload::Error(error) => return Err(error.to_io()),
                    _ => {}
                }
                // Messages begin at multiples of four.
                rest = rest
                    .get(length.max(1).next_multiple_of(4)..)
                    .unwrap_or_default();
            }
        }
    }
}
