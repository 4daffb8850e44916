//! What holds whatever servers and cables do.

use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone)]
enum Move {
    Wait,
    Pass(u64),
    Carrier(bool),
    Conflict,
    Answer {
        kind: ReplyKind,
        server: Ipv4Addr,
        address: Ipv4Addr,
        lifetime_s: u32,
    },
    Garbage {
        kind: ReplyKind,
        xid: u32,
        foreign: bool,
    },
}

fn any_move() -> impl Strategy<Value = Move> {
    let kind = prop::sample::select(vec![
        ReplyKind::Offer,
        ReplyKind::Ack,
        ReplyKind::Ack,
        ReplyKind::Nak,
    ]);
    let server = prop::sample::select(vec![SERVER, SERVER, OTHER_SERVER]);
    let address = prop::sample::select(vec![
        ADDRESS,
        ADDRESS,
        Ipv4Addr::new(10, 0, 0, 51),
        Ipv4Addr::LOCALHOST,
    ]);
    let lifetime = prop::sample::select(vec![0, 1, 2, 120, 3600, u32::MAX - 1, u32::MAX]);
    prop_oneof![
        6 => Just(Move::Wait),
        1 => (0..5000_u64).prop_map(Move::Pass),
        1 => any::<bool>().prop_map(Move::Carrier),
        1 => Just(Move::Conflict),
        8 => (kind.clone(), server, address, lifetime)
            .prop_map(|(kind, server, address, lifetime_s)| Move::Answer { kind, server, address, lifetime_s }),
        2 => (kind, any::<u32>(), any::<bool>()).prop_map(|(kind, xid, foreign)| Move::Garbage { kind, xid, foreign }),
    ]
}

proptest! {
    #[test]
    fn whatever_happens_no_address_outlives_its_lease_and_nothing_runs_wild(
        moves in prop::collection::vec(any_move(), 1..120), seed in any::<u64>()
    ) {
        let mut world = World::new(Start::Fresh);
        world.machine = Machine::new(HARDWARE, Random::from_seed(seed), Start::Fresh);
        world.step(Event::CarrierUp);
        let mut at_once = 0;
        let (mut carrier, mut configured): (bool, Option<Held>) = (true, None);
        for next in moves {
            let before = (world.machine.state_name(), world.machine.deadline());
            let actions = match next {
                Move::Wait if world.machine.deadline().is_some() => {
                    let before = world.now;
                    let actions = world.wait();
                    at_once = if world.now == before { at_once + 1 } else { 0 };
                    prop_assert!(at_once < 3, "the timer spins");
                    actions
                }
                Move::Wait => Vec::new(),
                Move::Pass(ms) => {
                    // A timer is never late by more than the machine is told.
                    let until = world.now + Duration::from_millis(ms);
                    world.now = world.machine.deadline().map_or(until, |deadline| until.min(deadline).max(world.now));
                    world.step(Event::Timer)
                }
                Move::Carrier(up) => {
                    carrier = up;
                    world.step(if up { Event::CarrierUp } else { Event::CarrierDown })
                }
                Move::Conflict => world.step(Event::Conflict),
                Move::Answer { kind, server, address, lifetime_s } => {
                    let reply = world.reply(kind, server, address, lifetime_s);
                    world.step(Event::Reply(reply))
                }
                Move::Garbage { kind, xid, foreign } => {
                    let mut reply = world.reply(kind, SERVER, ADDRESS, 600);
                    if foreign { reply.hardware_address[5] ^= 1 } else { reply.xid ^= xid.max(1) }
                    let actions = world.step(Event::Reply(reply));
                    prop_assert!(actions.is_empty(), "garbage was acted upon");
                    prop_assert_eq!(before, (world.machine.state_name(), world.machine.deadline()));
                    actions
                }
            };
            let sent = actions.iter().filter(|a| matches!(a, Action::Broadcast(_) | Action::Unicast { .. })).count();
            prop_assert!(sent <= 1, "more than one packet for one event");
            prop_assert!(carrier || sent == 0, "sent without a carrier");
            for action in actions {
                match action {
                    Action::Apply(held) => {
                        prop_assert!(is_host_address(held.lease.address) && held.lease.lifetime_s > 0);
                        configured = Some(held);
                    }
                    Action::Withdraw => configured = None,
                    _ => {}
                }
            }
            if let Some(held) = &configured {
                let end = held.expires_at();
                prop_assert!(end.is_none_or(|end| end > world.now || world.machine.deadline() <= Some(world.now)),
                    "an address outlived its lease");
                prop_assert!(end.is_none_or(|end| world.machine.deadline().is_some_and(|deadline| deadline <= end)),
                    "nobody would notice the lease's end");
            } else {
                prop_assert!(!["bound", "renewing", "rebinding"].contains(&world.machine.state_name()));
            }
            prop_assert!(!carrier || world.machine.deadline().is_some() || configured.is_some(), "stuck");
        }
    }
}

fn is_host_address(address: Ipv4Addr) -> bool {
    crate::dhcp4::options::is_host(address)
}
