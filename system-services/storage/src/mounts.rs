//! What is mounted, by mount(8).

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use keelson_config::cloud_config::storage::{Mount, NO_DEVICE, place};

use crate::{Outcome, probe, program};

/// From this exit status on e2fsck(8) has left errors.
const ERRORS_LEFT: i32 = 4;

/// Whether a directory is shown in another place.
fn is_bind(mount: &Mount) -> bool {
    let mut options = mount.options.iter();
    options.any(|option| option == "bind" || option == "rbind")
}

/// In which order things are mounted: what is below another mount, or shows what is below it, comes after it.
pub(crate) fn order(mount: &Mount) -> usize {
    let depth = |path: &str| path.split('/').filter(|part| !part.is_empty()).count();
    let target = depth(mount.target.as_deref().unwrap_or_default());
    match is_bind(mount) {
        true => target.max(depth(&mount.source) + 1),
        false => target,
    }
}

/// Whether it is below one of these places, or shows what is there.
pub(crate) fn depends_on(mount: &Mount, places: &[String]) -> bool {
    let source = Some(&mount.source).filter(|_| is_bind(mount));
    let mut paths = mount.target.iter().chain(source);
    paths.any(|path| {
        let mut places = places.iter().map(|place| place.trim_end_matches('/'));
        places.any(|place| {
            let rest = path.strip_prefix(place);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        })
    })
}

/// Mounts it, unless something is mounted there.
///
/// # Errors
/// It cannot be mounted; or it has errors that only a person may mend.
pub(crate) fn mount(mount: &Mount) -> Result<Outcome> {
    let seen = mount.target.as_deref().context("a place is missing")?;
    let target = place(seen).with_context(|| format!("nothing is mounted at {seen}"))?;
    if is_mounted(&target)? {
        return Ok(Outcome::Done(None));
    }
    let is_bind = is_bind(mount);
    let source = if is_bind {
        let source = place(&mount.source)
            .with_context(|| format!("{} is not there for all", mount.source))?;
        fs::create_dir_all(&source).with_context(|| format!("make {source}"))?;
        source
    } else if NO_DEVICE.contains(&mount.kind.as_str()) {
        mount.source.clone()
    } else {
        let Some(device) = device(&mount.source)? else {
            return Ok(Outcome::Missing);
        };
        if mount.check {
            check(&device)?;
        }
        device
            .to_str()
            .context("a name that is no text")?
            .to_owned()
    };
    fs::create_dir_all(&target).with_context(|| format!("make {target}"))?;
    let options = mount.options.join(",");
    let mut arguments = vec!["--no-canonicalize"];
    if !is_bind && mount.kind != "none" {
        arguments.extend(["--types", &mount.kind]);
    }
    if !options.is_empty() {
        arguments.extend(["--options", &options]);
    }
    arguments.extend([source.as_str(), target.as_str()]);
    program::run("mount", &arguments, None)?;
    Ok(Outcome::Done(Some("is mounted".to_owned())))
}

/// Repairs what can be repaired without loss.
fn check(device: &Path) -> Result<()> {
    let kind = probe::content(device)?.kind;
    if !matches!(kind.as_deref(), Some("ext2" | "ext3" | "ext4")) {
        return Ok(());
    }
    // It is mounted elsewhere already.
    if probe::is_in_use(device)? {
        return Ok(());
    }
    let path = device.to_str().context("a name that is no text")?;
    let output = program::output("e2fsck", &["-p", path], None)?;
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    match output.status.code() {
        Some(0) => Ok(()),
        Some(code) if code < ERRORS_LEFT => {
            println!("<4>{path}: e2fsck has repaired it: {}", said.trim());
            Ok(())
        }
        _ => bail!(
            "e2fsck cannot repair it by itself, so it is not mounted: {}",
            said.trim()
        ),
    }
}

