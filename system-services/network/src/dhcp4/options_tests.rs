use super::*;
use dhcproto::v4::borrowed::DhcpOptionIterator;
use proptest::prelude::*;

const SUBNET_MASK: u8 = 1;
const ROUTER: u8 = 3;
const NAME_SERVER: u8 = 6;
const HOST_NAME: u8 = 12;
const DOMAIN_NAME: u8 = 15;
const DOMAIN_SEARCH: u8 = 119;
const CLASSLESS_ROUTES: u8 = 121;

fn options(list: &[(u8, &[u8])]) -> Options {
    let mut bytes = Vec::new();
    for (code, data) in list {
        bytes.extend_from_slice(&[*code, data.len() as u8]);
        bytes.extend_from_slice(data);
    }
    DhcpOptionIterator::new(&bytes).collect()
}

fn route(destination: [u8; 4], prefix_len: u8, gateway: Option<[u8; 4]>) -> LeaseRoute {
    LeaseRoute {
        destination: destination.into(),
        prefix_len,
        gateway: gateway.map(Ipv4Addr::from),
    }
}

#[test]
fn masks_are_prefixes_or_nothing() {
    let prefix = |mask: [u8; 4]| options(&[(SUBNET_MASK, &mask)]).prefix_len();
    assert_eq!(prefix([255, 255, 255, 0]), Some(24));
    assert_eq!(prefix([255, 255, 255, 255]), Some(32));
    assert_eq!(prefix([128, 0, 0, 0]), Some(1));
    assert_eq!(prefix([255, 0, 255, 0]), None);
    assert_eq!(prefix([0, 0, 0, 0]), None);
    assert_eq!(options(&[(SUBNET_MASK, &[255, 255])]).prefix_len(), None);
}

#[test]
fn classless_routes_replace_the_router() {
    let both = options(&[
        (ROUTER, &[10, 0, 0, 1]),
        // The examples of RFC 3442, with bits beyond the prefix to be masked away.
        (
            CLASSLESS_ROUTES,
            &[
                0, 10, 0, 0, 9, 8, 10, 10, 0, 0, 2, 25, 10, 229, 0, 129, 10, 0, 0, 3, 32, 9, 9, 9,
                9, 0, 0, 0, 0,
            ],
        ),
    ]);
    let expected = vec![
        route([0; 4], 0, Some([10, 0, 0, 9])),
        route([10, 0, 0, 0], 8, Some([10, 0, 0, 2])),
        route([10, 229, 0, 128], 25, Some([10, 0, 0, 3])),
        route([9, 9, 9, 9], 32, None),
    ];
    assert_eq!(both.routes(), expected);
}

#[test]
fn broken_classless_routes_leave_the_router() {
    for broken in [
        &[33, 1, 2, 3, 4, 5, 10, 0, 0, 2][..],
        &[24, 10, 0],
        &[8, 10, 10, 0, 0],
        &[0, 224, 0, 0, 1],
        &[0, 10, 0, 0, 9, 33, 1, 2, 3, 4, 5, 10, 0, 0, 2],
        &[0, 10, 0, 0, 9, 24, 10],
        &[],
    ] {
        let options = options(&[(ROUTER, &[10, 0, 0, 1]), (CLASSLESS_ROUTES, broken)]);
        assert_eq!(
            options.routes(),
            [route([0; 4], 0, Some([10, 0, 0, 1]))],
            "{broken:?}"
        );
    }
}

#[test]
fn more_routes_than_anybody_needs_are_refused() {
    let routes = |count| {
        let many = [0, 10, 0, 0, 9].repeat(count);
        let (first, second) = many.split_at(250);
        options(&[(CLASSLESS_ROUTES, first), (CLASSLESS_ROUTES, second)]).routes()
    };
    assert_eq!(routes(64).len(), 64);
    assert_eq!(routes(65), []);
}

#[test]
fn addresses_that_no_host_can_have_are_left_out() {
    let list = [
        0, 0, 0, 0, 10, 0, 0, 1, 127, 0, 0, 1, 224, 0, 0, 1, 255, 255, 255, 255, 8, 8, 8, 8, 9,
    ];
    let expected = [Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(8, 8, 8, 8)];
    assert_eq!(
        options(&[(NAME_SERVER, &list)]).hosts(OptionCode::DomainNameServer),
        expected
    );
}

