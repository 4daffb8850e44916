//! What a server granted, and for how long.

use std::net::Ipv4Addr;
use std::time::Duration;

use dhcproto::v4::{Decoder, OptionCode};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::message::Reply;
use super::options::is_host;

/// A lease time that never ends (RFC 2131 3.3).
const INFINITE_S: u32 = u32::MAX;
/// A smaller MTU is a mistake or an attack: every IPv4 host takes 576 bytes (RFC 791 3.1).
const SMALLEST_MTU: u16 = 576;

/// What a server granted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// Our address.
    pub address: Ipv4Addr,
    /// The length of its network's prefix.
    pub prefix_len: u8,
    /// The server that granted it.
    pub server: Ipv4Addr,
    /// Seconds until it ends, `u32::MAX` for never.
    pub lifetime_s: u32,
    /// Seconds until we ask that server to go on (T1).
    pub renew_s: u32,
    /// Seconds until we ask any server to go on (T2).
    pub rebind_s: u32,
    /// Routes that come with it.
    pub routes: Vec<LeaseRoute>,
    /// Name servers, the preferred one first.
    pub name_servers: Vec<Ipv4Addr>,
    /// Domains to search.
    pub search: Vec<String>,
    /// Time servers, the preferred one first.
    pub time_servers: Vec<Ipv4Addr>,
    /// The interface's MTU.
    pub mtu: Option<u16>,
    /// Our name, as the server says.
    pub host_name: Option<String>,
}

/// One route of a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct LeaseRoute {
    /// The network, bits beyond the prefix are zero.
    pub destination: Ipv4Addr,
    /// Length of the network's prefix; 0 makes it a default route.
    pub prefix_len: u8,
    /// Whom to send to; without one the network is on the wire itself.
    pub gateway: Option<Ipv4Addr>,
}

/// Why an acknowledgement is no lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum LeaseError {
    /// No host can have the address.
    #[error("the address {0} cannot be a host's")]
    Address(Ipv4Addr),
    /// It says no duration, or none at all.
    #[error("it has no lease time")]
    NoLifetime,
    /// It does not say who sent it and we do not know otherwise.
    #[error("it has no server identifier")]
    NoServer,
}

impl Lease {
    /// Reads an acknowledgement. `server` stands in for a server that does not give its identifier.
    ///
    /// # Errors
    /// What is missing for it to be a lease.
    pub fn from_reply(reply: &Reply, server: Option<Ipv4Addr>) -> Result<Self, LeaseError> {
        let (address, options) = (reply.address, &reply.options);
        if !is_host(address) {
            return Err(LeaseError::Address(address));
        }
        let seconds = |code| options.decode(code, Decoder::read_u32);
        let lifetime_s = seconds(OptionCode::AddressLeaseTime)
            .filter(|s| *s > 0)
            .ok_or(LeaseError::NoLifetime)?;
        let (renew_s, rebind_s) = renewal_times(
            lifetime_s,
            seconds(OptionCode::Renewal),
            seconds(OptionCode::Rebinding),
        );
        Ok(Self {
            address,
            prefix_len: options
                .prefix_len()
                .unwrap_or_else(|| class_prefix(address)),
            server: reply.server.or(server).ok_or(LeaseError::NoServer)?,
            lifetime_s,
            renew_s,
            rebind_s,
            routes: options.routes(),
            name_servers: options.hosts(OptionCode::DomainNameServer),
            search: options.search(),
            time_servers: options.hosts(OptionCode::NtpServers),
            mtu: options
                .decode(OptionCode::InterfaceMtu, Decoder::read_u16)
                .filter(|mtu| *mtu >= SMALLEST_MTU),
            host_name: options.host_name(),
        })
    }

    /// How long it lasts; `None` is forever.
    pub fn lifetime(&self) -> Option<Duration> {
        (self.lifetime_s != INFINITE_S).then(|| Duration::from_secs(self.lifetime_s.into()))
    }
}

/// T1 and T2: the server's when they make sense, else one half and seven eighths (RFC 2131 4.4.5).
fn renewal_times(lifetime_s: u32, renew_s: Option<u32>, rebind_s: Option<u32>) -> (u32, u32) {
    let rebind = rebind_s
        .filter(|s| (1..lifetime_s).contains(s))
        .unwrap_or(lifetime_s - lifetime_s / 8);
    let renew = renew_s
        .filter(|s| (1..=rebind).contains(s))
        .unwrap_or(lifetime_s / 2)
        .clamp(1, rebind.max(1));
    (renew, rebind)
}

