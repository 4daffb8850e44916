//! Mounts that libcontainer 0.7 gets wrong, and what is done instead.
//!
//! - A bind mount at `/dev`: libcontainer would create its device nodes in the *source* and replace its
//!   `ptmx`. It gets a tmpfs instead, which the real source covers once init waits for its start.
//! - Propagation (`rprivate`, `rslave` ...) and `ro` at `/dev` are ignored: set afterwards.
//! - `shared` cannot come of a mount that was cut off from the host's before: the host's own mount is put on top of it.
//! - Other options that are ignored are refused.

use std::path::{Component, Path, PathBuf};

use anyhow::{Context as _, bail};
use rustix::mount::{MountFlags, MountPropagationFlags};
use serde_json::{Value, json};

/// Mount work in the container's mount namespace, between `create` and `start`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum LateMount {
    /// Covers `/dev` with a host directory; `above` are mounts below `/dev` that stay visible on top.
    Dev {
        source: PathBuf,
        recursive: bool,
        flags: MountFlags,
        above: Vec<PathBuf>,
    },
    /// Sets the propagation of a mount point.
    Propagation {
        destination: PathBuf,
        propagation: MountPropagationFlags,
    },
    /// Covers a mount point with the host's mount, so that mounts travel both ways.
    Shared {
        source: PathBuf,
        destination: PathBuf,
        recursive: bool,
        flags: MountFlags,
    },
    /// Makes a mount point read-only.
    ReadOnly { destination: PathBuf },
}

/// Where a container's pseudo terminals are.
const PTS: &str = "/dev/pts";
/// Where the terminal of a container's init is too.
pub(crate) const CONSOLE: &str = "/dev/console";

impl LateMount {
    /// The host directory at `/dev`, when the container has no pseudo terminals but those in it.
    pub(crate) fn dev_with_terminals(&self) -> Option<&Path> {
        match self {
            Self::Dev {
                source,
                recursive: true,
                above,
                ..
            } if !above.iter().any(|path| path == Path::new(PTS)) => Some(source),
            _ => None,
        }
    }
}

/// Options that change nothing or that libcontainer turns into mount attributes itself.
const ATTRIBUTES: &[&str] = &[
    "defaults",
    "ro",
    "rw",
    "suid",
    "nosuid",
    "dev",
    "nodev",
    "exec",
    "noexec",
    "atime",
    "noatime",
    "diratime",
    "nodiratime",
    "relatime",
    "norelatime",
    "strictatime",
    "nostrictatime",
    "bind",
    "rbind",
    "async",
    "nomand",
    "rro",
    "rrw",
    "rsuid",
    "rnosuid",
    "rdev",
    "rnodev",
    "rexec",
    "rnoexec",
    "rdiratime",
    "rnodiratime",
    "rrelatime",
    "rnorelatime",
    "rnoatime",
    "ratime",
    "rstrictatime",
    "rnostrictatime",
    "rsymfollow",
    "rnosymfollow",
];

/// Options that libcontainer accepts and forgets.
const IGNORED: &[&str] = &[
    "sync",
    "dirsync",
    "mand",
    "remount",
    "symfollow",
    "nosymfollow",
];

const SHARED: [&str; 2] = ["shared", "rshared"];

/// Checks the mounts, and takes out of them what has to be done later.
///
/// # Errors
/// Names the mount and the option that cannot be honoured.
pub(super) fn take_late(config: &mut Value) -> anyhow::Result<Vec<LateMount>> {
    let mut late = Vec::new();
    let mut covered_dev = None;
    let device_nodes = paths(&config["linux"]["devices"], "path");
    let terminal = config["process"]["terminal"] == true;
    let Some(mounts) = config["mounts"].as_array_mut() else {
        return Ok(late);
    };
    for mount in mounts {
        let place = mount["destination"]
            .as_str()
            .context("a mount has no destination")?
            .to_owned();
        let destination = plain(&place).with_context(|| format!("mount {place:?}"))?;
        check_options(mount).with_context(|| format!("mount {place:?}"))?;
        if options(mount).any(|option| SHARED.contains(&option)) {
            late.push(share(mount, &destination).with_context(|| format!("mount {place:?}"))?);
        }
        for option in options(mount) {
            if let Some(propagation) = propagation(option) {
                late.push(LateMount::Propagation {
                    destination: destination.clone(),
                    propagation,
                });
            }
        }
        if destination == Path::new("/dev") {
            if is_bind(mount) {
                covered_dev = Some(late.len());
                late.push(cover_dev(mount)?);
            } else if options(mount).any(|option| option == "ro") {
                late.push(LateMount::ReadOnly { destination });
            }
        } else if destination.starts_with("/dev")
            && let Some(LateMount::Dev { above, .. }) =
                covered_dev.and_then(|index| late.get_mut(index))
        {
            above.push(destination);
        }
    }
    if let Some(LateMount::Dev { source, above, .. }) =
        covered_dev.and_then(|index| late.get_mut(index))
    {
        nodes_exist(source, &device_nodes)?;
        if terminal && above.iter().any(|path| path == Path::new(PTS)) {
            // libcontainer mounts the terminal there.
            above.push(CONSOLE.into());
        }
    }
    // Propagation of a covered /dev concerns what covers it.
    late.sort_by_key(|work| !matches!(work, LateMount::Dev { .. }));
    Ok(late)
}

