//! One task per interface that feeds the [`Machine`] and carries its actions out.

use std::io;
use std::net::{Ipv4Addr, UdpSocket};
use std::time::SystemTime;

use keelson_sys::packet::{ETHERTYPE_ARP, ETHERTYPE_IPV4, PacketSocket, Received};
use nix::sys::socket::{setsockopt, sockopt};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinHandle;

use super::lease::Held;
use super::machine::{Action, Event, Machine, Start};
use super::message::{Identity, Reply, Request, RequestKind};
use super::random::Random;
use super::store::Store;
use super::timer::{self, Timer};
use super::{arp, datagram};
use crate::log;
use crate::watched::Watched;

const EVERYBODY: [u8; 6] = [0xff; 6];

/// What a client says to the service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The interface has this lease, or has it for longer.
    Bound(Held),
    /// It has none any more.
    Lost,
}

/// Where outcomes go, with the interface's index.
pub type Outcomes = UnboundedSender<(u32, Outcome)>;

/// What a client needs to know.
#[derive(Debug, Clone)]
pub struct Setup {
    /// The interface's index.
    pub index: u32,
    /// Its name, for messages.
    pub name: String,
    /// Its Ethernet address.
    pub hardware_address: [u8; 6],
    /// The machine's name at any time, for servers.
    pub host_name: fn() -> Option<String>,
    /// What is known from before.
    pub start: Start,
    /// Where leases are kept.
    pub store: Store,
}

/// A running client; dropping it ends it and leaves the interface as it is.
#[derive(Debug)]
pub struct Client {
    setup: Setup,
    carrier: UnboundedSender<bool>,
    task: JoinHandle<()>,
}

impl Client {
    /// Starts a client. It does nothing until it hears that there is a carrier.
    ///
    /// # Errors
    /// No timer or no random numbers can be had.
    pub fn start(setup: Setup, outcomes: Outcomes) -> io::Result<Self> {
        let (carrier, carrier_events) = unbounded_channel();
        let machine = Machine::new(
            setup.hardware_address,
            Random::from_kernel()?,
            setup.start.clone(),
        );
        let task = Task {
            setup: setup.clone(),
            machine,
            timer: Timer::new()?,
            outcomes,
            replies: None,
            neighbours: None,
            probed: None,
            renewal: None,
        };
        Ok(Self {
            setup,
            carrier,
            task: tokio::spawn(task.run(carrier_events)),
        })
    }

    /// Ends the client, and gives the lease back (RFC 2131 4.4.6): the interface asks DHCP no more. The address has to be there still.
    /// Nobody answers, so that nothing is waited for.
    pub fn release(self, held: &Held) {
        let Client { setup, .. } = &self;
        let (name, address) = (&setup.name, held.lease.address);
        let sent = setup.store.forget().and_then(|()| self.send_release(held));
        match sent {
            Ok(()) => log!(Info, "{name}: gave {address} back"),
            Err(error) => log!(Debug, "{name}: giving {address} back: {error}"),
        }
    }

    fn send_release(&self, held: &Held) -> io::Result<()> {
        let request = Request {
            kind: RequestKind::Release,
            xid: Random::from_kernel()?.next_xid(),
            elapsed_s: 0,
            client: Some(held.lease.address),
            requested: None,
            server: Some(held.lease.server),
        };
        let identity = Identity {
            hardware_address: self.setup.hardware_address,
            host_name: None,
        };
        let message = request.encode(&identity).map_err(io::Error::other)?;
        let socket = sender(self.setup.index, held.lease.address)?;
        socket.send_to(&message, (held.lease.server, datagram::SERVER_PORT))?;
        Ok(())
    }

