//! `GET /containers/NAME/json`.

use super::Context;
use super::connection;
use super::container::{self, Container};
use super::list::labels;
use super::system::{LOG_DRIVER, RUNTIME};
use crate::compose::NetworkMode;
use crate::compose::Service;
use crate::compose::values::Restart;
use crate::compose::volume::Kind;
use crate::containers::Stored;
use crate::network::DEFAULT;
use crate::server::Refused;
use crate::spec::linux::{MASKED, READONLY};
use crate::spec::mounts::SHM_BYTES;
use axum::extract::{Path, State};
use axum::response::Json;
use bollard_stubs::models::{
    ContainerConfig, ContainerInspectResponse, ContainerState, ContainerStateStatusEnum,
    EndpointSettings, Health, HostConfig, HostConfigCgroupnsModeEnum, HostConfigLogConfig,
    MountPoint, NetworkSettings, RestartPolicy, RestartPolicyNameEnum,
};
use std::collections::HashMap;
use std::time::SystemTime;

/// What Docker writes for a moment that has not been.
const NEVER: &str = "0001-01-01T00:00:00Z";

pub(super) async fn inspect(
    State(context): State<Context>,
    Path(name): Path<String>,
) -> Result<Json<ContainerInspectResponse>, Refused> {
    let container = container::find(&context.engine, &name).await?;
    let mut answer = inspected(&container);
    if container.stored.is_some() && container.started().is_some() {
        let directory = context.paths.options.container(&container.key);
        let file = |name: &str| Some(directory.join(name).display().to_string());
        answer.hostname_path = file("hostname");
        answer.hosts_path = file("hosts");
        answer.resolv_conf_path = file("resolv.conf");
    }
    Ok(Json(answer))
}

fn inspected(container: &Container) -> ContainerInspectResponse {
    let service = &container.service;
    let (path, args) = match container.arguments.split_first() {
        Some((path, args)) => (path.clone(), args.to_vec()),
        None => (String::new(), Vec::new()),
    };
    let stored = container.stored.as_deref();
    let (config, host_config) = match stored {
        Some(stored) => asked_for(stored),
        None => (config(container), host_config(&container.definition)),
    };
    ContainerInspectResponse {
        id: Some(container.id.clone()),
        created: Some(humantime::format_rfc3339_nanos(container.created()).to_string()),
        path: Some(path),
        args: Some(args),
        state: Some(state(container)),
        image: Some(
            stored
                .map_or(&service.image, |stored| &stored.image_id)
                .clone(),
        ),
        name: Some(format!("/{}", service.name)),
        restart_count: Some(i64::from(service.restarts)),
        driver: Some("overlay".to_owned()),
        platform: Some("linux".to_owned()),
        host_config: Some(host_config),
        mounts: Some(mounts(container)),
        config: Some(config),
        network_settings: Some(NetworkSettings {
            ports: Some(connection::ports(&container.connection, exposed(container))),
            networks: Some(places(container)),
            ..NetworkSettings::default()
        }),
        ..ContainerInspectResponse::default()
    }
}

/// Ports that its image or whoever made it says that it has.
pub(super) fn exposed(container: &Container) -> &[String] {
    let stored = container.stored.as_ref();
    let ports = stored.and_then(|stored| stored.body.exposed_ports.as_deref());
    ports.unwrap_or_default()
}

/// The networks that it is in, or was asked to be in.
pub(super) fn places(container: &Container) -> HashMap<String, EndpointSettings> {
    let stored = container.stored.as_ref();
    let config = stored.and_then(|stored| stored.body.networking_config.as_ref());
    let asked = config.and_then(|config| config.endpoints_config.as_ref());
    let mut places = connection::places(&container.connection, asked);
    for (network, place) in &mut places {
        if network != DEFAULT && place.endpoint_id.is_some() {
            let mut names = vec![container.service.name.clone()];
            names.extend(place.aliases.iter().flatten().cloned());
            names.push(container.key.clone());
            place.dns_names = Some(names);
        }
    }
    if let Some(mode) = &container.definition.network_mode
        && !matches!(mode, NetworkMode::Container(_))
    {
        places.entry(mode.as_text().into_owned()).or_default();
    }
    // Clients call the default network by either name.
    places.remove("default");
    places
}

