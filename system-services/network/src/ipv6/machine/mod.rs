//! The DHCPv6 client's states (RFC 8415 18.2). Pure: events and the time go in, actions come out.
//!
//! - `asking`: what is asked, when, and what follows when nobody answers
//! - `replies`: what follows from answers
//!
//! One exchange is about addresses and prefixes alike (RFC 7084 4.2, WPD-2). Servers are always asked by multicast.

mod asking;
mod replies;

use std::net::Ipv6Addr;
use std::time::Duration;

use super::exchange::{Exchange, Limits};
use super::lease::{Held, Lease};
use super::message::{Information, Kind, Reply, Request};
use crate::dhcp4::random::Random;

const SECOND: Duration = Duration::from_secs(1);

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Addresses and prefixes, and what else there is to know.
    Lease,
    /// That alone.
    Information,
}

/// What is known from before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Start {
    /// Nothing.
    Fresh,
    /// A lease that has ended: the same is asked for.
    Hint(Held),
    /// A lease of an earlier boot. Whether it still holds, and how long, is asked before it is used.
    Saved(Held),
    /// A lease of this boot, which the interface has already.
    Adopted(Held),
}

/// What happens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The routers say that this is to be asked for.
    Wanted(Mode),
    /// The configuration wants a prefix of about this length (0 leaves it to the server), or none.
    PrefixWanted(Option<u8>),
    /// There is no link any more.
    CarrierDown,
    /// There is one again.
    CarrierUp,
    /// A server answers.
    Reply(Reply),
    /// Somebody else has this address.
    Refused(Ipv6Addr),
    /// Nothing is wanted any more: what is held is given back.
    Release,
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
    Inform(Information),
    /// Tell people.
    Report(String),
    /// What was held is given back: there is nothing more to do.
    Finish,
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
    /// What routers say.
    told: Option<Mode>,
    /// The length of the prefix that is wanted.
    wish: Option<u8>,
    carrier: bool,
    state: State,
    lease: Option<Lease>,
    /// The lease is in use. One of an earlier boot is not before it is confirmed.
    in_force: bool,
    /// What came with a lease that is not in force yet.
    information: Information,
    /// How much of the lease is over is not known: it is renewed as soon as it is in force.
    is_old: bool,
    /// A lease that was held: the same is asked for.
    hint: Option<Lease>,
    limits: Limits,
    /// How often it came to nothing in a row.
    failures: u32,
    /// Nothing is wanted any more.
    leaves: bool,
}

impl Machine {
    /// A client that does nothing until it hears what is wanted. `wish` is the length of the prefix that is wanted, if any.
    pub fn new(random: Random, start: Start, wish: Option<u8>) -> Self {
        let mut machine = Machine {
            random,
            told: None,
            wish,
            carrier: false,
            state: State::Idle,
            lease: None,
            in_force: false,
            information: Information::default(),
            is_old: false,
            hint: None,
            limits: Limits::default(),
            failures: 0,
            leaves: false,
        };
        let (mut held, in_force) = match start {
            Start::Fresh => return machine,
            Start::Hint(held) => {
                machine.hint = Some(held.lease);
                return machine;
            }
            Start::Saved(held) => (held, false),
            Start::Adopted(held) => (held, true),
        };
        if wish.is_none() {
            held.lease.prefixes.clear();
        }
        if !held.lease.is_empty() {
            // Routers of this link said so. An earlier boot may have been on another one: that lease is asked about all the same.
            machine.told = in_force.then_some(Mode::Lease);
            machine.lease = Some(held.lease);
            machine.information = held.information;
            (machine.in_force, machine.is_old) = (in_force, !in_force);
        }
        machine
    }

    /// When [`Event::Timer`] is due.
    pub fn deadline(&self) -> Option<Duration> {
        let ends = self.lease.as_ref().and_then(Lease::next_end);
        let next = match &self.state {
            State::Idle => None,
            State::Asking(exchange) => {
                let end = match (exchange.kind, &self.lease) {
                    // Its own server has its time.
                    (Kind::Renew, Some(lease)) => lease.rebind_at,
                    _ => exchange.given_up_at,
                };
                Some(end.map_or(exchange.next, |end| exchange.next.min(end)))
            }
            State::Bound => self.lease.as_ref().and_then(|lease| lease.renew_at),
            State::Informed(until) => Some(*until),
        };
        match (next, ends) {
            (Some(next), Some(ends)) => Some(next.min(ends)),
            (next, ends) => next.or(ends),
        }
    }

    /// The lease, if one is in use.
    pub fn lease(&self) -> Option<&Lease> {
        self.lease.as_ref().filter(|_| self.in_force)
    }

    /// The state's name, for messages.
    pub fn state_name(&self) -> &'static str {
        match &self.state {
            State::Idle => "idle",
            State::Asking(exchange) => match exchange.kind {
                Kind::Solicit => "soliciting",
                Kind::Request => "requesting",
                Kind::Confirm => "confirming",
                Kind::Renew => "renewing",
                Kind::Rebind => "rebinding",
                Kind::Decline => "declining",
                Kind::Release => "releasing",
                Kind::Information => "asking for information",
            },
            State::Bound => "bound",
            State::Informed(_) => "informed",
        }
    }

    /// Takes one step.
    pub fn step(&mut self, event: Event, now: Duration) -> Vec<Action> {
        match event {
            Event::CarrierDown if self.leaves => self.released(now),
            Event::CarrierDown => {
                self.carrier = false;
                self.state = State::Idle;
                // The next link may have other routers; they are asked.
                self.told = None;
                Vec::new()
            }
            Event::CarrierUp if !self.carrier => {
                self.carrier = true;
                self.failures = 0;
                match self.lease.is_some() {
                    true => self.confirm(now),
                    false => self.begin(now),
                }
                Vec::new()
            }
            Event::CarrierUp => Vec::new(),
            Event::Wanted(mode) => {
                self.want(mode, now);
                Vec::new()
            }
            Event::PrefixWanted(wish) => self.want_prefix(wish, now),
            Event::Refused(address) => self.refused(address, now),
            Event::Release => self.release(now),
            Event::Reply(reply) => self.reply(reply, now),
            Event::Timer => self.timer(now),
        }
    }

    /// What is asked for: a prefix is asked for whatever routers say, and addresses with it (RFC 7084 4.2, WAA-9, WPD-4).
    fn mode(&self) -> Option<Mode> {
        self.wish.map(|_| Mode::Lease).or(self.told)
    }

    /// Nothing is held any more; says so, if it was in use.
    fn lose(&mut self) -> Option<Action> {
        let had = self.lease.take().is_some() && self.in_force;
        self.in_force = false;
        had.then_some(Action::Withdraw)
    }
}

#[cfg(test)]
mod tests;