/// The prefix length that an address had before masks were told (RFC 791).
fn class_prefix(address: Ipv4Addr) -> u8 {
    match address.octets()[0] {
        0..128 => 8,
        128..192 => 16,
        _ => 24,
    }
}

/// A lease and when it began.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// The lease.
    pub lease: Lease,
    /// When it began, on the clock of [`super::timer`]: the sending of the request that the server granted.
    pub since: Duration,
}

impl Held {
    /// When to ask its server to go on; `None` is never.
    pub fn renew_at(&self) -> Option<Duration> {
        self.lease
            .lifetime()
            .map(|_| self.since + Duration::from_secs(self.lease.renew_s.into()))
    }

    /// When to ask any server to go on; `None` is never.
    pub fn rebind_at(&self) -> Option<Duration> {
        self.lease
            .lifetime()
            .map(|_| self.since + Duration::from_secs(self.lease.rebind_s.into()))
    }

    /// When it ends; `None` is never.
    pub fn expires_at(&self) -> Option<Duration> {
        self.lease.lifetime().map(|lifetime| self.since + lifetime)
    }

    /// Whether it has ended.
    pub fn has_expired(&self, now: Duration) -> bool {
        self.expires_at().is_some_and(|end| end <= now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_renewal_times_of_a_server_hold_when_they_make_sense() {
        assert_eq!(renewal_times(3600, Some(60), Some(120)), (60, 120));
        assert_eq!(renewal_times(3600, None, None), (1800, 3150));
        assert_eq!(renewal_times(3600, Some(3000), Some(100)), (100, 100));
        assert_eq!(renewal_times(3600, Some(4000), Some(5000)), (1800, 3150));
        assert_eq!(renewal_times(3600, Some(0), Some(0)), (1800, 3150));
    }

    #[test]
    fn an_acknowledgement_says_all_that_a_lease_holds() {
        let mut bytes = vec![0; 240];
        bytes[..3].copy_from_slice(&[2, 1, 6]);
        bytes[16..20].copy_from_slice(&[10, 0, 0, 5]);
        bytes[236..].copy_from_slice(&[99, 130, 83, 99]);
        bytes.extend_from_slice(&[53, 1, 5, 54, 4, 10, 0, 0, 1, 1, 4, 255, 255, 0, 0]);
        bytes.extend_from_slice(&[51, 4, 0, 0, 14, 16, 58, 4, 0, 0, 0, 60, 59, 4, 0, 0, 0, 120]);
        bytes.extend_from_slice(&[3, 4, 10, 0, 0, 1, 6, 8, 10, 0, 0, 2, 10, 0, 0, 3]);
        bytes.extend_from_slice(&[42, 4, 10, 0, 0, 4, 26, 2, 5, 120]);
        bytes.extend_from_slice(b"\x0c\x04node\x0f\x07example\x77\x0b\x04labs\x04test\0\xff");
        let reply = Reply::decode(&bytes).unwrap();
        let expected = Lease {
            address: Ipv4Addr::new(10, 0, 0, 5),
            prefix_len: 16,
            server: Ipv4Addr::new(10, 0, 0, 1),
            lifetime_s: 3600,
            renew_s: 60,
            rebind_s: 120,
            routes: vec![LeaseRoute {
                destination: Ipv4Addr::UNSPECIFIED,
                prefix_len: 0,
                gateway: Some(Ipv4Addr::new(10, 0, 0, 1)),
            }],
            name_servers: vec![Ipv4Addr::new(10, 0, 0, 2), Ipv4Addr::new(10, 0, 0, 3)],
            search: vec!["labs.test".into()],
            time_servers: vec![Ipv4Addr::new(10, 0, 0, 4)],
            mtu: Some(1400),
            host_name: Some("node".into()),
        };
        assert_eq!(Lease::from_reply(&reply, None), Ok(expected));
    }

    proptest! {
        #[test]
        fn renewal_comes_before_rebinding_and_that_before_the_end(
            lifetime in 1..=u32::MAX, renew in any::<Option<u32>>(), rebind in any::<Option<u32>>()
        ) {
            let (renew, rebind) = renewal_times(lifetime, renew, rebind);
            prop_assert!(1 <= renew && renew <= rebind && rebind <= lifetime);
        }
    }

    #[test]
    fn without_a_mask_the_class_of_the_address_decides() {
        assert_eq!(class_prefix(Ipv4Addr::new(10, 1, 2, 3)), 8);
        assert_eq!(class_prefix(Ipv4Addr::new(172, 16, 2, 3)), 16);
        assert_eq!(class_prefix(Ipv4Addr::new(192, 168, 2, 3)), 24);
    }
}
