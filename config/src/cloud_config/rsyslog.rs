//! `keelson.log.remotes` and cloud-init's `rsyslog`: syslog servers that the log is sent to, by a service of the system.

use super::{ServiceFile, below};
use crate::diagnostic::{Diagnostics, Position};
use crate::names;
use crate::yaml::{self, Fields, Node, Shape, Table, Value};

/// `rsyslog`
pub(super) const RSYSLOG: Shape = Shape::AnyOf(&[Shape::Table(&SECTION), CONFIGS]);
static SECTION: Table = Table::new(
    "rsyslog",
    &[
        (
            "configs",
            CONFIGS,
            "Lines of rsyslog.conf(5): those that forward are applied",
        ),
        ("remotes", REMOTES, "Servers, by a name of yours"),
    ],
)
.unsupported(&[
    ("config_dir", NO_RSYSLOG),
    ("config_filename", NO_RSYSLOG),
    ("service_reload_command", NO_RSYSLOG),
    ("install_rsyslog", NO_RSYSLOG),
    ("check_exe", NO_RSYSLOG),
    ("packages", NO_RSYSLOG),
]);
const NO_RSYSLOG: &str = "there is no rsyslog: what `remotes` and forwarding lines of `configs` say is done by the log's own service";
const CONFIGS: Shape = Shape::List(&Shape::AnyOf(&[Shape::Text, Shape::Table(&CONFIG)]));
static CONFIG: Table = Table::new(
    "rsyslog.configs",
    &[
        (
            "content",
            Shape::Text,
            "Lines of rsyslog.conf(5), as *.* @@HOST:PORT",
        ),
        (
            "filename",
            Shape::Hint(&Shape::Text),
            "Says nothing here: no file is written",
        ),
    ],
)
.required(&["content"]);
const REMOTES: Shape = Shape::Map(&Shape::Text);
/// `keelson.log`
pub(super) static LOG: Table = Table::new(
    "log",
    &[(
        "remotes",
        REMOTES,
        "Syslog servers that the log is sent to, by a name of yours, as *.* @@HOST:PORT",
    )],
);

/// Name of the file.
const NAME: &str = "user-data-log-forward";
/// Urgencies by their number (RFC 5424, section 6.2.1), with rsyslog's other words for them.
const LEVELS: [&[&str]; 8] = [
    &["emerg", "panic"],
    &["alert"],
    &["crit"],
    &["err", "error"],
    &["warning", "warn"],
    &["notice"],
    &["info"],
    &["debug", "*"],
];
const ALL: u8 = 7;
const DEFAULT_PORT: u16 = 514;

/// A server that the log is sent to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LogRemote {
    /// How messages travel: `udp`, `tcp` (a message a line) or `tcp-counted` (each with its length before it).
    transport: &'static str,
    /// Messages of this urgency (RFC 5424, section 6.2.1) and more urgent ones are sent.
    level: u8,
    /// Name or address.
    host: String,
    /// Its port.
    port: u16,
}

/// Reads both.
pub(super) fn parse(top: &Fields<'_>, diagnostics: &mut Diagnostics) -> Vec<LogRemote> {
    let mut remotes: Vec<LogRemote> = Vec::new();
    let mut found = Vec::new();
    if let Some(node) = top.get("rsyslog") {
        rsyslog(node, &mut found, diagnostics);
    }
    if let Some(fields) = below(top, "keelson", "log")
        .and_then(|node| yaml::mapping("keelson.log", node, diagnostics))
    {
        fields.check(" of keelson.log", &LOG, diagnostics);
        named("keelson.log.remotes", &fields, &mut found, diagnostics);
    }
    for (remote, position) in found {
        let same = remotes.iter_mut().find(|known| known.is_same(&remote));
        match same {
            None => remotes.push(remote),
            Some(known) if *known == remote => {}
            Some(known) => {
                known.level = known.level.max(remote.level);
                let message = format!(
                    "`{}:{}` is named twice: messages of both are sent there once, as the first says how",
                    remote.host, remote.port
                );
                diagnostics.warning(position, message);
            }
        }
    }
    remotes
}

/// Servers in the order in which they are named, and where.
type Found = Vec<(LogRemote, Position)>;

