//! Power cuts at random moments.
//!
//! A cut is a `SIGKILL` of QEMU. What the guest had in its page cache is lost, and so is what it wrote without flushing
//! into clusters that are new in the overlay, because QEMU keeps their tables in memory until a flush. Every round has an
//! overlay of its own, so that all its clusters are new.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::harness::disk::{self, Random};
use crate::harness::docker::{self, IMAGE};
use crate::harness::lab::{Lab, SETTLE_DEADLINE};
use crate::harness::machine::Machine;
use crate::harness::registry::Registry;
use crate::harness::ssh::Ssh;
use crate::harness::status::Status;
use crate::tests::system_images::trust;

/// Cuts of a soak test, and of an ordinary run.
const SOAK_CUTS: usize = 20;
const USUAL_CUTS: usize = 4;
/// How long the writer may go on before a cut.
const LONGEST_WRITE: Duration = Duration::from_secs(6);

/// The same for images that are being pulled.
const SOAK_PULL_CUTS: usize = 8;
const USUAL_PULL_CUTS: usize = 1;
const PULL_MB: usize = 24;
const LAYERS: usize = 4;
/// A little longer than a pull of so much takes.
const LONGEST_PULL: Duration = Duration::from_secs(12);
const PULL_DEADLINE: Duration = Duration::from_secs(120);

/// Writes files whose name holds their checksum, and reports each once it is on the disk.
const WRITER: &str = r#"
set -e; mkdir -p ~/cuts/$ROUND; cd ~/cuts/$ROUND; sync ~ ~/cuts .
n=0; while :; do
    n=$((n+1)); head -c $((RANDOM * 4)) /dev/urandom >next
    read -r sum rest < <(sha256sum next); sync next; mv next $n.$sum; sync .
    echo "$sum  $ROUND/$n.$sum"
done"#;

pub(super) fn every_file_reported_written_is_there_after_power_cuts(lab: &mut Lab) -> Result<()> {
    let cuts = if lab.soak { SOAK_CUTS } else { USUAL_CUTS };
    println!("    {cuts} power cuts, random seed {}", lab.random_seed);
    let mut random = Random::new(lab.random_seed);
    let boot_time = lab.usual_boot()?;
    let mut machine = lab.machine()?;
    let mut reported: Vec<String> = Vec::new();
    for round in 1..=cuts {
        next_overlay(&mut machine, lab.dir(), round)?;
        // Every other cut comes while the machine boots, where it replays its journal and starts its services.
        if round % 2 == 0 {
            let moment = random.below(boot_time);
            let vm = lab.start(&machine)?;
            vm.serial.let_run(moment);
            println!("    cut {round}: {:.1} s into a boot", moment.as_secs_f64());
            vm.cut_power();
            continue;
        }
        let (vm, ssh) = lab.boot(&machine)?;
        verify(&ssh, &reported)?;
        let moment = random.below(LONGEST_WRITE);
        let new = write_for(&ssh, round, moment)?;
        vm.cut_power();
        println!(
            "    cut {round}: {:.1} s into writing, {} files reported",
            moment.as_secs_f64(),
            new.len()
        );
        reported.extend(new);
    }
    next_overlay(&mut machine, lab.dir(), cuts + 1)?;
    let (_vm, ssh) = lab.boot(&machine)?;
    verify(&ssh, &reported)?;
    let status = Status::wait_settled(&ssh, SETTLE_DEADLINE)?;
    ensure!(
        status.state.persistent,
        "the state partition is not used any more: {:?}",
        status.failures
    );
    docker::import(&ssh)?;
    docker::run(&ssh, &format!("{IMAGE} true"))
        .context("docker after the power cuts")
        .map(drop)
}

