use super::*;

use crate::ipv6::lease::Leased;
use crate::ipv6::message::{Association, Refusal, Subject};
use crate::ipv6::prefix::Prefix;

mod prefixes;
mod properties;
mod restarts;

fn machine() -> Machine {
    Machine::new(Random::from_seed(7), Start::Fresh, None)
}

fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Steps through time until something is sent, at `limit` at the latest.
fn sent(machine: &mut Machine, limit: Duration) -> Option<(Request, Duration)> {
    while let Some(deadline) = machine.deadline().filter(|deadline| *deadline <= limit) {
        for action in machine.step(Event::Timer, deadline) {
            if let Action::Send(request) = action {
                return Some((request, deadline));
            }
        }
    }
    None
}

fn reply(request: &Request, is_offer: bool, lifetimes: (u32, u32)) -> Reply {
    Reply {
        is_offer,
        xid: request.xid,
        server: vec![1],
        addresses: Association {
            leases: vec![("2001:db8::5".parse().unwrap(), lifetimes.0, lifetimes.1)],
            ..Association::default()
        },
        ..Reply::default()
    }
}

fn bound() -> (Machine, Duration) {
    let mut machine = machine();
    machine.step(Event::CarrierUp, at(10));
    machine.step(Event::Wanted(Mode::Lease), at(10));
    let (solicit, when) = sent(&mut machine, at(20)).unwrap();
    assert_eq!(solicit.kind, Kind::Solicit);
    assert!(
        machine
            .step(Event::Reply(reply(&solicit, true, (600, 1200))), when)
            .is_empty()
    );
    // Other servers have a second to be better.
    let (request, when) = sent(&mut machine, at(20)).unwrap();
    assert_eq!(
        (request.kind, request.server.clone()),
        (Kind::Request, Some(vec![1]))
    );
    let actions = machine.step(Event::Reply(reply(&request, false, (600, 1200))), when);
    assert!(
        matches!(&actions[..], [Action::Inform(_), Action::Apply(_)]),
        "{actions:?}"
    );
    assert_eq!(machine.state_name(), "bound");
    (machine, when)
}

#[test]
fn a_lease_is_had_renewed_rebound_and_lost() {
    let (mut machine, when) = bound();
    assert_eq!(machine.deadline(), Some(when + at(300)));
    let (renew, at_renewal) = sent(&mut machine, when + at(301)).unwrap();
    assert_eq!((renew.kind, renew.server.is_some()), (Kind::Renew, true));
    assert_eq!(at_renewal, when + at(300));
    let mut kinds = Vec::new();
    while let Some((request, _)) = sent(&mut machine, when + at(1199)) {
        kinds.push(request.kind);
    }
    assert!(
        kinds.contains(&Kind::Rebind) && kinds.len() < 12,
        "{kinds:?}"
    );
    let actions = machine.step(Event::Timer, when + at(1200));
    assert_eq!(actions, [Action::Withdraw]);
    assert_eq!(machine.state_name(), "soliciting");
}

#[test]
fn a_renewal_that_is_answered_starts_anew() {
    let (mut machine, when) = bound();
    let (renew, at_renewal) = sent(&mut machine, when + at(301)).unwrap();
    machine.step(Event::Reply(reply(&renew, false, (100, 200))), at_renewal);
    assert_eq!(machine.deadline(), Some(at_renewal + at(50)));
}

#[test]
fn a_server_that_has_forgotten_is_asked_again_and_one_that_takes_back_is_believed() {
    let (mut machine, when) = bound();
    let (renew, now) = sent(&mut machine, when + at(301)).unwrap();
    let forgotten = Reply {
        refusal: Some(Refusal::NoBinding),
        addresses: Association::default(),
        ..reply(&renew, false, (0, 0))
    };
    let actions = machine.step(Event::Reply(forgotten), now);
    assert!(
        matches!(&actions[..], [Action::Send(request)] if request.kind == Kind::Request),
        "{actions:?}"
    );
    let Action::Send(request) = &actions[0] else {
        panic!()
    };
    let actions = machine.step(Event::Reply(reply(request, false, (0, 0))), now);
    assert_eq!(actions, [Action::Withdraw]);
}

#[test]
fn an_address_that_somebody_has_is_declined() {
    let (mut machine, when) = bound();
    let address = "2001:db8::5".parse().unwrap();
    let actions = machine.step(Event::Refused(address), when);
    assert_eq!(actions.last(), Some(&Action::Withdraw));
    let (decline, now) = sent(&mut machine, when + at(5)).unwrap();
    assert_eq!(
        (decline.kind, decline.subject.addresses.clone()),
        (Kind::Decline, Some(vec![address]))
    );
    machine.step(Event::Reply(reply(&decline, false, (0, 0))), now);
    assert_eq!(machine.state_name(), "soliciting");
}