impl LogRemote {
    /// Whether it is the same server, whatever is sent there and how it is framed.
    fn is_same(&self, other: &LogRemote) -> bool {
        let place = |remote: &LogRemote| (remote.transport == "udp", remote.port);
        place(self) == place(other) && self.host.eq_ignore_ascii_case(&other.host)
    }
}

/// `rsyslog`: `remotes`, and of `configs` those lines that forward; or a list, as it once was, of `configs`.
fn rsyslog(node: &Node, found: &mut Found, diagnostics: &mut Diagnostics) {
    if let Value::Sequence(_) = node.value {
        return configs("rsyslog", node, found, diagnostics);
    }
    let Some(fields) = yaml::mapping("rsyslog", node, diagnostics) else {
        return;
    };
    fields.check(" of rsyslog", &SECTION, diagnostics);
    named("rsyslog.remotes", &fields, found, diagnostics);
    if let Some(node) = fields.get("configs") {
        configs("rsyslog.configs", node, found, diagnostics);
    }
}

/// `remotes`: forwarding lines by name; nothing behind a name is none.
fn named(what: &str, fields: &Fields<'_>, found: &mut Found, diagnostics: &mut Diagnostics) {
    let Some(remotes) = fields
        .get("remotes")
        .and_then(|node| yaml::mapping(what, node, diagnostics))
    else {
        return;
    };
    for (key, node) in remotes.iter() {
        let what = format!("{what}.{}", key.text);
        let Some(line) = yaml::string(&what, node, diagnostics) else {
            continue;
        };
        let line = line.split('#').next().unwrap_or_default().trim();
        let line = without_template(&what, line, node.position, diagnostics);
        match rule(line, true) {
            Ok(remote) => found.push((remote, node.position)),
            Err(why) => diagnostics.error(
                node.position,
                format!("{what}: {why}; nothing is sent there"),
            ),
        }
    }
}

/// `configs`: texts, or mappings with `content`.
fn configs(what: &str, node: &Node, found: &mut Found, diagnostics: &mut Diagnostics) {
    let Some(items) = yaml::list(what, node, diagnostics) else {
        return;
    };
    for item in items {
        let content = match item.value {
            Value::Mapping(_) => {
                let fields = yaml::mapping(what, item, diagnostics);
                fields.and_then(|fields| {
                    let within = format!(" of {what}");
                    fields.check(&within, &CONFIG, diagnostics);
                    fields.get("content")
                })
            }
            _ => Some(item),
        };
        let Some(content) = content else {
            diagnostics.error(
                item.position,
                format!("{what}: there is no `content`; it is left out"),
            );
            continue;
        };
        if let Some(text) = yaml::string(what, content, diagnostics) {
            lines(what, &text, content.position, found, diagnostics);
        }
    }
}

/// Lines of rsyslog's configuration: those that forward are applied.
fn lines(
    what: &str,
    text: &str,
    position: Position,
    found: &mut Found,
    diagnostics: &mut Diagnostics,
) {
    for line in text.lines().map(str::trim) {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let line = without_template(what, line, position, diagnostics);
        match rule(line, false) {
            Ok(remote) => found.push((remote, position)),
            Err(why) => {
                let shown: String = line.chars().take(40).collect();
                let message = format!(
                    "{what}: `{shown}` is not applied: {why}; there is no rsyslog, and lines that forward (`*.* @@HOST:PORT`) are all that is understood"
                );
                diagnostics.warning(position, message);
            }
        }
    }
}

/// A line without the name of a template behind its target (`@@HOST:PORT;RSYSLOG_ForwardFormat`).
fn without_template<'a>(
    what: &str,
    line: &'a str,
    position: Position,
    diagnostics: &mut Diagnostics,
) -> &'a str {
    // A selector may have semicolons as well.
    let target = line.rfind(char::is_whitespace).map_or(0, |blank| blank + 1);
    let semicolon = line[target..].find(';').map(|at| target + at);
    let Some((rest, template)) = semicolon
        .filter(|_| line[target..].starts_with('@'))
        .map(|at| (&line[..at], &line[at + 1..]))
    else {
        return line;
    };
    if !template.is_empty() {
        let message = format!(
            "{what}: the template `{template}` is not applied: messages are those of RFC 5424"
        );
        diagnostics.warning(position, message);
    }
    rest
}

