//! Applications at their worst must not take the system services with them.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::harness::docker::{self, IMAGE};
use crate::harness::lab::Lab;
use crate::harness::ssh::Follow;
use crate::harness::status::Status;

/// New SSH connections made while the container is at its worst.
const PROBES: u32 = 4;
/// How long each may take.
const PROBE_DEADLINE: Duration = Duration::from_secs(30);
/// How long the worst may take to come.
const WORST_DEADLINE: Duration = Duration::from_secs(120);
/// How long it is left alone then, to get worse.
const WORSENING: Duration = Duration::from_secs(8);
/// How long the machine may take to be rid of it.
const REMOVAL_DEADLINE: Duration = Duration::from_secs(90);

pub(super) fn a_fork_bomb_in_a_container_leaves_ssh_and_system_services_alone(
    lab: &mut Lab,
) -> Result<()> {
    endure(
        lab,
        "sh -c 'bomb() { bomb | bomb & }; echo bombing; bomb; sleep 1000'",
        "bombing",
    )
}

pub(super) fn a_container_that_eats_all_memory_leaves_ssh_and_system_services_alone(
    lab: &mut Lab,
) -> Result<()> {
    let eater = "awk \"BEGIN { s = 1; while (1) { s = s s } }\"";
    endure(
        lab,
        &format!("sh -c 'while :; do {eater}; echo eaten; done'"),
        "eaten",
    )
}

pub(super) fn a_container_that_fills_the_disk_leaves_ssh_and_system_services_alone(
    lab: &mut Lab,
) -> Result<()> {
    endure(
        lab,
        "sh -c 'dd if=/dev/zero of=/fill bs=1M; echo filled; sleep 1000'",
        "filled",
    )
}

/// Runs `command` in a container until it has said `worst`; then SSH and all services must be as before.
fn endure(lab: &mut Lab, command: &str, worst: &str) -> Result<()> {
    let (vm, ssh) = lab.booted()?;
    let before = Status::read(&ssh)?;
    // Attached: what it says goes to its log too, where a full disk has no room for it.
    let container = ssh.follow(&format!("docker run --name worst {IMAGE} {command} 2>&1"))?;
    wait_for_worst(&container, worst)?;
    vm.serial.let_run(WORSENING);
    for probe in 1..=PROBES {
        let answer = ssh
            .fresh("echo alive", PROBE_DEADLINE)
            .with_context(|| format!("SSH connection {probe}"))?;
        ensure!(answer == "alive", "SSH answers {answer:?}");
    }
    unchanged(&before, &Status::read(&ssh)?).context("while the container was at its worst")?;

    // dockerd gives a kill ten seconds, which thousands of processes on an emulated processor may exceed.
    let remove = "until docker rm -f worst; do sleep 1; done";
    ssh.check_within(remove, REMOVAL_DEADLINE)?;
    let text = docker::run(&ssh, &format!("{IMAGE} echo recovered"))
        .context("after the container was removed")?;
    ensure!(text == "recovered", "a new container says {text:?}");
    ssh.check("echo kept >~/kept && sync ~/kept")
        .context("writing after the container was removed")?;
    unchanged(&before, &Status::read(&ssh)?).context("after the container was removed")
}

fn wait_for_worst(container: &Follow, worst: &str) -> Result<()> {
    let until = Instant::now() + WORST_DEADLINE;
    let mut last = String::new();
    while let Some(line) = container.next(until.saturating_duration_since(Instant::now())) {
        if line.contains(worst) {
            return Ok(());
        }
        last = line;
    }
    bail!("the container never said {worst:?}; its last line: {last:?}")
}

fn unchanged(before: &Status, now: &Status) -> Result<()> {
    for old in &before.services {
        let new = now.service(&old.name)?;
        ensure!(
            (old.pid, &old.state, old.restarts) == (new.pid, &new.state, new.restarts),
            "{} was {} (pid {:?}, {} restarts) and is {} (pid {:?}, {} restarts): {:?}",
            old.name,
            old.state,
            old.pid,
            old.restarts,
            new.state,
            new.pid,
            new.restarts,
            new.detail
        );
    }
    Ok(())
}
