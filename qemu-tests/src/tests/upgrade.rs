//! The operating system as a whole: another version, and back.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::harness::disk::Random;
use crate::harness::docker::{self, IMAGE};
use crate::harness::lab::{Lab, SETTLE_DEADLINE};
use crate::harness::machine::{Boot, Machine};
use crate::harness::registry::Registry;
use crate::harness::release::{self, FIRST, SECOND, THIRD};
use crate::harness::ssh::{Follow, Ssh};
use crate::harness::status::Status;
use crate::harness::vm::Vm;
use crate::harness::{disk, process};

/// Fetching and writing a release on a slow machine.
pub(super) const UPGRADE_DEADLINE: Duration = Duration::from_secs(300);
pub(super) const OFF_DEADLINE: Duration = Duration::from_secs(60);
/// A boot that is given up, and the one after it.
pub(super) const VERDICT_DEADLINE: Duration = Duration::from_secs(240);
/// Power cuts of a soak test, and of an ordinary run.
const SOAK_CUTS: usize = 20;
const USUAL_CUTS: usize = 1;
/// A little longer than an upgrade takes.
const LONGEST_UPGRADE: Duration = Duration::from_secs(25);
/// The promise: what two builds differ in by one service.
const MOVED_PERCENT: u64 = 10;

pub(super) fn a_new_version_is_verified_started_and_judged_and_what_fails_goes_back_and_says_why(
    lab: &mut Lab,
) -> Result<()> {
    let out = lab.out().to_owned();
    let mut machine = machine(lab, Boot::Uefi)?;
    let registry = Registry::start()?;
    let repository = format!("127.0.0.1:{}/keelson", registry.port);
    let layout = lab.dir().join("layout");
    for version in [FIRST, SECOND] {
        release::push(&out, version, &release::keys(&out), &repository, &layout)?;
    }
    let forged = format!("127.0.0.1:{}/forged", registry.port);
    release::push(
        &out,
        SECOND,
        &strange_keys(lab)?,
        &forged,
        &lab.dir().join("forged"),
    )?;

    let (vm, ssh) = lab.boot(&machine)?;
    Status::wait_settled(&ssh, SETTLE_DEADLINE)?;
    docker::import(&ssh)?;
    docker::run_detached(
        &ssh,
        &format!(
            "--name kept --restart always -v shelf:/data {IMAGE} sh -c 'echo treasure >/data/chest; sleep 1000000'"
        ),
    )?;
    configure(&ssh, &registry, &repository)?;
    let forwarded = ssh.reverse(registry.port)?;
    expect_versions(&ssh, &[(FIRST, "running next good")])?;
    let (_, refused) = ssh.check_fails(&format!("keelson os upgrade --source {forged}"))?;
    ensure!(
        refused.contains("none of the keys that this image trusts"),
        "{refused}"
    );
    let (_, refused) = ssh.check_fails("keelson os upgrade --version 9.9")?;
    ensure!(refused.contains("no release `9.9`"), "{refused}");
    expect_versions(&ssh, &[(FIRST, "running next good")])?;
    let offer = json(&ssh.check("keelson os check --json")?)?;
    ensure!(
        offer["version"] == SECOND && offer["newer"] == true,
        "{offer}"
    );
    let list = ssh.check("keelson os list | awk '{ print $1, $2 }' | sed -n 2p")?;
    ensure!(list == format!("{SECOND} newer"), "{list}");

    drop(forwarded);
    let (vm, ssh, _forwarded) = cut_power_in_upgrades(lab, &mut machine, &registry, vm, ssh)?;
    let upgraded = ssh.check_within(
        "keelson os upgrade --version 2.0.0 --json",
        UPGRADE_DEADLINE,
    )?;
    let upgraded = json(&upgraded)?;
    let total = number(&upgraded, "total_bytes")?;
    let new = total - number(&upgraded, "copied_bytes")?;
    let fetched = number(&upgraded, "fetched_bytes")?;
    println!(
        "      {new} of {total} bytes are new ({:.1} %), {fetched} of them were fetched after the power cut",
        new as f64 * 100.0 / total as f64
    );
    ensure!(
        new * 100 <= total * MOVED_PERCENT,
        "{new} of {total} bytes are new"
    );
    expect_versions(&ssh, &[(SECOND, "next on trial"), (FIRST, "running good")])?;
    // Taken back before it was ever started, and taken again after all.
    ssh.check("keelson os rollback")?;
    expect_versions(&ssh, &[(FIRST, "running next good"), (SECOND, "given up")])?;
    ssh.check("keelson os rollback")?;
    expect_versions(&ssh, &[(SECOND, "next on trial"), (FIRST, "running good")])?;

    let (vm, ssh) = judged_good(lab, &machine, vm, &ssh)?;
    expect_treasure(&ssh)?;
    let from = (&registry, repository.as_str(), layout.as_path());
    let (vm, ssh) = fails_and_goes_back(lab, &machine, from, vm, &ssh)?;
    expect_treasure(&ssh)?;
    switch_off_and_look(lab, &machine, vm)
}

