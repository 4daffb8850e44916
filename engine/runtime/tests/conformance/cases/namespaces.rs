//! Namespaces, host name and sysctls.

use std::fs;

use serde_json::{Value, json};

use crate::container::{Workplace, contains, same};
use crate::suite::{Case, Need};

/// The specification's names and the kernel's.
const KINDS: &[(&str, &str)] = &[
    ("mount", "mnt"),
    ("pid", "pid"),
    ("ipc", "ipc"),
    ("uts", "uts"),
    ("network", "net"),
    ("cgroup", "cgroup"),
];

pub(super) const CASES: &[Case] = &[
    Case {
        name: "each-namespace-asked-for-is-a-new-one",
        needs: &[],
        run: all_new,
    },
    Case {
        name: "a-namespace-not-asked-for-is-the-hosts",
        needs: &[],
        run: not_asked,
    },
    Case {
        name: "an-existing-namespace-is-joined",
        needs: &[],
        run: joined,
    },
    Case {
        name: "init-is-process-1-and-sees-no-others",
        needs: &[],
        run: pid_one,
    },
    Case {
        name: "the-host-name-is-the-containers-own",
        needs: &[],
        run: host_name,
    },
    Case {
        name: "the-cgroup-namespace-begins-at-the-containers-cgroup",
        needs: &[],
        run: cgroup,
    },
    Case {
        name: "namespaced-sysctls-are-set-in-the-container-only",
        needs: &[],
        run: sysctls,
    },
    Case {
        name: "a-sysctl-of-the-whole-machine-is-refused",
        needs: &[],
        run: global_sysctl,
    },
    Case {
        name: "a-sysctl-of-a-shared-namespace-is-refused",
        needs: &[],
        run: shared_sysctl,
    },
    Case {
        name: "a-host-name-without-a-namespace-for-it-is-refused",
        needs: &[],
        run: shared_host_name,
    },
    Case {
        name: "a-missing-mount-namespace-is-refused",
        needs: &[Need::Keelson],
        run: no_mounts,
    },
];

fn links(place: &Workplace, config: &Value) -> anyhow::Result<Vec<String>> {
    Ok(place.print(config)?.lines().map(str::to_owned).collect())
}

fn script() -> String {
    KINDS
        .iter()
        .map(|(_, kernel)| format!("readlink /proc/self/ns/{kernel};"))
        .collect()
}

fn own(kernel: &str) -> anyhow::Result<String> {
    Ok(fs::read_link(format!("/proc/self/ns/{kernel}"))?
        .to_string_lossy()
        .into_owned())
}

fn all_new(place: &Workplace) -> anyhow::Result<()> {
    let links = links(place, &place.config(&script()))?;
    for ((name, kernel), link) in KINDS.iter().zip(&links) {
        same(
            &format!("{name} namespace is the host's"),
            link == &own(kernel)?,
            false,
        )?;
    }
    same("number of namespaces", links.len(), KINDS.len())
}

fn without(config: &mut Value, kind: &str) {
    if let Some(all) = config["linux"]["namespaces"].as_array_mut() {
        all.retain(|one| one["type"] != kind);
    }
}

fn not_asked(place: &Workplace) -> anyhow::Result<()> {
    for (name, kernel) in KINDS.iter().skip(1) {
        let mut config = place.config(&format!("readlink /proc/self/ns/{kernel}"));
        without(&mut config, name);
        same(
            &format!("{name} namespace"),
            place.print(&config)?,
            own(kernel)?,
        )?;
    }
    Ok(())
}

fn joined(place: &Workplace) -> anyhow::Result<()> {
    let first = place.create("first", &place.config("sleep 1000"))?;
    for (name, kernel) in [("network", "net"), ("ipc", "ipc"), ("uts", "uts")] {
        let path = format!("/proc/{}/ns/{kernel}", first.pid);
        let expected = fs::read_link(&path)?.to_string_lossy().into_owned();
        let mut config = place.config(&format!("readlink /proc/self/ns/{kernel}"));
        config["linux"]["cgroupsPath"] = place.cgroup("second").into();
        without(&mut config, name);
        if let Some(all) = config["linux"]["namespaces"].as_array_mut() {
            all.push(json!({ "type": name, "path": path }));
        }
        same(
            &format!("{name} namespace"),
            place.print(&config)?,
            expected,
        )?;
    }
    Ok(())
}

