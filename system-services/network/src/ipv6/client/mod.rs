//! One task per interface: it listens to routers, feeds the [`Machine`], and carries its actions out.
//!
//! - `routers`: what routers say, and asking them
//! - `servers`: the socket to DHCPv6 servers

mod routers;
mod servers;

use std::io;
use std::net::{Ipv6Addr, UdpSocket};
use std::time::{Duration, SystemTime};

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinHandle;

use self::routers::Routers;
use super::Told;
use super::lease::{Held, Leased};
use super::machine::{Action, Event, Machine, Mode, Start};
use super::message::{Identity, Information, Reply};
use super::store::Store;
use crate::dhcp4::random::Random;
use crate::dhcp4::timer::{self, Timer};
use crate::log;
use crate::watched::Watched;

const SECOND: Duration = Duration::from_secs(1);

/// Where what an interface is told goes, with its index and the client's generation.
pub type Outcomes = UnboundedSender<(u32, u64, Told)>;

/// What a client needs to know.
#[derive(Debug)]
pub struct Setup {
    /// The interface's index.
    pub index: u32,
    /// Its name, for messages.
    pub name: String,
    /// The name by which servers know it: the one that it has after it was set up.
    pub lasting_name: String,
    /// Its Ethernet address.
    pub hardware_address: [u8; 6],
    /// Which client of the interface it is: what an earlier one has said late does not count.
    pub generation: u64,
    /// Whether servers are asked when routers say that there are any.
    pub dhcp: bool,
    /// The length of the prefix that is asked for whatever routers say, 0 for any; `None` asks for none.
    pub prefix: Option<u8>,
    /// What is known from before.
    pub start: Start,
    /// Where leases are kept.
    pub store: Store,
}

enum Input {
    Carrier(bool),
    Refused(Ipv6Addr),
    Prefix(Option<u8>),
    Release,
}

/// A running client; dropping it ends it and leaves the interface as it is.
#[derive(Debug)]
pub struct Client {
    input: UnboundedSender<Input>,
    /// `None` when it goes on by itself to its end.
    task: Option<JoinHandle<()>>,
}

impl Client {
    /// Starts a client. It does nothing until it hears that there is a carrier.
    ///
    /// # Errors
    /// No timer or no random numbers can be had.
    pub fn start(setup: Setup, outcomes: Outcomes) -> io::Result<Self> {
        let (input, inputs) = unbounded_channel();
        let machine = Machine::new(
            Random::from_kernel()?,
            setup.start.clone(),
            setup.prefix.filter(|_| setup.dhcp),
        );
        let informed = match (&setup.start, machine.lease()) {
            (Start::Adopted(held), Some(_)) => held.information.clone(),
            _ => Information::default(),
        };
        let is_known = matches!(setup.start, Start::Hint(_) | Start::Adopted(_));
        let task = Task {
            identity: Identity::of(setup.hardware_address, &setup.lasting_name),
            setup,
            // What an earlier run gave, or that it is over.
            is_known,
            machine,
            timer: Timer::new()?,
            outcomes,
            routers: Routers::default(),
            servers: None,
            informed,
            is_kept: true,
            is_over: false,
            told: Told::default(),
        };
        Ok(Self {
            input,
            task: Some(tokio::spawn(task.run(inputs))),
        })
    }

    /// Tells the client whether there is a carrier.
    pub fn set_carrier(&self, carrier: bool) {
        self.tell(Input::Carrier(carrier));
    }

    /// Tells the client that somebody else has an address of its lease.
    pub fn refuse(&self, address: Ipv6Addr) {
        self.tell(Input::Refused(address));
    }

    /// Tells the client whether a prefix is wanted, and of which length (0 for any).
    pub fn want_prefix(&self, length: Option<u8>) {
        self.tell(Input::Prefix(length));
    }

    /// Ends the client when it has given its lease back (RFC 8415 18.2.7), which is not waited for.
    pub fn release(mut self) {
        self.tell(Input::Release);
        self.task = None;
    }

