//! What lives on when something else ends.

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::harness::docker::{self, IMAGE};
use crate::harness::lab::{Lab, SETTLE_DEADLINE};
use crate::harness::observer::Observer;
use crate::harness::ssh::Ssh;
use crate::harness::status::Status;
use crate::harness::vm::Vm;

const SCRIPT_DEADLINE: Duration = Duration::from_secs(60);
/// Lines written across the engine's death, which comes after a third of them.
const LINES: usize = 3000;

pub(super) fn docker_containers_are_unseen_by_and_outlive_console_log_and_engine(
    lab: &mut Lab,
) -> Result<()> {
    let (vm, ssh, mut observer) = lab.observed()?;
    docker::run_detached(&ssh, &format!("--name keeper {IMAGE} sleep 987654"))?;
    let life = docker::life(&ssh, "keeper")?;
    unseen(&Status::read(&ssh)?, &mut observer)?;

    let ssh = restart_console(lab, &vm, ssh)?;
    ensure!(
        docker::life(&ssh, "keeper")? == life,
        "the container did not live through the console's restart"
    );
    ssh.check_within("keelson service restart log", SCRIPT_DEADLINE)?;
    ensure!(
        docker::life(&ssh, "keeper")? == life,
        "the container did not live through the log's restart"
    );
    kill_engine(&mut observer)?;
    Status::wait_settled(&ssh, SETTLE_DEADLINE).context("after the engine's restart")?;
    ensure!(
        docker::life(&ssh, "keeper")? == life,
        "the container did not live through the engine's restart"
    );
    Ok(())
}

/// No system service shares docker's view of processes, or the machine's.
fn unseen(status: &Status, observer: &mut Observer) -> Result<()> {
    let container = observer.run(
        "readlink /proc/$(pidof sleep | cut -d' ' -f1)/ns/pid",
        SCRIPT_DEADLINE,
    )?;
    let machine = observer.run("readlink /proc/1/ns/pid", SCRIPT_DEADLINE)?;
    for (name, pid) in status
        .pids()
        .into_iter()
        .filter(|(name, _)| name != "observer")
    {
        let own = observer.run(&format!("readlink /proc/{pid}/ns/pid"), SCRIPT_DEADLINE)?;
        ensure!(own != machine, "{name} sees every process of the machine");
        ensure!(own != container, "{name} sees the container's processes");
        let script = format!("grep -l 987654 /proc/{pid}/root/proc/[0-9]*/cmdline || true");
        let seen = if name == "docker" {
            String::new()
        } else {
            observer.run(&script, SCRIPT_DEADLINE)?
        };
        ensure!(
            seen.is_empty(),
            "{name} sees the container's process: {seen}"
        );
    }
    Ok(())
}

fn restart_console(lab: &Lab, vm: &Vm, ssh: Ssh) -> Result<Ssh> {
    let before = Status::read(&ssh)?.service("console")?.pid;
    // It takes the connection with it.
    let _ = ssh.run("keelson service restart console");
    drop(ssh);
    let ssh = lab.ssh(vm)?;
    let after = Status::wait_settled(&ssh, SETTLE_DEADLINE)?;
    ensure!(
        after.service("console")?.pid != before,
        "the console was not restarted"
    );
    Ok(ssh)
}

fn kill_engine(observer: &mut Observer) -> Result<()> {
    observer
        .run("kill -9 $(pidof keelson-engine)", SCRIPT_DEADLINE)
        .context("killing the engine")
        .map(drop)
}

pub(super) fn killing_the_engine_kills_no_container_and_loses_no_log_line(
    lab: &mut Lab,
) -> Result<()> {
    let (_vm, ssh, mut observer) = lab.observed()?;
    docker::run_detached(&ssh, &format!("--name keeper {IMAGE} sleep 987654"))?;
    let life = docker::life(&ssh, "keeper")?;
    let before = Status::read(&ssh)?.pids();
    let engine = observer.run("pidof keelson-engine", SCRIPT_DEADLINE)?;
    // Descriptor 4 is the observer's own output, which the engine has captured.
    let script = format!(
        "n=0; while [ $n -lt {LINES} ]; do n=$((n+1)); echo \"line $n.\" >&4; \
         [ $n != {} ] || kill -9 {engine}; done",
        LINES / 3
    );
    observer.run(&script, SCRIPT_DEADLINE)?;

    let status =
        Status::wait_settled(&ssh, SETTLE_DEADLINE).context("after the engine was killed")?;
    ensure!(
        status.pids() == before,
        "before the engine was killed these ran: {before:?}, now {:?}",
        status.pids()
    );
    ensure!(
        observer.run("pidof keelson-engine", SCRIPT_DEADLINE)? != engine,
        "the engine was not started again"
    );
    ensure!(
        docker::life(&ssh, "keeper")? == life,
        "the container did not live on"
    );
    let follow = ssh.follow("keelson service logs observer --follow")?;
    let mut next = 1;
    while next <= LINES {
        let line = follow
            .next(SCRIPT_DEADLINE)
            .with_context(|| format!("the log lacks line {next}"))?;
        let Some((_, number)) = line.rsplit_once("line ") else {
            continue;
        };
        ensure!(
            number == format!("{next}."),
            "the log has line {number} where {next} should be"
        );
        next += 1;
    }
    Ok(())
}
