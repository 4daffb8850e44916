//! The system onto another disk, and back to how it was delivered.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::harness::disk::{self, Random};
use crate::harness::docker::{self, IMAGE};
use crate::harness::lab::{Lab, SETTLE_DEADLINE};
use crate::harness::machine::{Boot, Machine};
use crate::harness::process;
use crate::harness::seed::{self, HOSTNAME};
use crate::harness::ssh::Ssh;
use crate::harness::status::Status;
use crate::harness::vm::Vm;

/// Copying and reading back on a slow machine.
const INSTALL_DEADLINE: Duration = Duration::from_secs(300);
const OFF_DEADLINE: Duration = Duration::from_secs(120);
const TOOL_DEADLINE: Duration = Duration::from_secs(120);
/// A little longer than an installation takes.
const LONGEST_INSTALLATION: Duration = Duration::from_secs(20);
const TARGET: &str = "/dev/vdb";

pub(super) fn a_running_system_is_installed_on_another_disk_which_starts_alone_and_is_reset(
    lab: &mut Lab,
) -> Result<()> {
    let mut machine = source(
        lab,
        "mounts: [[/dev/vdd, /mnt/data]]\nfs_setup: [{device: /dev/vdd, filesystem: ext4, label: photos}]\n",
    )?;
    for (name, size) in [("target", "4G"), ("small", "500M"), ("data", "800M")] {
        machine = machine.with_disk(&empty(lab.dir(), name, size)?);
    }
    let seed = machine.disks.remove(1);
    machine.disks.push(seed);
    let key = lab.key.public()?;
    let configuration = format!(
        "#cloud-config\nhostname: installed\nssh_authorized_keys: [{:?}]\nruncmd: ['echo ran >/opt/ran']\n",
        key.trim()
    );

    let (vm, ssh) = lab.boot(&machine)?;
    Status::wait_settled(&ssh, SETTLE_DEADLINE)?;
    refuses(&ssh)?;
    // A power cut in the midst: the machine is as before, the disk has no system or a whole one.
    let mut random = Random::new(lab.random_seed);
    let moment = random.below(LONGEST_INSTALLATION);
    let follow = ssh.follow(&format!(
        "echo kept >kept; sync; sudo keelson install --disk {TARGET} --yes; sync"
    ))?;
    let until = Instant::now() + moment;
    while follow
        .next(until.saturating_duration_since(Instant::now()))
        .is_some()
    {}
    vm.cut_power();
    for (number, disk) in machine.disks.iter_mut().take(2).enumerate() {
        let path = lab.dir().join(format!("after-{number}.qcow2"));
        disk.path = disk::overlay(&disk.path, "qcow2", &path)?;
    }
    let (mut vm, ssh) = lab.boot(&machine)?;
    Status::wait_settled(&ssh, SETTLE_DEADLINE)?;
    ensure!(
        ssh.check("cat kept")? == "kept",
        "the machine's own disk has changed"
    );
    let there = json(&ssh.check("sudo keelson install --json")?)?;
    let target = there
        .as_array()
        .and_then(|disks| disks.iter().find(|disk| disk["disk"] == TARGET))
        .context("the target is not shown")?;
    let parts = target["contents"].as_array().map_or(0, Vec::len);
    println!(
        "      cut {:.1} s into an installation, which left {parts} partitions",
        moment.as_secs_f64()
    );
    ensure!([0, 4].contains(&parts), "{target}");

    // Once more, after a question.
    let line = format!(
        "printf '%s' {} >/tmp/boat.yml; echo yes | sudo keelson install --disk {TARGET} --config /tmp/boat.yml --append 'keelson.test=1 audit=0' --json",
        quote(&configuration)
    );
    let said = ssh.check_within(&line, INSTALL_DEADLINE)?;
    let installed = json(&said)?;
    ensure!(
        installed["disk"] == TARGET && installed["root_bytes"].as_u64() > Some(1 << 20),
        "{installed}"
    );
    power_off(&mut vm, &ssh)?;
    drop((vm, ssh));
    let target = machine.disks[1].path.clone();
    nothing_to_complain_of(lab, &target)?;

    let mut machine = Machine::new(Boot::Uefi).with_disk(&target);
    machine.reboots = false;
    let (mut vm, ssh) = lab.boot(&machine)?;
    Status::wait_settled(&ssh, SETTLE_DEADLINE)?;
    let said = ssh.check_within(
        "until test -s /opt/ran; do sleep 0.2; done; hostname; cat /opt/ran /proc/cmdline",
        SETTLE_DEADLINE,
    )?;
    ensure!(
        said.starts_with("installed\nran\n") && said.contains("keelson.test=1 audit=0"),
        "{said}"
    );
    docker::import(&ssh)?;
    docker::run_detached(
        &ssh,
        &format!("--name kept --restart always -v shelf:/data {IMAGE} sleep 1000000"),
    )?;
    let versions = ssh.check("keelson os status")?;
    let (_, no) = ssh.check_fails("keelson os reset </dev/null")?;
    ensure!(no.contains("nothing was changed"), "{no}");
    ssh.check("keelson os reset --yes && keelson os reset --cancel")?;
    let _ = ssh.run("keelson os reset --yes --reboot");
    vm.wait_off(OFF_DEADLINE).context("rebooting")?;
    drop((vm, ssh));

    let machine = machine.with_raw(&lab.seed()?);
    let (vm, ssh) = lab.boot(&machine)?;
    is_as_delivered(&vm, &ssh)?;
    let after = ssh.check("keelson os status")?;
    ensure!(
        after == versions,
        "before the reset: {versions}, after it: {after}"
    );
    Ok(())
}

