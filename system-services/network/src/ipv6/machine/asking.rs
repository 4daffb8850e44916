//! What is asked, when, and what follows when nobody answers.

use std::net::Ipv6Addr;
use std::time::Duration;

use super::{Action, Machine, Mode, SECOND, State};
use crate::ipv6::exchange::Exchange;
use crate::ipv6::lease::Lease;
use crate::ipv6::message::{Kind, Reply, Subject};
use crate::ipv6::prefix::Prefix;

/// Somebody who knows a lease of this link says so within this time (RFC 8415 7.6, CNF_MAX_RD).
const CONFIRMING: Duration = Duration::from_secs(10);
/// After something came to nothing, at most this long is waited before it begins anew (RFC 8415 14.1).
const LONGEST_REST: Duration = Duration::from_secs(120);

impl Machine {
    /// Asks for what is wanted, from the beginning.
    pub(super) fn begin(&mut self, now: Duration) {
        let (kind, subject) = match self.mode() {
            None => {
                self.state = State::Idle;
                return;
            }
            Some(Mode::Lease) => (Kind::Solicit, self.hoped_for()),
            Some(Mode::Information) => (Kind::Information, Subject::default()),
        };
        // Not all machines of a network at once, when it comes back (RFC 8415 18.2.1).
        let delay = self.random.below(SECOND) + self.rest();
        self.ask(kind, None, subject, now + delay);
    }

    /// How long nothing is asked after something came to nothing (RFC 8415 14.1).
    fn rest(&self) -> Duration {
        match self.failures {
            0 => Duration::ZERO,
            failures => (SECOND * 2u32.saturating_pow(failures.min(7))).min(LONGEST_REST),
        }
    }

    pub(super) fn ask(
        &mut self,
        kind: Kind,
        server: Option<Vec<u8>>,
        subject: Subject,
        at: Duration,
    ) {
        let exchange = Exchange::new(kind, server, subject, at, self.limits, &mut self.random);
        self.state = State::Asking(Box::new(exchange));
    }

    /// What is asked for anew: the same as before, if there was anything.
    fn hoped_for(&self) -> Subject {
        let before = self.lease.as_ref().or(self.hint.as_ref());
        self.subject_of(before)
    }

    fn subject_of(&self, lease: Option<&Lease>) -> Subject {
        Subject {
            addresses: Some(lease.map(Lease::plain_addresses).unwrap_or_default()),
            prefixes: self.wanted_prefixes(lease.map(Lease::plain_prefixes).unwrap_or_default()),
        }
    }

    /// Prefixes to ask for: these, or whatever the wish says.
    fn wanted_prefixes(&self, known: Vec<Prefix>) -> Option<Vec<Prefix>> {
        let length = self.wish?;
        Some(match (known.is_empty(), length) {
            (false, _) => known,
            (true, 0) => Vec::new(),
            (true, length) => vec![Prefix::hint(length)],
        })
    }

    fn ask_about_lease(&mut self, kind: Kind, at: Duration) {
        let Some(lease) = &self.lease else { return };
        let server = (kind == Kind::Renew).then(|| lease.server.clone());
        let subject = self.subject_of(Some(lease));
        self.ask(kind, server, subject, at);
    }

    /// The link is another one, perhaps: whether the lease is of it is asked of any server. A prefix takes a Rebind, because
    /// nobody can tell by looking at one of which link it is (RFC 8415 18.2.12).
    pub(super) fn confirm(&mut self, now: Duration) {
        let Some(lease) = &self.lease else { return };
        let (kind, subject) = match lease.prefixes.is_empty() {
            true => {
                let addresses = Some(lease.plain_addresses());
                let subject = Subject {
                    addresses,
                    prefixes: None,
                };
                (Kind::Confirm, subject)
            }
            false => (Kind::Rebind, self.subject_of(Some(lease))),
        };
        let at = now + self.random.below(SECOND);
        let exchange = Exchange::new(kind, None, subject, at, self.limits, &mut self.random);
        self.state = State::Asking(Box::new(exchange.hurried(at + CONFIRMING)));
    }

