//! Prefixes, beside addresses and alone; what is given back.

use super::*;

fn prefix() -> Prefix {
    Prefix::new("2001:db8:1::".parse().unwrap(), 56).unwrap()
}

fn both(request: &Request, is_offer: bool, lifetimes: (u32, u32)) -> Reply {
    let mut reply = reply(request, is_offer, lifetimes);
    reply.prefixes.leases = vec![(prefix(), lifetimes.0, lifetimes.1)];
    reply
}

/// A client that wants a prefix, and has it and an address for 1200 seconds from then.
fn delegated() -> (Machine, Duration) {
    let mut machine = Machine::new(Random::from_seed(7), Start::Fresh, Some(56));
    machine.step(Event::CarrierUp, at(10));
    // Whatever routers say.
    let (solicit, when) = sent(&mut machine, at(20)).unwrap();
    assert_eq!(
        solicit.subject,
        Subject {
            addresses: Some(Vec::new()),
            prefixes: Some(vec![Prefix::hint(56)])
        }
    );
    let mut rapid = both(&solicit, false, (600, 1200));
    rapid.rapid = true;
    let actions = machine.step(Event::Reply(rapid), when);
    assert!(matches!(
        &actions[..],
        [Action::Inform(_), Action::Apply(_)]
    ));
    (machine, when)
}

#[test]
fn both_are_had_and_renewed_in_one_exchange_at_the_earlier_time() {
    let (mut machine, when) = delegated();
    let (renew, now) = sent(&mut machine, when + at(400)).unwrap();
    assert_eq!((renew.kind, now), (Kind::Renew, when + at(300)));
    assert_eq!(renew.subject.prefixes, Some(vec![prefix()]));
    let mut longer = both(&renew, false, (600, 1200));
    (longer.prefixes.renew_s, longer.prefixes.rebind_s) = (100, 150);
    let actions = machine.step(Event::Reply(longer), now);
    let Some(Action::Apply(lease)) = actions.last() else {
        panic!("{actions:?}")
    };
    assert_eq!(lease.renew_at, Some(now + at(100)));
    assert_eq!(lease.rebind_at, Some(now + at(150)));
    assert_eq!(lease.prefixes[0].valid_until, Some(now + at(1200)));
}

#[test]
fn of_several_offers_the_one_with_a_prefix_is_taken_even_if_another_is_preferred() {
    let mut machine = Machine::new(Random::from_seed(7), Start::Fresh, Some(0));
    machine.step(Event::CarrierUp, at(10));
    let (solicit, when) = sent(&mut machine, at(20)).unwrap();
    let mut without = reply(&solicit, true, (600, 1200));
    (without.server, without.preference) = (vec![2], 255);
    without.prefixes.refusal = Some(Refusal::NoPrefix);
    assert_eq!(machine.step(Event::Reply(without), when), []);
    let with = both(&solicit, true, (600, 1200));
    assert_eq!(machine.step(Event::Reply(with), when), []);
    let (request, _) = sent(&mut machine, at(20)).unwrap();
    assert_eq!(
        (request.kind, request.server),
        (Kind::Request, Some(vec![1]))
    );
    assert_eq!(request.subject.prefixes, Some(vec![prefix()]));
}

#[test]
fn an_address_without_a_prefix_is_used_and_the_prefix_asked_for_with_each_renewal() {
    let mut machine = Machine::new(Random::from_seed(7), Start::Fresh, Some(56));
    machine.step(Event::CarrierUp, at(10));
    let (solicit, when) = sent(&mut machine, at(20)).unwrap();
    let mut rapid = reply(&solicit, false, (600, 1200));
    (rapid.rapid, rapid.prefixes.refusal) = (true, Some(Refusal::NoPrefix));
    let actions = machine.step(Event::Reply(rapid), when);
    assert!(matches!(&actions[0], Action::Report(_)), "{actions:?}");
    let (renew, now) = sent(&mut machine, when + at(301)).unwrap();
    assert_eq!(renew.subject.prefixes, Some(vec![Prefix::hint(56)]));
    let actions = machine.step(Event::Reply(both(&renew, false, (600, 1200))), now);
    let Some(Action::Apply(lease)) = actions.last() else {
        panic!("{actions:?}")
    };
    assert_eq!(lease.plain_prefixes(), [prefix()]);
}

