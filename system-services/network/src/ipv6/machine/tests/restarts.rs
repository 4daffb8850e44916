//! Links that come back, and restarts: Confirm, and Rebind in its place.

use super::*;

/// A lease until second 1000, renewed at 300, rebound at 600; with a prefix until 1200 when that is wanted.
fn held(prefix: bool) -> Held {
    let until = |seconds| Some(at(seconds));
    let prefix = prefix.then(|| Leased {
        what: Prefix::new("2001:db8:1::".parse().unwrap(), 56).unwrap(),
        preferred_until: until(800),
        valid_until: until(1200),
    });
    let lease = Lease {
        server: vec![1],
        addresses: vec![Leased {
            what: "2001:db8::5".parse().unwrap(),
            preferred_until: until(800),
            valid_until: until(1000),
        }],
        prefixes: prefix.into_iter().collect(),
        renew_at: until(300),
        rebind_at: until(600),
    };
    let information = Information {
        name_servers: vec!["2001:db8::53".parse().unwrap()],
        ..Information::default()
    };
    Held { lease, information }
}

fn started(start: Start, wish: Option<u8>) -> Machine {
    let mut machine = Machine::new(Random::from_seed(3), start, wish);
    assert_eq!(machine.step(Event::CarrierUp, at(10)), []);
    machine
}

fn answer(request: &Request, refusal: Option<Refusal>) -> Event {
    Event::Reply(Reply {
        xid: request.xid,
        server: vec![9],
        refusal,
        ..Reply::default()
    })
}

#[test]
fn a_link_that_comes_back_has_the_lease_confirmed_by_any_server() {
    let (mut machine, when) = bound();
    machine.step(Event::CarrierDown, when);
    machine.step(Event::CarrierUp, when + at(5));
    let (request, now) = sent(&mut machine, when + at(7)).unwrap();
    assert_eq!(
        (request.kind, request.server.clone()),
        (Kind::Confirm, None)
    );
    assert_eq!(
        request.subject,
        Subject {
            addresses: Some(vec!["2001:db8::5".parse().unwrap()]),
            prefixes: None
        }
    );
    assert_eq!(machine.step(answer(&request, None), now), []);
    // It is renewed when it was to be.
    assert_eq!(machine.state_name(), "bound");
    assert_eq!(machine.deadline(), Some(when + at(300)));
}

#[test]
fn a_confirm_is_sent_for_ten_seconds_and_without_an_answer_the_addresses_hold() {
    let (mut machine, when) = bound();
    machine.step(Event::CarrierDown, when);
    machine.step(Event::CarrierUp, when + at(5));
    let mut times = Vec::new();
    while let Some((request, now)) = sent(&mut machine, when + at(20)) {
        assert_eq!(request.kind, Kind::Confirm);
        times.push(now);
    }
    assert!((4..=5).contains(&times.len()), "{times:?}");
    assert!(*times.last().unwrap() - times[0] <= at(10));
    assert_eq!(machine.state_name(), "bound");
    assert_eq!(machine.deadline(), Some(when + at(300)));
}

#[test]
fn addresses_of_another_link_go_at_once_and_others_are_asked_for() {
    let mut machine = started(Start::Adopted(held(false)), None);
    let (request, now) = sent(&mut machine, at(20)).unwrap();
    assert_eq!(request.kind, Kind::Confirm);
    let actions = machine.step(answer(&request, Some(Refusal::NotOnLink)), now);
    assert_eq!(actions, [Action::Withdraw]);
    let (request, _) = sent(&mut machine, now + at(5)).unwrap();
    assert_eq!(request.kind, Kind::Solicit);
}

#[test]
fn a_lease_of_this_boot_is_in_use_from_the_start() {
    let machine = Machine::new(Random::from_seed(3), Start::Adopted(held(false)), None);
    assert_eq!(machine.lease(), Some(&held(false).lease));
    assert_eq!(machine.deadline(), Some(at(1000)));
}

#[test]
fn a_lease_of_an_earlier_boot_is_used_when_it_is_confirmed_and_renewed_at_once() {
    let mut machine = started(Start::Saved(held(false)), None);
    assert_eq!(machine.lease(), None);
    let (request, now) = sent(&mut machine, at(20)).unwrap();
    assert_eq!(request.kind, Kind::Confirm);
    // What routers say meanwhile changes nothing.
    assert_eq!(machine.step(Event::Wanted(Mode::Lease), now), []);
    let actions = machine.step(answer(&request, None), now);
    let mut lease = held(false).lease;
    lease.renew_at = Some(now);
    let known = held(false).information;
    assert_eq!(actions, [Action::Inform(known), Action::Apply(lease)]);
    let (request, at_renewal) = sent(&mut machine, now + at(1)).unwrap();
    assert_eq!((request.kind, at_renewal), (Kind::Renew, now));
}

#[test]
fn a_lease_of_an_earlier_boot_that_is_of_another_link_is_never_used() {
    let mut machine = started(Start::Saved(held(false)), None);
    let (request, now) = sent(&mut machine, at(20)).unwrap();
    let actions = machine.step(answer(&request, Some(Refusal::NotOnLink)), now);
    assert_eq!(actions, []);
    assert_eq!(machine.lease(), None);
}