/// A line that forwards (rsyslog.conf(5)): `[SELECTOR] @HOST[:PORT]` by UDP, `@@` by TCP, `@@(o)` by TCP with lengths. In
/// `is_remote`, as cloud-init has it, the sign may be left out.
fn rule(line: &str, is_remote: bool) -> Result<LogRemote, String> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let (selector, target) = match words.as_slice() {
        [target] if is_remote || target.starts_with('@') => ("*.*", *target),
        [selector, target] => (*selector, *target),
        _ => return Err("it does not say where to, as `*.* @HOST:PORT`".to_owned()),
    };
    let (transport, place) = match target.strip_prefix("@@") {
        Some(rest) => match rest.strip_prefix("(o)") {
            Some(rest) => ("tcp-counted", rest),
            None => ("tcp", rest),
        },
        None => match target.strip_prefix('@') {
            Some(rest) => ("udp", rest),
            None if is_remote => ("udp", target),
            None => return Err("it does not forward".to_owned()),
        },
    };
    if place.starts_with('(') {
        return Err("of options only `(o)` is known".to_owned());
    }
    let (host, port) = host_and_port(place).ok_or(format!("`{place}` is no HOST:PORT"))?;
    Ok(LogRemote {
        transport,
        level: level(selector)?,
        host,
        port,
    })
}

/// `*.LEVEL`: there are no facilities here to choose by.
fn level(selector: &str) -> Result<u8, String> {
    let level = selector.strip_prefix("*.").and_then(|name| {
        let mut levels = LEVELS.iter().zip(0..=ALL);
        levels.find(|(names, _)| names.contains(&name))
    });
    level.map(|(_, level)| level).ok_or_else(|| {
        format!("the selector `{selector}` is not `*.` and a level, as `*.*` or `*.warning`")
    })
}

/// `HOST`, `HOST:PORT`, `[ADDRESS]`, `[ADDRESS]:PORT`.
fn host_and_port(place: &str) -> Option<(String, u16)> {
    let (host, port) = match place.strip_prefix('[') {
        Some(rest) => {
            let (address, rest) = rest.split_once(']')?;
            address.parse::<std::net::Ipv6Addr>().ok()?;
            (
                address,
                rest.strip_prefix(':')
                    .or(rest.is_empty().then_some("514"))?,
            )
        }
        None => place.split_once(':').unwrap_or((place, "514")),
    };
    let is_address = host.parse::<std::net::IpAddr>().is_ok();
    if !is_address && !names::is_host(host) {
        return None;
    }
    let port = match port {
        "" => DEFAULT_PORT,
        port => port.parse().ok().filter(|port| *port > 0)?,
    };
    Some((host.to_owned(), port))
}

/// The service that sends; `None` without a server. It has the network, may ask for records, and nothing else.
pub(super) fn service(remotes: &[LogRemote]) -> Option<ServiceFile> {
    if remotes.is_empty() {
        return None;
    }
    let servers: String = remotes
        .iter()
        .map(|remote| {
            let LogRemote {
                transport,
                level,
                host,
                port,
            } = remote;
            format!(", \"{transport},{level},{host},{port}\"")
        })
        .collect();
    let text = format!(
        "# From `rsyslog` and `keelson.log.remotes` of the configuration; written anew with each boot.
services:
  log-forward:
    image: keelson/log
    command: [/usr/bin/keelson-log, forward{servers}]
    network_mode: host              # the servers are on the machine's networks
    uts: host                       # messages bear the machine's name
    read_only: true
    volumes:
      - /run/keelson/log:/run/keelson/log:ro          # where the log is asked
      - /state/log-forward:/state/log-forward         # how far it was sent
      - /run/keelson/network:/run/keelson/network:ro  # resolv.conf
    restart: always
    stop_grace_period: 3s
    mem_limit: 32m
    pids_limit: 32                  # names are looked up in threads of their own
    x-keelson:
      after: [log, network]
      ready: notify
      follows: true
      directories:
        - {{path: /state/log-forward, mode: \"0700\"}}
"
    );
    Some(ServiceFile { name: NAME, text })
}

#[cfg(test)]
mod tests;