/// What the client that made it asked for, as an image has it.
pub(super) fn config_of(stored: &Stored) -> serde_json::Value {
    serde_json::to_value(asked_for(stored).0).unwrap_or_default()
}

/// What the client that made it asked for, in the form that it is shown in.
fn asked_for(stored: &Stored) -> (ContainerConfig, HostConfig) {
    // The two types have the same keys.
    let config = serde_json::to_value(&stored.body).and_then(serde_json::from_value);
    let mut config: ContainerConfig = config.unwrap_or_default();
    if config.hostname.as_ref().is_none_or(String::is_empty) {
        config.hostname = Some(stored.key().to_owned());
    }
    let mut host = stored.body.host_config.clone().unwrap_or_default();
    fill_in(&mut host);
    (config, host)
}

/// What a client did not say, as it is.
fn fill_in(host: &mut HostConfig) {
    let named = |text: &Option<String>| text.as_ref().is_some_and(|text| !text.is_empty());
    if !named(&host.ipc_mode) {
        host.ipc_mode = Some("private".to_owned());
    }
    if !named(&host.runtime) {
        host.runtime = Some(RUNTIME.to_owned());
    }
    host.cgroupns_mode
        .get_or_insert(HostConfigCgroupnsModeEnum::PRIVATE);
    host.log_config = Some(HostConfigLogConfig {
        typ: Some(LOG_DRIVER.to_owned()),
        config: None,
    });
    if host.shm_size.unwrap_or(0) == 0 {
        host.shm_size = i64::try_from(SHM_BYTES).ok();
    }
    if host.memory_swap.unwrap_or(0) == 0 {
        host.memory_swap = host.memory.map(|bytes| bytes.saturating_mul(2));
    }
    host.console_size.get_or_insert_with(|| vec![0, 0]);
    if host.privileged != Some(true) && host.masked_paths.is_none() {
        host.masked_paths = Some(MASKED.map(str::to_owned).to_vec());
        host.readonly_paths = Some(READONLY.map(str::to_owned).to_vec());
    }
}

fn state(container: &Container) -> ContainerState {
    let service = &container.service;
    let status = container.status();
    let moment = |moment: Option<SystemTime>| match moment {
        Some(moment) => humantime::format_rfc3339_nanos(moment).to_string(),
        None => NEVER.to_owned(),
    };
    let failed = service.state == crate::api::State::Failed && service.started_us.is_none();
    ContainerState {
        status: Some(status),
        running: Some(container.is_up()),
        paused: Some(container.paused),
        restarting: Some(status == ContainerStateStatusEnum::RESTARTING),
        oom_killed: Some(container.out_of_memory),
        dead: Some(false),
        pid: Some(service.pid.unwrap_or(0).into()),
        exit_code: Some(if service.pid.is_some() {
            0
        } else {
            container.exit_code.into()
        }),
        error: Some(
            service
                .detail
                .clone()
                .filter(|_| failed)
                .unwrap_or_default(),
        ),
        started_at: Some(moment(container.started())),
        finished_at: Some(moment(container.ended())),
        health: container.health.map(|status| Health {
            status: Some(status),
            ..Health::default()
        }),
    }
}

