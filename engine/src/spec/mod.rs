//! From a service definition to the `config.json` of the OCI runtime specification 1.2.
//!
//! - [`process`]: arguments, environment, capabilities, limits
//! - [`user`]: names of users and groups, looked up in the image
//! - [`mounts`]: file systems and volumes
//! - [`devices`]: device nodes and which may be opened
//! - [`linux`]: namespaces, cgroup, resources, seccomp, masked paths
//!
//! Everything that is not asked for is dropped: no capability, no device beyond the standard ones, a namespace of
//! each kind, seccomp, no new privileges. `privileged` is the opposite, as in Docker.

pub mod devices;
pub mod linux;
pub mod mounts;
pub mod process;
pub mod user;

pub use process::rlimit_name;

use crate::compose::{Definition, Namespace};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// Capabilities of the kernel, without `CAP_`, in its order (capabilities(7)).
pub const CAPABILITIES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// Where the directory with a service's sd_notify socket is mounted in its container.
pub const NOTIFY_TARGET: &str = "/run/keelson-notify";

/// What the configuration depends on beside the definition.
#[derive(Debug)]
pub struct Host<'a> {
    /// The root directory in which names of users are looked up.
    pub image: &'a Path,
    /// Where the container's root file system is mounted.
    pub rootfs: &'a Path,
    /// The host directory with the service's sd_notify socket.
    pub notify: &'a Path,
    /// The network namespace to join, when it is that of another one.
    pub network: Option<&'a Path>,
    /// Files that are mounted over those of the image: path in the container, path on the host.
    pub files: &'a [(PathBuf, PathBuf)],
    /// The seccomp profile in Docker's format; `None` is no filter at all.
    pub seccomp: Option<&'a [u8]>,
    /// Whether this machine lets services be limited: controllers, device rules, OOM scores.
    pub limits: bool,
}

/// A configuration, and what a person should know about it.
#[derive(Debug)]
pub struct Config {
    /// The content of `config.json`.
    pub json: Value,
    /// Things that were asked for and are left out.
    pub warnings: Vec<String>,
}

/// Makes the configuration of a service's container.
///
/// # Errors
/// Says which key asks for something that this image or machine does not have.
pub fn build(definition: &Definition, host: &Host<'_>) -> anyhow::Result<Config> {
    let service = &definition.service;
    let mut warnings = Vec::new();
    let devices = devices::resolve(definition, &mut warnings);
    let mut json = json!({
        "ociVersion": "1.0.2",
        "root": { "path": host.rootfs, "readonly": service.read_only },
        "process": process::build(definition, host)?,
        "mounts": mounts::build(definition, host),
        "linux": linux::build(definition, host, &devices, &mut warnings)?,
    });
    if service.uts != Some(Namespace::Host) {
        json["hostname"] = service
            .hostname
            .as_deref()
            .unwrap_or(&definition.name)
            .into();
    }
    Ok(Config { json, warnings })
}

#[cfg(test)]
mod tests;
