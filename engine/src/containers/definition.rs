//! From what a client of Docker's API asks for to a definition as the engine runs it.

mod limits;

pub use limits::limit;

use super::volumes;
use crate::compose::lists::{CommandLine, OneOrMany, Pairs};
use crate::compose::names::Names;
use crate::compose::service::HealthCheck;
use crate::compose::values::{Capability, Span, StopSignal, Text};
use crate::compose::volume::{Device, DeviceRule, Tmpfs};
use crate::compose::{Namespace, SecurityOption, Service, Slice};
use crate::network::request;
use bollard_stubs::models::{ContainerCreateBody, HealthConfig, HostConfig, ImageConfig};
use std::collections::BTreeMap;
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

/// What a container keeps unless it is told otherwise: Docker's list.
const CAPABILITIES: [&str; 14] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FSETID",
    "FOWNER",
    "MKNOD",
    "NET_RAW",
    "SETGID",
    "SETUID",
    "SETFCAP",
    "SETPCAP",
    "NET_BIND_SERVICE",
    "SYS_CHROOT",
    "KILL",
    "AUDIT_WRITE",
];

/// Fills in what the image says and the client does not, as Docker does.
pub fn merge(body: &mut ContainerCreateBody, image: &ImageConfig) {
    let given = |words: &Option<Vec<String>>| words.as_ref().is_some_and(|words| !words.is_empty());
    if !given(&body.entrypoint) {
        if !given(&body.cmd) {
            body.cmd.clone_from(&image.cmd);
        }
        body.entrypoint.clone_from(&image.entrypoint);
    } else if body.entrypoint.as_deref() == Some(&[String::new()]) {
        body.entrypoint = None;
    }
    let filled = |text: &Option<String>| text.as_ref().is_some_and(|text| !text.is_empty());
    for (own, other) in [
        (&mut body.user, &image.user),
        (&mut body.working_dir, &image.working_dir),
        (&mut body.stop_signal, &image.stop_signal),
    ] {
        if !filled(own) {
            own.clone_from(other);
        }
    }
    let name = |variable: &String| variable.split('=').next().unwrap_or_default().to_owned();
    let own = body.env.take().unwrap_or_default();
    let mut env: Vec<String> = image.env.iter().flatten().cloned().collect();
    env.retain(|variable| !own.iter().any(|other| name(other) == name(variable)));
    env.extend(own);
    body.env = Some(env);
    let mut labels = image.labels.clone().unwrap_or_default();
    labels.extend(body.labels.take().unwrap_or_default());
    body.labels = Some(labels);
    for (own, other) in [
        (&mut body.exposed_ports, &image.exposed_ports),
        (&mut body.volumes, &image.volumes),
    ] {
        for item in other.iter().flatten() {
            let items = own.get_or_insert_default();
            if !items.contains(item) {
                items.push(item.clone());
            }
        }
    }
    let has_test = |check: &HealthConfig| check.test.as_ref().is_some_and(|test| !test.is_empty());
    match (&mut body.healthcheck, &image.healthcheck) {
        (None, other) => body.healthcheck.clone_from(other),
        (Some(own), Some(other)) if !has_test(own) => own.test.clone_from(&other.test),
        _ => {}
    }
}

/// What the engine runs for a merged request. `volumes` is the directory that named volumes live in; `key` names the
/// container in the system.
///
/// # Errors
/// For a person: the first thing that cannot be understood or is not done here.
pub fn service(body: &ContainerCreateBody, key: &str, volumes: &Path) -> Result<Service, String> {
    let host = body.host_config.clone().unwrap_or_default();
    refuse(&host)?;
    let mut service = Service {
        image: body.image.clone().unwrap_or_default(),
        command: CommandLine(body.cmd.clone().unwrap_or_default()),
        entrypoint: CommandLine(body.entrypoint.clone().unwrap_or_default()),
        environment: environment(body),
        tty: body.tty.unwrap_or(false),
        stdin_open: body.open_stdin.unwrap_or(false),
        user: text(&body.user).map(Text),
        working_dir: text(&body.working_dir),
        hostname: text(&body.hostname).or_else(|| Some(key.to_owned())),
        stop_signal: parsed(&body.stop_signal)?,
        stop_grace_period: body.stop_timeout.map(|seconds| Span(grace_period(seconds))),
        labels: Pairs(
            body.labels
                .clone()
                .unwrap_or_default()
                .into_iter()
                .collect(),
        ),
        healthcheck: body.healthcheck.as_ref().and_then(health_check),
        volumes: volumes::mounted(body, volumes)?,
        names: names(&host),
        ..Service::default()
    };
    if service.entrypoint.0.is_empty() && service.command.0.is_empty() {
        return Err("no command specified".to_owned());
    }
    if service
        .working_dir
        .as_ref()
        .is_some_and(|path| !path.starts_with('/'))
    {
        let path = service.working_dir.unwrap_or_default();
        return Err(format!(
            "the working directory '{path}' is invalid, it needs to be an absolute path"
        ));
    }
    let (mode, networks) = request::networks(body)?;
    service.network_mode = Some(mode);
    service.networks = networks;
    service.ports = request::ports(body)?;
    confine(&mut service, &host)?;
    limit(&mut service, &host)?;
    Ok(service)
}