pub(super) fn an_image_is_there_whole_or_not_at_all_after_power_cuts_while_it_is_pulled(
    lab: &mut Lab,
) -> Result<()> {
    let cuts = if lab.soak {
        SOAK_PULL_CUTS
    } else {
        USUAL_PULL_CUTS
    };
    println!("    {cuts} power cuts, random seed {}", lab.random_seed);
    let mut random = Random::new(lab.random_seed);
    let registry = Registry::start()?;
    registry.push_random("app", "1", PULL_MB, LAYERS)?;
    let name = format!("127.0.0.1:{}/app:1", registry.port);
    let mut machine = lab.machine()?;
    let mut reported = false;
    for round in 1..=cuts {
        next_overlay(&mut machine, lab.dir(), round)?;
        let (vm, ssh) = lab.boot(&machine)?;
        if round == 1 {
            trust(&ssh, &registry)?;
        }
        has_image(&ssh, &name, reported)?;
        let _forwarded = ssh.reverse(registry.port)?;
        let pull = ssh.follow(&format!("system-docker pull {name} && sync && echo pulled"))?;
        let until = Instant::now() + random.below(LONGEST_PULL);
        while let Some(line) = pull.next(until.saturating_duration_since(Instant::now())) {
            reported |= line == "pulled";
        }
        vm.cut_power();
    }
    next_overlay(&mut machine, lab.dir(), cuts + 1)?;
    let (_vm, ssh) = lab.boot(&machine)?;
    has_image(&ssh, &name, reported)?;
    // What was kept of earlier pulls is as good as what comes from the registry.
    let _forwarded = ssh.reverse(registry.port)?;
    let mut sums = Vec::new();
    for engine in ["docker", "system-docker"] {
        let line = format!(
            "{engine} pull --quiet {name} >/dev/null && {engine} create --name whole {name} true >/dev/null && for number in $(seq 0 {}); do {engine} cp whole:/file$number - | tar xO | sha256sum; done",
            LAYERS - 1
        );
        sums.push(ssh.check_within(&line, PULL_DEADLINE)?);
    }
    ensure!(
        sums[0] == sums[1],
        "dockerd has {} and the engine {}",
        sums[0],
        sums[1]
    );
    Ok(())
}

/// An image that is listed can be used; one that was reported is listed.
fn has_image(ssh: &Ssh, name: &str, reported: bool) -> Result<()> {
    let listed = ssh.check(&format!("system-docker images --quiet {name}"))?;
    ensure!(
        !reported || !listed.is_empty(),
        "{name} was pulled and is gone"
    );
    if !listed.is_empty() {
        let line = format!(
            "system-docker create --name look {name} true >/dev/null && system-docker export look | tar t | grep -c file && system-docker rm look >/dev/null"
        );
        let files = ssh.check_within(&line, PULL_DEADLINE)?;
        ensure!(
            files == LAYERS.to_string(),
            "{name} has {files} of {LAYERS} files"
        );
    }
    Ok(())
}

fn next_overlay(machine: &mut Machine, dir: &Path, round: usize) -> Result<()> {
    let first = machine
        .disks
        .first_mut()
        .context("the machine has no disk")?;
    let path: PathBuf = dir.join(format!("disk-{round}.qcow2"));
    first.path = disk::overlay(&first.path, "qcow2", &path)?;
    Ok(())
}

fn write_for(ssh: &Ssh, round: usize, time: Duration) -> Result<Vec<String>> {
    let writer = ssh.follow(&format!("ROUND={round}; {WRITER}"))?;
    let first = writer
        .next(Duration::from_secs(60))
        .context("the writer in the guest wrote nothing")?;
    let mut reported = vec![first];
    let until = Instant::now() + time;
    while let Some(line) = writer.next(until.saturating_duration_since(Instant::now())) {
        reported.push(line);
    }
    Ok(reported)
}

/// Checks every file reported in any round before.
fn verify(ssh: &Ssh, reported: &[String]) -> Result<()> {
    if reported.is_empty() {
        return Ok(());
    }
    let list = reported.join("\n") + "\n";
    let output = ssh.run_with(
        "cd ~/cuts && sha256sum -c --quiet",
        list.as_bytes(),
        Duration::from_secs(120),
    )?;
    ensure!(
        output.status.success(),
        "files reported written were lost: {}",
        output.text().trim()
    );
    Ok(())
}
