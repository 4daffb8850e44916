//! The `linux` object: namespaces, cgroup and its limits, seccomp, what is masked.

use super::Host;
use super::devices::{self, Devices};
use crate::compose::volume::Propagation;
use crate::compose::{Definition, Namespace, NetworkMode, SecurityOption, Service, Slice};
use anyhow::Context;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;

/// Files that tell about the host or let it be disturbed (the set that Docker masks).
pub(crate) const MASKED: [&str; 11] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];
/// Files that tell, and are not to be written.
pub(crate) const READONLY: [&str; 5] = [
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
];

/// Period of the processor quota (Docker's).
const CPU_PERIOD_US: u64 = 100_000;

/// The cgroup of a service, below the root of the cgroup tree.
pub fn cgroup_path(definition: &Definition) -> String {
    let slice = match definition.slice() {
        Slice::System => "system",
        Slice::User => "user",
    };
    format!("/{slice}/{}", definition.name)
}

/// Whether the container hears of later mounts of the host: only where a volume asks for them. The volume's own word is for its
/// mount.
fn propagation(definition: &Definition) -> &'static str {
    let private = [Propagation::Private, Propagation::Rprivate];
    let mut volumes = definition.service.volumes.iter();
    match volumes.all(|volume| private.contains(&volume.propagation)) {
        true => "rprivate",
        false => "rslave",
    }
}

/// Makes the object.
pub(super) fn build(
    definition: &Definition,
    host: &Host<'_>,
    devices: &Devices,
    warnings: &mut Vec<String>,
) -> anyhow::Result<Value> {
    let service = &definition.service;
    let mut linux = json!({
        "namespaces": namespaces(definition, host),
        "cgroupsPath": cgroup_path(definition),
        "resources": resources(definition, host, devices, warnings),
        "devices": devices.nodes,
        "rootfsPropagation": propagation(definition),
    });
    let sysctls = sysctls(service);
    if !sysctls.is_empty() {
        linux["sysctl"] = json!(sysctls);
    }
    if !definition.unconfined(SecurityOption::SystemPathsUnconfined) {
        linux["maskedPaths"] = json!(MASKED);
        linux["readonlyPaths"] = json!(READONLY);
    }
    if !definition.unconfined(SecurityOption::SeccompUnconfined)
        && let Some(profile) = host.seccomp
    {
        let capabilities: Vec<String> = definition
            .capabilities()
            .iter()
            .map(|name| format!("CAP_{name}"))
            .collect();
        linux["seccomp"] = crate::seccomp::resolve(profile, &capabilities)
            .context("cannot use the seccomp profile")?;
    }
    Ok(linux)
}

/// What is asked for, and Docker's two for a network of one's own: every port may be listened at there, and anybody may
/// ping.
fn sysctls(service: &Service) -> BTreeMap<&str, &str> {
    let own = !matches!(
        service.network_mode,
        Some(NetworkMode::Host | NetworkMode::Container(_))
    );
    let mut sysctls = BTreeMap::new();
    if own {
        sysctls.insert("net.ipv4.ip_unprivileged_port_start", "0");
        sysctls.insert("net.ipv4.ping_group_range", "0 2147483647");
    }
    let given = service.sysctls.0.iter();
    sysctls.extend(given.map(|(name, value)| (name.as_str(), value.as_str())));
    sysctls
}

fn namespaces(definition: &Definition, host: &Host<'_>) -> Vec<Value> {
    let service = &definition.service;
    let own = |choice: Option<Namespace>| choice != Some(Namespace::Host);
    let mut namespaces: Vec<Value> = [
        ("mount", true),
        ("pid", own(service.pid)),
        ("ipc", own(service.ipc)),
        ("uts", own(service.uts)),
        ("cgroup", own(service.cgroup)),
        ("network", service.network_mode != Some(NetworkMode::Host)),
    ]
    .into_iter()
    .filter(|(_, own)| *own)
    .map(|(kind, _)| json!({ "type": kind }))
    .collect();
    if let Some(path) = host.network {
        for namespace in &mut namespaces {
            if namespace["type"] == "network" {
                namespace["path"] = json!(path);
            }
        }
    }
    namespaces
}

/// Limits alone, in the form of `linux.resources`.
pub fn limits(service: &Service) -> Value {
    let mut resources = json!({});
    if let Some(limit) = service.mem_limit {
        resources["memory"]["limit"] = limit.0.into();
    }
    if let Some(reservation) = service.mem_reservation {
        resources["memory"]["reservation"] = reservation.0.into();
    }
    if let Some(limit) = service.memswap_limit {
        resources["memory"]["swap"] = limit.0.into();
    }
    if let Some(limit) = service.pids_limit {
        resources["pids"]["limit"] = limit.into();
    }
    if let Some(cpus) = service.cpus {
        resources["cpu"]["period"] = CPU_PERIOD_US.into();
        resources["cpu"]["quota"] = (cpus.0 * CPU_PERIOD_US / 1000).into();
    }
    if let Some(shares) = service.cpu_shares {
        resources["cpu"]["shares"] = shares.into();
    }
    if let Some(set) = &service.cpuset {
        resources["cpu"]["cpus"] = set.as_str().into();
    }
    resources
}

fn resources(
    definition: &Definition,
    host: &Host<'_>,
    devices: &Devices,
    warnings: &mut Vec<String>,
) -> Value {
    let mut resources = limits(&definition.service);
    for (key, rates) in definition.service.blkio_config.limits() {
        for rate in rates {
            let (major, minor) = match devices::disk(Path::new(&rate.path)) {
                Ok(number) => number,
                Err(error) => {
                    let path = &rate.path;
                    warnings.push(format!("the limit on {path} is left out: {error}"));
                    continue;
                }
            };
            let limits = &mut resources["blockIO"][key];
            let limit = json!({ "major": major, "minor": minor, "rate": rate.rate });
            match limits.as_array_mut() {
                Some(limits) => limits.push(limit),
                None => *limits = json!([limit]),
            }
        }
    }
    if !host.limits
        && resources
            .as_object()
            .is_some_and(|limits| !limits.is_empty())
    {
        warnings.push("its limits are left out: the cgroup tree has no controllers".to_owned());
        resources = json!({});
    }
    if host.limits {
        resources["devices"] = devices.rules.clone().into();
    }
    resources
}
