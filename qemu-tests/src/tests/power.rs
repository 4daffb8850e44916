//! Reboot and power off.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::harness::docker::{self, IMAGE};
use crate::harness::lab::{Lab, SETTLE_DEADLINE};
use crate::harness::machine::Boot;
use crate::harness::ssh::Ssh;
use crate::harness::status::Status;
use crate::harness::vm::Vm;
use crate::harness::{disk, seed};

/// The promise.
const OFF_DEADLINE: Duration = Duration::from_secs(15);

pub(super) fn the_power_key_ends_within_15_seconds_with_everything_unmounted_clean(
    lab: &mut Lab,
) -> Result<()> {
    let (mut vm, ssh) = lab.booted()?;
    use_disk(&ssh)?;
    vm.qmp.execute("system_powerdown", json!({}))?;
    ends_clean(vm, lab.dir())
}

pub(super) fn poweroff_ends_within_15_seconds_with_everything_unmounted_clean(
    lab: &mut Lab,
) -> Result<()> {
    let (vm, ssh) = lab.booted()?;
    use_disk(&ssh)?;
    // The connection may end before the command does.
    let _ = ssh.run("sudo poweroff");
    ends_clean(vm, lab.dir())
}

pub(super) fn a_reboot_keeps_containers_images_volumes_host_keys_logs_and_hostname(
    lab: &mut Lab,
) -> Result<()> {
    let mut machine = lab.machine()?;
    machine.boot = Boot::Uefi;
    machine.reboots = false;
    let (mut vm, ssh) = lab.boot(&machine)?;
    Status::wait_settled(&ssh, SETTLE_DEADLINE)?;
    docker::import(&ssh)?;
    docker::run_detached(
        &ssh,
        &format!("--name kept --restart always -v shelf:/data {IMAGE} sleep 1000000"),
    )?;
    docker::run_detached(&ssh, &format!("--name ended {IMAGE} true"))?;
    ssh.check("docker exec kept sh -c 'echo treasure >/data/chest && sync'")?;
    // Of the system engine as well; one that goes with its end has none to come to here.
    let system = "system-docker run --network none -d";
    let own = "keelson/console";
    ssh.check(&format!(
        "{system} --name kept --restart always -v shelf:/data {own} sleep 1000000"
    ))?;
    ssh.check(&format!(
        "{system} --name stopped --restart unless-stopped {own} sleep 1000000"
    ))?;
    ssh.check(&format!("{system} --name ended {own} sh -c 'exit 4'"))?;
    ssh.check(&format!("{system} --name passing --rm {own} sleep 1000000"))?;
    ssh.check("system-docker exec kept sh -c 'echo silver >/data/chest; echo written >/own'")?;
    ssh.check("system-docker stop --time 1 stopped && system-docker wait ended")?;
    let file = "services: {own: {image: keelson/console, command: [sleep, '100000'], stop_signal: KILL}, off: {image: keelson/console, command: [sleep, '100000'], stop_signal: KILL}}";
    ssh.run_with(
        "keelson service enable --now -",
        file.as_bytes(),
        SETTLE_DEADLINE,
    )?;
    ssh.check("keelson service disable off && system-docker export network | system-docker import - new/network")?;
    ssh.check_within(
        "keelson service upgrade network --image new/network",
        SETTLE_DEADLINE,
    )?;
    let host_key = ssh.host_key()?;
    let log_line = first_log_line(&ssh, "docker")?;
    // The connection may end before the command does.
    let _ = ssh.run("sudo reboot");
    vm.wait_off(Duration::from_secs(30)).context("rebooting")?;
    drop(vm);

    // What the seed brought must last without it.
    machine.disks.truncate(1);
    let (_vm, ssh) = lab.boot(&machine)?;
    Status::wait_settled(&ssh, SETTLE_DEADLINE)?;
    ensure!(ssh.host_key()? == host_key, "the SSH host key has changed");
    let hostname = ssh.check("hostname")?;
    ensure!(hostname == seed::HOSTNAME, "the hostname is now {hostname}");
    let running = ssh.check_within(
        "docker ps --format '{{.Names}} {{.Image}}'",
        docker::DOCKER_DEADLINE,
    )?;
    ensure!(
        running == format!("kept {IMAGE}"),
        "these containers run: {running:?}"
    );
    let all = ssh.check("docker ps --all --format '{{.Names}}' | sort | xargs")?;
    ensure!(all == "ended kept", "these containers are there: {all:?}");
    let chest = docker::run(&ssh, &format!("-v shelf:/data {IMAGE} cat /data/chest"))?;
    ensure!(chest == "treasure", "the volume holds {chest:?}");
    let states = ssh.check(
        "system-docker ps --all --format '{{.Names}} {{.State}}' --filter name='kept|stopped|ended|passing' | sort | xargs",
    )?;
    ensure!(
        states == "ended exited kept running stopped exited",
        "the system engine's containers are: {states:?}"
    );
    let code = ssh.check("system-docker inspect ended --format '{{.State.ExitCode}}'")?;
    ensure!(
        code == "4",
        "the one that had ended has the status {code:?}"
    );
    let written = ssh.check("system-docker exec kept cat /data/chest /own | xargs")?;
    ensure!(
        written == "silver written",
        "the system engine's volume and container hold {written:?}"
    );
    let services = ssh.check(
        "keelson service ls --all | awk '/^(network|off|own) / { print $1, $2 }'; keelson service ls | grep -o new/network",
    )?;
    ensure!(
        services == "network ready\noff stopped\nown ready\nnew/network",
        "the services are: {services:?}"
    );
    let now = first_log_line(&ssh, "docker")?;
    ensure!(
        now == log_line,
        "the first log line was {log_line} and is now {now}"
    );
    Ok(())
}

/// Something to be unmounted and written back: a container that runs and a file that is not synced.
fn use_disk(ssh: &Ssh) -> Result<()> {
    docker::run_detached(
        ssh,
        &format!("--name busy -v shelf:/data {IMAGE} sleep 1000000"),
    )?;
    ssh.check("head -c 5000000 /dev/urandom >~/unsynced")
        .map(drop)
}

fn ends_clean(mut vm: Vm, dir: &Path) -> Result<()> {
    vm.wait_off(OFF_DEADLINE)?;
    drop(vm);
    let raw = disk::flatten(&dir.join("disk.qcow2"), &dir.join("disk.raw"))?;
    let state = disk::partition(&raw, "KEELSON_STATE")?;
    disk::check_clean_ext4(&raw, state)
}

fn first_log_line(ssh: &Ssh, service: &str) -> Result<Value> {
    let text = ssh.check(&format!("keelson service logs {service} --json"))?;
    let line = text
        .lines()
        .next()
        .with_context(|| format!("{service} has no log"))?;
    serde_json::from_str(line).with_context(|| format!("reading a log line: {line}"))
}
