//! The `mounts` array: kernel file systems, the service's volumes and tmpfs, its notify socket.

use super::{Host, NOTIFY_TARGET};
use crate::compose::volume::Kind;
use crate::compose::{Definition, Kind as Origin, Namespace};
use serde_json::{Value, json};
use std::path::Path;

/// Most that `/dev/shm` holds unless told.
pub(crate) const SHM_BYTES: u64 = 64 << 20;

/// One mount, before it is turned into JSON.
#[derive(Clone, Debug)]
struct Mount {
    target: String,
    kind: &'static str,
    source: String,
    options: Vec<String>,
}

fn mount(target: &str, kind: &'static str, options: &str) -> Mount {
    let source = if kind == "bind" {
        String::new()
    } else {
        kind.to_owned()
    };
    Mount {
        target: target.to_owned(),
        kind,
        source,
        options: options.split(',').map(str::to_owned).collect(),
    }
}

fn bind(source: &str, target: &str, options: &str) -> Mount {
    Mount {
        source: source.to_owned(),
        ..mount(target, "bind", options)
    }
}

/// Whether the container sees the host's `/dev`: a volume there, or privileged (so that devices plugged in later are
/// seen as well).
pub(super) fn replaces_dev(definition: &Definition) -> bool {
    let service = &definition.service;
    service.privileged
        || service
            .volumes
            .iter()
            .any(|volume| volume.target == "/dev" && volume.kind == Kind::Bind)
}

/// Makes the array: parents before what is mounted below them.
pub(super) fn build(definition: &Definition, host: &Host<'_>) -> Value {
    let mut mounts = standard(definition);
    if definition.kind == Origin::Service {
        mounts.push(bind(
            &host.notify.to_string_lossy(),
            NOTIFY_TARGET,
            "bind,rprivate,nosuid,nodev,noexec",
        ));
    }
    for (target, source) in host.files {
        let (source, target) = (source.to_string_lossy(), target.to_string_lossy());
        mounts.push(bind(&source, &target, "bind,rprivate"));
    }
    let mut replace = |new: Mount| {
        mounts.retain(|old| old.target != new.target);
        mounts.push(new);
    };
    for tmpfs in &definition.service.tmpfs.0 {
        // Docker's own defaults for what its clients make.
        let defaults = match definition.kind {
            Origin::Service => "nosuid,nodev,mode=755",
            Origin::Container => "noexec,nosuid,nodev,mode=1777",
        };
        let mut new = mount(&tmpfs.target, "tmpfs", defaults);
        for option in &tmpfs.options {
            // mount(8) takes the last one, runtimes do not agree on it: what is given replaces the default.
            let key = option.split('=').next().unwrap_or_default();
            let opposite = key
                .strip_prefix("no")
                .map_or_else(|| format!("no{key}"), str::to_owned);
            new.options
                .retain(|old| old.split('=').next() != Some(key) && *old != opposite);
            new.options.push(option.clone());
        }
        replace(new);
    }
    for volume in &definition.service.volumes {
        let access = if volume.read_only { "ro" } else { "rw" };
        replace(match volume.kind {
            Kind::Bind => {
                let options = format!("rbind,{},{access}", volume.propagation.as_str());
                bind(&volume.source, &volume.target, &options)
            }
            Kind::Tmpfs => {
                let mode = volume.mode.map_or(0o755, |mode| mode.0);
                let mut new = mount(
                    &volume.target,
                    "tmpfs",
                    &format!("nosuid,nodev,{access},mode={mode:o}"),
                );
                new.options
                    .extend(volume.size.map(|size| format!("size={}", size.0)));
                new
            }
        });
    }
    // Stable: what was named first stays first among mounts of the same depth.
    mounts.sort_by_key(|mount| {
        mount
            .target
            .split('/')
            .filter(|part| !part.is_empty())
            .count()
    });
    mounts
        .iter()
        .map(|mount| {
            json!({ "destination": mount.target, "type": mount.kind, "source": mount.source, "options": mount.options })
        })
        .collect()
}

/// What a container has without asking for it.
fn standard(definition: &Definition) -> Vec<Mount> {
    let service = &definition.service;
    let access = if service.privileged { "rw" } else { "ro" };
    let shm_bytes = service.shm_size.map_or(SHM_BYTES, |size| size.0);
    let mut mounts = vec![
        mount("/proc", "proc", "nosuid,noexec,nodev"),
        mount("/sys", "sysfs", &format!("nosuid,noexec,nodev,{access}")),
    ];
    if definition.kind == Origin::Service {
        mounts.push(mount("/run", "tmpfs", "nosuid,nodev,mode=755"));
        mounts.push(mount("/tmp", "tmpfs", "nosuid,nodev,mode=1777"));
    }
    mounts.push(match service.cgroup {
        Some(Namespace::Host) => bind(
            "/sys/fs/cgroup",
            "/sys/fs/cgroup",
            &format!("rbind,rprivate,nosuid,noexec,nodev,{access}"),
        ),
        _ => Mount {
            source: "cgroup".to_owned(),
            ..mount(
                "/sys/fs/cgroup",
                "cgroup",
                &format!("nosuid,noexec,nodev,relatime,{access}"),
            )
        },
    });
    if service.privileged {
        mounts.push(bind("/dev", "/dev", "rbind,rprivate"));
    } else if !replaces_dev(definition) {
        mounts.push(mount(
            "/dev",
            "tmpfs",
            "nosuid,noexec,strictatime,mode=755,size=65536k",
        ));
        mounts.push(mount(
            "/dev/pts",
            "devpts",
            "nosuid,noexec,newinstance,ptmxmode=0666,mode=0620,gid=5",
        ));
        mounts.push(mount(
            "/dev/shm",
            "tmpfs",
            &format!("nosuid,noexec,nodev,mode=1777,size={shm_bytes}"),
        ));
        mounts.push(mount("/dev/mqueue", "mqueue", "nosuid,noexec,nodev"));
    }
    mounts
}

/// Paths in the container that a mount needs, each with whether it is a directory there.
pub(crate) fn targets(config: &Value) -> Vec<(String, bool)> {
    let mounts = config["mounts"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default();
    mounts
        .iter()
        .filter_map(|mount| {
            let is_directory =
                mount["type"] != "bind" || Path::new(mount["source"].as_str()?).is_dir();
            Some((mount["destination"].as_str()?.to_owned(), is_directory))
        })
        .collect()
}
