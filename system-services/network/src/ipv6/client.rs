//! One task per interface: it listens to routers, feeds the [`Machine`], and carries its actions out.

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv6Addr, SocketAddrV6, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use keelson_sys::packet::{ETHERTYPE_IPV6, PacketSocket, Received};
use nix::sys::socket::{
    AddressFamily, SockFlag, SockProtocol, SockType, SockaddrIn6, bind, setsockopt, socket, sockopt,
};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinHandle;

use super::Told;
use super::lease::{Address, INFINITE_S};
use super::machine::{Action, Event, Machine, Mode};
use super::message::{CLIENT_PORT, Identity, Reply, Request, SERVER_PORT, SERVERS};
use super::router::{self, Advertisement};
use crate::dhcp4::random::Random;
use crate::dhcp4::timer::{self, Timer};
use crate::log;
use crate::watched::Watched;

/// Routers are asked so often, with this pause (RFC 4861 10).
const SOLICITATIONS: u32 = 3;
const SECOND: Duration = Duration::from_secs(1);
const SOLICITATION_PAUSE: Duration = Duration::from_secs(4);
/// More routers on one link are a mistake or an attack.
const MOST_ROUTERS: usize = 16;

/// And so are more name servers or domains of one router.
const MOST_HEARD: usize = 16;

/// Where what an interface is told goes, with its index and the client's generation.
pub type Outcomes = UnboundedSender<(u32, u64, Told)>;

/// What a client needs to know.
#[derive(Debug)]
pub struct Setup {
    /// The interface's index.
    pub index: u32,
    /// Its name, for messages.
    pub name: String,
    /// Its Ethernet address.
    pub hardware_address: [u8; 6],
    /// Which client of the interface it is: what an earlier one has said late does not count.
    pub generation: u64,
    /// Whether servers are asked when routers say that there are any.
    pub dhcp: bool,
}

enum Input {
    Carrier(bool),
    Refused(Ipv6Addr),
}

/// A running client; dropping it ends it and leaves the interface as it is.
#[derive(Debug)]
pub struct Client {
    input: UnboundedSender<Input>,
    task: JoinHandle<()>,
}

impl Client {
    /// Starts a client. It does nothing until it hears that there is a carrier.
    ///
    /// # Errors
    /// No timer or no random numbers can be had.
    pub fn start(setup: Setup, outcomes: Outcomes) -> io::Result<Self> {
        let (input, inputs) = unbounded_channel();
        let task = Task {
            identity: Identity::of(setup.hardware_address),
            setup,
            machine: Machine::new(Random::from_kernel()?),
            timer: Timer::new()?,
            outcomes,
            routers: None,
            servers: None,
            solicitations: 0,
            next_solicitation: None,
            heard: BTreeMap::new(),
            is_stale: false,
            addresses: None,
            informed: Reply::default(),
            told: Told::default(),
        };
        Ok(Self {
            input,
            task: tokio::spawn(task.run(inputs)),
        })
    }

    /// Tells the client whether there is a carrier.
    pub fn set_carrier(&self, carrier: bool) {
        let _ = self.input.send(Input::Carrier(carrier)); // a client that ended said why
    }