pub(super) fn a_machine_with_bios_is_upgraded_judged_and_goes_back_by_the_same_rules(
    lab: &mut Lab,
) -> Result<()> {
    let out = lab.out().to_owned();
    let machine = machine(lab, Boot::Bios)?;
    let registry = Registry::start()?;
    let repository = format!("127.0.0.1:{}/keelson", registry.port);
    let layout = lab.dir().join("layout");
    release::push(&out, SECOND, &release::keys(&out), &repository, &layout)?;
    let (vm, ssh) = lab.boot(&machine)?;
    Status::wait_settled(&ssh, SETTLE_DEADLINE)?;
    ssh.check("grep -qw keelson.tries=none /proc/cmdline")
        .context("GRUB has started the machine")?;
    configure(&ssh, &registry, &repository)?;
    let forwarded = ssh.reverse(registry.port)?;
    expect_versions(&ssh, &[(FIRST, "running next good")])?;
    ssh.check_within("keelson os upgrade", UPGRADE_DEADLINE)?;
    drop(forwarded);
    expect_versions(&ssh, &[(SECOND, "next on trial"), (FIRST, "running good")])?;
    ssh.check("keelson os rollback")?;
    expect_versions(&ssh, &[(FIRST, "running next good"), (SECOND, "given up")])?;
    ssh.check("keelson os rollback")?;
    expect_versions(&ssh, &[(SECOND, "next on trial"), (FIRST, "running good")])?;
    let (vm, ssh) = judged_good(lab, &machine, vm, &ssh)?;
    let counted = ssh.check("grep -o 'keelson.tries=[^ ]*' /proc/cmdline")?;
    ensure!(
        counted == "keelson.tries=2-1",
        "one try is counted before the kernel is started, not {counted}"
    );
    let from = (&registry, repository.as_str(), layout.as_path());
    let (vm, _ssh) = fails_and_goes_back(lab, &machine, from, vm, &ssh)?;
    switch_off_and_look(lab, &machine, vm)
}

/// Starts the second version, which is next, and waits until it is found good.
fn judged_good(lab: &Lab, machine: &Machine, vm: Vm, ssh: &Ssh) -> Result<(Vm, Ssh)> {
    let (vm, ssh) = reboot(lab, machine, vm, ssh)?;
    ssh.check_within(
        &format!("until keelson os history | grep -q 'upgraded from {FIRST} to {SECOND}'; do sleep 0.5; done"),
        VERDICT_DEADLINE,
    )?;
    expect_versions(&ssh, &[(SECOND, "running next good"), (FIRST, "good")])?;
    Ok((vm, ssh))
}

