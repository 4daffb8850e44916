//! A service of RancherOS' user Docker as a call of `docker run`: Compose's keys have an option each.

use crate::diagnostic::Diagnostics;
use crate::names;
use crate::shell::Command;
use crate::yaml::{self, Node, Scalar, Value};

/// Keys with one value.
const SINGLE: [(&str, &str); 20] = [
    ("restart", "--restart"),
    ("net", "--network"),
    ("network_mode", "--network"),
    ("hostname", "--hostname"),
    ("domainname", "--domainname"),
    ("user", "--user"),
    ("working_dir", "--workdir"),
    ("mem_limit", "--memory"),
    ("memswap_limit", "--memory-swap"),
    ("mem_reservation", "--memory-reservation"),
    ("cpu_shares", "--cpu-shares"),
    ("cpuset", "--cpuset-cpus"),
    ("pid", "--pid"),
    ("ipc", "--ipc"),
    ("uts", "--uts"),
    ("log_driver", "--log-driver"),
    ("stop_signal", "--stop-signal"),
    ("mac_address", "--mac-address"),
    ("shm_size", "--shm-size"),
    ("volume_driver", "--volume-driver"),
];
/// Keys with a list of values, or one.
const LISTS: [(&str, &str); 16] = [
    ("ports", "--publish"),
    ("expose", "--expose"),
    ("volumes", "--volume"),
    ("volumes_from", "--volumes-from"),
    ("links", "--link"),
    ("external_links", "--link"),
    ("cap_add", "--cap-add"),
    ("cap_drop", "--cap-drop"),
    ("devices", "--device"),
    ("dns", "--dns"),
    ("dns_search", "--dns-search"),
    ("extra_hosts", "--add-host"),
    ("security_opt", "--security-opt"),
    ("tmpfs", "--tmpfs"),
    ("env_file", "--env-file"),
    ("group_add", "--group-add"),
];
/// Keys that are true or not.
const SWITCHES: [(&str, &str); 4] = [
    ("privileged", "--privileged"),
    ("read_only", "--read-only"),
    ("tty", "--tty"),
    ("stdin_open", "--interactive"),
];
/// Keys of pairs: a mapping, or a list of `KEY=VALUE`.
const PAIRS: [(&str, &str); 3] = [
    ("labels", "--label"),
    ("log_opt", "--log-opt"),
    ("sysctls", "--sysctl"),
];
/// Keys that are read for themselves, or mean nothing here.
const OTHERS: [&str; 6] = [
    "image",
    "command",
    "entrypoint",
    "environment",
    "container_name",
    "depends_on",
];

/// The call that starts it; `None` when it cannot be started. `environment` has the values of variables that are only
/// named.
pub(super) fn run(
    what: &str,
    name: &str,
    service: &Node,
    environment: &[(String, String)],
    diagnostics: &mut Diagnostics,
) -> Option<Command> {
    let all = yaml::mapping(what, service, diagnostics)?;
    let key = |key: &str| format!("{what}.{key}");
    let Some(image) = all.get("image") else {
        let message = format!("{what}: there is no `image`; it is not started");
        diagnostics.error(service.position, message);
        return None;
    };
    let image = yaml::string(&key("image"), image, diagnostics)?;
    let own = all.get("container_name");
    let own = own.and_then(|node| yaml::string(&key("container_name"), node, diagnostics));
    let name = own.unwrap_or_else(|| name.to_owned());
    if !names::is_container(&name) {
        let message = format!("{what}: `{name}` is no name of a container; it is not started");
        diagnostics.error(service.position, message);
        return None;
    }
    let mut words: Vec<String> = ["docker", "run", "--detach", "--name"]
        .map(str::to_owned)
        .to_vec();
    words.push(name);
    for (entry, node) in all.iter() {
        let find = |table: &[(&str, &'static str)]| {
            let found = table.iter().find(|(name, _)| *name == entry.text);
            found.map(|(_, option)| *option)
        };
        let what = key(&entry.text);
        if let Some(option) = find(&SINGLE) {
            let value = yaml::string(&what, node, diagnostics);
            words.extend(value.map(|value| format!("{option}={value}")));
        } else if let Some(option) = find(&LISTS) {
            let values = yaml::strings(&what, node, diagnostics);
            words.extend(values.into_iter().map(|value| format!("{option}={value}")));
        } else if let Some(option) = find(&SWITCHES) {
            if yaml::boolean(&what, node, diagnostics) == Some(true) {
                words.push(option.to_owned());
            }
        } else if let Some(option) = find(&PAIRS) {
            let values = pairs(&what, node, diagnostics).into_iter();
            words.extend(
                values.map(|(key, value)| format!("{option}={key}={}", value.unwrap_or_default())),
            );
        } else if entry.text == "environment" {
            for (key, value) in pairs(&what, node, diagnostics) {
                let known = environment.iter().find(|(name, _)| *name == key);
                let value = value.or(known.map(|(_, value)| value.clone()));
                words.extend(value.map(|value| format!("--env={key}={value}")));
            }
        } else if !OTHERS.contains(&entry.text.as_str()) {
            let message = format!("{what}: left out: `docker run` has nothing like it");
            diagnostics.warning(entry.position, message);
        }
    }
    let mut line = |name: &str| match all.get(name) {
        Some(node) => command_line(&key(name), node, diagnostics),
        None => Some(Vec::new()),
    };
    let (entrypoint, command) = (line("entrypoint")?, line("command")?);
    let mut entrypoint = entrypoint.into_iter();
    words.extend(
        entrypoint
            .next()
            .map(|program| format!("--entrypoint={program}")),
    );
    words.push(image);
    words.extend(entrypoint);
    words.extend(command);
    Some(Command::Arguments(words))
}

/// A list of words, or a line of them.
fn command_line(what: &str, node: &Node, diagnostics: &mut Diagnostics) -> Option<Vec<String>> {
    match &node.value {
        Value::Scalar(Scalar { text, .. }) if !node.is_null() => {
            let words = shlex::split(text);
            if words.is_none() {
                let message = format!("{what}: an open quote; the service is not started");
                diagnostics.error(node.position, message);
            }
            words
        }
        _ => Some(yaml::strings(what, node, diagnostics)),
    }
}

fn pairs(what: &str, node: &Node, diagnostics: &mut Diagnostics) -> Vec<(String, Option<String>)> {
    if let Value::Mapping(entries) = &node.value {
        let read = entries.iter().map(|(key, value)| {
            let value = yaml::string(&format!("{what}.{}", key.text), value, diagnostics);
            (key.text.clone(), value)
        });
        return read.collect();
    }
    let items = yaml::strings(what, node, diagnostics).into_iter();
    let split = |item: String| match item.split_once('=') {
        Some((key, value)) => (key.to_owned(), Some(value.to_owned())),
        None => (item, None),
    };
    items.map(split).collect()
}