/// The device that a path or a tag (`LABEL=`, `UUID=`, `PARTLABEL=`, `PARTUUID=`) stands for; `None` when it is not there.
pub(crate) fn device(source: &str) -> Result<Option<PathBuf>> {
    if source.starts_with('/') {
        let device = probe::device(source);
        // A disk with partitions stands for its first one, as in cloud-init.
        let first = device
            .as_ref()
            .and_then(|device| probe::partitions(device).into_iter().next());
        return Ok(first.or(device));
    }
    if !source.contains('=') {
        bail!("`{source}` is no device");
    }
    let output = program::output(
        "blkid",
        &[
            "--cache-file",
            "/dev/null",
            "--match-token",
            source,
            "--output",
            "device",
        ],
        None,
    )?;
    let found = String::from_utf8_lossy(&output.stdout);
    Ok(found.lines().next().and_then(probe::device))
}

/// Whether something is mounted at `target` (/proc/self/mountinfo, proc(5)).
fn is_mounted(target: &str) -> Result<bool> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").context("read /proc/self/mountinfo")?;
    Ok(is_mounted_in(&mounts, target.trim_end_matches('/')))
}

/// The places themselves are mounts of this container's: of the directory of that name on the state partition.
fn is_mounted_in(mounts: &str, target: &str) -> bool {
    let fields = mounts.lines().filter_map(|line| {
        let mut fields = line.split(' ').skip(3);
        Some((fields.next()?, fields.next()?))
    });
    let mut here = fields.filter(|(_, place)| unescape(place) == target);
    let last = here.next_back().map(|(root, _)| unescape(root));
    last.is_some_and(|root| Some(root.as_str()) != target.strip_prefix("/state"))
}

/// A path as it is, of one with octal numbers for blanks and the like.
fn unescape(path: &str) -> String {
    let mut text = String::new();
    let mut rest = path;
    while let Some(at) = rest.find('\\') {
        text.push_str(&rest[..at]);
        let number = rest
            .get(at + 1..at + 4)
            .and_then(|it| u8::from_str_radix(it, 8).ok());
        match number {
            Some(number) => {
                text.push(char::from(number));
                rest = &rest[at + 4..];
            }
            None => {
                text.push('\\');
                rest = &rest[at + 1..];
            }
        }
    }
    text + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_no_mount_of_its_own_and_what_is_on_it_is() {
        let own = "1 0 254:4 /data /state/data rw shared:1 - ext4 /dev/vda4 rw\n";
        assert!(!is_mounted_in(own, "/state/data"));
        let more = format!(
            "{own}2 1 254:48 / /state/data rw - xfs /dev/vdd rw\n3 1 254:48 / /state/data/a\\040b rw - xfs /dev/vdd rw\n"
        );
        assert!(is_mounted_in(&more, "/state/data") && is_mounted_in(&more, "/state/data/a b"));
        assert!(!is_mounted_in(&more, "/state/mnt"));
    }

    #[test]
    fn what_shows_another_mount_comes_after_it() {
        let mount = |source: &str, target: &str, options: &[&str]| Mount {
            source: source.to_owned(),
            target: Some(target.to_owned()),
            kind: "auto".to_owned(),
            options: options.iter().map(|it| (*it).to_owned()).collect(),
            check: false,
        };
        let disk = mount("/dev/vdb", "/mnt/data", &[]);
        let bind = mount("/mnt/data/d", "/data", &["bind"]);
        let below = mount("/dev/vdc", "/mnt/data/e", &[]);
        assert!(order(&disk) < order(&bind) && order(&disk) < order(&below));
        let missing = ["/mnt/data".to_owned()];
        assert!(depends_on(&bind, &missing) && depends_on(&below, &missing));
        assert!(!depends_on(
            &mount("/dev/vdd", "/mnt/database", &[]),
            &missing
        ));
        assert!(!depends_on(&mount("/mnt/data", "/srv/x", &[]), &missing));
    }

    #[test]
    fn numbers_in_paths_are_letters() {
        assert_eq!(unescape("/mnt/Cdrom\\040Drive"), "/mnt/Cdrom Drive");
        assert_eq!(unescape("/a\\"), "/a\\");
    }
}
