//! The two halves of the cgroup tree that services live in. PID 1 makes them; without PID 1 they are made here, as far
//! as the machine allows.

use crate::compose::Slice;
use std::fs;
use std::path::{Path, PathBuf};

/// Services are not limited without these.
const CONTROLLERS: [&str; 3] = ["cpu", "memory", "pids"];

/// Makes the slices and passes the controllers down to them. Returns whether services can be limited.
pub fn prepare(root: &Path) -> bool {
    let enable = CONTROLLERS.map(|name| format!("+{name}")).join(" ");
    for directory in [root.to_owned(), root.join("system"), root.join("user")] {
        let _ = fs::create_dir(&directory);
        let _ = fs::write(directory.join("cgroup.subtree_control"), &enable);
        // Only limits on disks need it.
        let _ = fs::write(directory.join("cgroup.subtree_control"), "+io");
    }
    let enabled =
        fs::read_to_string(root.join("system/cgroup.subtree_control")).unwrap_or_default();
    CONTROLLERS
        .iter()
        .all(|name| enabled.split_whitespace().any(|word| word == *name))
}

/// The cgroup of a service or a container.
pub fn cgroup(root: &Path, slice: Slice, name: &str) -> PathBuf {
    root.join(slice.as_str()).join(name)
}

/// Memory charged to a service, in bytes.
pub fn memory_bytes(root: &Path, slice: Slice, service: &str) -> Option<u64> {
    let file = cgroup(root, slice, service).join("memory.current");
    fs::read_to_string(file).ok()?.trim().parse().ok()
}

/// Whether the kernel has killed a process of a service because memory ran out (`oom_kill` in `memory.events`).
pub fn out_of_memory(root: &Path, slice: Slice, service: &str) -> bool {
    let file = cgroup(root, slice, service).join("memory.events");
    let text = fs::read_to_string(file).unwrap_or_default();
    let count = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
    count.is_some_and(|count| count.trim() != "0")
}
