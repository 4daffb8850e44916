//! The client's states (RFC 2131 figure 5). Pure: events and the time go in, actions come out.
//!
//! ```text
//!            carrier          offer             ack           nobody answers the probes
//!   Down ----------> Selecting ----> Requesting ----> Probing -----------------------> Bound
//!    |  lease known      ^               |               |                              | T1
//!    +------------> Rebooting            | nak           | conflict: decline            v
//!                     |   \--- ack ------|---> Probing   v                          Renewing --ack--> Bound
//!                     | nak              +---------> Waiting ---> Selecting             | T2
//!                     v                                                                 v
//!                  Waiting                           Selecting <--- lease expired -- Rebinding --ack--> Bound
//! ```
//! Losing the carrier leads to Down from everywhere; a lease that is still good is kept, and confirmed (Rebooting) when
//! the carrier is back.
//!
//! - `requests`: what we ask servers, and when
//! - `replies`: what servers and neighbours answer, and what follows from it

mod replies;
mod requests;

use std::net::Ipv4Addr;
use std::time::Duration;

use super::lease::{Held, Lease};
use super::message::{Reply, Request};
use super::random::Random;

/// Requests for an offered address before another server gets a chance.
const REQUEST_TRIES: u32 = 4;
/// ARP probes before an address is used. RFC 5227 wants three over several seconds; a host that is there answers within
/// milliseconds, and the network should be there soon.
const PROBES: u32 = 2;
/// Wait after each probe.
const PROBE_WAIT: Duration = Duration::from_millis(150);

/// What happens to a client. Times are on one clock that never goes back.
#[derive(Debug, Clone)]
pub enum Event {
    /// The cable was plugged in, or is when we start.
    CarrierUp,
    /// The cable was pulled.
    CarrierDown,
    /// A message came from a server.
    Reply(Reply),
    /// Somebody else has the address that we are probing.
    Conflict,
    /// The time that [`Machine::deadline`] named has come.
    Timer,
}

/// What a client wants done, in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Send to everybody, from no address.
    Broadcast(Request),
    /// Send to one server, from the address that we have.
    Unicast {
        /// The server.
        server: Ipv4Addr,
        /// Our address.
        from: Ipv4Addr,
        /// What to send.
        request: Request,
    },
    /// Ask on the wire who has an address; until told otherwise, report who answers.
    Probe(Ipv4Addr),
    /// Tell everybody on the wire that the address is ours.
    Announce(Ipv4Addr),
    /// The lease holds: configure the interface and keep it for later.
    Apply(Held),
    /// The lease holds no longer: take the address away.
    Withdraw,
    /// The kept lease is not worth keeping.
    Forget,
    /// Something to tell the administrator.
    Report(String),
}

/// What a client starts from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Start {
    /// Nothing is known.
    Fresh,
    /// An address from an earlier time, not in use now, whose lease is over.
    Hint(Ipv4Addr),
    /// A lease from an earlier boot that may still hold.
    Saved(Lease),
    /// A lease that holds and is configured.
    Adopted(Held),
}

#[derive(Debug, Clone, Copy)]
struct Retry {
    sent: u32,
    next: Duration,
}

#[derive(Debug, Clone)]
enum State {
    Down {
        held: Option<Held>,
        saved: Option<Lease>,
    },
    Waiting {
        until: Duration,
    },
    Selecting {
        retry: Retry,
    },
    Requesting {
        address: Ipv4Addr,
        server: Ipv4Addr,
        asked_at: Duration,
        retry: Retry,
    },
    Rebooting {
        lease: Lease,
        held: Option<Held>,
        asked_at: Duration,
        retry: Retry,
    },
    Probing {
        held: Held,
        retry: Retry,
    },
    Bound {
        held: Held,
    },
    Renewing {
        held: Held,
        asked_at: Duration,
        next: Duration,
    },
    Rebinding {
        held: Held,
        asked_at: Duration,
        next: Duration,
    },
}

/// One interface's client.
#[derive(Debug, Clone)]
pub struct Machine {
    hardware_address: [u8; 6],
    random: Random,
    state: State,
    xid: u32,
    /// The address to ask for in discoveries.
    wanted: Option<Ipv4Addr>,
    /// When we began to look for an address.
    began: Duration,
    /// Refusals and conflicts since the last lease.
    failures: u32,
}

type Actions = Vec<Action>;

impl Machine {
    /// A client for the interface with that Ethernet address, without carrier at first.
    pub fn new(hardware_address: [u8; 6], random: Random, start: Start) -> Self {
        let (held, saved, wanted) = match start {
            Start::Fresh => (None, None, None),
            Start::Hint(address) => (None, None, Some(address)),
            Start::Saved(lease) => (None, Some(lease), None),
            Start::Adopted(held) => (Some(held), None, None),
        };
        let state = State::Down { held, saved };
        Self {
            hardware_address,
            random,
            state,
            xid: 0,
            wanted,
            began: Duration::ZERO,
            failures: 0,
        }
    }