#[test]
fn a_server_that_answers_at_once_is_taken_and_answers_to_others_are_not() {
    let mut machine = machine();
    machine.step(Event::CarrierUp, at(10));
    machine.step(Event::Wanted(Mode::Lease), at(10));
    let (solicit, when) = sent(&mut machine, at(20)).unwrap();
    let mut rapid = reply(&solicit, false, (600, 1200));
    assert!(
        machine.step(Event::Reply(rapid.clone()), when).is_empty(),
        "it did not say so"
    );
    rapid.rapid = true;
    rapid.xid = [0; 3];
    assert!(
        machine.step(Event::Reply(rapid.clone()), when).is_empty(),
        "another question's"
    );
    rapid.xid = solicit.xid;
    assert_eq!(machine.step(Event::Reply(rapid), when).len(), 2);
}

#[test]
fn information_alone_is_asked_again_when_its_time_is_over() {
    let mut machine = machine();
    machine.step(Event::Wanted(Mode::Information), at(10));
    machine.step(Event::CarrierUp, at(10));
    let (question, when) = sent(&mut machine, at(20)).unwrap();
    assert_eq!(question.kind, Kind::Information);
    let answer = Reply {
        refresh_s: Some(1),
        addresses: Association::default(),
        ..reply(&question, false, (0, 0))
    };
    assert!(matches!(
        &machine.step(Event::Reply(answer), when)[..],
        [Action::Inform(_)]
    ));
    assert_eq!(machine.deadline(), Some(when + at(600)));
    // A router that hands out addresses after all.
    machine.step(Event::Wanted(Mode::Lease), when);
    assert_eq!(machine.state_name(), "soliciting");
}

#[test]
fn questions_come_at_growing_intervals() {
    let mut machine = machine();
    machine.step(Event::CarrierUp, at(10));
    machine.step(Event::Wanted(Mode::Lease), at(10));
    let mut times = Vec::new();
    while let Some((_, when)) = sent(&mut machine, at(40_000)) {
        times.push(when);
    }
    let pauses: Vec<Duration> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(pauses.len() < 30, "{pauses:?}");
    assert!(pauses.iter().all(|pause| *pause <= at(3600)));
    assert!(
        pauses.windows(2).all(|pair| pair[0] <= pair[1]),
        "{pauses:?}"
    );
}

#[test]
fn an_answer_that_says_nothing_of_the_lease_leaves_it() {
    let (mut machine, when) = bound();
    let (renew, now) = sent(&mut machine, when + at(301)).unwrap();
    let silent = Reply {
        addresses: Association::default(),
        ..reply(&renew, false, (0, 0))
    };
    assert!(machine.step(Event::Reply(silent), now).is_empty());
    assert_eq!(machine.state_name(), "renewing");
    // Another address beside it: both are held.
    let mut other = reply(&renew, false, (600, 1200));
    other.addresses.leases[0].0 = "2001:db8::6".parse().unwrap();
    let actions = machine.step(Event::Reply(other), now);
    let Some(Action::Apply(lease)) = actions.last() else {
        panic!("{actions:?}")
    };
    assert_eq!(lease.addresses.len(), 2);
}

#[test]
fn what_comes_to_nothing_again_and_again_is_tried_less_and_less_often() {
    let (mut machine, mut when) = bound();
    let mut pauses = Vec::new();
    for _ in 0..6 {
        machine.step(Event::Refused("2001:db8::5".parse().unwrap()), when);
        let (decline, at_decline) = sent(&mut machine, when + at(5)).unwrap();
        machine.step(Event::Reply(reply(&decline, false, (0, 0))), at_decline);
        let (solicit, now) = sent(&mut machine, when + at(1000)).unwrap();
        pauses.push(now - at_decline);
        let mut rapid = reply(&solicit, false, (600, 1200));
        rapid.rapid = true;
        machine.step(Event::Reply(rapid), now);
        when = now;
    }
    assert!(
        pauses.windows(2).all(|pair| pair[0] < pair[1]),
        "{pauses:?}"
    );
    assert!(pauses.iter().all(|pause| *pause <= at(121)), "{pauses:?}");
}

#[test]
fn one_address_of_two_that_is_taken_back_leaves_the_other_and_a_server_without_any_leaves_both() {
    let (mut machine, when) = bound();
    let (renew, now) = sent(&mut machine, when + at(301)).unwrap();
    let mut two = reply(&renew, false, (600, 1200));
    two.addresses
        .leases
        .push(("2001:db8::6".parse().unwrap(), 600, 1200));
    machine.step(Event::Reply(two), now);
    let (renew, now) = sent(&mut machine, now + at(301)).unwrap();
    let none = Reply {
        refusal: Some(Refusal::NoAddress),
        addresses: Association::default(),
        ..reply(&renew, false, (0, 0))
    };
    assert!(machine.step(Event::Reply(none), now).is_empty());
    let actions = machine.step(Event::Reply(reply(&renew, false, (0, 0))), now);
    let [Action::Apply(lease)] = &actions[..] else {
        panic!("{actions:?}")
    };
    assert_eq!(
        lease.addresses[0].what,
        "2001:db8::6".parse::<Ipv6Addr>().unwrap()
    );
    assert_eq!(lease.addresses.len(), 1);
}