fn pid_one(place: &Workplace) -> anyhow::Result<()> {
    // Both are the shell's own commands, so no other process comes into being.
    let text = place.print(&place.config("echo $$; echo /proc/[0-9]*"))?;
    same("output", text.as_str(), "1\n/proc/1")
}

fn host_name(place: &Workplace) -> anyhow::Result<()> {
    let before = fs::read_to_string("/proc/sys/kernel/hostname")?;
    let mut config = place.config("hostname");
    config["hostname"] = "inside".into();
    same("host name inside", place.print(&config)?.as_str(), "inside")?;
    same(
        "host name outside",
        fs::read_to_string("/proc/sys/kernel/hostname")?,
        before,
    )
}

fn cgroup(place: &Workplace) -> anyhow::Result<()> {
    let container = place.create("c", &place.config("cat /proc/self/cgroup"))?;
    let outside = fs::read_to_string(format!("/proc/{}/cgroup", container.pid))?;
    contains(
        "the cgroup seen from outside",
        &outside,
        &format!("0::{}", place.cgroup("c")),
    )?;
    container.start()?;
    contains(
        "the cgroup seen from inside",
        &container.wait()?.stdout,
        "0::/",
    )?;
    let mut shared = place.config("cat /proc/self/cgroup");
    without(&mut shared, "cgroup");
    drop(container);
    contains(
        "the cgroup without a namespace",
        &place.print(&shared)?,
        &place.cgroup("c"),
    )
}

fn sysctls(place: &Workplace) -> anyhow::Result<()> {
    let path = "/proc/sys/kernel/msgmax";
    let before = fs::read_to_string(path)?;
    let mut config =
        place.config("cat /proc/sys/kernel/msgmax /proc/sys/net/ipv4/ip_unprivileged_port_start");
    config["linux"]["sysctl"] =
        json!({ "kernel.msgmax": "4321", "net.ipv4.ip_unprivileged_port_start": "77" });
    same("sysctls inside", place.print(&config)?.as_str(), "4321\n77")?;
    same("sysctl outside", fs::read_to_string(path)?, before)
}

fn global_sysctl(place: &Workplace) -> anyhow::Result<()> {
    let before = fs::read_to_string("/proc/sys/kernel/panic")?;
    let mut config = place.config("true");
    config["linux"]["sysctl"] = json!({ "kernel.panic": "99" });
    let refusal = place.refusal(&config);
    let after = fs::read_to_string("/proc/sys/kernel/panic")?;
    fs::write("/proc/sys/kernel/panic", before.trim())?;
    same("kernel.panic", after, before)?;
    contains("the reason", &refusal?, "kernel")
}

fn shared_sysctl(place: &Workplace) -> anyhow::Result<()> {
    let mut config = place.config("true");
    without(&mut config, "network");
    config["linux"]["sysctl"] = json!({ "net.ipv4.ip_forward": "0" });
    contains("the reason", &place.refusal(&config)?, "net")
}

fn shared_host_name(place: &Workplace) -> anyhow::Result<()> {
    let before = fs::read_to_string("/proc/sys/kernel/hostname")?;
    let mut config = place.config("true");
    without(&mut config, "uts");
    config["hostname"] = "outside".into();
    let refusal = place.refusal(&config);
    same(
        "host name outside",
        fs::read_to_string("/proc/sys/kernel/hostname")?,
        before,
    )?;
    refusal.map(|_| ())
}

fn no_mounts(place: &Workplace) -> anyhow::Result<()> {
    let mut config = place.config("true");
    without(&mut config, "mount");
    contains("the reason", &place.refusal(&config)?, "mount namespace")
}
