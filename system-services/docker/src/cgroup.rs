//! Control groups (cgroup v2) within this container: `init` for this process, the daemons and the shims, `docker` for
//! the applications. A group with processes of its own can hand no controllers down, so the root is emptied first.
//!
//! The applications' group is a little smaller than what all of the container may have: however bad an application
//! is, dockerd still has the memory and the processes that it takes to remove it.

use anyhow::{Context, Result};
use std::fs;
use std::path::Path;

/// dockerd's own name for the parent of all its containers.
pub const APPLICATIONS: &str = "docker";
const OURS: &str = "init";
const MIB: u64 = 1 << 20;

/// The machine's limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Machine {
    /// `MemTotal`, in bytes.
    pub memory_bytes: u64,
    /// The largest number of processes and threads.
    pub pids: u64,
}

/// What the applications may use together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// `memory.max`
    pub memory_bytes: u64,
    /// `pids.max`
    pub pids: u64,
}

impl Limits {
    /// All of it without the system's share (which the `user` group around this container does not have either) and
    /// without the daemons'.
    #[must_use]
    pub fn for_applications(machine: Machine) -> Self {
        let Machine { memory_bytes, pids } = machine;
        let system = (160 * MIB).max(memory_bytes / 100 * 12);
        let daemons = (96 * MIB).max(memory_bytes / 100 * 5);
        Self {
            memory_bytes: memory_bytes
                .saturating_sub(system + daemons)
                .max(memory_bytes / 3),
            pids: pids / 100 * 75,
        }
    }
}

/// Makes both groups, moves this process to its own, hands the controllers down and sets the limits. Gives what did
/// not work: a machine without a controller still runs Docker.
///
/// # Errors
/// This process cannot be moved: then no container could start.
pub fn prepare(root: &Path) -> Result<Vec<String>> {
    let ours = root.join(OURS);
    make(&ours)?;
    // 0 is the process that writes.
    write(&ours.join("cgroup.procs"), "0")?;
    let mut complaints = Vec::new();
    let mut note =
        |result: Result<()>| complaints.extend(result.err().map(|error| format!("{error:#}")));
    let controllers = fs::read_to_string(root.join("cgroup.controllers")).unwrap_or_default();
    for controller in controllers.split_whitespace() {
        note(write(
            &root.join("cgroup.subtree_control"),
            &format!("+{controller}"),
        ));
    }
    note(limit_applications(root));
    Ok(complaints)
}

fn limit_applications(root: &Path) -> Result<()> {
    let applications = root.join(APPLICATIONS);
    make(&applications)?;
    let limits = Limits::for_applications(machine()?);
    write(
        &applications.join("memory.max"),
        &limits.memory_bytes.to_string(),
    )?;
    write(&applications.join("pids.max"), &limits.pids.to_string())
}

/// Kills all applications at once.
///
/// # Errors
/// What writing `cgroup.kill` reports.
pub fn kill_applications(root: &Path) -> Result<()> {
    write(&root.join(APPLICATIONS).join("cgroup.kill"), "1")
}

fn machine() -> Result<Machine> {
    let read = |path: &str| fs::read_to_string(path).with_context(|| format!("reading {path}"));
    let number = |path: &str| -> Result<u64> {
        read(path)?
            .trim()
            .parse()
            .with_context(|| format!("reading {path}"))
    };
    let meminfo = read("/proc/meminfo")?;
    let memory_kib: u64 = meminfo
        .lines()
        .find_map(|line| {
            line.strip_prefix("MemTotal:")?
                .trim()
                .strip_suffix(" kB")?
                .parse()
                .ok()
        })
        .context("no MemTotal in /proc/meminfo")?;
    Ok(Machine {
        memory_bytes: memory_kib * 1024,
        pids: number("/proc/sys/kernel/pid_max")?.min(number("/proc/sys/kernel/threads-max")?),
    })
}

fn make(directory: &Path) -> Result<()> {
    fs::create_dir_all(directory).with_context(|| format!("making {}", directory.display()))
}

fn write(file: &Path, value: &str) -> Result<()> {
    fs::write(file, value).with_context(|| format!("writing {value:?} to {}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_daemons_keep_a_share_on_small_and_large_machines() {
        let bytes = |mib: u64| mib * MIB;
        for (total_mib, applications_mib) in [(512, 256), (2048, 1699), (65_536, 54_394)] {
            let machine = Machine {
                memory_bytes: bytes(total_mib),
                pids: 32_768,
            };
            let limits = Limits::for_applications(machine);
            assert_eq!(limits.memory_bytes / MIB, applications_mib, "{total_mib}");
            // PID 1 gives the container 80 of 100.
            assert!(limits.pids < machine.pids / 100 * 80);
        }
    }

    #[test]
    fn the_groups_are_made_and_what_is_missing_is_told() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        fs::write(root.join("cgroup.controllers"), "cpu memory\n").unwrap();
        let complaints = prepare(root).unwrap();
        assert_eq!(complaints, Vec::<String>::new());
        assert_eq!(
            fs::read_to_string(root.join("init/cgroup.procs")).unwrap(),
            "0"
        );
        // A plain file keeps the last write only.
        assert_eq!(
            fs::read_to_string(root.join("cgroup.subtree_control")).unwrap(),
            "+memory"
        );
        assert!(root.join("docker/memory.max").exists());
        kill_applications(root).unwrap();
    }
}