#[test]
fn names_that_could_break_a_file_are_refused() {
    let search = |domain: &[u8]| options(&[(DOMAIN_NAME, domain)]).search();
    assert_eq!(search(b"Example.com."), ["example.com"]);
    assert_eq!(search(b"a.example b.example"), ["a.example", "b.example"]);
    assert_eq!(search(b"example.com\0"), ["example.com"]);
    for bad in [
        &b"x\nnameserver 6.6.6.6"[..],
        b"a..b",
        b"-x",
        b"",
        b"\xff",
        b"a;b",
        b"$(x)",
    ] {
        assert_eq!(search(bad), [""; 0], "{bad:?}");
    }
    let host = |name: &[u8]| options(&[(HOST_NAME, name)]).host_name();
    assert_eq!(host(b"Node-1"), Some("node-1".into()));
    assert_eq!(host(b"localhost"), None);
    assert_eq!(host(b"10.0.0.5"), None);
    assert_eq!(host(b"a b"), None);
    let long = format!("node.{}", "x".repeat(60));
    assert_eq!(host(long.as_bytes()), Some("node".into()));
}

#[test]
fn search_lists_may_be_compressed() {
    let list = b"\x03eng\x05apple\x03com\0\x09marketing\xc0\x04";
    assert_eq!(
        options(&[(DOMAIN_SEARCH, list)]).search(),
        ["eng.apple.com", "marketing.apple.com"]
    );
    let circle = b"\x01a\xc0\x00";
    assert_eq!(
        options(&[(DOMAIN_SEARCH, circle), (DOMAIN_NAME, b"x.y")]).search(),
        ["x.y"]
    );
}

#[test]
fn search_lists_with_a_broken_name_are_refused() {
    let search = |list: &[u8]| {
        let (first, second) = list.split_at(list.len().min(200));
        options(&[
            (DOMAIN_SEARCH, first),
            (DOMAIN_NAME, b"x.y"),
            (DOMAIN_SEARCH, second),
        ])
        .search()
    };
    let label = format!("\x3f{}", "a".repeat(63));
    let longest = format!("{}\x3d{}\0", label.repeat(3), "a".repeat(61));
    assert_eq!(search(longest.as_bytes())[0].len(), 253);
    let too_long = format!("{}\x3e{}\0", label.repeat(3), "a".repeat(62));
    for broken in [
        &b"\x05ab"[..],
        b"\x01b",
        b"\xc0",
        b"\xc0\x03",
        b"\xc0\x05",
        b"\x01b\xc0\x03",
        b"\x41b\0",
        b"\x81b\0",
        b"\0",
        b"\x03b.c\0",
        b"\x03b\0c\0",
        b"\x02-b\0",
        b"\x01\n\0",
        b"\x01\\\0",
        b"\x01\xe4\0",
        too_long.as_bytes(),
    ] {
        let list = [b"\x01a\0", broken].concat();
        assert_eq!(search(&list), ["x.y"], "{broken:?}");
    }
}

#[test]
fn parts_of_a_long_option_are_put_together() {
    let options = options(&[
        (DOMAIN_NAME, b"exam"),
        (ROUTER, &[10, 0, 0, 1]),
        (DOMAIN_NAME, b"ple"),
    ]);
    assert_eq!(options.search(), ["example"]);
}

#[test]
fn an_option_whose_second_part_is_cut_off_ends_the_list() {
    let bytes = [6, 4, 8, 8, 8, 8, 15, 1, b'x', 15, 2, b'y'];
    let options: Options = DhcpOptionIterator::new(&bytes).collect();
    assert_eq!(
        options.hosts(OptionCode::DomainNameServer),
        [Ipv4Addr::new(8, 8, 8, 8)]
    );
    assert_eq!(options.search(), [""; 0]);
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..400), code in 0..=255_u8) {
        let read: Options = DhcpOptionIterator::new(&bytes).collect();
        let code = OptionCode::from(code);
        let whole = Options([(code, bytes.clone()), (OptionCode::DomainSearch, bytes.clone()),
            (OptionCode::ClasslessStaticRoute, bytes.clone()), (OptionCode::Hostname, bytes.clone()),
            (OptionCode::DomainName, bytes)].into());
        for options in [read, whole] {
            options.text(code);
            options.hosts(code);
            options.prefix_len();
            for route in options.routes() {
                prop_assert!(route.prefix_len <= 32);
            }
            for name in options.search().into_iter().chain(options.host_name()) {
                prop_assert!(!name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b)), "{name:?}");
            }
        }
    }
}
