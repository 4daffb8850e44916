//! The control group tree (cgroup v2): `init`, `engine`, `system` and `user`, so that applications at their worst
//! leave the system services what they need.

use crate::{files, kmsg};
use anyhow::{Context as _, Result};
use std::path::{Path, PathBuf};

const ROOT: &str = "/sys/fs/cgroup";
const MIB: u64 = 1 << 20;
/// Kept free for the system beside the applications: this much, or this part of the memory when that is more.
const SYSTEM_RESERVE_BYTES: u64 = 160 * MIB;
const SYSTEM_RESERVE_PERCENT: u64 = 12;
/// The part of all process numbers that the applications may use.
const USER_PIDS_PERCENT: u64 = 80;

/// Shares of the processors, which count where several groups want one: applications leave the system what it needs.
pub(crate) const WEIGHTS: [(&str, u16); 4] = [
    (INIT, 1000),
    (ENGINE, 1000),
    ("system", 1000),
    ("user", 100),
];
/// The same until the user engine is up, which is what a boot is for.
const BOOT_WEIGHTS: [(&str, u16); 4] = [
    (INIT, 5000),
    (ENGINE, 5000),
    ("system", 100),
    ("user", 5000),
];

/// The group of PID 1 and its own children.
pub(crate) const INIT: &str = "init";
/// The group of the engine and its helpers.
pub(crate) const ENGINE: &str = "engine";
/// The groups with processes of others, in the order in which they are killed.
pub(crate) const OTHERS: [&str; 3] = ["user", "system", ENGINE];

/// A file of a group.
pub(crate) fn file(group: &str, name: &str) -> PathBuf {
    Path::new(ROOT).join(group).join(name)
}

/// Makes the tree and moves PID 1 into its own group.
pub(super) fn make_tree() {
    for group in [INIT, ENGINE, "system", "user"] {
        kmsg::tolerate(
            "going on without a control group",
            files::make_directory(Path::new(ROOT).join(group)),
        );
    }
    kmsg::tolerate(
        "move PID 1 to its control group",
        files::set(file(INIT, "cgroup.procs"), "1"),
    );
    // Controllers can be handed down only from a group without processes of its own: after the move.
    for group in ["", "system", "user"] {
        kmsg::tolerate("hand controllers down", hand_down(group));
    }
    weigh(&BOOT_WEIGHTS);
    for (group, name, value) in limits() {
        kmsg::tolerate(
            "going on without a limit",
            files::set(file(group, name), &value),
        );
    }
}

/// Shares the processors out.
pub(crate) fn weigh(weights: &[(&str, u16)]) {
    for (group, weight) in weights {
        kmsg::tolerate(
            "going on without a share of the processors",
            files::set(file(group, "cpu.weight"), &weight.to_string()),
        );
    }
}

fn hand_down(group: &str) -> Result<()> {
    let directory = Path::new(ROOT).join(group);
    let available = files::get(directory.join("cgroup.controllers"))?;
    let wanted: Vec<String> = available
        .split_ascii_whitespace()
        .map(|name| format!("+{name}"))
        .collect();
    files::set(directory.join("cgroup.subtree_control"), &wanted.join(" "))
}

fn limits() -> Vec<(&'static str, &'static str, String)> {
    let mut limits = vec![
        ("system", "memory.min", (64 * MIB).to_string()),
        (ENGINE, "memory.min", (16 * MIB).to_string()),
        (INIT, "memory.min", (4 * MIB).to_string()),
    ];
    if let Some(bytes) = kmsg::tolerate("limit the applications' memory", user_memory_bytes()) {
        limits.push(("user", "memory.max", bytes.to_string()));
    }
    if let Some(pids) = kmsg::tolerate("limit the applications' processes", user_pids()) {
        limits.push(("user", "pids.max", pids.to_string()));
    }
    limits
}

fn user_memory_bytes() -> Result<u64> {
    let text = files::get("/proc/meminfo")?;
    total_memory_bytes(&text)
        .map(user_share)
        .context("no MemTotal in /proc/meminfo")
}

fn total_memory_bytes(meminfo: &str) -> Option<u64> {
    let value = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))?;
    value
        .trim()
        .strip_suffix(" kB")?
        .parse::<u64>()
        .ok()?
        .checked_mul(1024)
}

/// What of the machine's memory the applications may use: never less than half.
fn user_share(total_bytes: u64) -> u64 {
    let part = (total_bytes / 100).saturating_mul(SYSTEM_RESERVE_PERCENT);
    total_bytes
        .saturating_sub(part.max(SYSTEM_RESERVE_BYTES))
        .max(total_bytes / 2)
}

fn user_pids() -> Result<u64> {
    let number = |path: &str| {
        files::get(path)?
            .parse::<u64>()
            .with_context(|| format!("read {path}"))
    };
    let all = number("/proc/sys/kernel/pid_max")?.min(number("/proc/sys/kernel/threads-max")?);
    Ok((all / 100).saturating_mul(USER_PIDS_PERCENT))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_system_keeps_its_share_of_the_memory() {
        for (total_mib, user_mib) in [(200, 100), (512, 352), (1024, 864), (4000, 3520)] {
            assert_eq!(
                user_share(total_mib * MIB) / MIB,
                user_mib,
                "{total_mib} MiB"
            );
        }
    }

    #[test]
    fn the_memory_is_read_from_meminfo() {
        assert_eq!(
            total_memory_bytes("MemTotal:        1000 kB\nMemFree: 1 kB\n"),
            Some(1_024_000)
        );
        assert_eq!(total_memory_bytes("MemFree: 1 kB\n"), None);
    }
}
