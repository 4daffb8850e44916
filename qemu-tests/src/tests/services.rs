//! What system services are and may do, read from `/proc` in the machine.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::harness::definition::{self, Definition};
use crate::harness::lab::Lab;
use crate::harness::observer::Observer;
use crate::harness::status::Status;

const SCRIPT_DEADLINE: Duration = Duration::from_secs(60);
const SHIPPED: &str = "system-services";
const TEST_ONLY: &str = "qemu-tests/services";
const OBSERVER: &str = "observer";
const ENGINE_CGROUP: &str = "/engine";

/// For each process: number, cgroup, capability sets, no_new_privs, seccomp mode; kernel threads are left out.
const PROCESSES: &str = r#"
for dir in /proc/[0-9]*; do
    { tr '\0' x <$dir/cmdline | grep -q .; } 2>/dev/null || continue
    awk -v pid=${dir#/proc/} -v cgroup="$(cut -d: -f3 $dir/cgroup 2>/dev/null)" '
        { value[$1] = $2 }
        END { print pid, cgroup, value["CapBnd:"], value["CapPrm:"], value["CapEff:"], value["CapInh:"],
              value["CapAmb:"], value["NoNewPrivs:"], value["Seccomp:"] }' $dir/status 2>/dev/null
done; true"#;

struct Process {
    pid: i32,
    cgroup: String,
    bounding: u64,
    held: u64,
    no_new_privileges: bool,
    seccomp: bool,
}

pub(super) fn pid_1_is_keelson_init(lab: &mut Lab) -> Result<()> {
    let (_vm, _ssh, mut observer) = lab.observed()?;
    let program = "/host/usr/lib/keelson/keelson-init";
    let script = format!("cmp /proc/1/exe {program} && readlink /proc/1/exe");
    let link = observer.run(&script, SCRIPT_DEADLINE)?;
    ensure!(link.ends_with("keelson-init"), "PID 1 is {link}");
    Ok(())
}

pub(super) fn the_test_image_has_the_shipped_services_and_its_own_only(
    lab: &mut Lab,
) -> Result<()> {
    let names = |status: &Status| -> BTreeSet<String> {
        status
            .services
            .iter()
            .map(|service| service.name.clone())
            .collect()
    };
    let (vm, ssh) = lab.booted()?;
    let shipped = names(&Status::read(&ssh)?);
    drop((ssh, vm));
    let (_vm, ssh, _) = lab.observed()?;
    let tested = names(&Status::read(&ssh)?);
    let own: BTreeSet<String> = definition::read_all(Path::new(TEST_ONLY))?
        .into_keys()
        .collect();
    let expected: BTreeSet<String> = shipped.union(&own).cloned().collect();
    ensure!(
        tested == expected,
        "the test image has {tested:?}, the shipped one {shipped:?}"
    );
    Ok(())
}

pub(super) fn every_system_service_is_a_container_with_its_own_root(lab: &mut Lab) -> Result<()> {
    let (_vm, ssh, mut observer) = lab.observed()?;
    let status = Status::read(&ssh)?;
    let definitions = definition::read_all(Path::new(SHIPPED))?;
    let look = |observer: &mut Observer, pid: i32| -> Result<Vec<String>> {
        let script = format!(
            "readlink /proc/{pid}/ns/mnt; stat -c %d:%i /proc/{pid}/root/.; \
             awk '$5 == \"/\" {{ print $6; sub(/.* - /, \"\"); print $1 }}' /proc/{pid}/mountinfo"
        );
        Ok(observer
            .run(&script, SCRIPT_DEADLINE)?
            .lines()
            .map(String::from)
            .collect())
    };
    let host = look(&mut observer, 1)?;
    let mut seen = BTreeMap::from([
        (host[0].clone(), "PID 1".to_owned()),
        (host[1].clone(), "PID 1".to_owned()),
    ]);
    for (name, pid) in status
        .pids()
        .into_iter()
        .filter(|(name, _)| name != OBSERVER)
    {
        let definition = definitions
            .get(&name)
            .with_context(|| format!("{name} has no service.yml"))?;
        let found = look(&mut observer, pid)?;
        let [namespace, root, options, file_system] = &found[..] else {
            anyhow::bail!("{name}'s mounts: {found:?}")
        };
        for own in [namespace, root] {
            if let Some(other) = seen.insert(own.clone(), name.clone()) {
                anyhow::bail!("{name} and {other} share {own}");
            }
        }
        ensure!(file_system == "overlay", "{name}'s root is {file_system}");
        let read_only = options.split(',').any(|option| option == "ro");
        ensure!(
            read_only == definition.read_only,
            "{name}'s root is mounted {options}"
        );
    }
    Ok(())
}

pub(super) fn capabilities_of_each_service_equal_its_service_yml(lab: &mut Lab) -> Result<()> {
    let (_vm, ssh, mut observer) = lab.observed()?;
    let pids = Status::read(&ssh)?.pids();
    let definitions = definition::read_all(Path::new(SHIPPED))?;
    let processes = processes(&mut observer)?;
    for (name, pid) in pids.iter().filter(|(name, _)| *name != OBSERVER) {
        let definition = definitions
            .get(name)
            .with_context(|| format!("{name} has no service.yml"))?;
        let allowed = definition
            .mask()
            .with_context(|| format!("reading {name}'s service.yml"))?;
        let main = processes.iter().find(|process| process.pid == *pid);
        let main = main.with_context(|| format!("{name} has no process {pid}"))?;
        ensure!(
            main.bounding == allowed,
            "{name} may have {:?} and its service.yml names {:?}",
            definition::names(main.bounding),
            definition::names(allowed)
        );
        for process in processes
            .iter()
            .filter(|process| within(&process.cgroup, &main.cgroup))
        {
            check_process(name, definition, process, allowed)?;
        }
    }
    Ok(())
}

fn check_process(
    name: &str,
    definition: &Definition,
    process: &Process,
    allowed: u64,
) -> Result<()> {
    let beyond = (process.held | process.bounding) & !allowed;
    ensure!(
        beyond == 0,
        "process {} of {name} holds {:?}",
        process.pid,
        definition::names(beyond)
    );
    if definition.privileged {
        return Ok(());
    }
    let says = |option: &str| definition.security_opt.iter().any(|own| own == option);
    ensure!(
        process.seccomp || says("seccomp=unconfined"),
        "process {} of {name} has no seccomp filter",
        process.pid
    );
    let may_gain = says("no-new-privileges:false") || says("no-new-privileges=false");
    ensure!(
        process.no_new_privileges || may_gain,
        "process {} of {name} may gain privileges",
        process.pid
    );
    Ok(())
}

pub(super) fn only_docker_is_privileged_and_every_capability_has_its_reason(
    lab: &mut Lab,
) -> Result<()> {
    let definitions = definition::read_all(Path::new(SHIPPED))?;
    let privileged: Vec<&String> = definitions
        .iter()
        .filter(|(_, one)| one.privileged)
        .map(|(name, _)| name)
        .collect();
    ensure!(
        privileged == ["docker"],
        "these services are privileged: {privileged:?}"
    );
    for (file, text) in definition::files(Path::new(SHIPPED))? {
        let entries = text.lines().filter(|line| {
            line.trim_start()
                .strip_prefix("- ")
                .is_some_and(is_capability)
        });
        for entry in entries {
            ensure!(
                entry.contains(" # "),
                "{file} gives no reason for {}",
                entry.trim()
            );
        }
    }

    // And in the machine: no process outside of PID 1, the engine, docker and those that name it could use SYS_ADMIN.
    let (_vm, ssh, mut observer) = lab.observed()?;
    let pids = Status::read(&ssh)?.pids();
    let processes = processes(&mut observer)?;
    let admin = 1_u64 << definition::number("SYS_ADMIN")?;
    let mut excused = vec!["/init".to_owned(), ENGINE_CGROUP.to_owned()];
    for (name, pid) in &pids {
        let named = name == OBSERVER
            || definitions
                .get(name)
                .is_some_and(|one| one.mask().unwrap_or(0) & admin != 0);
        if let (true, Some(main)) = (named, processes.iter().find(|process| process.pid == *pid)) {
            excused.push(main.cgroup.clone());
        }
    }
    for process in processes
        .iter()
        .filter(|process| process.bounding & admin != 0)
    {
        let known = excused.iter().any(|cgroup| within(&process.cgroup, cgroup));
        ensure!(
            known,
            "process {} in {} may have SYS_ADMIN",
            process.pid,
            process.cgroup
        );
    }
    Ok(())
}

fn is_capability(entry: &str) -> bool {
    definition::number(entry.split_whitespace().next().unwrap_or_default()).is_ok()
}

fn within(cgroup: &str, parent: &str) -> bool {
    cgroup
        .strip_prefix(parent)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// As the network service does when a lease names time servers, and when they are gone.
pub(super) fn chronyd_hears_of_time_servers_that_come_and_go(lab: &mut Lab) -> Result<()> {
    let (_vm, ssh, mut observer) = lab.observed()?;
    let pids = Status::read(&ssh)?.pids();
    let chronyd = pids.get("time").context("the time service does not run")?;
    let directory = "/host/run/keelson/network/chrony";
    let sources = format!("nsenter -t {chronyd} -m /usr/bin/chronyc -n sources");
    let wait_for = |what: &str| {
        format!(
            "for i in $(seq 100); do {sources} | {what} && exit 0; sleep 0.2; done; {sources}; exit 1"
        )
    };
    ensure!(
        !observer
            .run(&sources, SCRIPT_DEADLINE)?
            .contains("192.0.2.77"),
        "chronyd knows the server before it was named"
    );
    let add = format!(
        "echo 'server 192.0.2.77 iburst' >{directory}/new && mv {directory}/new {directory}/test.sources"
    );
    observer.run(&add, SCRIPT_DEADLINE)?;
    observer.run(&wait_for("grep -F 192.0.2.77"), SCRIPT_DEADLINE)?;
    observer.run(&format!("rm {directory}/test.sources"), SCRIPT_DEADLINE)?;
    observer.run(&wait_for("{ ! grep -F 192.0.2.77; }"), SCRIPT_DEADLINE)?;
    Ok(())
}

fn processes(observer: &mut Observer) -> Result<Vec<Process>> {
    let text = observer.run(PROCESSES, SCRIPT_DEADLINE)?;
    text.lines()
        .filter(|line| line.split_whitespace().count() == 9)
        .map(parse_process)
        .collect()
}

fn parse_process(line: &str) -> Result<Process> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let mask = |index: usize| {
        u64::from_str_radix(words[index], 16).with_context(|| format!("reading {line}"))
    };
    Ok(Process {
        pid: words[0]
            .parse()
            .with_context(|| format!("reading {line}"))?,
        cgroup: words[1].to_owned(),
        bounding: mask(2)?,
        held: mask(3)? | mask(4)? | mask(5)? | mask(6)?,
        no_new_privileges: words[7] == "1",
        seccomp: words[8] != "0",
    })
}

#[cfg(test)]
mod unit {
    use super::*;

    #[test]
    fn a_line_of_the_observer_is_read() {
        let process = parse_process("12 /system/log 0000000000200001 1 1 0 0 1 2").unwrap();
        assert_eq!(
            (process.pid, process.bounding, process.held),
            (12, 0x20_0001, 1)
        );
        assert!(process.no_new_privileges && process.seccomp);
        assert!(within("/system/log/x", "/system/log") && !within("/system/log2", "/system/log"));
    }
}