#[test]
fn a_lease_with_a_prefix_is_rebound_in_place_of_a_confirm() {
    let mut machine = started(Start::Saved(held(true)), Some(0));
    let (request, now) = sent(&mut machine, at(20)).unwrap();
    assert_eq!((request.kind, &request.server), (Kind::Rebind, &None));
    let prefix = held(true).lease.prefixes[0].what;
    assert_eq!(request.subject.prefixes, Some(vec![prefix]));
    // It is sent as often as a Confirm would be.
    let (_, second) = sent(&mut machine, at(20)).unwrap();
    assert!(second - now < at(2), "{:?}", second - now);
    let mut granted = reply(&request, false, (600, 1200));
    granted.server = vec![9];
    granted.prefixes.leases = vec![(prefix, 600, 1200)];
    let actions = machine.step(Event::Reply(granted), second);
    let Some(Action::Apply(lease)) = actions.last() else {
        panic!("{actions:?}")
    };
    assert_eq!(
        (lease.plain_prefixes(), &lease.server),
        (vec![prefix], &vec![9])
    );
    assert_eq!(lease.prefixes[0].valid_until, Some(second + at(1200)));
}

#[test]
fn a_prefix_of_an_earlier_boot_that_nobody_knows_is_not_used_and_the_same_is_asked_for() {
    let mut machine = started(Start::Saved(held(true)), Some(0));
    let mut all = Vec::new();
    while let Some((request, _)) = sent(&mut machine, at(30)) {
        all.push(request);
    }
    assert_eq!(all[0].kind, Kind::Rebind);
    let last = all.last().unwrap();
    assert_eq!(last.kind, Kind::Solicit);
    let prefixes = held(true).lease.plain_prefixes();
    assert_eq!(last.subject.prefixes, Some(prefixes));
    assert_eq!(machine.lease(), None);
}

#[test]
fn a_prefix_in_use_is_asked_about_until_its_end_and_nothing_is_had_in_its_place() {
    let mut machine = started(Start::Adopted(held(true)), Some(0));
    let mut all = Vec::new();
    while let Some((request, now)) = sent(&mut machine, at(900)) {
        assert_eq!(request.kind, Kind::Rebind, "at {now:?}");
        all.push((request, now));
    }
    // Not in the hurry of the first ten seconds.
    assert!((8..14).contains(&all.len()), "{}", all.len());
    assert_eq!(machine.lease(), Some(&held(true).lease));
    // Whoever offers another one was not asked; whoever answers late is heard.
    let (last, now) = all.pop().unwrap();
    let other = Reply {
        prefixes: Association {
            leases: vec![(
                Prefix::new("2001:db8:2::".parse().unwrap(), 56).unwrap(),
                600,
                1200,
            )],
            ..Association::default()
        },
        ..reply(&last, true, (600, 1200))
    };
    assert_eq!(machine.step(Event::Reply(other.clone()), now), []);
    let prefix = held(true).lease.prefixes[0].what;
    let mut late = Reply {
        is_offer: false,
        ..other
    };
    late.prefixes.leases[0].0 = prefix;
    machine.step(Event::Reply(late), now);
    assert_eq!(machine.lease().unwrap().plain_prefixes(), [prefix]);
    assert_eq!(machine.state_name(), "bound");
}

#[test]
fn a_lease_of_an_earlier_boot_does_not_have_addresses_asked_for_where_no_router_says_so() {
    let mut machine = started(Start::Saved(held(false)), None);
    let (request, now) = sent(&mut machine, at(20)).unwrap();
    machine.step(Event::Wanted(Mode::Information), now);
    machine.step(answer(&request, Some(Refusal::NotOnLink)), now);
    let (request, _) = sent(&mut machine, now + at(60)).unwrap();
    assert_eq!(request.kind, Kind::Information);
    // Nor does anybody ask anything before a router was heard.
    let mut machine = started(Start::Saved(held(false)), None);
    let (request, now) = sent(&mut machine, at(20)).unwrap();
    machine.step(answer(&request, Some(Refusal::NotOnLink)), now);
    assert_eq!((machine.state_name(), machine.deadline()), ("idle", None));
}

#[test]
fn a_link_that_comes_back_elsewhere_is_asked_for_what_its_own_routers_say() {
    let (mut machine, when) = bound();
    machine.step(Event::CarrierDown, when);
    machine.step(Event::CarrierUp, when + at(5));
    let (confirm, now) = sent(&mut machine, when + at(7)).unwrap();
    machine.step(Event::Wanted(Mode::Information), now);
    machine.step(answer(&confirm, Some(Refusal::NotOnLink)), now);
    let (request, _) = sent(&mut machine, now + at(60)).unwrap();
    assert_eq!(request.kind, Kind::Information);
}

#[test]
fn a_lease_that_is_over_is_asked_for_again() {
    let mut machine = started(Start::Hint(held(true)), Some(56));
    assert_eq!(machine.lease(), None);
    let (request, _) = sent(&mut machine, at(20)).unwrap();
    assert_eq!(request.kind, Kind::Solicit);
    let lease = held(true).lease;
    assert_eq!(request.subject.addresses, Some(lease.plain_addresses()));
    assert_eq!(request.subject.prefixes, Some(lease.plain_prefixes()));
}