pub(super) fn a_cloud_config_has_the_system_installed_and_the_disk_starts_by_bios(
    lab: &mut Lab,
) -> Result<()> {
    let text = format!(
        "keelson:\n  install:\n    disk: {TARGET}\n    config: {{hostname: unattended}}\n    poweroff: true\n"
    );
    let mut machine = source(lab, &text)?.with_disk(&empty(lab.dir(), "target", "4G")?);
    let seed = machine.disks.remove(1);
    machine.disks.push(seed);
    let mut vm = lab.start(&machine)?;
    vm.wait_off(INSTALL_DEADLINE)
        .context("installing without being asked")?;
    drop(vm);
    let raw = disk::flatten(&machine.disks[1].path, &lab.dir().join("target.raw"))?;
    let state = disk::partition(&raw, "KEELSON_STATE")?;
    let part = lab.dir().join("state.img");
    disk::extract_whole(&raw, state, &part)?;
    let mut debugfs = Command::new("debugfs");
    debugfs
        .args(["-R", "cat config/config.d/install.yml"])
        .arg(&part);
    let layer = process::check(&mut debugfs, TOOL_DEADLINE)?;
    ensure!(
        layer.contains("#cloud-config") && layer.contains("hostname: unattended"),
        "{layer}"
    );
    let machine = Machine::new(Boot::Bios)
        .with_disk(&disk::overlay(&raw, "raw", &lab.dir().join("disk.qcow2"))?)
        .with_raw(&lab.seed()?);
    let (_vm, ssh) = lab.boot(&machine)?;
    let status = Status::wait_settled(&ssh, SETTLE_DEADLINE)?;
    ensure!(
        status.state.persistent && status.failures.is_empty(),
        "{status:?}"
    );
    ssh.check("grep -qw keelson.tries=none /proc/cmdline")?;
    // The seed's user-data come later than this layer, and so say the name.
    ssh.check("sudo grep -q 'hostname: unattended' /state/config/config.d/install.yml")?;
    Ok(())
}

/// The shipped image on a disk of its own, with something more in its seed.
fn source(lab: &Lab, more: &str) -> Result<Machine> {
    let text = format!("{}{more}", seed::usual(&lab.key.public()?));
    Ok(Machine::direct(&lab.shipped)?
        .with_disk(&lab.disk(&lab.shipped)?)
        .with_raw(&seed::fat(lab.dir(), &text)?))
}

