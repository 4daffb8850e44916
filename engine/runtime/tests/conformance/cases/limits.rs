//! Limits of the container's cgroup, and that the kernel holds them.

use serde_json::json;

use crate::container::{Workplace, contains, same};
use crate::suite::{Case, Need};

const MEMORY: &[Need] = &[Need::Controller("memory")];
const PIDS: &[Need] = &[Need::Controller("pids")];
const CPU: &[Need] = &[Need::Controller("cpu")];

pub(super) const CASES: &[Case] = &[
    Case {
        name: "a-container-that-exceeds-its-memory-is-killed",
        needs: MEMORY,
        run: memory_held,
    },
    Case {
        name: "memory-limits-stand-in-the-cgroup",
        needs: MEMORY,
        run: memory_files,
    },
    Case {
        name: "a-container-cannot-have-more-processes-than-allowed",
        needs: PIDS,
        run: pids_held,
    },
    Case {
        name: "cpu-limits-stand-in-the-cgroup",
        needs: CPU,
        run: cpu_files,
    },
    Case {
        name: "a-container-cannot-use-more-cpu-than-allowed",
        needs: CPU,
        run: cpu_held,
    },
    Case {
        name: "other-cgroup-files-are-written-as-given",
        needs: MEMORY,
        run: unified,
    },
    Case {
        name: "a-limit-that-cannot-be-set-is-an-error",
        needs: &[],
        run: impossible,
    },
    Case {
        name: "the-cgroup-file-system-inside-is-read-only-and-the-containers-own",
        needs: &[],
        run: cgroup_mount,
    },
    Case {
        name: "a-cgroup-that-has-processes-is-refused",
        needs: &[Need::Keelson],
        run: populated,
    },
];

const MIB: u64 = 1 << 20;

fn memory_held(place: &Workplace) -> anyhow::Result<()> {
    let mut config = place.config("exec dd if=/dev/zero of=/dev/null bs=64M count=1");
    same("exit status without a limit", place.run(&config)?.code, 0)?;
    config["linux"]["resources"]["memory"] = json!({ "limit": 32 * MIB, "swap": 32 * MIB });
    same("exit status", place.run(&config)?.code, 128 + 9)
}

fn memory_files(place: &Workplace) -> anyhow::Result<()> {
    let mut config = place.config("true");
    config["linux"]["resources"]["memory"] =
        json!({ "limit": 64 * MIB, "reservation": 16 * MIB, "swap": 96 * MIB });
    let _container = place.create("c", &config)?;
    same(
        "memory.max",
        place.cgroup_file("c", "memory.max")?,
        (64 * MIB).to_string(),
    )?;
    same(
        "memory.low",
        place.cgroup_file("c", "memory.low")?,
        (16 * MIB).to_string(),
    )?;
    if std::fs::exists(format!(
        "/sys/fs/cgroup{}/memory.swap.max",
        place.cgroup("c")
    ))? {
        same(
            "memory.swap.max",
            place.cgroup_file("c", "memory.swap.max")?,
            (32 * MIB).to_string(),
        )?;
    }
    Ok(())
}

fn pids_held(place: &Workplace) -> anyhow::Result<()> {
    let mut config = place.config("for n in 1 2 3 4 5 6 7 8; do sleep 1 & done; echo end");
    same("exit status without a limit", place.run(&config)?.code, 0)?;
    config["linux"]["resources"]["pids"] = json!({ "limit": 4 });
    let ended = place.run(&config)?;
    contains("the shell's complaint", &ended.stderr, "can't fork")
}

fn cpu_files(place: &Workplace) -> anyhow::Result<()> {
    let mut config = place.config("true");
    config["linux"]["resources"]["cpu"] = json!({ "quota": 20000, "period": 50000, "shares": 2 });
    let _container = place.create("c", &config)?;
    same(
        "cpu.max",
        place.cgroup_file("c", "cpu.max")?.as_str(),
        "20000 50000",
    )?;
    same(
        "cpu.weight",
        place.cgroup_file("c", "cpu.weight")?.as_str(),
        "1",
    )
}

fn cpu_held(place: &Workplace) -> anyhow::Result<()> {
    let mut config = place.config("n=0; while test $n -lt 20000; do n=$((n+1)); done");
    config["linux"]["resources"]["cpu"] = json!({ "quota": 5000, "period": 100_000 });
    let container = place.create("c", &config)?;
    container.start()?;
    container.wait()?;
    let statistics = place.cgroup_file("c", "cpu.stat")?;
    let throttled: u64 = crate::container::field(&statistics, "nr_throttled")?.parse()?;
    same("it was throttled", throttled > 0, true)
}

fn unified(place: &Workplace) -> anyhow::Result<()> {
    let mut config = place.config("true");
    config["linux"]["resources"]["unified"] = json!({ "memory.high": (48 * MIB).to_string() });
    let _container = place.create("c", &config)?;
    same(
        "memory.high",
        place.cgroup_file("c", "memory.high")?,
        (48 * MIB).to_string(),
    )
}

fn impossible(place: &Workplace) -> anyhow::Result<()> {
    let mut config = place.config("true");
    config["linux"]["resources"]["unified"] = json!({ "no.such.file": "1" });
    place.refusal(&config).map(|_| ())
}

fn cgroup_mount(place: &Workplace) -> anyhow::Result<()> {
    let mut config = place.config(
        "ls /sys/fs/cgroup; mkdir /sys/fs/cgroup/new 2>&1; cat /sys/fs/cgroup/cgroup.procs",
    );
    if let Some(mounts) = config["mounts"].as_array_mut() {
        mounts.push(json!({ "destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["ro", "nosuid", "noexec", "nodev"] }));
        mounts.push(json!({ "destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["ro", "nosuid", "noexec", "nodev"] }));
    }
    let text = place.print(&config)?;
    contains("mkdir's answer", &text, "Read-only file system")?;
    // The root cgroup of the machine has no such file.
    contains("the files", &text, "cgroup.events")?;
    same(
        "it shows the machine's other cgroups",
        text.lines().any(|line| line == "conformance"),
        false,
    )
}

fn populated(place: &Workplace) -> anyhow::Result<()> {
    let _first = place.create("first", &place.config("sleep 1000"))?;
    contains(
        "the reason",
        &place.refusal(&place.config("true"))?,
        "still has processes",
    )
}
