//! Lines that forward, and all else.

use super::*;
use crate::CloudConfig;

fn read(text: &str) -> (Vec<String>, Vec<String>) {
    let mut diagnostics = Diagnostics::new("user-data");
    let config = CloudConfig::parse(text, &mut diagnostics).unwrap();
    let file = config.services.files.iter().find(|file| file.name == NAME);
    let line = file.and_then(|file| file.text.lines().find(|line| line.contains("command:")));
    let servers = line.map(|line| line.split('"').skip(1).step_by(2));
    let servers = servers.into_iter().flatten().map(str::to_owned).collect();
    let messages = diagnostics.into_sorted();
    (servers, messages.iter().map(ToString::to_string).collect())
}

#[test]
fn servers_stand_in_all_forms_that_cloud_init_has() {
    for (text, server) in [
        (
            "rsyslog: {remotes: {maas: 192.168.1.1}}",
            "udp,7,192.168.1.1,514",
        ),
        (
            "rsyslog: {remotes: {a: '*.err @@logs.example:1514 # ours'}}",
            "tcp,3,logs.example,1514",
        ),
        (
            "rsyslog: {remotes: {a: '@[2001:db8::1]:10514'}}",
            "udp,7,2001:db8::1,10514",
        ),
        (
            "rsyslog: {configs: ['*.* @@192.158.1.1']}",
            "tcp,7,192.158.1.1,514",
        ),
        (
            "rsyslog: {configs: [{content: \"# ours\\n*.*   @@(o)192.0.2.1:10514\\n\", filename: 01-a.conf}]}",
            "tcp-counted,7,192.0.2.1,10514",
        ),
        (
            "rsyslog: ['*.warn @h', {content: '*.warning @h:514', filename: x}]",
            "udp,4,h,514",
        ),
        (
            "keelson: {log: {remotes: {a: '*.* @@[::1]'}}}",
            "tcp,7,::1,514",
        ),
    ] {
        assert_eq!(read(text), (vec![server.to_owned()], Vec::new()), "{text}");
    }
    assert_eq!(read("rsyslog: {remotes: {a: ~}}"), (Vec::new(), Vec::new()));
}

#[test]
fn all_else_of_rsyslog_is_said_with_line_and_column() {
    let (servers, messages) = read(
        "rsyslog:\n  config_dir: /etc/rsyslog.d\n  configs:\n  - 'module(load=\"imudp\")'\n  - 'auth.* @h'\n  remotes:\n    a: '*.* @h:99999'\n    b: [x]\n",
    );
    assert_eq!(servers, Vec::<String>::new());
    let ends = [
        "user-data:2:3: `config_dir` of rsyslog is not applied: there is no rsyslog: what `remotes` and forwarding lines of `configs` say is done by the log's own service",
        "user-data:4:5: rsyslog.configs: `module(load=\"imudp\")` is not applied: it does not say where to, as `*.* @HOST:PORT`; there is no rsyslog, and lines that forward (`*.* @@HOST:PORT`) are all that is understood",
        "user-data:5:5: rsyslog.configs: `auth.* @h` is not applied: the selector `auth.*` is not `*.` and a level, as `*.*` or `*.warning`; there is no rsyslog, and lines that forward (`*.* @@HOST:PORT`) are all that is understood",
        "user-data:7:8: rsyslog.remotes.a: `h:99999` is no HOST:PORT; nothing is sent there",
        "user-data:8:8: rsyslog.remotes.b: expected text, found a list; it is not applied",
    ];
    assert_eq!(messages, ends);
}

#[test]
fn a_server_that_is_named_twice_is_sent_to_once() {
    let text = "rsyslog:\n  remotes:\n    a: '*.err @@H:514'\n    b: '*.notice @@(o)h'\n    c: '*.err @h'\n    d: '@@other'\nkeelson: {log: {remotes: {e: '@@other:514'}}}\n";
    let (servers, messages) = read(text);
    assert_eq!(servers, ["tcp,5,H,514", "udp,3,h,514", "tcp,7,other,514"]);
    assert_eq!(
        messages,
        [
            "user-data:4:8: `h:514` is named twice: messages of both are sent there once, as the first says how"
        ]
    );
}

#[test]
fn templates_are_left_out() {
    let text = "rsyslog: {configs: ['*.* @@h:1514;RSYSLOG_ForwardFormat'], remotes: {a: '*.* @g; # ours'}}";
    let (servers, messages) = read(text);
    assert_eq!(servers, ["udp,7,g,514", "tcp,7,h,1514"]);
    assert_eq!(
        messages,
        [
            "user-data:1:21: rsyslog.configs: the template `RSYSLOG_ForwardFormat` is not applied: messages are those of RFC 5424"
        ]
    );
}

#[test]
fn a_host_cannot_say_more_than_where_it_is() {
    for target in ["h,x", "a\"b", "h:1:2", "[h]", "", ":514", "$x", "[::1]x"] {
        assert!(rule(&format!("*.* @{target}"), true).is_err(), "{target}");
    }
}
