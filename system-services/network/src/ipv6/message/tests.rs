use super::*;
use std::time::Duration;

use dhcproto::v6::{
    DhcpOption, DhcpOptions, IAAddr, IANA, IAPD, IAPrefix, Message, MessageType, OptionCode,
    Status, StatusCode,
};
use dhcproto::{Decodable, Decoder, Encodable, Encoder};
use proptest::prelude::*;

use crate::ipv6::prefix::Prefix;

fn identity() -> Identity {
    Identity::of([2, 0, 0x5e, 0x10, 0, 1], "e0")
}

#[test]
fn interfaces_of_one_ethernet_address_have_associations_of_their_own_that_stay() {
    let vlan = Identity::of([2, 0, 0x5e, 0x10, 0, 1], "e0.10");
    assert_eq!(vlan.duid, identity().duid);
    assert_ne!(vlan.iaid, identity().iaid);
    // Servers have these written down: no other version may have others.
    assert_eq!(Identity::of([2; 6], "a").iaid, 0xe40c_292c);
}

fn prefix(text: &str, length: u8) -> Prefix {
    Prefix::new(text.parse().unwrap(), length).unwrap()
}

#[test]
fn a_question_says_who_asks_and_what() {
    let request = Request {
        kind: Kind::Request,
        xid: [1, 2, 3],
        elapsed: Duration::from_millis(1230),
        server: Some(vec![9]),
        subject: Subject {
            addresses: Some(vec!["2001:db8::5".parse().unwrap()]),
            prefixes: Some(vec![Prefix::hint(56)]),
        },
    };
    let bytes = request.encode(&identity()).unwrap();
    assert_eq!(bytes[..4], [3, 1, 2, 3]);
    let message = Message::decode(&mut Decoder::new(&bytes)).unwrap();
    let options = message.opts();
    assert_eq!(
        options.get(OptionCode::ClientId),
        Some(&DhcpOption::ClientId(vec![
            0, 3, 0, 1, 2, 0, 0x5e, 0x10, 0, 1
        ]))
    );
    assert_eq!(
        options.get(OptionCode::ElapsedTime),
        Some(&DhcpOption::ElapsedTime(123))
    );
    let Some(DhcpOption::IAPD(delegation)) = options.get(OptionCode::IAPD) else {
        panic!("{options:?}")
    };
    let Some(DhcpOption::IAPrefix(hint)) = delegation.opts.get(OptionCode::IAPrefix) else {
        panic!("{delegation:?}")
    };
    assert_eq!(
        (hint.prefix_len, hint.prefix_ip),
        (56, "::".parse().unwrap())
    );
}

#[test]
fn a_question_about_addresses_alone_has_no_word_of_prefixes_and_of_what_else_there_is_to_know() {
    let request = Request {
        kind: Kind::Confirm,
        xid: [1, 2, 3],
        elapsed: Duration::ZERO,
        server: None,
        subject: Subject {
            addresses: Some(Vec::new()),
            prefixes: None,
        },
    };
    let bytes = request.encode(&identity()).unwrap();
    let message = Message::decode(&mut Decoder::new(&bytes)).unwrap();
    assert_eq!(message.msg_type(), MessageType::Confirm);
    for code in [OptionCode::IAPD, OptionCode::ORO, OptionCode::ServerId] {
        assert_eq!(message.opts().get(code), None, "{code:?}");
    }
}

fn reply(kind: MessageType, options: Vec<DhcpOption>) -> Vec<u8> {
    let mut message = Message::new_with_id(kind, [1, 2, 3]);
    message.set_opts(options.into_iter().collect());
    let mut bytes = Vec::new();
    message.encode(&mut Encoder::new(&mut bytes)).unwrap();
    bytes
}

fn ours(mut options: Vec<DhcpOption>) -> Vec<DhcpOption> {
    options.push(DhcpOption::ClientId(identity().duid));
    options.push(DhcpOption::ServerId(vec![7]));
    options
}

fn status(status: Status) -> DhcpOption {
    DhcpOption::StatusCode(StatusCode {
        status,
        msg: "for people".to_owned(),
    })
}

fn delegation(opts: Vec<DhcpOption>) -> DhcpOption {
    DhcpOption::IAPD(IAPD {
        id: identity().iaid,
        t1: 40,
        t2: 60,
        opts: opts.into_iter().collect(),
    })
}

