use super::*;
use serde_json::json;

fn read(text: &str) -> (System, Vec<String>) {
    let mut diagnostics = Diagnostics::new("user-data");
    let root = yaml::parse(text).unwrap().root;
    let top = yaml::mapping("top", &root, &mut diagnostics).unwrap();
    let system = parse(&top, &mut diagnostics);
    let messages = diagnostics.into_sorted();
    (system, messages.iter().map(ToString::to_string).collect())
}

#[test]
fn the_machines_settings_are_read() {
    let (system, messages) = read(
        "timezone: Europe/Berlin\nlocale: en_US.UTF-8\nntp: {servers: [ntp.example, 192.0.2.1], pools: [pool.example]}\n\
         resolv_conf: {nameservers: [192.0.2.53], searchdomains: [a.example]}\nrandom_seed: {data: aGVsbG8=, encoding: b64}\n\
         keelson: {sysctl: {vm.swappiness: 10, net/ipv4/ip_forward: 1}, modules: [nbd max_part=8], docker: {debug: yes, log-opts: {max-size: 1m}}}\n",
    );
    assert_eq!(messages, [] as [&str; 0]);
    assert_eq!(system.timezone.as_deref(), Some("Europe/Berlin"));
    let ntp = system.ntp.unwrap();
    assert_eq!(
        (ntp.servers.len(), ntp.pools.len(), ntp.enabled),
        (2, 1, true)
    );
    assert_eq!(system.resolver.unwrap().search, ["a.example"]);
    assert_eq!(system.random_seed.as_deref(), Some(&b"hello"[..]));
    assert_eq!(
        system.sysctls[0],
        ("vm.swappiness".to_owned(), "10".to_owned())
    );
    assert_eq!(system.modules, ["nbd max_part=8"]);
    assert_eq!(
        Json::Object(system.docker),
        json!({"debug": true, "log-opts": {"max-size": "1m"}})
    );
}

#[test]
fn wrong_values_are_named_and_left_out() {
    let (system, messages) = read(
        "timezone: ../etc\nlocale: 'x y'\nntp: {servers: ['a b']}\nca_certs: {trusted: [nonsense]}\nkeelson: {sysctl: {../x: 1}, modules: ['a;b']}\n",
    );
    assert_eq!(messages.len(), 6, "{messages:#?}");
    assert!(system.timezone.is_none() && system.sysctls.is_empty() && system.modules.is_empty());
}
