//! What follows from answers (RFC 8415 18.2.9, 18.2.10).

use std::time::Duration;

use super::{Action, Machine, State};
use crate::ipv6::lease::Lease;
use crate::ipv6::message::{Association, Kind, Refusal, Reply};

/// What else there is to know is asked again after this time, unless the server says otherwise (RFC 8415 7.6).
const REFRESH: Duration = Duration::from_secs(86_400);
const LEAST_REFRESH_S: u32 = 600;
/// A server with this preference is chosen at once (RFC 8415 18.2.1).
const UTMOST_PREFERENCE: u8 = 255;

impl Machine {
    pub(super) fn reply(&mut self, mut reply: Reply, now: Duration) -> Vec<Action> {
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
        if self.wish.is_none() {
            reply.prefixes = Association::default();
        }
        let seconds = |seconds: u32| Duration::from_secs(seconds.into());
        if let Some(longest) = reply.longest_solicit_s {
            self.limits.solicit = seconds(longest);
        }
        if let Some(longest) = reply.longest_information_s {
            self.limits.information = seconds(longest);
        }
        exchange.limit(self.limits);
        match (exchange.kind, reply.is_offer) {
            (Kind::Solicit, true) => self.offered(reply, now),
            (_, true) => Vec::new(),
            (Kind::Solicit, false) if !reply.rapid => Vec::new(),
            (Kind::Information, false) => match reply.refusal {
                Some(_) => Vec::new(),
                None => {
                    let refresh = reply.refresh_s.map(|given| given.max(LEAST_REFRESH_S));
                    self.state = State::Informed(now + refresh.map_or(REFRESH, seconds));
                    vec![Action::Inform(reply.information)]
                }
            },
            (Kind::Confirm, false) => self.confirmed(reply.refusal, now),
            (Kind::Release, false) => self.released(now),
            (Kind::Decline, false) => {
                self.go_on(Kind::Decline, now);
                Vec::new()
            }
            (_, false) => self.answered(reply, now),
        }
    }

    /// A server says what it would grant. The one that grants most is chosen, of two the one that is preferred.
    fn offered(&mut self, reply: Reply, now: Duration) -> Vec<Action> {
        let State::Asking(exchange) = &mut self.state else {
            return Vec::new();
        };
        let worth = |reply: &Reply| {
            let parts = [reply.addresses.grants(), reply.prefixes.grants()];
            let parts = parts.into_iter().filter(|grants| *grants).count();
            (parts, reply.preference)
        };
        let (parts, preference) = worth(&reply);
        let is_all = parts == if self.wish.is_some() { 2 } else { 1 };
        if parts == 0 {
            return Vec::new();
        }
        if exchange.sent > 1 || (is_all && preference == UTMOST_PREFERENCE) {
            self.request(&reply, now);
            return self.send_due(now, Vec::new());
        }
        let best = exchange.offer.as_ref().map(worth);
        if best.is_none_or(|best| best < worth(&reply)) {
            exchange.offer = Some(reply);
        }
        Vec::new()
    }

    /// A server says whether the addresses are of this link.
    fn confirmed(&mut self, refusal: Option<Refusal>, now: Duration) -> Vec<Action> {
        match refusal {
            None => self.take_up(now),
            Some(Refusal::NotOnLink) => self.begin_anew(now),
            Some(_) => Vec::new(),
        }
    }

    /// What was held is not granted any more.
    fn begin_anew(&mut self, now: Duration) -> Vec<Action> {
        let lost = self.lose();
        self.begin(now);
        lost.into_iter().collect()
    }

    /// A server grants something, or does not.
    fn answered(&mut self, reply: Reply, now: Duration) -> Vec<Action> {
        let State::Asking(exchange) = &self.state else {
            return Vec::new();
        };
        let (kind, keeps) = (exchange.kind, exchange.keeps);
        let refusals = [
            reply.refusal,
            reply.addresses.refusal,
            reply.prefixes.refusal,
        ];
        let is_renewal = matches!(kind, Kind::Renew | Kind::Rebind);
        let is_forgotten = is_renewal && refusals.contains(&Some(Refusal::NoBinding));
        let Some(mut lease) = Lease::from_reply(&reply, now) else {
            let is_over = self.take_back(&reply, keeps);
            return match refusals.into_iter().flatten().next() {
                _ if is_over == Some(true) => {
                    self.failures += 1;
                    self.begin_anew(now)
                }
                _ if is_forgotten => {
                    let mut actions = self.applied(is_over);
                    actions.extend(self.request_again(reply.server, now));
                    actions
                }
                // The others are asked about again.
                _ if is_over == Some(false) => self.applied(is_over),
                Some(refusal) => self.not_granted(is_renewal, refusal, now),
                // It says nothing of what is held: that holds, and is asked about again (RFC 8415 18.2.10.1).
                None if keeps => Vec::new(),
                None => {
                    self.failures += 1;
                    self.begin_anew(now)
                }
            };
        };
        let old = self.lease.as_ref().filter(|_| keeps);
        if let Some(old) = old {
            // Nothing new: what was wrong before is over.
            if lease
                .addresses
                .iter()
                .all(|it| old.plain_addresses().contains(&it.what))
            {
                self.failures = 0;
            }
            lease.keep(old, &reply, now);
        }
        let missing = self.wish.is_some() && lease.prefixes.is_empty() && !is_renewal;
        self.lease = Some(lease.clone());
        (self.in_force, self.is_old, self.hint) = (true, false, None);
        let server = reply.server;
        let mut actions = vec![Action::Inform(reply.information), Action::Apply(lease)];
        if missing {
            let text = "no prefix by DHCPv6: the server grants none".to_owned();
            actions.insert(0, Action::Report(text));
        }
        self.state = State::Bound;
        if is_forgotten {
            actions.extend(self.request_again(server, now));
        }
        actions
    }

    /// Takes away what the answer takes back: `None` is nothing, `Some(true)` everything.
    fn take_back(&mut self, reply: &Reply, keeps: bool) -> Option<bool> {
        let lease = self.lease.as_mut().filter(|_| keeps)?;
        lease.take_back(reply).then(|| lease.is_empty())
    }

    /// The lease as it is by now, when a part of it was taken back.
    fn applied(&self, taken_back: Option<bool>) -> Vec<Action> {
        let lease = self.lease().filter(|_| taken_back.is_some());
        lease.cloned().map(Action::Apply).into_iter().collect()
    }

    fn not_granted(&mut self, is_renewal: bool, refusal: Refusal, now: Duration) -> Vec<Action> {
        match refusal {
            // Asked again later: the server has a trouble of its own, or another one has granted it.
            Refusal::Other(_) => Vec::new(),
            Refusal::NoAddress | Refusal::NoPrefix if is_renewal => Vec::new(),
            Refusal::NoAddress | Refusal::NoPrefix => {
                // What is held holds until its end.
                self.failures += 1;
                self.begin(now);
                let what = match refusal {
                    Refusal::NoPrefix => "prefix",
                    _ => "address",
                };
                let text = format!("no {what} by DHCPv6: there is none left");
                vec![Action::Report(text)]
            }
            Refusal::NoBinding | Refusal::NotOnLink => {
                self.failures += 1;
                let mut actions =
                    vec![Action::Report(format!("no address by DHCPv6: {refusal:?}"))];
                actions.extend(self.begin_anew(now));
                actions
            }
        }
    }
}
