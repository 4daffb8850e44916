//! Whatever happens in whatever order.

use super::*;

use proptest::prelude::*;

fn prefix(number: u8) -> Prefix {
    let address = Ipv6Addr::new(0x2001, 0xdb8, number.into(), 0, 0, 0, 0, 0);
    Prefix::new(address, 48).unwrap()
}

fn address(number: u8) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, number.into())
}

/// What a server or the world does next.
#[derive(Debug, Clone)]
enum Happening {
    Wait(u16),
    Carrier(bool),
    Wanted(bool),
    Prefix(bool),
    Refused(u8),
    Answer {
        is_offer: bool,
        rapid: bool,
        server: u8,
        addresses: Vec<(u8, u32, u32)>,
        prefixes: Vec<(u8, u32, u32)>,
        refusals: [Option<u8>; 3],
    },
}

fn lifetime() -> impl Strategy<Value = u32> {
    prop_oneof![Just(0), 1u32..2000, Just(u32::MAX)]
}

fn leases() -> impl Strategy<Value = Vec<(u8, u32, u32)>> {
    prop::collection::vec((1u8..4, lifetime(), lifetime()), 0..3)
}

fn happening() -> impl Strategy<Value = Happening> {
    let answer = (
        any::<bool>(),
        any::<bool>(),
        1u8..3,
        leases(),
        leases(),
        prop::array::uniform3(prop::option::weighted(0.2, 0u8..5)),
    );
    prop_oneof![
        3 => (0u16..1000).prop_map(Happening::Wait),
        1 => any::<bool>().prop_map(Happening::Carrier),
        1 => any::<bool>().prop_map(Happening::Wanted),
        1 => any::<bool>().prop_map(Happening::Prefix),
        1 => (1u8..4).prop_map(Happening::Refused),
        6 => answer.prop_map(|(is_offer, rapid, server, addresses, prefixes, refusals)| {
            Happening::Answer { is_offer, rapid, server, addresses, prefixes, refusals }
        }),
    ]
}

fn refusal(number: u8) -> Refusal {
    match number {
        0 => Refusal::NoAddress,
        1 => Refusal::NoPrefix,
        2 => Refusal::NoBinding,
        3 => Refusal::NotOnLink,
        _ => Refusal::Other(1),
    }
}

fn association<T>(
    leases: &[(u8, u32, u32)],
    refused: Option<u8>,
    what: impl Fn(u8) -> T,
) -> Association<T> {
    let leases = leases.iter();
    Association {
        leases: leases
            .map(|(number, preferred, valid)| (what(*number), *preferred, *valid))
            .collect(),
        refusal: refused.map(refusal),
        ..Association::default()
    }
}

/// What the interface has, by what the client said of it.
#[derive(Default)]
struct World {
    lease: Option<Lease>,
    sent: Option<Request>,
    messages: usize,
}