    /// Tells the client whether there is a carrier.
    pub fn set_carrier(&self, carrier: bool) {
        let _ = self.carrier.send(carrier); // a client that ended said why
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Task {
    setup: Setup,
    machine: Machine,
    timer: Timer,
    outcomes: Outcomes,
    /// Every answer comes in here, those to unicast requests too.
    replies: Option<Watched<PacketSocket>>,
    /// ARP, while an address is probed.
    neighbours: Option<Watched<PacketSocket>>,
    probed: Option<Ipv4Addr>,
    /// Sends unicast requests. While it is open the kernel does not turn the answers away.
    renewal: Option<UdpSocket>,
}

impl Task {
    async fn run(mut self, mut carrier: UnboundedReceiver<bool>) {
        let mut message = vec![0; 2048];
        let mut question = [0; 64];
        loop {
            if let Err(error) = self.timer.set(self.machine.deadline()) {
                log!(
                    Error,
                    "{}: the DHCP client ends: setting its timer: {error}",
                    self.setup.name
                );
                return;
            }
            let event = tokio::select! {
                up = carrier.recv() => match up {
                    Some(true) => Some(Event::CarrierUp),
                    Some(false) => Some(Event::CarrierDown),
                    None => return,
                },
                received = receive(self.replies.as_ref(), &mut message) => self.reply(received, &message),
                received = receive(self.neighbours.as_ref(), &mut question) => self.conflict(received, &question),
                expired = self.timer.expired() => match expired {
                    Ok(()) => Some(Event::Timer),
                    Err(error) => {
                        log!(Error, "{}: the DHCP client ends: waiting for its timer: {error}", self.setup.name);
                        return;
                    }
                },
            };
            if let Some(event) = event {
                self.step(event).await;
            }
        }
    }

    fn reply(&self, received: io::Result<Received>, message: &[u8]) -> Option<Event> {
        let received = self.received(received)?;
        let payload = datagram::parse(&message[..received.length], received.checksum_pending)?;
        let reply = Reply::decode(payload)?;
        log!(
            Debug,
            "{}: {:?} of {} from {:?}",
            self.setup.name,
            reply.kind,
            reply.address,
            reply.server
        );
        Some(Event::Reply(reply))
    }

    fn conflict(&self, received: io::Result<Received>, question: &[u8]) -> Option<Event> {
        let received = self.received(received)?;
        let other = arp::conflict(
            &question[..received.length],
            self.probed?,
            self.setup.hardware_address,
        )?;
        let other = other.map(|byte| format!("{byte:02x}")).join(":");
        log!(
            Debug,
            "{}: {} is used by {other}",
            self.setup.name,
            self.probed?
        );
        Some(Event::Conflict)
    }

    fn received(&self, received: io::Result<Received>) -> Option<Received> {
        match received {
            Ok(received) => (received.vlan == 0).then_some(received),
            Err(error) => {
                // The interface went down; the link watch tells the same in a moment.
                log!(Debug, "{}: receiving: {error}", self.setup.name);
                None
            }
        }
    }

    async fn step(&mut self, event: Event) {
        let before = self.machine.state_name();
        if matches!(event, Event::CarrierDown) {
            (self.replies, self.neighbours, self.renewal) = (None, None, None);
        }
        let actions = self.machine.step(event, timer::now());
        let after = self.machine.state_name();
        if before != after {
            log!(Debug, "{}: {before} -> {after}", self.setup.name);
        }
        for action in actions {
            if let Err(error) = self.carry_out(action).await {
                log!(Warning, "{}: {error}", self.setup.name);
            }
        }
        if after != "probing" {
            self.neighbours = None;
        }
    }

    async fn carry_out(&mut self, action: Action) -> io::Result<()> {
        let doing = |doing: &'static str| {
            move |error: io::Error| io::Error::other(format!("{doing}: {error}"))
        };
        match action {
            Action::Broadcast(request) => self
                .broadcast(&request)
                .map_err(doing("broadcasting a DHCP request")),
            Action::Unicast {
                server,
                from,
                request,
            } => self
                .unicast(server, from, &request)
                .map_err(doing("sending a DHCP request to the lease's server")),
            Action::Probe(address) => self
                .probe(address)
                .map_err(doing("asking whether the address is taken")),
            Action::Announce(address) => self
                .announce(address)
                .map_err(doing("announcing the address")),
            Action::Apply(held) => {
                self.renewal = None;
                let _ = self
                    .outcomes
                    .send((self.setup.index, Outcome::Bound(held.clone()))); // the service is ending
                let store = self.setup.store.clone();
                let save = move || store.save(&held, timer::now(), SystemTime::now());
                self.on_disk(save).await.map_err(doing("keeping the lease"))
            }
            Action::Withdraw => {
                self.renewal = None;
                let _ = self.outcomes.send((self.setup.index, Outcome::Lost)); // the service is ending
                Ok(())
            }
            Action::Forget => {
                let store = self.setup.store.clone();
                self.on_disk(move || store.forget())
                    .await
                    .map_err(doing("removing the kept lease"))
            }
            Action::Report(text) => {
                log!(Info, "{}: {text}", self.setup.name);
                Ok(())
            }
        }
    }

    /// A slow disk must not hold up the other interfaces.
    async fn on_disk(
        &self,
        work: impl FnOnce() -> io::Result<()> + Send + 'static,
    ) -> io::Result<()> {
        tokio::task::spawn_blocking(work)
            .await
            .map_err(io::Error::other)?
    }

    fn encode(&self, request: &Request) -> io::Result<Vec<u8>> {
        log!(Debug, "{}: sends {request:?}", self.setup.name);
        let identity = Identity {
            hardware_address: self.setup.hardware_address,
            host_name: (self.setup.host_name)(),
        };
        request.encode(&identity).map_err(io::Error::other)
    }

    fn listen(&mut self) -> io::Result<&Watched<PacketSocket>> {
        let socket = match self.replies.take() {
            Some(socket) => socket,
            None => Watched::new(PacketSocket::open(
                self.setup.index,
                ETHERTYPE_IPV4,
                &datagram::filter(),
            )?)?,
        };
        Ok(self.replies.insert(socket))
    }

    fn broadcast(&mut self, request: &Request) -> io::Result<()> {
        let source = request.client.unwrap_or(Ipv4Addr::UNSPECIFIED);
        let packet = datagram::build(source, Ipv4Addr::BROADCAST, &self.encode(request)?);
        self.listen()?.get().send(EVERYBODY, &packet)
    }

    fn unicast(&mut self, server: Ipv4Addr, from: Ipv4Addr, request: &Request) -> io::Result<()> {
        let message = self.encode(request)?;
        self.listen()?;
        self.renewal = None; // a former one has the port
        let socket = sender(self.setup.index, from)?;
        // What arrives here is read from the packet socket; a few copies may pile up and no more.
        setsockopt(&socket, sockopt::RcvBuf, &2048)?;
        socket.send_to(&message, (server, datagram::SERVER_PORT))?;
        self.renewal = Some(socket);
        Ok(())
    }

    fn probe(&mut self, address: Ipv4Addr) -> io::Result<()> {
        if self.neighbours.is_none() || self.probed != Some(address) {
            let socket =
                PacketSocket::open(self.setup.index, ETHERTYPE_ARP, &arp::filter(address))?;
            self.neighbours = Some(Watched::new(socket)?);
            self.probed = Some(address);
        }
        let packet = arp::probe(self.setup.hardware_address, address);
        self.neighbours
            .as_ref()
            .map_or(Ok(()), |socket| socket.get().send(EVERYBODY, &packet))
    }

    fn announce(&self, address: Ipv4Addr) -> io::Result<()> {
        let packet = arp::announcement(self.setup.hardware_address, address);
        PacketSocket::open(self.setup.index, ETHERTYPE_ARP, &arp::filter(address))?
            .send(EVERYBODY, &packet)
    }
}

/// A socket that sends from an address of an interface, and the client's port.
fn sender(index: u32, from: Ipv4Addr) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind((from, datagram::CLIENT_PORT))?;
    socket.set_nonblocking(true)?;
    // By its present name: udev may have given it another one since we started.
    let name = nix::net::if_::if_indextoname(index)?;
    setsockopt(
        &socket,
        sockopt::BindToDevice,
        &std::os::unix::ffi::OsStringExt::from_vec(name.into_bytes()),
    )?;
    Ok(socket)
}

/// Receives from a socket; without one it waits forever.
async fn receive(
    socket: Option<&Watched<PacketSocket>>,
    buffer: &mut [u8],
) -> io::Result<Received> {
    let Some(socket) = socket else {
        return std::future::pending().await;
    };
    socket.read(|socket| socket.receive(buffer)).await
}