/// What the client says of names (`HOST:ADDRESS` of hosts).
fn names(host: &HostConfig) -> Names {
    let list = |given: &Option<Vec<String>>| given.clone().unwrap_or_default();
    let hosts = host.extra_hosts.iter().flatten();
    Names {
        hosts: hosts
            .filter_map(|line| line.split_once(':'))
            .map(|(name, address)| (name.to_owned(), address.to_owned()))
            .collect(),
        servers: list(&host.dns),
        search: list(&host.dns_search),
        options: list(&host.dns_options),
    }
}

/// What is not done here is refused, rather than left out in silence.
fn refuse(host: &HostConfig) -> Result<(), String> {
    let some = |list: &Option<Vec<String>>| list.as_ref().is_some_and(|list| !list.is_empty());
    let named = |name: &Option<String>, allowed: &[&str]| {
        name.as_deref().is_some_and(|name| !allowed.contains(&name))
    };
    let unsupported = [
        ("Links", some(&host.links)),
        ("VolumesFrom", some(&host.volumes_from)),
        (
            "DeviceRequests",
            host.device_requests
                .as_ref()
                .is_some_and(|list| !list.is_empty()),
        ),
        (
            "StorageOpt",
            host.storage_opt.as_ref().is_some_and(|map| !map.is_empty()),
        ),
        ("Init", host.init == Some(true)),
        ("Runtime", named(&host.runtime, &["", "keelson-runtime"])),
        ("UsernsMode", named(&host.userns_mode, &["", "host"])),
        ("VolumeDriver", named(&host.volume_driver, &["", "local"])),
        ("BlkioWeight", host.blkio_weight.unwrap_or(0) != 0),
        (
            "BlkioWeightDevice",
            host.blkio_weight_device
                .as_ref()
                .is_some_and(|list| !list.is_empty()),
        ),
        ("OomKillDisable", host.oom_kill_disable == Some(true)),
    ];
    match unsupported.iter().find(|(_, given)| *given) {
        Some((name, _)) => Err(format!(
            "the system engine does not do this: HostConfig.{name}"
        )),
        None => Ok(()),
    }
}

fn confine(service: &mut Service, host: &HostConfig) -> Result<(), String> {
    service.privileged = host.privileged.unwrap_or(false);
    service.read_only = host.readonly_rootfs.unwrap_or(false);
    service.cap_add = capabilities(host)?;
    service.pid = namespace("PidMode", host.pid_mode.as_deref())?;
    service.ipc = namespace("IpcMode", host.ipc_mode.as_deref())?;
    service.uts = namespace("UTSMode", host.uts_mode.as_deref())?;
    let cgroup = host.cgroupns_mode.map(|mode| mode.to_string());
    service.cgroup = namespace("CgroupnsMode", cgroup.as_deref())?;
    service.cgroup_parent = match host.cgroup_parent.as_deref() {
        None | Some("") => None,
        Some(parent) => Some(Slice::from_str(parent.trim_start_matches('/'))?),
    };
    service.group_add = host.group_add.iter().flatten().cloned().map(Text).collect();
    service.sysctls = Pairs(
        host.sysctls
            .clone()
            .unwrap_or_default()
            .into_iter()
            .collect(),
    );
    // As in Docker, and unlike services: setuid programs work unless they are told not to.
    service
        .security_opt
        .push(SecurityOption::NoNewPrivileges(false));
    for option in host.security_opt.iter().flatten() {
        service.security_opt.push(option.parse()?);
    }
    if host.masked_paths.as_ref().is_some_and(Vec::is_empty) {
        service
            .security_opt
            .push(SecurityOption::SystemPathsUnconfined);
    }
    for device in host.devices.iter().flatten() {
        let part = |text: &Option<String>| text.clone().unwrap_or_default();
        let source = part(&device.path_on_host);
        let target = text(&device.path_in_container).unwrap_or_else(|| source.clone());
        let access = text(&device.cgroup_permissions).unwrap_or_else(|| "rwm".to_owned());
        service
            .devices
            .push(Device::from_str(&format!("{source}:{target}:{access}"))?);
    }
    for rule in host.device_cgroup_rules.iter().flatten() {
        service
            .device_cgroup_rules
            .push(DeviceRule::from_str(rule)?);
    }
    for (target, options) in host.tmpfs.iter().flatten() {
        let line = match options.is_empty() {
            true => target.clone(),
            false => format!("{target}:{options}"),
        };
        service.tmpfs.0.push(Tmpfs::from_str(&line)?);
    }
    Ok(())
}

