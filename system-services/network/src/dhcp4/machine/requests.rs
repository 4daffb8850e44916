//! What we ask servers, and when.

use std::net::Ipv4Addr;
use std::time::Duration;

use super::{Action, Actions, Machine, Retry, State};
use crate::dhcp4::lease::{Held, Lease};
use crate::dhcp4::message::{Request, RequestKind};

/// Wait before the first retransmission. RFC 2131 suggests 4 s; today's networks answer at once, and a packet lost
/// while a switch port is still waking up should not cost a boot that much. It doubles each time.
const FIRST_RETRY: Duration = Duration::from_secs(1);
/// No wait between retransmissions is longer (RFC 2131 4.1).
const LONGEST_RETRY: Duration = Duration::from_secs(64);
/// Each of these waits differs by up to half of this, so that machines which start together drift apart.
const JITTER: Duration = Duration::from_secs(1);
/// Requests for the address we had before we look for any.
const REBOOT_TRIES: u32 = 3;
/// Shortest wait between requests to prolong a lease (RFC 2131 4.4.5).
const SHORTEST_RENEWAL_RETRY: Duration = Duration::from_secs(60);
/// After so many unanswered discoveries we say so, once.
const QUIET_DISCOVERIES: u32 = 4;

impl Machine {
    pub(super) fn discover(&mut self, now: Duration) -> Actions {
        self.xid = self.random.next_xid();
        let retry = self.next_retry(0, now);
        self.state = State::Selecting { retry };
        vec![self.discovery(now)]
    }

    pub(super) fn discover_again(&mut self, retry: Retry, now: Duration) -> Actions {
        let retry = self.next_retry(retry.sent, now);
        self.state = State::Selecting { retry };
        let mut actions = vec![self.discovery(now)];
        if retry.sent == QUIET_DISCOVERIES {
            actions.push(Action::Report(
                "no DHCP server answers; will go on asking".into(),
            ));
        }
        actions
    }

    pub(super) fn discovery(&mut self, now: Duration) -> Action {
        Action::Broadcast(Request {
            requested: self.wanted,
            ..self.request(RequestKind::Discover, now)
        })
    }

    pub(super) fn request_offered(
        &self,
        address: Ipv4Addr,
        server: Ipv4Addr,
        now: Duration,
    ) -> Action {
        let request = self.request(RequestKind::Request, now);
        Action::Broadcast(Request {
            requested: Some(address),
            server: Some(server),
            ..request
        })
    }

    pub(super) fn reboot(&mut self, lease: Lease, held: Option<Held>, now: Duration) -> Actions {
        self.xid = self.random.next_xid();
        self.reboot_again(lease, held, now, Retry { sent: 0, next: now }, now)
    }

    pub(super) fn reboot_again(
        &mut self,
        lease: Lease,
        held: Option<Held>,
        asked_at: Duration,
        retry: Retry,
        now: Duration,
    ) -> Actions {
        match held {
            Some(held) if held.has_expired(now) || retry.sent >= REBOOT_TRIES => {
                self.prolong(held, now)
            }
            None if retry.sent >= REBOOT_TRIES => {
                self.wanted = Some(lease.address);
                self.discover(now)
            }
            held => {
                let retry = self.next_retry(retry.sent, now);
                let request = self.request(RequestKind::Request, now);
                let request = Request {
                    requested: Some(lease.address),
                    ..request
                };
                self.state = State::Rebooting {
                    lease,
                    held,
                    asked_at,
                    retry,
                };
                vec![Action::Broadcast(request)]
            }
        }
    }

    /// Does what a held lease needs at this time: nothing, ask its server, ask any server, or give it up.
    pub(super) fn prolong(&mut self, held: Held, now: Duration) -> Actions {
        let (Some(renew_at), Some(rebind_at), Some(end)) =
            (held.renew_at(), held.rebind_at(), held.expires_at())
        else {
            self.state = State::Bound { held };
            return Vec::new();
        };
        if now >= end {
            return self.expire(&held.lease, now);
        }
        if now < renew_at {
            self.state = State::Bound { held };
            return Vec::new();
        }
        if !matches!(self.state, State::Renewing { .. } | State::Rebinding { .. }) {
            self.began = now;
        }
        // A transaction of its own each time: an answer then tells which request began the new lease.
        self.xid = self.random.next_xid();
        let from = held.lease.address;
        let request = Request {
            client: Some(from),
            ..self.request(RequestKind::Request, now)
        };
        let server = held.lease.server;
        let wait = |until: Duration| {
            until.min(now + (until.saturating_sub(now) / 2).max(SHORTEST_RENEWAL_RETRY))
        };
        if now < rebind_at {
            self.state = State::Renewing {
                held,
                asked_at: now,
                next: wait(rebind_at),
            };
            vec![Action::Unicast {
                server,
                from,
                request,
            }]
        } else {
            self.state = State::Rebinding {
                held,
                asked_at: now,
                next: wait(end),
            };
            vec![Action::Broadcast(request)]
        }
    }

    pub(super) fn expire(&mut self, lease: &Lease, now: Duration) -> Actions {
        self.wanted = Some(lease.address);
        self.began = now;
        let report = Action::Report(format!("the lease of {} expired", lease.address));
        let mut actions = vec![Action::Withdraw, report];
        actions.extend(self.discover(now));
        actions
    }

    pub(super) fn request(&self, kind: RequestKind, now: Duration) -> Request {
        let elapsed_s = now
            .saturating_sub(self.began)
            .as_secs()
            .try_into()
            .unwrap_or(u16::MAX);
        Request {
            kind,
            xid: self.xid,
            elapsed_s,
            client: None,
            requested: None,
            server: None,
        }
    }

    pub(super) fn next_retry(&mut self, sent: u32, now: Duration) -> Retry {
        let wait = FIRST_RETRY
            .saturating_mul(1 << sent.min(6))
            .min(LONGEST_RETRY);
        Retry {
            sent: sent.saturating_add(1),
            next: now + wait - JITTER / 2 + self.random.below(JITTER),
        }
    }
}