fn host_config(service: &Service) -> HostConfig {
    let capabilities = |list: &[crate::compose::values::Capability]| {
        Some(list.iter().map(|capability| capability.0.clone()).collect())
    };
    let mode = |namespace: Option<crate::compose::Namespace>| {
        namespace.map(|namespace| namespace.as_str().to_owned())
    };
    HostConfig {
        network_mode: service
            .network_mode
            .as_ref()
            .map(|mode| mode.as_text().into_owned()),
        privileged: Some(service.privileged),
        readonly_rootfs: Some(service.read_only),
        cap_add: capabilities(&service.cap_add),
        cap_drop: capabilities(&service.cap_drop),
        restart_policy: Some(restart_policy(service.restart)),
        pid_mode: mode(service.pid),
        ipc_mode: mode(service.ipc),
        uts_mode: mode(service.uts),
        cgroupns_mode: service.cgroup.and_then(|namespace| {
            namespace
                .as_str()
                .parse::<HostConfigCgroupnsModeEnum>()
                .ok()
        }),
        memory: service
            .mem_limit
            .and_then(|limit| i64::try_from(limit.0).ok()),
        memory_reservation: service
            .mem_reservation
            .and_then(|limit| i64::try_from(limit.0).ok()),
        // Ours are thousandths of a processor.
        nano_cpus: service
            .cpus
            .and_then(|cpus| i64::try_from(cpus.0 * 1_000_000).ok()),
        cpu_shares: service
            .cpu_shares
            .and_then(|shares| i64::try_from(shares).ok()),
        pids_limit: service.pids_limit,
        oom_score_adj: service.oom_score_adj.map(i64::from),
        binds: Some(
            service
                .volumes
                .iter()
                .filter(|volume| volume.kind == Kind::Bind)
                .map(|volume| {
                    let mode = if volume.read_only { "ro" } else { "rw" };
                    format!("{}:{}:{mode}", volume.source, volume.target)
                })
                .collect(),
        ),
        tmpfs: Some(
            service
                .tmpfs
                .0
                .iter()
                .map(|tmpfs| (tmpfs.target.clone(), tmpfs.options.join(",")))
                .collect(),
        ),
        ..HostConfig::default()
    }
}

fn restart_policy(restart: Restart) -> RestartPolicy {
    let (name, count) = match restart {
        Restart::No => (RestartPolicyNameEnum::NO, None),
        Restart::Always => (RestartPolicyNameEnum::ALWAYS, None),
        Restart::OnFailure(count) => (RestartPolicyNameEnum::ON_FAILURE, count),
        Restart::UnlessStopped => (RestartPolicyNameEnum::UNLESS_STOPPED, None),
    };
    RestartPolicy {
        name: Some(name),
        maximum_retry_count: Some(count.unwrap_or(0).into()),
    }
}

fn config(container: &Container) -> ContainerConfig {
    let definition = &container.definition;
    let words = |words: &Vec<String>| (!words.is_empty()).then(|| words.clone());
    let variables = definition.environment.0.iter();
    ContainerConfig {
        hostname: definition.hostname.clone(),
        user: definition.user.as_ref().map(|user| user.0.clone()),
        env: Some(
            variables
                .map(|(key, value)| format!("{key}={value}"))
                .collect(),
        ),
        cmd: words(&definition.command.0),
        entrypoint: words(&definition.entrypoint.0),
        image: Some(container.service.image.clone()),
        working_dir: definition.working_dir.clone(),
        labels: Some(labels(container)),
        tty: Some(false),
        open_stdin: Some(false),
        stop_signal: Some(signal_name(container.stop.0)),
        stop_timeout: i64::try_from(container.stop.1.as_secs()).ok(),
        ..ContainerConfig::default()
    }
}

fn signal_name(number: i32) -> String {
    match nix::sys::signal::Signal::try_from(number) {
        Ok(signal) => signal.to_string(),
        Err(_) => number.to_string(),
    }
}

/// What is mounted into it, besides what every container has.
pub(super) fn mounts(container: &Container) -> Vec<MountPoint> {
    let volumes = container.definition.volumes.iter();
    volumes
        .map(|volume| MountPoint {
            typ: Some(
                match (volume.kind, volume_name(&volume.source)) {
                    (Kind::Tmpfs, _) => "tmpfs",
                    (Kind::Bind, Some(_)) => "volume",
                    (Kind::Bind, None) => "bind",
                }
                .to_owned(),
            ),
            name: volume_name(&volume.source),
            driver: volume_name(&volume.source).map(|_| "local".to_owned()),
            source: Some(volume.source.clone()),
            destination: Some(volume.target.clone()),
            mode: Some(
                match (volume.read_only, volume_name(&volume.source)) {
                    (true, _) => "ro",
                    (false, Some(_)) => "z",
                    (false, None) => "",
                }
                .to_owned(),
            ),
            rw: Some(!volume.read_only),
            propagation: match volume_name(&volume.source) {
                Some(_) => None,
                None => Some(volume.propagation.as_str().to_owned()),
            },
        })
        .collect()
}

/// The name of the volume whose data these are.
fn volume_name(source: &str) -> Option<String> {
    let name = source.strip_suffix("/_data")?.rsplit_once("/volumes/")?.1;
    Some(name.to_owned())
}
