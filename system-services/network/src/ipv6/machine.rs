//! The DHCPv6 client's states (RFC 8415 18.2). Pure: events and the time go in, actions come out.

use std::net::Ipv6Addr;
use std::time::Duration;

use super::exchange::Exchange;
use super::lease::{Address, Lease};
use super::message::{Kind, Refusal, Reply, Request};
use crate::dhcp4::random::Random;

const SECOND: Duration = Duration::from_secs(1);
/// What else there is to know is asked again after this time, unless the server says otherwise (RFC 8415 7.6).
/// Somebody who knows a lease of this link says so within this time (RFC 8415 7.6, CNF_MAX_RD).
const CONFIRMING: Duration = Duration::from_secs(10);
/// After something came to nothing, at most this long is waited before it begins anew (RFC 8415 14.1).
const LONGEST_REST: Duration = Duration::from_secs(120);
const REFRESH: Duration = Duration::from_secs(86_400);
const LEAST_REFRESH_S: u32 = 600;
/// A server with this preference is chosen at once (RFC 8415 18.2.1).
const UTMOST_PREFERENCE: u8 = 255;

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Addresses, and what else there is to know.
    Addresses,
    /// That alone.
    Information,
}

/// What happens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The routers say that this is to be asked for.
    Wanted(Mode),
    /// There is no link any more.
    CarrierDown,
    /// There is one again.
    CarrierUp,
    /// A server answers.
    Reply(Reply),
    /// Somebody else has this address.
    Refused(Ipv6Addr),
    /// The time of [`Machine::deadline`] has come.
    Timer,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Send this to all servers.
    Send(Request),
    /// The interface has this lease.
    Apply(Lease),
    /// It has none.
    Withdraw,
    /// This is known beside addresses.
    Inform(Reply),
    /// Tell people.
    Report(String),
}

#[derive(Debug, Clone)]
enum State {
    /// Nobody asked for anything.
    Idle,
    /// An answer is waited for.
    Asking(Box<Exchange>),
    /// A lease is held that need not be renewed yet.
    Bound,
    /// All is known until then.
    Informed(Duration),
}

/// The client of one interface.
#[derive(Debug)]
pub struct Machine {
    random: Random,
    mode: Option<Mode>,
    carrier: bool,
    state: State,
    lease: Option<Lease>,
    /// How often it came to nothing in a row.
    failures: u32,
}

impl Machine {
    /// A client that does nothing until it hears what is wanted.
    pub fn new(random: Random) -> Self {
        Machine {
            random,
            mode: None,
            carrier: false,
            state: State::Idle,
            lease: None,
            failures: 0,
        }
    }

    /// When [`Event::Timer`] is due.
    pub fn deadline(&self) -> Option<Duration> {
        let ends = self.lease.as_ref().and_then(Lease::ends_at);
        let next = match &self.state {
            State::Idle => None,
            State::Asking(exchange) => match (exchange.kind, &self.lease) {
                // Its own server has its time.
                (Kind::Renew, Some(lease)) => match lease.rebind_at {
                    Some(rebind) => Some(exchange.next.min(rebind)),
                    None => Some(exchange.next),
                },
                _ => match exchange.given_up_at {
                    Some(end) => Some(exchange.next.min(end)),
                    None => Some(exchange.next),
                },
            },
            State::Bound => self.lease.as_ref().and_then(|lease| lease.renew_at),
            State::Informed(until) => Some(*until),
        };
        match (next, ends) {
            (Some(next), Some(ends)) => Some(next.min(ends)),
            (next, ends) => next.or(ends),
        }
    }