    fn tell(&self, input: Input) {
        let _ = self.input.send(input); // a client that ended said why
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

struct Task {
    setup: Setup,
    identity: Identity,
    machine: Machine,
    timer: Timer,
    outcomes: Outcomes,
    routers: Routers,
    /// DHCPv6.
    servers: Option<Watched<UdpSocket>>,
    /// Whether a server was heard, or a lease is held from before: until then what is there stays.
    is_known: bool,
    /// What a DHCPv6 server said last beside addresses.
    informed: Information,
    /// The lease on disk is the one that is held.
    is_kept: bool,
    /// The lease is given back.
    is_over: bool,
    /// What the service was told last.
    told: Told,
}

impl Task {
    async fn run(mut self, mut inputs: UnboundedReceiver<Input>) {
        let mut packet = vec![0; 2048];
        let mut message = vec![0; 2048];
        let mut has_inputs = true;
        while !self.is_over {
            self.tell();
            self.keep().await;
            if let Err(error) = self.timer.set(self.deadline()) {
                return self.end("setting its timer", &error);
            }
            tokio::select! {
                input = inputs.recv(), if has_inputs => match input {
                    Some(input) => self.input(input),
                    // It gives its lease back.
                    None => has_inputs = false,
                },
                received = routers::receive(self.routers.socket(), &mut packet) => match received {
                    Ok(received) => self.router(&packet[..received.min(packet.len())]),
                    Err(error) => log!(Debug, "{}: receiving: {error}", self.setup.name),
                },
                received = servers::receive(self.servers.as_ref(), &mut message) => match received {
                    Ok(length) => self.server(&message[..length.min(message.len())]),
                    Err(error) => log!(Debug, "{}: receiving: {error}", self.setup.name),
                },
                expired = self.timer.expired() => match expired {
                    Ok(()) => self.timer(),
                    Err(error) => return self.end("waiting for its timer", &error),
                },
            }
        }
        self.keep().await;
    }

    fn end(&self, doing: &str, error: &io::Error) {
        let name = &self.setup.name;
        log!(Error, "{name}: the IPv6 client ends: {doing}: {error}");
    }

    /// The next time at which something is due.
    fn deadline(&self) -> Option<Duration> {
        let times = [self.machine.deadline(), self.routers.deadline()];
        times.into_iter().flatten().min()
    }

    fn input(&mut self, input: Input) {
        match input {
            Input::Carrier(true) => {
                if let Err(error) = self.routers.listen(self.setup.index, timer::now()) {
                    let name = &self.setup.name;
                    log!(Warning, "{name}: listening to routers: {error}");
                }
                self.step(Event::CarrierUp);
            }
            Input::Carrier(false) => {
                self.routers.leave();
                self.servers = None;
                self.step(Event::CarrierDown);
            }
            Input::Refused(address) => self.step(Event::Refused(address)),
            Input::Prefix(wish) => self.step(Event::PrefixWanted(wish)),
            Input::Release => {
                self.step(Event::Release);
                // What is on disk may not have been in use. It goes now: another client may write there before the server answers.
                self.is_kept = false;
            }
        }
    }

    fn timer(&mut self) {
        if let Err(error) = self.routers.timer(timer::now()) {
            log!(Debug, "{}: asking for routers: {error}", self.setup.name);
        }
        self.step(Event::Timer);
    }

    fn router(&mut self, packet: &[u8]) {
        let Some(said) = self.routers.heard(packet, timer::now()) else {
            return;
        };
        log!(Debug, "{}: {said:?}", self.setup.name);
        match (self.setup.dhcp, said.managed, said.other) {
            (true, true, _) => self.step(Event::Wanted(Mode::Lease)),
            (true, false, true) => self.step(Event::Wanted(Mode::Information)),
            _ => {}
        }
    }

    fn server(&mut self, message: &[u8]) {
        let Some(reply) = Reply::decode(message, &self.identity) else {
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
                    let sent = servers::send(
                        &mut self.servers,
                        self.setup.index,
                        &request,
                        &self.identity,
                    );
                    if let Err(error) = sent {
                        log!(Debug, "{}: sending {request:?}: {error}", self.setup.name);
                    }
                }
                Action::Apply(_) => (self.is_known, self.is_kept) = (true, false),
                Action::Withdraw => {
                    (self.is_known, self.is_kept) = (true, false);
                    self.informed = Information::default();
                }
                Action::Inform(information) => self.informed = information,
                Action::Report(text) => log!(Info, "{}: {text}", self.setup.name),
                Action::Finish => self.is_over = true,
            }
        }
    }

    /// Writes the lease down, or takes it away from the disk, when it is another one. A slow disk must not hold up the other
    /// interfaces.
    async fn keep(&mut self) {
        if std::mem::replace(&mut self.is_kept, true) {
            return;
        }
        let store = self.setup.store.clone();
        let held = self.machine.lease().map(|lease| Held {
            lease: lease.clone(),
            information: self.informed.clone(),
        });
        let work = move || match held {
            Some(held) => store.save(&held, timer::now(), SystemTime::now()),
            None => store.forget(),
        };
        let done = tokio::task::spawn_blocking(work).await;
        if let Err(error) = done.map_err(io::Error::other).and_then(|result| result) {
            let name = &self.setup.name;
            log!(Warning, "{name}: keeping the lease of DHCPv6: {error}");
        }
    }

    /// Tells the service what is known, when it is something else than before.
    fn tell(&mut self) {
        self.routers.forget_old(timer::now());
        let lease = self.machine.lease();
        let mut told = Told {
            addresses: self
                .is_known
                .then(|| lease.map(|it| it.addresses.clone()).unwrap_or_default()),
            prefixes: self
                .is_known
                .then(|| lease.map(|it| it.prefixes.clone()).unwrap_or_default()),
            name_servers: self.informed.name_servers.clone(),
            search: self.informed.search.clone(),
            time_servers: self.informed.time_servers.clone(),
        };
        self.routers.add_to(&mut told);
        if told != self.told {
            self.told = told.clone();
            let message = (self.setup.index, self.setup.generation, told);
            let _ = self.outcomes.send(message); // the service is ending
        }
    }
}

/// Seconds from `now` until then, as the kernel takes them.
pub fn seconds_left(until: Option<Duration>, now: Duration) -> u32 {
    match until {
        None => u32::MAX,
        Some(until) => u32::try_from(until.saturating_sub(now).as_secs()).unwrap_or(u32::MAX - 1),
    }
}

/// Addresses or prefixes that still hold.
pub fn valid<T: Copy>(leased: &[Leased<T>], now: Duration) -> Vec<Leased<T>> {
    // The kernel counts whole seconds.
    let holds = |it: &Leased<T>| it.valid_until.is_none_or(|until| until >= now + SECOND);
    leased.iter().copied().filter(holds).collect()
}