#[test]
fn a_prefix_alone_is_enough() {
    let mut machine = Machine::new(Random::from_seed(7), Start::Fresh, Some(0));
    machine.step(Event::CarrierUp, at(10));
    let (solicit, when) = sent(&mut machine, at(20)).unwrap();
    let mut offer = both(&solicit, true, (600, 1200));
    offer.addresses = Association {
        refusal: Some(Refusal::NoAddress),
        ..Association::default()
    };
    machine.step(Event::Reply(offer.clone()), when);
    let (request, when) = sent(&mut machine, at(20)).unwrap();
    let granted = Reply {
        is_offer: false,
        xid: request.xid,
        ..offer
    };
    let actions = machine.step(Event::Reply(granted), when);
    let Some(Action::Apply(lease)) = actions.last() else {
        panic!("{actions:?}")
    };
    assert!(lease.addresses.is_empty() && lease.prefixes.len() == 1);
}

#[test]
fn a_server_that_has_forgotten_the_prefix_is_asked_for_it_again_while_the_address_holds() {
    let (mut machine, when) = delegated();
    let (renew, now) = sent(&mut machine, when + at(301)).unwrap();
    let mut half = reply(&renew, false, (600, 1200));
    half.prefixes.refusal = Some(Refusal::NoBinding);
    let actions = machine.step(Event::Reply(half), now);
    let [
        Action::Inform(_),
        Action::Apply(lease),
        Action::Send(request),
    ] = &actions[..]
    else {
        panic!("{actions:?}")
    };
    assert_eq!(request.kind, Kind::Request);
    assert_eq!(request.subject.prefixes, Some(vec![prefix()]));
    assert_eq!(lease.addresses[0].valid_until, Some(now + at(1200)));
    assert_eq!(lease.prefixes[0].valid_until, Some(when + at(1200)));
    // It takes the prefix back, and says nothing of the address.
    let mut back = both(request, false, (0, 0));
    back.addresses = Association::default();
    let actions = machine.step(Event::Reply(back), now);
    let [Action::Apply(lease)] = &actions[..] else {
        panic!("{actions:?}")
    };
    assert!(lease.prefixes.is_empty() && lease.addresses.len() == 1);
}

#[test]
fn what_ends_first_goes_first() {
    let (mut machine, when) = delegated();
    let (renew, now) = sent(&mut machine, when + at(301)).unwrap();
    let mut uneven = both(&renew, false, (300, 500));
    uneven.prefixes.leases[0].2 = 400;
    machine.step(Event::Reply(uneven), now);
    let mut seen = Vec::new();
    while let Some(deadline) = machine.deadline().filter(|next| *next <= now + at(500)) {
        for action in machine.step(Event::Timer, deadline) {
            match action {
                Action::Apply(lease) => {
                    assert!(lease.prefixes.is_empty());
                    seen.push((deadline - now, true));
                }
                Action::Withdraw => seen.push((deadline - now, false)),
                _ => {}
            }
        }
    }
    assert_eq!(seen, [(at(400), true), (at(500), false)]);
}

#[test]
fn an_address_that_somebody_has_is_declined_alone_and_another_one_asked_for() {
    let (mut machine, when) = delegated();
    let address = "2001:db8::5".parse().unwrap();
    let actions = machine.step(Event::Refused(address), when);
    let [Action::Report(_), Action::Apply(lease)] = &actions[..] else {
        panic!("{actions:?}")
    };
    assert_eq!(lease.plain_prefixes(), [prefix()]);
    let (decline, now) = sent(&mut machine, when + at(5)).unwrap();
    assert_eq!(
        decline.subject,
        Subject {
            addresses: Some(vec![address]),
            prefixes: None
        }
    );
    let done = Reply {
        xid: decline.xid,
        server: vec![1],
        ..Reply::default()
    };
    machine.step(Event::Reply(done), now);
    let (renew, _) = sent(&mut machine, now + at(60)).unwrap();
    assert_eq!(
        (renew.kind, renew.subject.addresses),
        (Kind::Renew, Some(Vec::new()))
    );
}