impl World {
    fn take(&mut self, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Apply(lease) => self.lease = Some(lease),
                Action::Withdraw => {
                    assert!(self.lease.is_some(), "what is not there is taken away");
                    self.lease = None;
                }
                Action::Send(request) => {
                    self.messages += 1;
                    self.sent = Some(request);
                }
                Action::Inform(_) | Action::Report(_) | Action::Finish => {}
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    #[test]
    fn the_interface_has_what_is_granted_and_no_longer_than_that(
        seed in any::<u64>(), wish in prop::option::of(Just(56u8)), all in prop::collection::vec(happening(), 0..40),
    ) {
        let mut machine = Machine::new(Random::from_seed(seed), Start::Fresh, wish);
        let (mut world, mut now, mut wish) = (World::default(), at(10), wish);
        for happening in all {
            match happening {
                Happening::Wait(seconds) => {
                    let end = now + at(seconds.into());
                    let mut steps = 0;
                    while let Some(due) = machine.deadline().filter(|due| *due <= end) {
                        now = now.max(due);
                        world.take(machine.step(Event::Timer, now));
                        steps += 1;
                        prop_assert!(steps < 400, "it does not rest: {}", machine.state_name());
                    }
                    now = end;
                }
                Happening::Carrier(up) => {
                    let event = if up { Event::CarrierUp } else { Event::CarrierDown };
                    world.take(machine.step(event, now));
                }
                Happening::Wanted(lease) => {
                    let mode = if lease { Mode::Lease } else { Mode::Information };
                    world.take(machine.step(Event::Wanted(mode), now));
                }
                Happening::Prefix(wanted) => {
                    wish = wanted.then_some(56);
                    world.take(machine.step(Event::PrefixWanted(wish), now));
                }
                Happening::Refused(number) => {
                    world.take(machine.step(Event::Refused(address(number)), now));
                    let lease = world.lease.as_ref();
                    prop_assert!(lease.is_none_or(|it| !it.plain_addresses().contains(&address(number))));
                }
                Happening::Answer { is_offer, rapid, server, addresses, prefixes, refusals } => {
                    let Some(asked) = &world.sent else { continue };
                    let reply = Reply {
                        is_offer,
                        rapid,
                        xid: asked.xid,
                        server: vec![server],
                        refusal: refusals[0].map(refusal),
                        addresses: association(&addresses, refusals[1], address),
                        prefixes: association(&prefixes, refusals[2], prefix),
                        ..Reply::default()
                    };
                    world.take(machine.step(Event::Reply(reply), now));
                }
            }
            // What the interface was told is what the client holds, and that is not over.
            prop_assert_eq!(world.lease.as_ref(), machine.lease());
            if let Some(lease) = machine.lease() {
                prop_assert!(!lease.is_empty());
                prop_assert!(wish.is_some() || lease.prefixes.is_empty());
            }
            if let Some(due) = machine.deadline().filter(|due| *due <= now) {
                world.take(machine.step(Event::Timer, now));
                let ends = machine.lease().and_then(Lease::next_end);
                prop_assert!(ends.is_none_or(|end| end > now), "{:?} at {:?}", ends, due);
            }
        }
        // Nobody is asked without end: what is given back is given back.
        world.take(machine.step(Event::Release, now));
        prop_assert!(world.lease.is_none());
        for _ in 0..10 {
            let Some(due) = machine.deadline() else { break };
            world.take(machine.step(Event::Timer, due));
        }
        prop_assert_eq!(machine.deadline(), None);
    }

    #[test]
    fn nobody_is_asked_to_prolong_twice_in_ten_seconds_however_little_is_answered(
        seed in any::<u64>(), lifetimes in prop::collection::vec((1u32..200, 1u32..200), 3),
        answers in prop::collection::vec((leases(), leases()), 1..60),
    ) {
        let mut machine = Machine::new(Random::from_seed(seed), Start::Fresh, Some(56));
        machine.step(Event::CarrierUp, at(10));
        let (solicit, when) = sent(&mut machine, at(20)).unwrap();
        let lifetimes = lifetimes.iter().zip(1..);
        let all: Vec<_> = lifetimes.map(|((one, other), number)| (number, *one.min(other), *one.max(other))).collect();
        let mut rapid = reply(&solicit, false, (600, 1200));
        rapid.rapid = true;
        rapid.prefixes = association(&all, None, prefix);
        machine.step(Event::Reply(rapid), when);
        let mut last: Option<Duration> = None;
        for (addresses, prefixes) in answers {
            let Some((request, now)) = sent(&mut machine, at(10_000)) else { break };
            if request.kind != Kind::Renew {
                break;
            }
            prop_assert!(last.is_none_or(|last| now >= last + at(10)), "{:?} and {:?}", last, now);
            last = Some(now);
            let answer = Reply {
                addresses: association(&addresses, None, address),
                prefixes: association(&prefixes, None, prefix),
                ..reply(&request, false, (0, 0))
            };
            machine.step(Event::Reply(answer), now);
        }
    }
}
