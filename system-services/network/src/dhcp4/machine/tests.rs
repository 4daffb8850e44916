mod properties;

use dhcproto::v4::borrowed::DhcpOptionIterator;
use dhcproto::v4::{DhcpOption, DhcpOptions, Encodable};

use super::*;
use crate::dhcp4::lease::LeaseRoute;
use crate::dhcp4::message::{ReplyKind, RequestKind};

const HARDWARE: [u8; 6] = [2, 0, 0, 0, 0, 1];
const SERVER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const OTHER_SERVER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 50);
const START: Duration = Duration::from_secs(1000);

/// A machine, the time, and what a server would have to know to answer.
struct World {
    machine: Machine,
    now: Duration,
    last: Option<Request>,
}

impl World {
    fn new(start: Start) -> Self {
        Self {
            machine: Machine::new(HARDWARE, Random::from_seed(1), start),
            now: START,
            last: None,
        }
    }

    fn step(&mut self, event: Event) -> Vec<Action> {
        let actions = self.machine.step(event, self.now);
        for action in &actions {
            if let Action::Broadcast(request) | Action::Unicast { request, .. } = action {
                self.last = Some(request.clone());
            }
        }
        actions
    }

    /// Lets the time pass that the machine wants to pass.
    fn wait(&mut self) -> Vec<Action> {
        let deadline = self
            .machine
            .deadline()
            .expect("the machine waits for nothing");
        self.now = self.now.max(deadline);
        self.step(Event::Timer)
    }

    fn answer(&mut self, kind: ReplyKind) -> Vec<Action> {
        let reply = self.reply(kind, SERVER, ADDRESS, 600);
        self.step(Event::Reply(reply))
    }

    fn reply(
        &self,
        kind: ReplyKind,
        server: Ipv4Addr,
        address: Ipv4Addr,
        lifetime_s: u32,
    ) -> Reply {
        let options: DhcpOptions = [
            DhcpOption::AddressLeaseTime(lifetime_s),
            DhcpOption::SubnetMask(Ipv4Addr::new(255, 255, 255, 0)),
            DhcpOption::Router(vec![SERVER]),
        ]
        .into_iter()
        .collect();
        let options = options.to_vec().unwrap();
        let xid = self.last.as_ref().map_or(0, |request| request.xid);
        Reply {
            kind,
            xid,
            hardware_address: HARDWARE,
            address,
            server: Some(server),
            options: DhcpOptionIterator::new(&options).collect(),
        }
    }

    /// From no carrier to a lease.
    fn bind(&mut self) -> Held {
        self.step(Event::CarrierUp);
        self.answer(ReplyKind::Offer);
        self.answer(ReplyKind::Ack);
        self.probe_in_vain()
    }

    fn probe_in_vain(&mut self) -> Held {
        assert_eq!(self.machine.state_name(), "probing");
        loop {
            for action in self.wait() {
                match action {
                    Action::Apply(held) => return held,
                    Action::Probe(_) => {}
                    other => panic!("{other:?}"),
                }
            }
        }
    }

    fn sent(&self) -> &Request {
        self.last.as_ref().expect("nothing was sent")
    }
}

fn withdraws(actions: &[Action]) -> bool {
    actions.contains(&Action::Withdraw)
}

#[test]
fn a_lease_is_discovered_requested_probed_and_held() {
    let mut world = World::new(Start::Fresh);
    assert_eq!(world.machine.deadline(), None);
    world.step(Event::CarrierUp);
    assert_eq!(
        (world.sent().kind, world.sent().requested),
        (RequestKind::Discover, None)
    );
    world.now += Duration::from_millis(300);
    world.answer(ReplyKind::Offer);
    let expected = (RequestKind::Request, Some(ADDRESS), Some(SERVER), None);
    let sent = world.sent();
    assert_eq!(
        (sent.kind, sent.requested, sent.server, sent.client),
        expected
    );
    let asked_at = world.now;
    world.now += Duration::from_millis(300);
    assert_eq!(world.answer(ReplyKind::Ack), [Action::Probe(ADDRESS)]);
    let held = world.probe_in_vain();
    assert_eq!(held.since, asked_at, "a lease begins when it was asked for");
    assert_eq!(
        (held.lease.address, held.lease.prefix_len, held.lease.server),
        (ADDRESS, 24, SERVER)
    );
    let route = LeaseRoute {
        destination: Ipv4Addr::UNSPECIFIED,
        prefix_len: 0,
        gateway: Some(SERVER),
    };
    assert_eq!(held.lease.routes, [route]);
    assert_eq!(
        world.machine.deadline(),
        Some(asked_at + Duration::from_secs(300))
    );
}