/// Each of these changes nothing, and says why.
fn refuses(ssh: &Ssh) -> Result<()> {
    let before = ssh.check("sudo keelson install --json")?;
    for (arguments, part) in [
        (
            "--disk /dev/vda --yes",
            "is the disk that the running system was started from",
        ),
        ("--disk /dev/vda4 --yes", "is a partition"),
        ("--disk /dev/vdc --yes", "is too small: it has 500 MiB"),
        ("--disk /dev/vdd --yes", "/dev/vdd is in use"),
        ("--disk /dev/vde --yes", "is write-protected"),
        ("--disk /dev/vdz --yes", "there is no disk /dev/vdz"),
        (
            "--disk /dev/vdb </dev/null",
            "nobody said yes, nothing was changed",
        ),
        (
            "--disk /dev/vdb --yes --append keelson.slot=/dev/vda",
            "says which root is started",
        ),
        (
            "--disk /dev/vdb --yes --config /etc/passwd",
            "is no cloud-config",
        ),
        ("--config-disk --yes", "asks for no installation"),
    ] {
        let (_, said) = ssh.check_fails(&format!("sudo keelson install {arguments}"))?;
        ensure!(said.contains(part), "{arguments}: {said}");
    }
    let (_, said) = ssh.check_fails("echo no | sudo keelson install --disk /dev/vdb")?;
    ensure!(
        said.contains("/dev/vdb (4.0 GiB") && said.contains("Nothing is found on it"),
        "{said}"
    );
    let (status, _) = ssh.check_fails("keelson install")?;
    ensure!(status == 3, "people without privileges get status {status}");
    let after = ssh.check("sudo keelson install --json")?;
    ensure!(before == after, "before: {before}, after: {after}");
    Ok(())
}

/// Nothing is kept but what the seed says.
fn is_as_delivered(vm: &Vm, ssh: &Ssh) -> Result<()> {
    Status::wait_settled(ssh, SETTLE_DEADLINE)?;
    ensure!(
        vm.serial.text().contains("factory reset"),
        "the console does not tell of the reset"
    );
    let said = ssh.check_within(
        "hostname; docker ps -aq | wc -l; docker volume ls -q | wc -l; docker images -q | wc -l; sudo ls /state/config/config.d 2>/dev/null | wc -l; ls /opt; keelson status --json | grep -o '\"persistent\": *[a-z]*'",
        docker::DOCKER_DEADLINE,
    )?;
    let words: Vec<&str> = said.split_whitespace().collect();
    let is_empty = words.get(..5) == Some(&[HOSTNAME, "0", "0", "0", "0"]);
    ensure!(
        is_empty && said.contains("true") && !said.contains("ran"),
        "after the reset: {said}"
    );
    Ok(())
}

fn power_off(vm: &mut Vm, ssh: &Ssh) -> Result<()> {
    let _ = ssh.run("keelson poweroff");
    vm.wait_off(OFF_DEADLINE).context("powering off").map(drop)
}

/// An empty disk.
fn empty(dir: &Path, name: &str, size: &str) -> Result<PathBuf> {
    let path = dir.join(format!("{name}.qcow2"));
    let mut command = Command::new("qemu-img");
    command.args(["create", "-q", "-f", "qcow2"]).arg(&path);
    process::check(command.arg(size), TOOL_DEADLINE)?;
    Ok(path)
}

/// Tools that know nothing of Keelson look at the disk from the outside.
fn nothing_to_complain_of(lab: &Lab, disk: &Path) -> Result<()> {
    let raw = disk::flatten(disk, &lab.dir().join("installed.raw"))?;
    let said = process::check(Command::new("sgdisk").arg("-v").arg(&raw), TOOL_DEADLINE)?;
    ensure!(said.contains("No problems found"), "sgdisk: {said}");
    let state = disk::partition(&raw, "KEELSON_STATE")?;
    disk::check_clean_ext4(&raw, state)?;
    let part = lab.dir().join("part.img");
    disk::extract_whole(&raw, disk::partition(&raw, "esp")?, &part)?;
    process::check(
        Command::new("fsck.vfat").arg("-n").arg(&part),
        TOOL_DEADLINE,
    )?;
    let line = lab.shipped.cmdline()?;
    let word = |start: &str| {
        let mut words = line.split_whitespace();
        words.find_map(|word| word.strip_prefix(start))
    };
    let hash = word("keelson.roothash=").context("no root hash")?;
    let offset = word("keelson.hashoffset=").context("no offset of the hashes")?;
    disk::extract_whole(&raw, disk::partition(&raw, "keelson-a")?, &part)?;
    let mut verify = Command::new("veritysetup");
    verify.arg("verify").arg(&part).arg(&part).arg(hash);
    process::check(verify.arg(format!("--hash-offset={offset}")), TOOL_DEADLINE)?;
    std::fs::remove_file(raw).context("removing the disk")
}

/// For a shell.
fn quote(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}

fn json(text: &str) -> Result<Value> {
    serde_json::from_str(text).with_context(|| format!("reading {text}"))
}
