//! `GET /_ping`, `/version`, `/info`.

use super::container;
use super::{Context, VERSION, VERSIONS};
use crate::server::{Engine, Refused};
use axum::extract::State;
use axum::http::{HeaderName, header};
use axum::response::{IntoResponse, Json, Response};
use bollard_stubs::models::{
    ContainerStateStatusEnum as Status, LocalNodeState, PluginsInfo, Runtime, SwarmInfo,
    SystemInfo, SystemInfoCgroupDriverEnum, SystemInfoCgroupVersionEnum, SystemVersion,
    SystemVersionComponents, SystemVersionPlatform,
};
use nix::sys::utsname::uname;
use std::collections::HashMap;
use std::fs;
use std::time::SystemTime;

/// What containers run in.
pub(super) const RUNTIME: &str = "keelson-runtime";
/// Where what they print goes.
pub(super) const LOG_DRIVER: &str = "keelson-log";
const NAME: &str = "Keelson system engine";
/// Docker's name for this architecture in `/version`; `/info` has the kernel's.
const ARCHITECTURE: &str = "amd64";

/// Says which version clients should speak, in the headers.
pub(super) async fn ping() -> Response {
    let headers = [
        (HeaderName::from_static("api-version"), VERSION),
        (HeaderName::from_static("docker-experimental"), "false"),
        (HeaderName::from_static("ostype"), "linux"),
        (HeaderName::from_static("builder-version"), ""),
        (header::CACHE_CONTROL, "no-cache, no-store, must-revalidate"),
        (header::PRAGMA, "no-cache"),
    ];
    (headers, "OK").into_response()
}

/// What uname(2) says: release, machine.
fn kernel() -> (String, String) {
    let Ok(names) = uname() else {
        return Default::default();
    };
    let text = |text: &std::ffi::OsStr| text.to_string_lossy().into_owned();
    (text(names.release()), text(names.machine()))
}

pub(super) async fn version() -> Json<SystemVersion> {
    let version = env!("CARGO_PKG_VERSION").to_owned();
    Json(SystemVersion {
        platform: Some(SystemVersionPlatform {
            name: NAME.to_owned(),
        }),
        components: Some(vec![SystemVersionComponents {
            name: "Engine".to_owned(),
            version: version.clone(),
            details: Some(HashMap::from([
                ("ApiVersion".to_owned(), VERSION.to_owned()),
                ("Arch".to_owned(), ARCHITECTURE.to_owned()),
                ("Os".to_owned(), "linux".to_owned()),
                ("KernelVersion".to_owned(), kernel().0),
            ])),
        }]),
        version: Some(version),
        api_version: Some(VERSION.to_owned()),
        min_api_version: Some(VERSIONS[0].to_owned()),
        os: Some("linux".to_owned()),
        arch: Some(ARCHITECTURE.to_owned()),
        kernel_version: Some(kernel().0),
        ..SystemVersion::default()
    })
}

pub(super) async fn info(
    State(context): State<Context>,
    State(engine): State<Engine>,
) -> Result<Json<SystemInfo>, Refused> {
    let containers = container::all(&engine).await?;
    let count = |matches: &dyn Fn(Status) -> bool| {
        let matching = containers
            .iter()
            .filter(|container| matches(container.status()));
        i64::try_from(matching.count()).ok()
    };
    let (release, machine) = kernel();
    let images = crate::images::all(&context.paths.options).map_or(0, |all| all.len());
    let up = |status| matches!(status, Status::RUNNING | Status::RESTARTING);
    Ok(Json(SystemInfo {
        name: nix::unistd::gethostname()
            .ok()
            .map(|name| name.to_string_lossy().into_owned()),
        containers: i64::try_from(containers.len()).ok(),
        containers_running: count(&up),
        containers_paused: Some(0),
        containers_stopped: count(&|status| !up(status)),
        images: i64::try_from(images).ok(),
        driver: Some("overlay".to_owned()),
        docker_root_dir: Some(context.paths.options.state.display().to_string()),
        plugins: Some(PluginsInfo {
            volume: Some(vec!["local".to_owned()]),
            network: Some(["bridge", "host", "null"].map(str::to_owned).to_vec()),
            log: Some(vec![LOG_DRIVER.to_owned()]),
            ..PluginsInfo::default()
        }),
        logging_driver: Some(LOG_DRIVER.to_owned()),
        cgroup_driver: Some(SystemInfoCgroupDriverEnum::CGROUPFS),
        cgroup_version: Some(SystemInfoCgroupVersionEnum::_2),
        memory_limit: Some(true),
        swap_limit: Some(true),
        cpu_cfs_period: Some(true),
        cpu_cfs_quota: Some(true),
        cpu_shares: Some(true),
        cpu_set: Some(true),
        ipv4_forwarding: Some(forwards()),
        security_options: Some(
            ["name=seccomp,profile=builtin", "name=cgroupns"]
                .map(str::to_owned)
                .to_vec(),
        ),
        swarm: Some(SwarmInfo {
            local_node_state: Some(LocalNodeState::INACTIVE),
            ..SwarmInfo::default()
        }),
        runtimes: Some(HashMap::from([(
            RUNTIME.to_owned(),
            Runtime {
                path: Some(context.paths.options.runtime.display().to_string()),
                ..Runtime::default()
            },
        )])),
        os_version: Some(env!("CARGO_PKG_VERSION").to_owned()),
        pids_limit: Some(true),
        system_time: Some(humantime::format_rfc3339_nanos(SystemTime::now()).to_string()),
        kernel_version: Some(release),
        operating_system: Some(operating_system()),
        os_type: Some("linux".to_owned()),
        architecture: Some(machine),
        ncpu: std::thread::available_parallelism()
            .ok()
            .and_then(|count| i64::try_from(count.get()).ok()),
        mem_total: memory_bytes(),
        server_version: Some(env!("CARGO_PKG_VERSION").to_owned()),
        default_runtime: Some(RUNTIME.to_owned()),
        live_restore_enabled: Some(true),
        warnings: Some(Vec::new()),
        ..SystemInfo::default()
    }))
}

/// Whether packets pass from one interface to another.
fn forwards() -> bool {
    let text = fs::read_to_string("/proc/sys/net/ipv4/ip_forward");
    text.is_ok_and(|text| text.trim() == "1")
}

/// `PRETTY_NAME` of os-release(5).
fn operating_system() -> String {
    let text = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let name = text
        .lines()
        .find_map(|line| line.strip_prefix("PRETTY_NAME="));
    name.unwrap_or("Keelson").trim_matches('"').to_owned()
}

/// `MemTotal` of proc_meminfo(5), which counts in KiB.
fn memory_bytes() -> Option<i64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: i64 = line.split_whitespace().next()?.parse().ok()?;
    kib.checked_mul(1024)
}