    /// When to call [`step`](Self::step) with [`Event::Timer`]; `None` is never.
    pub fn deadline(&self) -> Option<Duration> {
        match &self.state {
            State::Down { held, .. } => held.as_ref().and_then(Held::expires_at),
            State::Waiting { until } => Some(*until),
            State::Selecting { retry }
            | State::Requesting { retry, .. }
            | State::Probing { retry, .. } => Some(retry.next),
            State::Rebooting { retry, held, .. } => {
                match held.as_ref().and_then(Held::expires_at) {
                    Some(end) => Some(retry.next.min(end)),
                    None => Some(retry.next),
                }
            }
            State::Bound { held } => held.renew_at(),
            State::Renewing { next, .. } | State::Rebinding { next, .. } => Some(*next),
        }
    }

    /// The state's name, for messages.
    pub fn state_name(&self) -> &'static str {
        match &self.state {
            State::Down { .. } => "down",
            State::Waiting { .. } => "waiting",
            State::Selecting { .. } => "selecting",
            State::Requesting { .. } => "requesting",
            State::Rebooting { .. } => "rebooting",
            State::Probing { .. } => "probing",
            State::Bound { .. } => "bound",
            State::Renewing { .. } => "renewing",
            State::Rebinding { .. } => "rebinding",
        }
    }

    /// Takes an event in and says what to do about it.
    pub fn step(&mut self, event: Event, now: Duration) -> Vec<Action> {
        match event {
            Event::CarrierUp => self.carrier_up(now),
            Event::CarrierDown => self.carrier_down(),
            Event::Reply(reply) => self.reply(&reply, now),
            Event::Conflict => self.conflict(now),
            Event::Timer => self.timer(now),
        }
    }

    fn carrier_up(&mut self, now: Duration) -> Actions {
        let State::Down { held, saved } = &mut self.state else {
            return Vec::new();
        };
        let (held, saved) = (held.take(), saved.take());
        self.began = now;
        match (held, saved) {
            (Some(held), _) if held.has_expired(now) => self.expire(&held.lease, now),
            (Some(held), _) => self.reboot(held.lease.clone(), Some(held), now),
            (None, Some(lease)) => self.reboot(lease, None, now),
            (None, None) => self.discover(now),
        }
    }

    fn carrier_down(&mut self) -> Actions {
        let nothing = State::Down {
            held: None,
            saved: None,
        };
        self.state = match std::mem::replace(&mut self.state, nothing) {
            down @ State::Down { .. } => down,
            State::Bound { held }
            | State::Renewing { held, .. }
            | State::Rebinding { held, .. } => State::Down {
                held: Some(held),
                saved: None,
            },
            State::Rebooting {
                held: Some(held), ..
            } => State::Down {
                held: Some(held),
                saved: None,
            },
            State::Rebooting {
                lease, held: None, ..
            } => State::Down {
                held: None,
                saved: Some(lease),
            },
            State::Probing { held, .. } => State::Down {
                held: None,
                saved: Some(held.lease),
            },
            State::Waiting { .. } | State::Selecting { .. } | State::Requesting { .. } => {
                State::Down {
                    held: None,
                    saved: None,
                }
            }
        };
        Vec::new()
    }

    fn timer(&mut self, now: Duration) -> Actions {
        if self.deadline().is_none_or(|deadline| now < deadline) {
            return Vec::new();
        }
        match self.state.clone() {
            State::Down { held, .. } => {
                self.wanted = held.map(|held| held.lease.address);
                self.state = State::Down {
                    held: None,
                    saved: None,
                };
                vec![
                    Action::Withdraw,
                    Action::Report("the lease expired while there was no carrier".into()),
                ]
            }
            State::Waiting { .. } => self.discover(now),
            State::Selecting { retry } => self.discover_again(retry, now),
            State::Requesting {
                address,
                server,
                asked_at,
                retry,
            } => {
                if retry.sent >= REQUEST_TRIES {
                    return self.discover(now);
                }
                let retry = self.next_retry(retry.sent, now);
                self.state = State::Requesting {
                    address,
                    server,
                    asked_at,
                    retry,
                };
                vec![self.request_offered(address, server, now)]
            }
            State::Rebooting {
                lease,
                held,
                asked_at,
                retry,
            } => self.reboot_again(lease, held, asked_at, retry, now),
            State::Probing { held, .. } if held.has_expired(now) => self.discover(now),
            State::Probing { held, retry } if retry.sent < PROBES => {
                let address = held.lease.address;
                let retry = Retry {
                    sent: retry.sent + 1,
                    next: now + PROBE_WAIT,
                };
                self.state = State::Probing { held, retry };
                vec![Action::Probe(address)]
            }
            State::Probing { held, .. } => {
                let address = held.lease.address;
                let mut actions = self.bind(held);
                actions.push(Action::Announce(address));
                actions
            }
            State::Bound { held }
            | State::Renewing { held, .. }
            | State::Rebinding { held, .. } => self.prolong(held, now),
        }
    }
}

#[cfg(test)]
mod tests;
