//! The `process` object: arguments, environment, user, capabilities and limits.

use super::{Host, NOTIFY_TARGET, user};
use crate::compose::{Definition, Kind};
use anyhow::anyhow;
use serde_json::{Value, json};

/// `PATH` when the service says nothing else.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Killed before PID 1 and the engine, after applications.
const DEFAULT_OOM_SCORE_ADJ: i32 = -500;

/// Files that a process may have open, and raise that to: as systemd and Docker have it.
const DEFAULT_FILES: (u64, u64) = (1024, 524_288);

const RLIMITS: [&str; 16] = [
    "as",
    "core",
    "cpu",
    "data",
    "fsize",
    "locks",
    "memlock",
    "msgqueue",
    "nice",
    "nofile",
    "nproc",
    "rss",
    "rtprio",
    "rttime",
    "sigpending",
    "stack",
];

/// `RLIMIT_NOFILE` for `nofile`; `None` when there is no such limit.
pub fn rlimit_name(name: &str) -> Option<String> {
    RLIMITS
        .contains(&name)
        .then(|| format!("RLIMIT_{}", name.to_ascii_uppercase()))
}

/// Makes the object.
pub(super) fn build(definition: &Definition, host: &Host<'_>) -> anyhow::Result<Value> {
    let service = &definition.service;
    let groups: Vec<String> = service
        .group_add
        .iter()
        .map(|text| text.0.clone())
        .collect();
    let user = user::resolve(
        host.image,
        service.user.as_ref().map(|text| text.0.as_str()),
        &groups,
    )
    .map_err(|message| anyhow!("{message}"))?;
    let capabilities: Vec<String> = definition
        .capabilities()
        .iter()
        .map(|name| format!("CAP_{name}"))
        .collect();
    let mut rlimits: Vec<Value> = service
        .ulimits
        .0
        .iter()
        .filter_map(|(name, limit)| {
            Some(json!({ "type": rlimit_name(name)?, "soft": unlimited(limit.soft), "hard": unlimited(limit.hard) }))
        })
        .collect();
    // The engine's own limit is for the descriptors of all containers.
    if host.limits && !service.ulimits.0.iter().any(|(name, _)| name == "nofile") {
        let (soft, hard) = DEFAULT_FILES;
        rlimits.push(json!({ "type": "RLIMIT_NOFILE", "soft": soft, "hard": hard }));
    }
    let mut process = json!({
        "terminal": service.tty,
        "user": { "uid": user.uid, "gid": user.gid, "additionalGids": user.groups },
        "args": definition.arguments(),
        "env": environment(definition, user.home.as_deref()),
        "cwd": service.working_dir.as_deref().unwrap_or("/"),
        "capabilities": sets(definition, user.uid, &capabilities),
        "rlimits": rlimits,
        "noNewPrivileges": definition.no_new_privileges(),
    });
    if host.limits {
        let default = match definition.kind {
            Kind::Service => DEFAULT_OOM_SCORE_ADJ,
            Kind::Container => 0,
        };
        let adjustment = service.oom_score_adj.unwrap_or(default);
        process["oomScoreAdj"] = adjustment.into();
    }
    Ok(process)
}

/// The sets of capabilities(7). A service keeps what it names whoever it runs as; a container gets what Docker gives:
/// nothing inheritable or ambient, and beyond the bounding set nothing at all for who is not root.
fn sets(definition: &Definition, uid: u32, capabilities: &[String]) -> Value {
    let none: &[String] = &[];
    let (held, kept) = match (definition.kind, uid) {
        (Kind::Service, _) => (capabilities, capabilities),
        (Kind::Container, 0) => (capabilities, none),
        (Kind::Container, _) => (none, none),
    };
    json!({
        "bounding": capabilities, "effective": held, "permitted": held,
        "inheritable": kept, "ambient": kept,
    })
}

/// -1 is `RLIM_INFINITY`, whose bits are all ones.
fn unlimited(limit: i64) -> u64 {
    u64::try_from(limit).unwrap_or(u64::MAX)
}

fn environment(definition: &Definition, home: Option<&str>) -> Vec<String> {
    let given = &definition.service.environment.0;
    let mut variables = match definition.kind {
        Kind::Service => vec![format!("NOTIFY_SOCKET={NOTIFY_TARGET}/notify.sock")],
        Kind::Container => Vec::new(),
    };
    if definition.service.tty && !given.contains_key("TERM") {
        variables.push("TERM=xterm".to_owned());
    }
    let sockets = &definition.service.keelson.sockets;
    if !sockets.is_empty() {
        let names: Vec<&str> = sockets
            .iter()
            .map(|socket| socket.name.as_deref().unwrap_or(&definition.name))
            .collect();
        // Which process they are for is what the runtime knows.
        variables.push(format!("LISTEN_FDS={}", names.len()));
        variables.push(format!("LISTEN_FDNAMES={}", names.join(":")));
    }
    if let Some(watchdog) = definition.service.keelson.watchdog {
        variables.push(format!("WATCHDOG_USEC={}", watchdog.0.as_micros()));
    }
    for (name, value) in [("PATH", DEFAULT_PATH), ("HOME", home.unwrap_or("/"))] {
        if !given.contains_key(name) {
            variables.push(format!("{name}={value}"));
        }
    }
    variables.extend(given.iter().map(|(name, value)| format!("{name}={value}")));
    variables
}