/// Takes a version that does not come up, from a registry; it is given up, and the machine goes back by itself and says why.
fn fails_and_goes_back(
    lab: &Lab,
    machine: &Machine,
    (registry, repository, layout): (&Registry, &str, &Path),
    vm: Vm,
    ssh: &Ssh,
) -> Result<(Vm, Ssh)> {
    let out = lab.out();
    release::push(out, THIRD, &release::keys(out), repository, layout)?;
    let forwarded = ssh.reverse(registry.port)?;
    ssh.check_within("keelson os upgrade", UPGRADE_DEADLINE)?;
    drop(forwarded);
    // Gives it up and starts the machine again by itself.
    let (mut failing, _) = reboot(lab, machine, vm, ssh)?;
    failing
        .wait_off(VERDICT_DEADLINE)
        .context("giving up a version")?;
    drop(failing);
    let (vm, ssh) = lab.boot(machine)?;
    let history = "keelson os history --json";
    ssh.check_within(
        &format!("until {history} | grep -q 'went back'; do sleep 0.5; done"),
        VERDICT_DEADLINE,
    )?;
    let history = json(&ssh.check(history)?)?;
    let last = history
        .as_array()
        .and_then(|list| list.last())
        .context("no history")?;
    ensure!(last["from"] == THIRD && last["to"] == SECOND, "{last}");
    let why = last["why"].as_str().unwrap_or_default();
    ensure!(why.contains("service leak has failed"), "{why}");
    ensure!(
        last["log"].to_string().contains("water in the hold"),
        "{last}"
    );
    expect_versions(&ssh, &[(SECOND, "running next good"), (THIRD, "given up")])?;
    Ok((vm, ssh))
}

fn switch_off_and_look(lab: &Lab, machine: &Machine, mut vm: Vm) -> Result<()> {
    vm.qmp.execute("system_powerdown", serde_json::json!({}))?;
    vm.wait_off(OFF_DEADLINE)?;
    drop(vm);
    nothing_to_complain_of(lab, &machine.disks[0].path)
}

/// Upgrades that a power cut ends: the machine starts the version that ran, or the new one, and an upgrade goes on where it was. Ends with
/// the first version running.
fn cut_power_in_upgrades(
    lab: &Lab,
    machine: &mut Machine,
    registry: &Registry,
    mut vm: Vm,
    mut ssh: Ssh,
) -> Result<(Vm, Ssh, Follow)> {
    let cuts = if lab.soak { SOAK_CUTS } else { USUAL_CUTS };
    println!("      {cuts} power cuts, random seed {}", lab.random_seed);
    let mut random = Random::new(lab.random_seed);
    let mut forwarded = ssh.reverse(registry.port)?;
    for round in 1..=cuts {
        let running = running(&ssh)?;
        let other = if running == FIRST { SECOND } else { FIRST };
        let moment = random.below(LONGEST_UPGRADE);
        let upgrade = ssh.follow(&format!(
            "keelson os upgrade --version {other} --reboot; sync"
        ))?;
        let until = Instant::now() + moment;
        while upgrade
            .next(until.saturating_duration_since(Instant::now()))
            .is_some()
        {}
        vm.cut_power();
        // Clusters of the overlay that were not flushed are gone, too.
        let first = machine
            .disks
            .first_mut()
            .context("the machine has no disk")?;
        let path = lab.dir().join(format!("disk-{round}.qcow2"));
        first.path = disk::overlay(&first.path, "qcow2", &path)?;
        (vm, ssh) = lab.boot(machine)?;
        Status::wait_settled(&ssh, SETTLE_DEADLINE)?;
        let seconds = moment.as_secs_f64();
        println!(
            "      cut {round}: {seconds:.1} s into an upgrade from {running}, now {}",
            self::running(&ssh)?
        );
        forwarded = ssh.reverse(registry.port)?;
    }
    if running(&ssh)? != FIRST {
        ssh.check_within(
            &format!("keelson os upgrade --version {FIRST}"),
            UPGRADE_DEADLINE,
        )?;
        (vm, ssh) = reboot(lab, machine, vm, &ssh)?;
        Status::wait_settled(&ssh, SETTLE_DEADLINE)?;
        forwarded = ssh.reverse(registry.port)?;
    }
    Ok((vm, ssh, forwarded))
}