/// Docker's list, less what is dropped, and what is added: adding wins.
fn capabilities(host: &HostConfig) -> Result<Vec<Capability>, String> {
    let read = |list: &Option<Vec<String>>| {
        let list = list.iter().flatten();
        list.map(|name| Capability::from_str(name))
            .collect::<Result<Vec<_>, _>>()
    };
    let (added, dropped) = (read(&host.cap_add)?, read(&host.cap_drop)?);
    let has_all = |list: &[Capability]| list.iter().any(|capability| capability.0 == "ALL");
    let base: &[&str] = match (has_all(&added), has_all(&dropped)) {
        (true, _) => &crate::spec::CAPABILITIES,
        (_, true) => &[],
        _ => &CAPABILITIES,
    };
    let mut kept: Vec<Capability> = base
        .iter()
        .map(|name| Capability((*name).to_owned()))
        .filter(|capability| !dropped.contains(capability))
        .collect();
    kept.extend(added.into_iter().filter(|capability| capability.0 != "ALL"));
    Ok(kept)
}

/// A namespace of its own, or the host's.
fn namespace(what: &str, mode: Option<&str>) -> Result<Option<Namespace>, String> {
    match mode {
        None | Some("" | "private" | "shareable") => Ok(None),
        Some("host") => Ok(Some(Namespace::Host)),
        Some(other) => Err(format!("invalid {what}: {other}")),
    }
}

/// As a shell would set them, one after the other; a name without a value takes one away.
fn environment(body: &ContainerCreateBody) -> Pairs {
    let mut variables = BTreeMap::new();
    for variable in body.env.iter().flatten() {
        match variable.split_once('=') {
            Some((name, value)) => {
                variables.insert(name.to_owned(), value.to_owned());
            }
            None => drop(variables.remove(variable)),
        }
    }
    Pairs(variables)
}

fn health_check(check: &HealthConfig) -> Option<HealthCheck> {
    let test = check.test.clone().filter(|test| !test.is_empty())?;
    // Docker counts in nanoseconds; 0 is the default.
    let span = |nanoseconds: Option<i64>| {
        let nanoseconds = u64::try_from(nanoseconds?).ok()?;
        (nanoseconds > 0).then(|| Span(Duration::from_nanos(nanoseconds)))
    };
    Some(HealthCheck {
        test: OneOrMany(test.into_iter().map(Text).collect()),
        interval: span(check.interval),
        timeout: span(check.timeout),
        retries: check
            .retries
            .and_then(|count| u32::try_from(count).ok())
            .filter(|count| *count > 0),
        start_period: span(check.start_period),
        start_interval: span(check.start_interval),
        disable: false,
    })
}

/// A negative number is for ever.
pub fn grace_period(seconds: i64) -> Duration {
    let forever = Duration::from_secs(u64::from(u32::MAX));
    u64::try_from(seconds).map_or(forever, Duration::from_secs)
}

/// A text that says something.
fn text(given: &Option<String>) -> Option<String> {
    given.clone().filter(|text| !text.is_empty())
}

fn parsed(signal: &Option<String>) -> Result<Option<StopSignal>, String> {
    text(signal).map(|name| name.parse()).transpose()
}

#[cfg(test)]
mod tests;