#[test]
fn discovery_goes_on_forever_with_growing_waits() {
    let mut world = World::new(Start::Fresh);
    world.step(Event::CarrierUp);
    let mut reports = 0;
    for round in 0..50 {
        let before = world.now;
        let actions = world.wait();
        reports += actions
            .iter()
            .filter(|action| matches!(action, Action::Report(_)))
            .count();
        assert!(
            actions
                .iter()
                .any(|action| matches!(action, Action::Broadcast(_)))
        );
        let ideal = Duration::from_secs(1 << round.min(6));
        let waited = world.now - before;
        assert!(
            waited + JITTER_HALF >= ideal && waited <= ideal + JITTER_HALF,
            "{round}: {waited:?}"
        );
    }
    assert_eq!(reports, 1, "the silence is reported once");
}

const JITTER_HALF: Duration = Duration::from_millis(500);

#[test]
fn an_offer_without_a_server_or_a_usable_address_is_ignored() {
    let mut world = World::new(Start::Fresh);
    world.step(Event::CarrierUp);
    let mut reply = world.reply(ReplyKind::Offer, SERVER, ADDRESS, 600);
    reply.server = None;
    assert_eq!(world.step(Event::Reply(reply)), []);
    for address in [
        Ipv4Addr::UNSPECIFIED,
        Ipv4Addr::LOCALHOST,
        Ipv4Addr::BROADCAST,
        Ipv4Addr::new(224, 0, 0, 1),
    ] {
        let reply = world.reply(ReplyKind::Offer, SERVER, address, 600);
        assert_eq!(world.step(Event::Reply(reply)), []);
    }
    assert_eq!(world.machine.state_name(), "selecting");
}

#[test]
fn a_server_that_offers_and_then_is_silent_is_given_up() {
    let mut world = World::new(Start::Fresh);
    world.step(Event::CarrierUp);
    world.answer(ReplyKind::Offer);
    for _ in 0..3 {
        world.wait();
        assert_eq!(world.sent().kind, RequestKind::Request);
    }
    world.wait();
    assert_eq!(world.sent().kind, RequestKind::Discover);
}

#[test]
fn a_lease_is_renewed_with_its_server_then_with_any_then_given_up() {
    let mut world = World::new(Start::Fresh);
    let held = world.bind();
    let actions = world.wait();
    assert_eq!(world.now, held.renew_at().unwrap());
    assert!(
        matches!(&actions[..], [Action::Unicast { server: SERVER, from: ADDRESS, request }]
        if request.client == Some(ADDRESS) && request.requested.is_none() && request.server.is_none())
    );
    while world.now < held.rebind_at().unwrap() {
        world.wait();
    }
    assert_eq!(world.now, held.rebind_at().unwrap());
    assert_eq!(world.machine.state_name(), "rebinding");
    while world.machine.state_name() == "rebinding" {
        let actions = world.wait();
        assert_eq!(withdraws(&actions), world.now >= held.expires_at().unwrap());
    }
    assert_eq!(world.now, held.expires_at().unwrap());
    assert_eq!(
        (world.sent().kind, world.sent().requested),
        (RequestKind::Discover, Some(ADDRESS))
    );
}

#[test]
fn an_answer_while_renewing_or_rebinding_makes_the_lease_last() {
    for renewing in [true, false] {
        let mut world = World::new(Start::Fresh);
        let held = world.bind();
        while world.machine.state_name() != if renewing { "renewing" } else { "rebinding" } {
            world.wait();
        }
        let server = if renewing { SERVER } else { OTHER_SERVER };
        let reply = world.reply(ReplyKind::Ack, server, ADDRESS, 600);
        let actions = world.step(Event::Reply(reply));
        let Some(Action::Apply(longer)) = actions.first() else {
            panic!("{actions:?}")
        };
        assert!(longer.expires_at() > held.expires_at());
        assert_eq!(longer.lease.server, server);
        assert_eq!(world.machine.state_name(), "bound");
    }
}

#[test]
fn a_refused_renewal_takes_the_address_away_at_once() {
    let mut world = World::new(Start::Fresh);
    world.bind();
    world.wait();
    let actions = world.answer(ReplyKind::Nak);
    assert!(withdraws(&actions) && actions.contains(&Action::Forget));
    assert_eq!(
        (world.sent().kind, world.sent().requested),
        (RequestKind::Discover, None)
    );
}