/// Has a bind mount made in private, for the host's to cover it.
fn share(mount: &mut Value, destination: &Path) -> anyhow::Result<LateMount> {
    if !is_bind(mount) || destination == Path::new("/dev") {
        bail!("only a bind mount elsewhere than at /dev can be shared");
    }
    let source = mount["source"].as_str().context("it has no source")?;
    let work = LateMount::Shared {
        source: source.into(),
        destination: destination.to_owned(),
        recursive: options(mount).any(|option| option == "rbind"),
        flags: flags(mount),
    };
    let kept = options(mount).filter(|option| !SHARED.contains(option));
    mount["options"] = kept.collect::<Vec<_>>().into();
    Ok(work)
}

/// Those of its options that are flags of a mount point.
fn flags(mount: &Value) -> MountFlags {
    let flag = |option: &str| match option {
        "ro" => MountFlags::RDONLY,
        "nosuid" => MountFlags::NOSUID,
        "noexec" => MountFlags::NOEXEC,
        "nodev" => MountFlags::NODEV,
        _ => MountFlags::empty(),
    };
    options(mount).map(flag).collect()
}

/// Replaces a bind mount at `/dev` by an empty tmpfs for libcontainer to fill.
fn cover_dev(mount: &mut Value) -> anyhow::Result<LateMount> {
    let source = PathBuf::from(
        mount["source"]
            .as_str()
            .context("mount \"/dev\" has no source")?,
    );
    let recursive = options(mount).any(|option| option == "rbind");
    let flags = flags(mount);
    if flags.contains(MountFlags::NODEV) {
        bail!("mount \"/dev\": nodev would make every device useless");
    }
    *mount = json!({
        "destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755", "size=64k"],
    });
    Ok(LateMount::Dev {
        source,
        recursive,
        flags,
        above: Vec::new(),
    })
}

/// With the host's devices at `/dev`, nodes asked for must be among them.
fn nodes_exist(source: &Path, nodes: &[PathBuf]) -> anyhow::Result<()> {
    for node in nodes {
        let relative = node
            .strip_prefix("/dev")
            .with_context(|| format!("device {}", node.display()))?;
        if !source.join(relative).exists() {
            bail!(
                "linux.devices: {} does not exist in {}, which is mounted at /dev",
                node.display(),
                source.display()
            );
        }
    }
    Ok(())
}

fn check_options(mount: &Value) -> anyhow::Result<()> {
    if !mount["uidMappings"].is_null() || !mount["gidMappings"].is_null() {
        bail!("idmapped mounts are not supported");
    }
    for option in options(mount) {
        if IGNORED.contains(&option) || option.contains("idmap") {
            bail!("option {option:?} is not supported");
        }
        // Other file systems get unknown options from libcontainer and refuse them; a bind mount has none.
        let is_known = ATTRIBUTES.contains(&option) || SHARED.contains(&option);
        if is_bind(mount) && !is_known && propagation(option).is_none() {
            bail!("option {option:?} is unknown for a bind mount");
        }
    }
    Ok(())
}