#[test]
fn a_prefix_that_is_not_wanted_any_more_is_given_back_and_the_address_stays() {
    let (mut machine, when) = delegated();
    let actions = machine.step(Event::PrefixWanted(None), when);
    let [Action::Apply(lease)] = &actions[..] else {
        panic!("{actions:?}")
    };
    assert!(lease.prefixes.is_empty() && lease.addresses.len() == 1);
    let (release, now) = sent(&mut machine, when + at(5)).unwrap();
    assert_eq!(release.kind, Kind::Release);
    assert_eq!(
        release.subject,
        Subject {
            addresses: None,
            prefixes: Some(vec![prefix()])
        }
    );
    let done = reply(&release, false, (0, 0));
    assert_eq!(machine.step(Event::Reply(done), now), []);
    assert_eq!(machine.state_name(), "bound");
    // And wanted again.
    machine.step(Event::PrefixWanted(Some(0)), now);
    let (renew, _) = sent(&mut machine, now + at(1)).unwrap();
    assert_eq!(
        (renew.kind, renew.subject.prefixes),
        (Kind::Renew, Some(Vec::new()))
    );
}

#[test]
fn everything_is_given_back_at_once_and_four_times_when_nobody_answers() {
    let (mut machine, when) = delegated();
    let actions = machine.step(Event::Release, when);
    let [Action::Withdraw, Action::Send(release)] = &actions[..] else {
        panic!("{actions:?}")
    };
    assert_eq!(
        (release.kind, &release.server),
        (Kind::Release, &Some(vec![1]))
    );
    assert_eq!(release.subject.prefixes, Some(vec![prefix()]));
    assert_eq!(
        release.subject.addresses,
        Some(vec!["2001:db8::5".parse().unwrap()])
    );
    let mut more = 0;
    while let Some(deadline) = machine.deadline() {
        for action in machine.step(Event::Timer, deadline) {
            match action {
                Action::Send(_) => more += 1,
                Action::Finish => assert!(deadline - when < at(20)),
                other => panic!("{other:?}"),
            }
        }
    }
    assert_eq!(more, 3);
}

#[test]
fn there_is_nothing_to_give_back_without_a_lease_or_a_link() {
    let mut fresh = machine();
    assert_eq!(fresh.step(Event::Release, at(1)), [Action::Finish]);
    let (mut machine, when) = delegated();
    machine.step(Event::CarrierDown, when);
    let actions = machine.step(Event::Release, when);
    assert_eq!(actions, [Action::Withdraw, Action::Finish]);
}

#[test]
fn a_server_may_have_questions_come_less_often() {
    let mut machine = Machine::new(Random::from_seed(7), Start::Fresh, Some(0));
    machine.step(Event::CarrierUp, at(10));
    let (solicit, when) = sent(&mut machine, at(20)).unwrap();
    // It has nothing; what it says of the pauses counts all the same (RFC 8415 18.2.9).
    let nothing = Reply {
        is_offer: true,
        xid: solicit.xid,
        server: vec![1],
        refusal: Some(Refusal::NoAddress),
        longest_solicit_s: Some(60),
        ..Reply::default()
    };
    machine.step(Event::Reply(nothing), when);
    let mut times = vec![when];
    while let Some((_, now)) = sent(&mut machine, when + at(1000)) {
        times.push(now);
    }
    let pauses = times.windows(2).map(|pair| pair[1] - pair[0]);
    assert_eq!(pauses.max(), Some(at(60)));
}