#[test]
fn repeated_refusals_make_it_slower() {
    let mut world = World::new(Start::Fresh);
    world.step(Event::CarrierUp);
    let mut waits = Vec::new();
    for _ in 0..5 {
        world.answer(ReplyKind::Offer);
        world.answer(ReplyKind::Nak);
        let before = world.now;
        if world.machine.state_name() == "waiting" {
            world.wait();
        }
        waits.push(world.now - before);
    }
    assert_eq!(waits[0], Duration::ZERO);
    assert!(
        waits.is_sorted() && waits[4] > Duration::from_secs(20),
        "{waits:?}"
    );
}

#[test]
fn a_conflict_declines_the_address_and_waits() {
    let mut world = World::new(Start::Fresh);
    world.step(Event::CarrierUp);
    world.answer(ReplyKind::Offer);
    world.answer(ReplyKind::Ack);
    let actions = world.step(Event::Conflict);
    let sent = world.sent();
    assert_eq!(
        (sent.kind, sent.requested, sent.server),
        (RequestKind::Decline, Some(ADDRESS), Some(SERVER))
    );
    assert!(actions.contains(&Action::Forget) && !withdraws(&actions));
    let before = world.now;
    world.wait();
    assert!(world.now - before >= Duration::from_secs(10));
    assert_eq!(
        (world.sent().kind, world.sent().requested),
        (RequestKind::Discover, None)
    );
}

#[test]
fn a_saved_lease_is_confirmed_before_it_is_used() {
    let lease = World::new(Start::Fresh).bind().lease;
    let mut world = World::new(Start::Saved(lease.clone()));
    world.step(Event::CarrierUp);
    let sent = world.sent();
    assert_eq!(
        (sent.kind, sent.requested, sent.server),
        (RequestKind::Request, Some(ADDRESS), None)
    );
    world.answer(ReplyKind::Ack);
    assert_eq!(world.probe_in_vain().lease, lease);

    let mut world = World::new(Start::Saved(lease.clone()));
    world.step(Event::CarrierUp);
    let actions = world.answer(ReplyKind::Nak);
    assert!(actions.contains(&Action::Forget));
    assert_eq!(world.sent().kind, RequestKind::Discover);

    let mut world = World::new(Start::Saved(lease));
    world.step(Event::CarrierUp);
    while world.machine.state_name() == "rebooting" {
        world.wait();
    }
    assert_eq!(
        (world.sent().kind, world.sent().requested),
        (RequestKind::Discover, Some(ADDRESS))
    );
}

#[test]
fn a_lost_carrier_keeps_the_lease_and_its_return_confirms_it() {
    let mut world = World::new(Start::Fresh);
    let held = world.bind();
    assert_eq!(world.step(Event::CarrierDown), []);
    assert_eq!(world.machine.deadline(), held.expires_at());
    world.now += Duration::from_secs(5);
    world.step(Event::CarrierUp);
    assert_eq!(world.machine.state_name(), "rebooting");
    let mut silent = World {
        machine: world.machine.clone(),
        now: world.now,
        last: world.last.clone(),
    };
    let actions = world.answer(ReplyKind::Ack);
    assert!(
        matches!(actions[..], [Action::Apply(_)]),
        "no probe for an address that we have: {actions:?}"
    );
    while silent.machine.state_name() == "rebooting" {
        let actions = silent.wait();
        assert!(!withdraws(&actions), "a silent server does not end a lease");
    }
    assert_eq!(silent.machine.state_name(), "bound");
}

#[test]
fn a_lease_expires_without_carrier_too() {
    let mut world = World::new(Start::Fresh);
    let held = world.bind();
    world.step(Event::CarrierDown);
    assert!(withdraws(&world.wait()));
    assert_eq!(world.now, held.expires_at().unwrap());
    assert_eq!(world.machine.deadline(), None);
}

#[test]
fn a_lease_without_end_is_never_renewed() {
    let mut world = World::new(Start::Fresh);
    world.step(Event::CarrierUp);
    world.answer(ReplyKind::Offer);
    let reply = world.reply(ReplyKind::Ack, SERVER, ADDRESS, u32::MAX);
    world.step(Event::Reply(reply));
    world.probe_in_vain();
    assert_eq!(world.machine.deadline(), None);
}