fn delegated(address: &str, length: u8) -> DhcpOption {
    DhcpOption::IAPrefix(IAPrefix {
        preferred_lifetime: 60,
        valid_lifetime: 120,
        prefix_len: length,
        prefix_ip: address.parse().unwrap(),
        opts: DhcpOptions::new(),
    })
}

#[test]
fn an_answer_is_read_when_it_is_ours() {
    let address = IAAddr {
        addr: "2001:db8::5".parse().unwrap(),
        preferred_life: 60,
        valid_life: 120,
        opts: DhcpOptions::new(),
    };
    let options = ours(vec![
        DhcpOption::IANA(IANA {
            id: identity().iaid,
            t1: 30,
            t2: 50,
            opts: [DhcpOption::IAAddr(address)].into_iter().collect(),
        }),
        delegation(vec![delegated("2001:db8:1::", 56)]),
        DhcpOption::DomainNameServers(vec![
            "2001:db8::53".parse().unwrap(),
            "ff02::1".parse().unwrap(),
        ]),
    ]);
    let found = Reply::decode(&reply(MessageType::Reply, options.clone()), &identity()).unwrap();
    assert_eq!(
        found.addresses.leases,
        [("2001:db8::5".parse().unwrap(), 60, 120)]
    );
    assert_eq!(
        found.prefixes.leases,
        [(prefix("2001:db8:1::", 56), 60, 120)]
    );
    assert_eq!(
        (found.addresses.renew_s, found.addresses.rebind_s),
        (30, 50)
    );
    assert_eq!((found.prefixes.renew_s, found.prefixes.rebind_s), (40, 60));
    assert_eq!(found.information.name_servers.len(), 1);
    let other = Identity::of([2; 6], "e0");
    assert_eq!(
        Reply::decode(&reply(MessageType::Reply, options.clone()), &other),
        None
    );
    assert_eq!(
        Reply::decode(&reply(MessageType::Solicit, options), &identity()),
        None
    );
}

#[test]
fn each_association_has_its_own_refusal() {
    let options = ours(vec![
        status(Status::UnspecFail),
        DhcpOption::IANA(IANA {
            id: identity().iaid,
            t1: 0,
            t2: 0,
            opts: [status(Status::NoAddrsAvail)].into_iter().collect(),
        }),
        delegation(vec![status(Status::NoPrefixAvail)]),
    ]);
    let found = Reply::decode(&reply(MessageType::Advertise, options), &identity()).unwrap();
    assert_eq!(found.refusal, Some(Refusal::Other(1)));
    assert_eq!(found.addresses.refusal, Some(Refusal::NoAddress));
    assert_eq!(found.prefixes.refusal, Some(Refusal::NoPrefix));
}

#[test]
fn prefixes_that_no_link_can_use_are_left_out() {
    let prefixes = [
        ("2001:db8:1::", 96),
        ("fe80::", 56),
        ("ff02::", 56),
        ("2001:db8:2::", 64),
    ];
    let prefixes = prefixes.map(|(address, length)| delegated(address, length));
    let options = ours(vec![delegation(prefixes.to_vec())]);
    let found = Reply::decode(&reply(MessageType::Reply, options), &identity()).unwrap();
    assert_eq!(
        found.prefixes.leases,
        [(prefix("2001:db8:2::", 64), 60, 120)]
    );
}

#[test]
fn an_option_that_is_broken_costs_itself_alone() {
    let mut bytes = vec![7, 1, 2, 3];
    let mut option = |code: u8, value: &[u8]| {
        bytes.extend([0, code, 0, value.len() as u8]);
        bytes.extend(value);
    };
    option(13, &[0]); // a status without its number
    option(16, &[1]); // a vendor without its number
    option(3, &[1, 2]); // an association without an end
    option(7, &[5, 5]); // a preference of two bytes
    option(1, &identity().duid);
    option(2, &[7]);
    option(82, &[0, 0, 0, 59]); // below what may be asked for
    option(83, &[0, 0, 0, 60]);
    let found = Reply::decode(&bytes, &identity()).unwrap();
    assert_eq!(found.preference, 0);
    assert_eq!(found.longest_solicit_s, None);
    assert_eq!(found.longest_information_s, Some(60));
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..200), plausible in any::<bool>()) {
        if plausible && !bytes.is_empty() {
            bytes[0] = 7;
        }
        let _ = Reply::decode(&bytes, &identity());
    }
}