    /// Routers say what is to be asked for.
    pub(super) fn want(&mut self, mode: Mode, now: Duration) {
        // Once addresses are had by DHCPv6 that stays so, whatever another router says.
        let before = self.mode();
        if self.told != Some(Mode::Lease) {
            self.told = Some(mode);
        }
        // What is held is asked about already.
        if self.carrier && !self.leaves && self.mode() != before && self.lease.is_none() {
            self.begin(now);
        }
    }

    /// The configuration says whether a prefix is wanted. One that is not any more is given back (RFC 8415 18.2.7).
    pub(super) fn want_prefix(&mut self, wish: Option<u8>, now: Duration) -> Vec<Action> {
        let before = std::mem::replace(&mut self.wish, wish);
        if before.is_some() == wish.is_some() || self.leaves {
            return Vec::new();
        }
        let Some(lease) = &mut self.lease else {
            if self.carrier {
                self.begin(now);
            }
            return Vec::new();
        };
        if wish.is_some() {
            if self.carrier && matches!(self.state, State::Bound) {
                self.ask_about_lease(Kind::Renew, now);
            }
            return Vec::new();
        }
        let prefixes = lease.plain_prefixes();
        if prefixes.is_empty() {
            return Vec::new();
        }
        lease.prefixes.clear();
        let (server, rest) = (lease.server.clone(), lease.clone());
        let actions = match (rest.is_empty(), self.in_force) {
            (true, _) => self.lose().into_iter().collect(),
            (false, true) => vec![Action::Apply(rest)],
            (false, false) => Vec::new(),
        };
        let subject = Subject {
            addresses: None,
            prefixes: Some(prefixes),
        };
        match self.carrier {
            true => self.ask(Kind::Release, Some(server), subject, now),
            false => self.state = State::Idle,
        }
        actions
    }

    /// An address is of no use: its server hears of it, the others stay (RFC 8415 18.2.8).
    pub(super) fn refused(&mut self, address: Ipv6Addr, now: Duration) -> Vec<Action> {
        let Some(lease) = self.lease.as_mut().filter(|_| self.in_force) else {
            return Vec::new();
        };
        if !lease.addresses.iter().any(|it| it.what == address) {
            return Vec::new();
        }
        lease.addresses.retain(|it| it.what != address);
        let (server, rest) = (lease.server.clone(), lease.clone());
        self.failures += 1;
        let mut actions = vec![Action::Report(format!(
            "somebody else uses {address} already"
        ))];
        match rest.is_empty() {
            true => actions.extend(self.lose()),
            false => actions.push(Action::Apply(rest)),
        }
        let subject = Subject {
            addresses: Some(vec![address]),
            prefixes: None,
        };
        match self.carrier {
            true => self.ask(Kind::Decline, Some(server), subject, now),
            false => self.state = State::Idle,
        }
        actions
    }

    /// Something was declined, or a part given back: what is left goes on, and the rest is asked for.
    pub(super) fn go_on(&mut self, kind: Kind, now: Duration) {
        let rest = self.rest();
        match (&self.lease, kind) {
            (None, _) => self.begin(now),
            (Some(_), Kind::Decline) => self.ask_about_lease(Kind::Renew, now + rest),
            (Some(_), _) => self.state = State::Bound,
        }
    }

    /// Everything is given back (RFC 8415 18.2.7); nothing of it is used while that is said.
    pub(super) fn release(&mut self, now: Duration) -> Vec<Action> {
        self.leaves = true;
        let lease = self.lease.clone().filter(|_| self.carrier);
        let mut actions: Vec<Action> = self.lose().into_iter().collect();
        let Some(lease) = lease else {
            actions.extend(self.released(now));
            return actions;
        };
        let (addresses, prefixes) = (lease.plain_addresses(), lease.plain_prefixes());
        let subject = Subject {
            addresses: Some(addresses).filter(|all| !all.is_empty()),
            prefixes: Some(prefixes).filter(|all| !all.is_empty()),
        };
        self.ask(Kind::Release, Some(lease.server), subject, now);
        actions.extend(self.send_due(now, Vec::new()));
        actions
    }

    /// The server knows, or does not answer.
    pub(super) fn released(&mut self, now: Duration) -> Vec<Action> {
        if self.leaves {
            self.state = State::Idle;
            return vec![Action::Finish];
        }
        self.go_on(Kind::Release, now);
        Vec::new()
    }