pub(super) fn running(ssh: &Ssh) -> Result<String> {
    let status = json(&ssh.check("keelson os status --json")?)?;
    let version = status["version"].as_str().context("no version")?;
    Ok(version.to_owned())
}

/// A machine that ends when it is started again, with the first version.
fn machine(lab: &Lab, boot: Boot) -> Result<Machine> {
    let first = release::image(lab.out(), FIRST)?;
    let mut machine = Machine::new(boot)
        .with_disk(&lab.disk(&first)?)
        .with_raw(&lab.seed()?);
    machine.reboots = false;
    Ok(machine)
}

/// Keys that no machine knows.
fn strange_keys(lab: &Lab) -> Result<PathBuf> {
    let folder = lab.dir().join("strange");
    fs::create_dir_all(&folder)?;
    let mut openssl = Command::new("openssl");
    openssl.args([
        "genpkey",
        "-algorithm",
        "EC",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-out",
    ]);
    process::check(openssl.arg(folder.join("release.key")), OFF_DEADLINE)?;
    Ok(folder)
}

pub(super) fn configure(ssh: &Ssh, registry: &Registry, repository: &str) -> Result<()> {
    let port = registry.port;
    ssh.check(&format!(
        "sudo keelson config set keelson.registries '{{\"127.0.0.1:{port}\": {{insecure: true}}}}' && sudo keelson config set --apply keelson.upgrade '{{source: \"{repository}\", deadline: 3m}}' && until sudo test -s /state/config/upgrade/settings.json; do sleep 0.1; done"
    ))?;
    Ok(())
}

/// Reboots, and waits for the next boot.
pub(super) fn reboot(lab: &Lab, machine: &Machine, mut vm: Vm, ssh: &Ssh) -> Result<(Vm, Ssh)> {
    // The connection may end before the command does.
    let _ = ssh.run("keelson reboot");
    vm.wait_off(OFF_DEADLINE).context("rebooting")?;
    drop(vm);
    lab.boot(machine)
}

/// What `keelson os status` shows: versions in the boot loader's order, each with its words.
pub(super) fn expect_versions(ssh: &Ssh, expected: &[(&str, &str)]) -> Result<()> {
    let shown = ssh.check("keelson os status | sed '1,/^VERSION/d' | tr -s ' '")?;
    let expected: Vec<String> = expected
        .iter()
        .map(|(version, words)| format!("{version} {words}"))
        .collect();
    ensure!(
        shown == expected.join("\n"),
        "expected {expected:?}, `keelson os status` shows {shown:?}"
    );
    Ok(())
}

fn expect_treasure(ssh: &Ssh) -> Result<()> {
    let chest = ssh.check_within("docker exec kept cat /data/chest", docker::DOCKER_DEADLINE)?;
    ensure!(chest == "treasure", "the volume holds {chest:?}");
    Ok(())
}

/// Tools that know nothing of Keelson look at the disk from the outside.
fn nothing_to_complain_of(lab: &Lab, disk: &Path) -> Result<()> {
    let raw = disk::flatten(disk, &lab.dir().join("disk.raw"))?;
    let state = disk::partition(&raw, "KEELSON_STATE")?;
    disk::check_clean_ext4(&raw, state)?;
    let said = process::check(Command::new("sgdisk").arg("-v").arg(&raw), OFF_DEADLINE)?;
    ensure!(said.contains("No problems found"), "sgdisk: {said}");
    let esp = lab.dir().join("esp.img");
    disk::extract_whole(&raw, disk::partition(&raw, "esp")?, &esp)?;
    process::check(Command::new("fsck.vfat").arg("-n").arg(&esp), OFF_DEADLINE)?;
    fs::remove_file(raw).context("removing the disk")
}

fn json(text: &str) -> Result<Value> {
    serde_json::from_str(text).with_context(|| format!("reading {text}"))
}

fn number(value: &Value, key: &str) -> Result<u64> {
    value[key]
        .as_u64()
        .with_context(|| format!("no {key} in {value}"))
}
