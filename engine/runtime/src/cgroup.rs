//! The cgroup of a container (cgroup v2, Documentation/admin-guide/cgroup-v2.rst of Linux).

use std::fs::{self, File};
use std::io::{ErrorKind, Read as _, Seek as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use serde_json::Value;

/// Where cgroup v2 is mounted.
const MOUNT_POINT: &str = "/sys/fs/cgroup";
/// How long killed processes may take to leave their cgroup.
const EMPTY_DEADLINE: Duration = Duration::from_secs(5);
/// How long processes may take to stand still: one that waits for a disk does so only afterwards.
const FREEZE_DEADLINE: Duration = Duration::from_secs(10);

/// A cgroup that need not exist.
#[derive(Debug)]
pub(crate) struct Cgroup {
    /// Below the mount point, with a slash in front.
    path: String,
    directory: PathBuf,
}

impl Cgroup {
    /// The cgroup in a container's explicit configuration.
    ///
    /// # Errors
    /// When none is named.
    pub(crate) fn of(config: &Value) -> anyhow::Result<Self> {
        let path = config["linux"]["cgroupsPath"]
            .as_str()
            .context("the container's cgroup is not known")?;
        Ok(Self {
            path: path.to_owned(),
            directory: Path::new(MOUNT_POINT).join(path.trim_start_matches('/')),
        })
    }

    /// Its path below the mount point.
    pub(crate) fn path(&self) -> &str {
        &self.path
    }

    /// Whether there are processes in it or below it; no when it does not exist.
    pub(crate) fn is_populated(&self) -> bool {
        fs::read_to_string(self.directory.join("cgroup.events"))
            .is_ok_and(|events| has_line(&events, "populated 1"))
    }

    /// Where in it a process can be added, as a path below it: where `init` is, once controllers are handed down,
    /// for then the cgroup itself takes no processes ("No Internal Process Constraint"). `None` is the cgroup itself.
    ///
    /// # Errors
    /// When the kernel does not say.
    pub(crate) fn place_for_another(&self, init: i32) -> anyhow::Result<Option<String>> {
        let file = self.directory.join("cgroup.subtree_control");
        let handed_down =
            fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))?;
        if handed_down.trim().is_empty() {
            return Ok(None);
        }
        let file = format!("/proc/{init}/cgroup");
        let text = fs::read_to_string(&file).with_context(|| format!("read {file}"))?;
        Ok(below(&text, &self.path).map(str::to_owned))
    }

    /// Stops all processes in it or lets them go on, and waits until that is so.
    ///
    /// # Errors
    /// When they do not stand still in time; then they go on.
    pub(crate) fn set_frozen(&self, frozen: bool) -> anyhow::Result<()> {
        self.write("cgroup.freeze", if frozen { "1" } else { "0" })?;
        let wanted = if frozen { "frozen 1" } else { "frozen 0" };
        let reached = wait_for_line(
            &self.directory.join("cgroup.events"),
            wanted,
            FREEZE_DEADLINE,
        )
        .with_context(|| format!("wait until the cgroup {} says {wanted:?}", self.path));
        if frozen && reached.is_err() {
            self.write("cgroup.freeze", "0")?;
        }
        reached
    }

    /// Kills what is in it, frozen or not, and removes it with its descendants.
    ///
    /// # Errors
    /// When the processes do not end in time.
    pub(crate) fn remove(&self) -> anyhow::Result<()> {
        if !self.directory.exists() {
            return Ok(());
        }
        self.write("cgroup.kill", "1")?;
        let deadline = Instant::now() + EMPTY_DEADLINE;
        loop {
            match remove_tree(&self.directory) {
                Ok(()) => return Ok(()),
                // Killed processes leave their cgroup when they end, not when they are reaped; there is no
                // event to wait for that does not cost more than this look.
                Err(error)
                    if error.kind() == ErrorKind::ResourceBusy && Instant::now() < deadline =>
                {
                    std::thread::sleep(Duration::from_millis(1));
                }
                Err(error) => {
                    return Err(error).with_context(|| format!("remove the cgroup {}", self.path));
                }
            }
        }
    }

    fn write(&self, file: &str, text: &str) -> anyhow::Result<()> {
        fs::write(self.directory.join(file), text)
            .with_context(|| format!("write {text} to {file} of the cgroup {}", self.path))
    }
}

fn remove_tree(cgroup: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(cgroup)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_tree(&entry.path())?;
        }
    }
    fs::remove_dir(cgroup)
}

/// From `/proc/PID/cgroup`, the process's place below a cgroup; `None` when it is not below it.
fn below<'a>(text: &'a str, cgroup: &str) -> Option<&'a str> {
    let path = text.lines().find_map(|line| line.strip_prefix("0::"))?;
    path.strip_prefix(cgroup)?.strip_prefix('/')
}

fn has_line(text: &str, wanted: &str) -> bool {
    text.lines().any(|line| line == wanted)
}

/// The kernel reports a changed events file as a priority event to who has read it before.
fn wait_for_line(path: &Path, wanted: &str, timeout: Duration) -> anyhow::Result<()> {
    let deadline = Instant::now() + timeout;
    let mut file = File::open(path).with_context(|| format!("open {}", path.display()))?;
    loop {
        let mut text = String::new();
        file.rewind()
            .and_then(|()| file.read_to_string(&mut text))
            .with_context(|| format!("read {}", path.display()))?;
        if has_line(&text, wanted) {
            return Ok(());
        }
        let left = deadline.saturating_duration_since(Instant::now());
        let left = Timespec::try_from(left).context("the deadline")?;
        match poll(&mut [PollFd::new(&file, PollFlags::PRI)], Some(&left)) {
            Ok(0) => bail!("not within {timeout:?}"),
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error).context("wait"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_line_that_does_not_come_is_an_error_in_time() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(&file, "populated 1\nfrozen 0\n").unwrap();
        wait_for_line(file.path(), "frozen 0", Duration::ZERO).unwrap();
        assert!(wait_for_line(file.path(), "frozen 1", Duration::ZERO).is_err());
    }

    #[test]
    fn a_process_is_below_a_cgroup_or_not() {
        assert_eq!(
            below("0::/system/web/inner/most\n", "/system/web"),
            Some("inner/most")
        );
        for text in [
            "0::/system/web\n",
            "0::/system/website/inner\n",
            "1:pids:/system/web/inner\n",
            "",
        ] {
            assert_eq!(below(text, "/system/web"), None, "{text}");
        }
    }

    #[test]
    fn a_cgroup_that_does_not_exist_is_empty_and_removed() {
        let cgroup = Cgroup::of(&json!({ "linux": { "cgroupsPath": "/no/such" } })).unwrap();
        assert!(!cgroup.is_populated());
        cgroup.remove().unwrap();
        assert!(Cgroup::of(&json!({})).is_err());
    }
}