fn options(mount: &Value) -> impl Iterator<Item = &str> {
    mount["options"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
}

fn is_bind(mount: &Value) -> bool {
    mount["type"] == "bind" || options(mount).any(|option| option == "bind" || option == "rbind")
}

fn propagation(option: &str) -> Option<MountPropagationFlags> {
    let (base, recursive) = match option.strip_prefix('r') {
        Some(base @ ("private" | "slave" | "unbindable")) => (base, MountPropagationFlags::REC),
        _ => (option, MountPropagationFlags::empty()),
    };
    let kind = match base {
        "private" => MountPropagationFlags::PRIVATE,
        "slave" => MountPropagationFlags::DOWNSTREAM,
        "unbindable" => MountPropagationFlags::UNBINDABLE,
        _ => return None,
    };
    Some(kind | recursive)
}

/// An absolute path without `.` and `..`.
fn plain(text: &str) -> anyhow::Result<PathBuf> {
    let path = Path::new(text);
    let parts = path.components();
    if !path.is_absolute()
        || !parts
            .clone()
            .all(|part| matches!(part, Component::RootDir | Component::Normal(_)))
    {
        bail!("the destination must be absolute, without \"..\"");
    }
    Ok(parts.collect())
}

fn paths(list: &Value, key: &str) -> Vec<PathBuf> {
    list.as_array()
        .into_iter()
        .flatten()
        .filter_map(|item| item[key].as_str().map(PathBuf::from))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn late(mounts: Value) -> Result<(Vec<LateMount>, Value), String> {
        let mut config = json!({ "mounts": mounts, "linux": {} });
        let late = take_late(&mut config).map_err(|error| format!("{error:#}"))?;
        Ok((late, config["mounts"].take()))
    }

    #[test]
    fn the_hosts_devices_cover_a_tmpfs_and_later_mounts_stay_on_top() {
        let (late, mounts) = late(json!([
            { "destination": "/dev", "type": "bind", "source": "/dev", "options": ["rbind", "rslave", "noexec"] },
            { "destination": "/dev/shm", "type": "tmpfs", "source": "shm" },
        ]))
        .unwrap();
        assert_eq!(mounts[0]["type"], "tmpfs");
        assert_eq!(
            late[0],
            LateMount::Dev {
                source: "/dev".into(),
                recursive: true,
                flags: MountFlags::NOEXEC,
                above: vec!["/dev/shm".into()],
            }
        );
        assert_eq!(
            late[1],
            LateMount::Propagation {
                destination: "/dev".into(),
                propagation: MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC,
            }
        );
    }

    #[test]
    fn a_terminal_stays_on_top_of_the_hosts_devices() {
        let dev = json!({ "destination": "/dev", "type": "bind", "source": "/dev", "options": ["rbind"] });
        let pts = json!({ "destination": "/dev/pts", "type": "devpts", "source": "devpts" });
        let process = json!({ "terminal": true });
        let mut config = json!({ "mounts": [dev, pts], "linux": {}, "process": process });
        let own = take_late(&mut config).unwrap();
        assert!(matches!(&own[0], LateMount::Dev { above, .. }
            if *above == [PathBuf::from(PTS), PathBuf::from(CONSOLE)]));
        assert_eq!(own[0].dev_with_terminals(), None);

        let mut config = json!({ "mounts": [dev], "linux": {}, "process": process });
        let hosts = take_late(&mut config).unwrap();
        assert_eq!(hosts[0].dev_with_terminals(), Some(Path::new("/dev")));
    }

    #[test]
    fn a_read_only_dev_is_made_so_later() {
        let (late, _) =
            late(json!([{ "destination": "/dev/", "type": "tmpfs", "options": ["ro"] }])).unwrap();
        assert_eq!(
            late,
            [LateMount::ReadOnly {
                destination: "/dev".into()
            }]
        );
    }

    #[test]
    fn options_that_would_be_forgotten_are_refused() {
        for (mount, expected) in [
            (
                json!({ "destination": "/a", "type": "tmpfs", "options": ["rshared"] }),
                "only a bind mount",
            ),
            (
                json!({ "destination": "/a", "type": "tmpfs", "options": ["sync"] }),
                "\"sync\"",
            ),
            (
                json!({ "destination": "/a", "type": "bind", "options": ["size=1k"] }),
                "unknown for a bind mount",
            ),
            (
                json!({ "destination": "a", "type": "tmpfs" }),
                "must be absolute",
            ),
            (
                json!({ "destination": "/a/../b", "type": "tmpfs" }),
                "without \"..\"",
            ),
            (
                json!({ "destination": "/dev", "type": "bind", "source": "/dev", "options": ["nodev"] }),
                "nodev",
            ),
            (json!({ "type": "tmpfs" }), "no destination"),
        ] {
            let error = late(json!([mount.clone()])).unwrap_err();
            assert!(error.contains(expected), "{mount}: {error}");
        }
    }
}