    /// Tells the client that somebody else has an address of its lease.
    pub fn refuse(&self, address: Ipv6Addr) {
        let _ = self.input.send(Input::Refused(address)); // a client that ended said why
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What a router said, each with the time until which it holds; `None` is for good.
#[derive(Debug, Default)]
struct Heard {
    name_servers: Vec<(Ipv6Addr, Option<Duration>)>,
    search: Vec<(String, Option<Duration>)>,
}

struct Task {
    setup: Setup,
    identity: Identity,
    machine: Machine,
    timer: Timer,
    outcomes: Outcomes,
    /// Router advertisements.
    routers: Option<Watched<PacketSocket>>,
    /// DHCPv6.
    servers: Option<Watched<UdpSocket>>,
    /// How often routers are still asked, and when.
    solicitations: u32,
    next_solicitation: Option<Duration>,
    heard: BTreeMap<Ipv6Addr, Heard>,
    /// The link was away since: the routers may be others.
    is_stale: bool,
    /// Addresses by DHCPv6; `None` before any server was heard.
    addresses: Option<Vec<Address>>,
    /// What a DHCPv6 server said last beside addresses.
    informed: Reply,
    /// What the service was told last.
    told: Told,
}

impl Task {
    async fn run(mut self, mut inputs: UnboundedReceiver<Input>) {
        let mut packet = vec![0; 2048];
        let mut message = vec![0; 2048];
        loop {
            if let Err(error) = self.timer.set(self.deadline()) {
                log!(
                    Error,
                    "{}: the IPv6 client ends: setting its timer: {error}",
                    self.setup.name
                );
                return;
            }
            tokio::select! {
                input = inputs.recv() => match input {
                    Some(input) => self.input(input),
                    None => return,
                },
                received = receive_packet(self.routers.as_ref(), &mut packet) => self.router(received, &packet),
                received = receive_message(self.servers.as_ref(), &mut message) => self.server(received, &message),
                expired = self.timer.expired() => match expired {
                    Ok(()) => self.timer(),
                    Err(error) => {
                        log!(Error, "{}: the IPv6 client ends: waiting for its timer: {error}", self.setup.name);
                        return;
                    }
                },
            }
            self.tell();
        }
    }

    /// The next time at which something is due.
    fn deadline(&self) -> Option<Duration> {
        let heard = self.heard.values().flat_map(|heard| {
            let servers = heard.name_servers.iter().map(|(_, until)| *until);
            servers.chain(heard.search.iter().map(|(_, until)| *until))
        });
        heard
            .chain([self.machine.deadline(), self.next_solicitation])
            .flatten()
            .min()
    }

    fn input(&mut self, input: Input) {
        match input {
            Input::Carrier(true) => {
                if self.routers.is_none() {
                    match self.listen_to_routers() {
                        Ok(socket) => self.routers = Some(socket),
                        Err(error) => log!(
                            Warning,
                            "{}: listening to routers: {error}",
                            self.setup.name
                        ),
                    }
                }
                self.solicitations = SOLICITATIONS;
                self.next_solicitation = Some(timer::now());
                self.step(Event::CarrierUp);
            }
            Input::Carrier(false) => {
                (self.routers, self.servers) = (None, None);
                self.is_stale = true;
                self.next_solicitation = None;
                self.step(Event::CarrierDown);
            }
            Input::Refused(address) => self.step(Event::Refused(address)),
        }
    }

    fn listen_to_routers(&self) -> io::Result<Watched<PacketSocket>> {
        let socket = PacketSocket::open(self.setup.index, ETHERTYPE_IPV6, &router::filter())?;
        Watched::new(socket)
    }

    fn timer(&mut self) {
        let now = timer::now();
        if self.next_solicitation.is_some_and(|next| next <= now) {
            self.solicitations = self.solicitations.saturating_sub(1);
            self.next_solicitation = (self.solicitations > 0).then(|| now + SOLICITATION_PAUSE);
            if let Some(socket) = &self.routers
                && let Err(error) = socket
                    .get()
                    .send(router::ROUTERS_HARDWARE, &router::solicitation())
            {
                log!(Debug, "{}: asking for routers: {error}", self.setup.name);
            }
        }
        self.step(Event::Timer);
    }

    fn router(&mut self, received: io::Result<Received>, packet: &[u8]) {
        let received = match received {
            Ok(received) if received.vlan == 0 => received,
            Ok(_) => return,
            Err(error) => return log!(Debug, "{}: receiving: {error}", self.setup.name),
        };
        let Some(said) = Advertisement::parse(&packet[..received.length.min(packet.len())]) else {
            return;
        };
        log!(Debug, "{}: {said:?}", self.setup.name);
        self.next_solicitation = None;
        let now = timer::now();
        if std::mem::take(&mut self.is_stale) {
            self.heard.clear();
        }
        if self.heard.len() < MOST_ROUTERS || self.heard.contains_key(&said.router) {
            let heard = self.heard.entry(said.router).or_default();
            update(&mut heard.name_servers, said.name_servers, now);
            update(&mut heard.search, said.search, now);
        }
        match (self.setup.dhcp, said.managed, said.other) {
            (true, true, _) => self.step(Event::Wanted(Mode::Addresses)),
            (true, false, true) => self.step(Event::Wanted(Mode::Information)),
            _ => {}
        }
    }

    fn server(&mut self, received: io::Result<usize>, message: &[u8]) {
        let length = match received {
            Ok(length) => length,
            Err(error) => return log!(Debug, "{}: receiving: {error}", self.setup.name),
        };
        let Some(reply) = Reply::decode(&message[..length.min(message.len())], &self.identity)
        else {
            return;
        };
        log!(Debug, "{}: {reply:?}", self.setup.name);
        self.step(Event::Reply(reply));
    }

    fn step(&mut self, event: Event) {
        let before = self.machine.state_name();
        let actions = self.machine.step(event, timer::now());
        let after = self.machine.state_name();
        if before != after {
            log!(Debug, "{}: DHCPv6: {before} -> {after}", self.setup.name);
        }
        for action in actions {
            match action {
                Action::Send(request) => {
                    // The address that it is sent from is not there at once: it is sent again.
                    if let Err(error) = self.send(&request) {
                        log!(Debug, "{}: sending {request:?}: {error}", self.setup.name);
                    }
                }
                Action::Apply(lease) => self.addresses = Some(lease.addresses),
                Action::Withdraw => {
                    self.addresses = Some(Vec::new());
                    self.informed = Reply::default();
                }
                Action::Inform(reply) => self.informed = reply,
                Action::Report(text) => log!(Info, "{}: {text}", self.setup.name),
            }
        }
    }

    fn send(&mut self, request: &Request) -> io::Result<()> {
        let bytes = request
            .encode(&self.identity)
            .ok_or_else(|| io::Error::other("the message cannot be made"))?;
        let socket = match self.servers.take() {
            Some(socket) => socket,
            None => Watched::new(open(self.setup.index)?)?,
        };
        let socket = self.servers.insert(socket);
        let servers = SocketAddrV6::new(SERVERS, SERVER_PORT, 0, self.setup.index);
        socket.get().send_to(&bytes, servers)?;
        Ok(())
    }

    /// Tells the service what is known, when it is something else than before.
    fn tell(&mut self) {
        let now = timer::now();
        let holds = |until: &Option<Duration>| until.is_none_or(|until| until > now);
        for heard in self.heard.values_mut() {
            heard.name_servers.retain(|(_, until)| holds(until));
            heard.search.retain(|(_, until)| holds(until));
        }
        let says_something =
            |heard: &Heard| !heard.name_servers.is_empty() || !heard.search.is_empty();
        self.heard.retain(|_, heard| says_something(heard));
        let mut told = Told {
            addresses: self.addresses.clone(),
            name_servers: self.informed.name_servers.clone(),
            search: self.informed.search.clone(),
            time_servers: self.informed.time_servers.clone(),
        };
        for heard in self.heard.values() {
            let servers = heard.name_servers.iter();
            told.name_servers.extend(servers.map(|(server, _)| *server));
            told.search
                .extend(heard.search.iter().map(|(domain, _)| domain.clone()));
        }
        if told != self.told {
            self.told = told.clone();
            let message = (self.setup.index, self.setup.generation, told);
            let _ = self.outcomes.send(message); // the service is ending
        }
    }
}

/// Takes up what a router says: another lifetime for what is known, none for what no longer holds.
fn update<T: PartialEq>(
    known: &mut Vec<(T, Option<Duration>)>,
    said: Vec<(T, u32)>,
    now: Duration,
) {
    for (item, lifetime_s) in said {
        known.retain(|(other, _)| *other != item);
        let until =
            (lifetime_s != INFINITE_S).then(|| now + Duration::from_secs(lifetime_s.into()));
        if lifetime_s > 0 && known.len() < MOST_HEARD {
            known.push((item, until));
        }
    }
}

/// A socket for answers to clients, on this interface alone.
fn open(index: u32) -> io::Result<UdpSocket> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let fd: OwnedFd = socket(
        AddressFamily::Inet6,
        SockType::Datagram,
        flags,
        SockProtocol::Udp,
    )?;
    let name = nix::net::if_::if_indextoname(index)?;
    setsockopt(
        &fd,
        sockopt::BindToDevice,
        &std::os::unix::ffi::OsStringExt::from_vec(name.into_bytes()),
    )?;
    setsockopt(&fd, sockopt::Ipv6V6Only, &true)?;
    let any = SocketAddrV6::new(Ipv6Addr::UNSPECIFIED, CLIENT_PORT, 0, index);
    bind(fd.as_raw_fd(), &SockaddrIn6::from(any))?;
    Ok(fd.into())
}

async fn receive_packet(
    socket: Option<&Watched<PacketSocket>>,
    buffer: &mut [u8],
) -> io::Result<Received> {
    let Some(socket) = socket else {
        return std::future::pending().await;
    };
    socket.read(|socket| socket.receive(buffer)).await
}

async fn receive_message(
    socket: Option<&Watched<UdpSocket>>,
    buffer: &mut [u8],
) -> io::Result<usize> {
    let Some(socket) = socket else {
        return std::future::pending().await;
    };
    socket.read(|socket| socket.recv(buffer)).await
}

/// Seconds from `now` until then, as the kernel takes them.
pub fn seconds_left(until: Option<Duration>, now: Duration) -> u32 {
    match until {
        None => u32::MAX,
        Some(until) => u32::try_from(until.saturating_sub(now).as_secs()).unwrap_or(u32::MAX - 1),
    }
}

/// Addresses that still hold.
pub fn valid(addresses: &[Address], now: Duration) -> Vec<Address> {
    let addresses = addresses.iter().copied();
    addresses
        // The kernel counts whole seconds.
        .filter(|address| {
            address
                .valid_until
                .is_none_or(|until| until >= now + SECOND)
        })
        .collect()
}
