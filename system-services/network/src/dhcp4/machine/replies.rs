//! What servers and neighbours answer, and what follows from it.

use std::net::Ipv4Addr;
use std::time::Duration;

use dhcproto::v4::OptionCode;

use super::{Action, Actions, Machine, PROBE_WAIT, Retry, State};
use crate::dhcp4::lease::{Held, Lease};
use crate::dhcp4::message::{Reply, ReplyKind, Request, RequestKind};
use crate::dhcp4::options::is_host;

/// Wait after declining an address (RFC 2131 3.1).
const DECLINE_WAIT: Duration = Duration::from_secs(10);

impl Machine {
    pub(super) fn reply(&mut self, reply: &Reply, now: Duration) -> Actions {
        if reply.xid != self.xid || reply.hardware_address != self.hardware_address {
            return Vec::new();
        }
        match (self.state.clone(), reply.kind) {
            (State::Selecting { .. }, ReplyKind::Offer) => self.offer(reply, now),
            (
                State::Requesting {
                    address,
                    server,
                    asked_at,
                    ..
                },
                kind,
            ) => {
                if reply.server.is_some_and(|other| other != server) {
                    return Vec::new();
                }
                match kind {
                    ReplyKind::Ack if reply.address == address => {
                        self.granted(reply, server, asked_at, true, now)
                    }
                    ReplyKind::Nak => self.refused(reply, false, now),
                    _ => Vec::new(),
                }
            }
            (
                State::Rebooting {
                    lease,
                    held,
                    asked_at,
                    ..
                },
                kind,
            ) => match kind {
                ReplyKind::Ack if reply.address == lease.address => {
                    self.granted(reply, lease.server, asked_at, held.is_none(), now)
                }
                ReplyKind::Nak => self.refused(reply, held.is_some(), now),
                _ => Vec::new(),
            },
            (
                State::Renewing { held, asked_at, .. } | State::Rebinding { held, asked_at, .. },
                kind,
            ) => match kind {
                ReplyKind::Ack if reply.address == held.lease.address => {
                    self.granted(reply, held.lease.server, asked_at, false, now)
                }
                ReplyKind::Nak => self.refused(reply, true, now),
                _ => Vec::new(),
            },
            _ => Vec::new(),
        }
    }

    pub(super) fn offer(&mut self, reply: &Reply, now: Duration) -> Actions {
        let Some(server) = reply.server.filter(|_| is_host(reply.address)) else {
            return Vec::new();
        };
        let retry = self.next_retry(0, now);
        self.state = State::Requesting {
            address: reply.address,
            server,
            asked_at: now,
            retry,
        };
        vec![self.request_offered(reply.address, server, now)]
    }

    pub(super) fn granted(
        &mut self,
        reply: &Reply,
        server: Ipv4Addr,
        since: Duration,
        probe: bool,
        now: Duration,
    ) -> Actions {
        let lease = match Lease::from_reply(reply, Some(server)) {
            Ok(lease) => lease,
            Err(error) => {
                return vec![Action::Report(format!(
                    "ignored an acknowledgement from {server}: {error}"
                ))];
            }
        };
        let held = Held { lease, since };
        if held.has_expired(now) {
            let report =
                format!("ignored an acknowledgement from {server}: its lease is over already");
            return vec![Action::Report(report)];
        }
        if !probe {
            return self.bind(held);
        }
        let address = held.lease.address;
        self.state = State::Probing {
            held,
            retry: Retry {
                sent: 1,
                next: now + PROBE_WAIT,
            },
        };
        vec![Action::Probe(address)]
    }

    pub(super) fn bind(&mut self, held: Held) -> Actions {
        self.failures = 0;
        self.wanted = Some(held.lease.address);
        self.state = State::Bound { held: held.clone() };
        vec![Action::Apply(held)]
    }

    pub(super) fn refused(&mut self, reply: &Reply, configured: bool, now: Duration) -> Actions {
        let server = reply
            .server
            .map_or_else(|| "a server".to_owned(), |server| server.to_string());
        let reason = reply
            .options
            .text(OptionCode::Message)
            .map(|text| format!(": {text}"))
            .unwrap_or_default();
        let mut actions = vec![Action::Report(format!(
            "{server} refused the address{reason}"
        ))];
        if configured {
            actions.push(Action::Withdraw);
        }
        actions.push(Action::Forget);
        self.wanted = None;
        self.began = now;
        self.failures += 1;
        if self.failures == 1 {
            actions.extend(self.discover(now)); // moved to another network, most likely: no need to wait
        } else {
            self.state = State::Waiting {
                until: self.next_retry(self.failures, now).next,
            };
        }
        actions
    }

    pub(super) fn conflict(&mut self, now: Duration) -> Actions {
        let State::Probing { held, .. } = &self.state else {
            return Vec::new();
        };
        let Lease {
            address, server, ..
        } = held.lease;
        let request = Request {
            requested: Some(address),
            server: Some(server),
            elapsed_s: 0,
            ..self.request(RequestKind::Decline, now)
        };
        self.wanted = None;
        self.failures += 1;
        self.state = State::Waiting {
            until: now + DECLINE_WAIT,
        };
        vec![
            Action::Report(format!(
                "somebody else uses {address} already; told {server} and will ask for another"
            )),
            Action::Broadcast(request),
            Action::Forget,
        ]
    }
}
