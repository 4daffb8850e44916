//! What the routers of a link say, and asking them.

use std::collections::BTreeMap;
use std::io;
use std::net::Ipv6Addr;
use std::time::Duration;

use keelson_sys::packet::{ETHERTYPE_IPV6, PacketSocket};

use crate::ipv6::Told;
use crate::ipv6::lease::INFINITE_S;
use crate::ipv6::router::{self, Advertisement};
use crate::watched::Watched;

/// Routers are asked so often, with this pause (RFC 4861 10).
const SOLICITATIONS: u32 = 3;
const SOLICITATION_PAUSE: Duration = Duration::from_secs(4);
/// More routers on one link are a mistake or an attack.
const MOST_ROUTERS: usize = 16;
/// And so are more name servers or domains of one router.
const MOST_HEARD: usize = 16;

/// What a router said, each with the time until which it holds; `None` is for good.
#[derive(Debug, Default)]
struct Heard {
    name_servers: Vec<(Ipv6Addr, Option<Duration>)>,
    search: Vec<(String, Option<Duration>)>,
}

/// The routers of a link.
#[derive(Debug, Default)]
pub(super) struct Routers {
    socket: Option<Watched<PacketSocket>>,
    /// How often they are still asked, and when.
    solicitations: u32,
    next_solicitation: Option<Duration>,
    heard: BTreeMap<Ipv6Addr, Heard>,
    /// The link was away since: the routers may be others.
    is_stale: bool,
}

impl Routers {
    /// Listens to the routers of the link with that index, and asks them to speak.
    ///
    /// # Errors
    /// What opening a socket reports.
    pub(super) fn listen(&mut self, index: u32, now: Duration) -> io::Result<()> {
        self.solicitations = SOLICITATIONS;
        self.next_solicitation = Some(now);
        if self.socket.is_none() {
            let socket = PacketSocket::open(index, ETHERTYPE_IPV6, &router::filter())?;
            self.socket = Some(Watched::new(socket)?);
        }
        Ok(())
    }

    /// The link is away.
    pub(super) fn leave(&mut self) {
        self.socket = None;
        self.is_stale = true;
        self.next_solicitation = None;
    }

    /// Where advertisements come in.
    pub(super) fn socket(&self) -> Option<&Watched<PacketSocket>> {
        self.socket.as_ref()
    }

    /// The next time at which something is due.
    pub(super) fn deadline(&self) -> Option<Duration> {
        let heard = self.heard.values().flat_map(|heard| {
            let servers = heard.name_servers.iter().map(|(_, until)| *until);
            servers.chain(heard.search.iter().map(|(_, until)| *until))
        });
        heard.chain([self.next_solicitation]).flatten().min()
    }

    /// Asks routers to speak, when it is time.
    ///
    /// # Errors
    /// What sending reports.
    pub(super) fn timer(&mut self, now: Duration) -> io::Result<()> {
        if self.next_solicitation.is_none_or(|next| next > now) {
            return Ok(());
        }
        self.solicitations = self.solicitations.saturating_sub(1);
        self.next_solicitation = (self.solicitations > 0).then(|| now + SOLICITATION_PAUSE);
        match &self.socket {
            Some(socket) => {
                let question = router::solicitation();
                socket.get().send(router::ROUTERS_HARDWARE, &question)
            }
            None => Ok(()),
        }
    }

    /// Takes up what a router says; `None` when the packet is not a router's.
    pub(super) fn heard(&mut self, packet: &[u8], now: Duration) -> Option<Advertisement> {
        let said = Advertisement::parse(packet)?;
        self.next_solicitation = None;
        if std::mem::take(&mut self.is_stale) {
            self.heard.clear();
        }
        if self.heard.len() < MOST_ROUTERS || self.heard.contains_key(&said.router) {
            let heard = self.heard.entry(said.router).or_default();
            update(&mut heard.name_servers, &said.name_servers, now);
            update(&mut heard.search, &said.search, now);
        }
        Some(said)
    }

    /// Forgets what holds no longer.
    pub(super) fn forget_old(&mut self, now: Duration) {
        let holds = |until: &Option<Duration>| until.is_none_or(|until| until > now);
        for heard in self.heard.values_mut() {
            heard.name_servers.retain(|(_, until)| holds(until));
            heard.search.retain(|(_, until)| holds(until));
        }
        let says_something =
            |heard: &Heard| !heard.name_servers.is_empty() || !heard.search.is_empty();
        self.heard.retain(|_, heard| says_something(heard));
    }

    /// Adds what they said.
    pub(super) fn add_to(&self, told: &mut Told) {
        for heard in self.heard.values() {
            let servers = heard.name_servers.iter();
            told.name_servers.extend(servers.map(|(server, _)| *server));
            let domains = heard.search.iter();
            told.search
                .extend(domains.map(|(domain, _)| domain.clone()));
        }
    }
}

/// Takes up what a router says: another lifetime for what is known, none for what no longer holds.
fn update<T: PartialEq + Clone>(
    known: &mut Vec<(T, Option<Duration>)>,
    said: &[(T, u32)],
    now: Duration,
) {
    for (item, lifetime_s) in said {
        known.retain(|(other, _)| other != item);
        let lifetime = Duration::from_secs((*lifetime_s).into());
        let until = (*lifetime_s != INFINITE_S).then(|| now + lifetime);
        if *lifetime_s > 0 && known.len() < MOST_HEARD {
            known.push((item.clone(), until));
        }
    }
}

/// Receives a packet that is in no VLAN; without a socket it waits forever. Gives its length.
pub(super) async fn receive(
    socket: Option<&Watched<PacketSocket>>,
    buffer: &mut [u8],
) -> io::Result<usize> {
    let Some(socket) = socket else {
        return std::future::pending().await;
    };
    let received = socket.read(|socket| socket.receive(buffer)).await?;
    Ok(if received.vlan == 0 {
        received.length
    } else {
        0
    })
}