    /// The state's name, for messages.
    pub fn state_name(&self) -> &'static str {
        match &self.state {
            State::Idle => "idle",
            State::Asking(exchange) => match exchange.kind {
                Kind::Solicit => "soliciting",
                Kind::Request => "requesting",
                Kind::Renew => "renewing",
                Kind::Rebind => "rebinding",
                Kind::Decline => "declining",
                Kind::Information => "asking for information",
            },
            State::Bound => "bound",
            State::Informed(_) => "informed",
        }
    }

    /// Takes one step.
    pub fn step(&mut self, event: Event, now: Duration) -> Vec<Action> {
        match event {
            Event::CarrierDown => {
                self.carrier = false;
                self.state = State::Idle;
                Vec::new()
            }
            Event::CarrierUp if !self.carrier => {
                self.carrier = true;
                self.failures = 0;
                // The lease may be of another network: any server may say so (RFC 8415 18.2.12).
                match (&self.lease, self.mode) {
                    (Some(_), _) => {
                        let delay = self.random.below(SECOND);
                        self.ask_about_lease(Kind::Rebind, now + delay);
                        // Where nobody knows of it something new is asked for; until then it holds.
                        if let State::Asking(exchange) = &mut self.state {
                            exchange.given_up_at = Some(now + CONFIRMING);
                        }
                    }
                    (None, Some(mode)) => self.begin(mode, now),
                    (None, None) => {}
                }
                Vec::new()
            }
            Event::CarrierUp => Vec::new(),
            Event::Wanted(mode) => {
                // Once addresses are had by DHCPv6 that stays so, whatever another router says.
                let is_more = self.mode.is_none()
                    || (self.mode, mode) == (Some(Mode::Information), Mode::Addresses);
                if is_more {
                    self.mode = Some(mode);
                    if self.carrier {
                        self.begin(mode, now);
                    }
                }
                Vec::new()
            }
            Event::Refused(address) => self.refused(address, now),
            Event::Reply(reply) => self.reply(reply, now),
            Event::Timer => self.timer(now),
        }
    }

    fn begin(&mut self, mode: Mode, now: Duration) {
        let kind = match mode {
            Mode::Addresses => Kind::Solicit,
            Mode::Information => Kind::Information,
        };
        // Not all machines of a network at once, when it comes back (RFC 8415 18.2.1).
        let rest = match self.failures {
            0 => Duration::ZERO,
            failures => (SECOND * 2u32.saturating_pow(failures.min(7))).min(LONGEST_REST),
        };
        let delay = self.random.below(SECOND) + rest;
        self.ask(kind, None, Vec::new(), now + delay);
    }

    fn ask(&mut self, kind: Kind, server: Option<Vec<u8>>, addresses: Vec<Ipv6Addr>, at: Duration) {
        let exchange = Exchange::new(kind, server, addresses, at, &mut self.random);
        self.state = State::Asking(Box::new(exchange));
    }

    fn ask_about_lease(&mut self, kind: Kind, now: Duration) {
        let Some(lease) = &self.lease else { return };
        let server = (kind == Kind::Renew).then(|| lease.server.clone());
        let addresses = lease
            .addresses
            .iter()
            .map(|address| address.address)
            .collect();
        self.ask(kind, server, addresses, now);
    }

    fn refused(&mut self, address: Ipv6Addr, now: Duration) -> Vec<Action> {
        let Some(lease) = &mut self.lease else {
            return Vec::new();
        };
        if !lease.addresses.iter().any(|it| it.address == address) {
            return Vec::new();
        }
        let server = lease.server.clone();
        self.lease = None;
        self.failures += 1;
        match self.carrier {
            true => self.ask(Kind::Decline, Some(server), vec![address], now),
            false => self.state = State::Idle,
        }
        vec![
            Action::Report(format!("somebody else uses {address} already")),
            Action::Withdraw,
        ]
    }

    fn timer(&mut self, now: Duration) -> Vec<Action> {
        let mut actions = Vec::new();
        if let Some(lease) = &self.lease
            && lease.ends_at().is_some_and(|end| end <= now)
        {
            self.lease = None;
            actions.push(Action::Withdraw);
            if self.carrier {
                self.begin(Mode::Addresses, now);
            }
        }
        match &mut self.state {
            State::Asking(exchange) => {
                let is_over = self
                    .lease
                    .as_ref()
                    .and_then(|lease| lease.rebind_at)
                    .is_some_and(|rebind| rebind <= now);
                if exchange.kind == Kind::Renew && is_over {
                    self.ask_about_lease(Kind::Rebind, now);
                    return self.send_due(now, actions);
                }
                if exchange.given_up_at.is_some_and(|end| end <= now) {
                    self.begin(Mode::Addresses, now);
                    return self.send_due(now, actions);
                }
                if exchange.next <= now
                    && let Some(offer) = exchange.offer.take()
                {
                    self.request(&offer, now);
                }
            }
            State::Bound => {
                let renew = self.lease.as_ref().and_then(|lease| lease.renew_at);
                if self.carrier && renew.is_some_and(|renew| renew <= now) {
                    self.ask_about_lease(Kind::Renew, now);
                }
            }
            State::Informed(until) if *until <= now => self.begin(Mode::Information, now),
            State::Informed(_) | State::Idle => {}
        }
        self.send_due(now, actions)
    }

    /// Sends what is due; gives up what was sent often enough.
    fn send_due(&mut self, now: Duration, mut actions: Vec<Action>) -> Vec<Action> {
        let State::Asking(exchange) = &mut self.state else {
            return actions;
        };
        if exchange.next > now {
            return actions;
        }
        if exchange.is_spent() {
            self.begin(Mode::Addresses, now);
            return actions;
        }
        actions.push(Action::Send(exchange.send(now, &mut self.random)));
        actions
    }

    fn request(&mut self, offer: &Reply, now: Duration) {
        let addresses = offer
            .addresses
            .iter()
            .map(|(address, ..)| *address)
            .collect();
        self.ask(Kind::Request, Some(offer.server.clone()), addresses, now);
    }

    fn reply(&mut self, reply: Reply, now: Duration) -> Vec<Action> {
        let State::Asking(exchange) = &mut self.state else {
            return Vec::new();
        };
        let from_another = exchange
            .server
            .as_ref()
            .is_some_and(|server| *server != reply.server);
        if reply.xid != exchange.xid || exchange.sent == 0 || from_another {
            return Vec::new();
        }
        match (exchange.kind, reply.is_offer) {
            (Kind::Solicit, true) => {
                if reply.addresses.is_empty() {
                    return Vec::new();
                }
                let best = exchange.offer.as_ref().map(|offer| offer.preference);
                let at_once = reply.preference == UTMOST_PREFERENCE || exchange.sent > 1;
                if at_once {
                    self.request(&reply, now);
                    return self.send_due(now, Vec::new());
                }
                if best.is_none_or(|best| best < reply.preference) {
                    exchange.offer = Some(reply);
                }
                Vec::new()
            }
            (_, true) => Vec::new(),
            (Kind::Solicit, false) if !reply.rapid => Vec::new(),
            (Kind::Information, false) => {
                let refresh = reply
                    .refresh_s
                    .map(|seconds| Duration::from_secs(seconds.max(LEAST_REFRESH_S).into()));
                self.state = State::Informed(now + refresh.unwrap_or(REFRESH));
                vec![Action::Inform(reply)]
            }
            (Kind::Decline, false) => {
                self.begin(Mode::Addresses, now);
                Vec::new()
            }
            (_, false) => self.granted(reply, now),
        }
    }

    fn granted(&mut self, reply: Reply, now: Duration) -> Vec<Action> {
        let State::Asking(exchange) = &self.state else {
            return Vec::new();
        };
        let kind = exchange.kind;
        if let Some(refusal) = reply.refusal
            && reply.addresses.is_empty()
        {
            return self.not_granted(kind, refusal, &reply, now);
        }
        let is_about_lease = matches!(kind, Kind::Renew | Kind::Rebind);
        if is_about_lease && reply.addresses.is_empty() {
            // It says nothing of them: they hold, and are asked about again (RFC 8415 18.2.10.1).
            return Vec::new();
        }
        let granted = Lease::from_reply(&reply, now);
        if let Some(old) = self
            .lease
            .as_mut()
            .filter(|_| is_about_lease && granted.is_none())
        {
            let is_taken_back = |address: &Address| {
                let mut named = reply.addresses.iter();
                named.any(|(other, _, valid)| *other == address.address && *valid == 0)
            };
            old.addresses.retain(|address| !is_taken_back(address));
            // The others are asked about again.
            if !old.addresses.is_empty() {
                return vec![Action::Apply(old.clone())];
            }
        }
        let Some(mut lease) = granted else {
            // All of them are taken back.
            let had = self.lease.take().is_some();
            self.failures += 1;
            self.begin(Mode::Addresses, now);
            return match had {
                true => vec![Action::Withdraw],
                false => Vec::new(),
            };
        };
        if is_about_lease {
            self.failures = 0;
            if let Some(old) = &self.lease {
                lease.keep(old, &reply);
            }
        }
        self.lease = Some(lease.clone());
        self.state = State::Bound;
        vec![Action::Inform(reply), Action::Apply(lease)]
    }

    fn not_granted(
        &mut self,
        kind: Kind,
        refusal: Refusal,
        reply: &Reply,
        now: Duration,
    ) -> Vec<Action> {
        match (kind, refusal) {
            // It has forgotten us, and may grant the same again (RFC 8415 18.2.10.1).
            (Kind::Renew | Kind::Rebind, Refusal::NoBinding) => {
                let addresses = self.lease.iter().flat_map(|lease| &lease.addresses);
                let addresses = addresses.map(|address| address.address).collect();
                self.ask(Kind::Request, Some(reply.server.clone()), addresses, now);
                self.send_due(now, Vec::new())
            }
            // Asked again later: the server has a trouble of its own, or another one has granted it.
            (_, Refusal::Other(_)) | (Kind::Renew | Kind::Rebind, Refusal::NoAddress) => Vec::new(),
            (_, Refusal::NoAddress) => {
                // What is held holds until its end.
                self.failures += 1;
                self.begin(Mode::Addresses, now);
                vec![Action::Report(
                    "no address by DHCPv6: there is none left".to_owned(),
                )]
            }
            _ => {
                let had = self.lease.take().is_some();
                self.failures += 1;
                self.begin(Mode::Addresses, now);
                let mut actions =
                    vec![Action::Report(format!("no address by DHCPv6: {refusal:?}"))];
                if had {
                    actions.push(Action::Withdraw);
                }
                actions
            }
        }
    }
}

#[cfg(test)]
#[path = "machine_tests.rs"]
mod tests;