    pub(super) fn timer(&mut self, now: Duration) -> Vec<Action> {
        let mut actions = self.end_what_is_over(now);
        match &mut self.state {
            State::Asking(exchange) => {
                let rebind = self.lease.as_ref().and_then(|lease| lease.rebind_at);
                if exchange.kind == Kind::Renew && rebind.is_some_and(|at| at <= now) {
                    self.ask_about_lease(Kind::Rebind, now);
                } else if exchange.given_up_at.is_some_and(|end| end <= now) {
                    actions.extend(self.unconfirmed(now));
                } else if exchange.next <= now
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
            State::Informed(until) if *until <= now => self.begin(now),
            State::Informed(_) | State::Idle => {}
        }
        self.send_due(now, actions)
    }

    /// What has ended is used no more; when nothing is left it begins anew.
    fn end_what_is_over(&mut self, now: Duration) -> Vec<Action> {
        let Some(lease) = &mut self.lease else {
            return Vec::new();
        };
        if !lease.drop_ended(now) {
            return Vec::new();
        }
        if !lease.is_empty() {
            let rest = lease.clone();
            let applied = self.in_force.then_some(Action::Apply(rest));
            return applied.into_iter().collect();
        }
        let actions = self.lose().into_iter().collect();
        if self.carrier {
            self.begin(now);
        }
        actions
    }

    /// Nobody said whether the lease is of this link. Addresses hold as long as they were to (RFC 8415 18.2.3). Prefixes that are
    /// in use hold, too, and are asked about until their end: something new in their place would renumber all links behind this
    /// one, because a server was slow. One of an earlier boot is not used: the same is asked for.
    fn unconfirmed(&mut self, now: Duration) -> Vec<Action> {
        let State::Asking(exchange) = &self.state else {
            return Vec::new();
        };
        if exchange.kind == Kind::Confirm {
            return self.take_up(now);
        }
        if self.in_force {
            self.ask_about_lease(Kind::Rebind, now);
        } else {
            self.hint = self.lease.take();
            self.begin(now);
        }
        Vec::new()
    }

    /// The lease holds.
    pub(super) fn take_up(&mut self, now: Duration) -> Vec<Action> {
        let Some(lease) = &mut self.lease else {
            return Vec::new();
        };
        self.state = State::Bound;
        if std::mem::take(&mut self.is_old) {
            lease.renew_at = Some(now);
        }
        if std::mem::replace(&mut self.in_force, true) {
            return Vec::new();
        }
        let information = std::mem::take(&mut self.information);
        vec![Action::Inform(information), Action::Apply(lease.clone())]
    }

    /// Sends what is due; gives up what was sent often enough.
    pub(super) fn send_due(&mut self, now: Duration, mut actions: Vec<Action>) -> Vec<Action> {
        let State::Asking(exchange) = &mut self.state else {
            return actions;
        };
        if exchange.next > now {
            return actions;
        }
        if !exchange.is_spent() {
            actions.push(Action::Send(exchange.send(now, &mut self.random)));
            return actions;
        }
        match exchange.kind {
            Kind::Release => actions.extend(self.released(now)),
            Kind::Decline => self.go_on(Kind::Decline, now),
            _ => self.begin(now),
        }
        actions
    }

    /// Asks for what a server offers.
    pub(super) fn request(&mut self, offer: &Reply, now: Duration) {
        let addresses = offer.addresses.granted().map(|(address, ..)| *address);
        let prefixes = offer.prefixes.granted().map(|(prefix, ..)| *prefix);
        let subject = Subject {
            addresses: Some(addresses.collect()),
            prefixes: self.wanted_prefixes(prefixes.collect()),
        };
        self.ask(Kind::Request, Some(offer.server.clone()), subject, now);
    }

    /// Asks a server for the lease that it has forgotten; it may grant the same again (RFC 8415 18.2.10.1).
    pub(super) fn request_again(&mut self, server: Vec<u8>, now: Duration) -> Vec<Action> {
        let subject = self.subject_of(self.lease.as_ref());
        self.ask(Kind::Request, Some(server), subject, now);
        if let State::Asking(exchange) = &mut self.state {
            exchange.keeps = true;
        }
        self.send_due(now, Vec::new())
    }
}
