//! Starting again without the firmware.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::harness::lab::{BOOT_DEADLINE, Lab, SETTLE_DEADLINE};
use crate::harness::machine::Boot;
use crate::harness::ssh::Ssh;
use crate::harness::status::Status;
use crate::harness::vm::Vm;

const DOWN_DEADLINE: Duration = Duration::from_secs(60);
const BOOT_ID: &str = "cat /proc/sys/kernel/random/boot_id";
/// What firmware and boot loader say.
const FIRMWARE: [&str; 3] = ["BdsDxe", "systemd-boot", "EFI stub"];

pub(super) fn a_machine_starts_again_without_its_firmware_and_is_there_sooner(
    lab: &mut Lab,
) -> Result<()> {
    let mut machine = lab.machine()?;
    machine.boot = Boot::Uefi;
    let (vm, ssh) = lab.boot(&machine)?;
    Status::wait_settled(&ssh, SETTLE_DEADLINE)?;
    ensure!(
        FIRMWARE.iter().any(|word| vm.serial.text().contains(word)),
        "the firmware is not heard at all"
    );
    let line = ssh.check("cat /proc/cmdline")?;
    ssh.check("echo kept >treasure && sync")?;
    let (ssh, kexec) = restart(lab, &vm, ssh, "keelson reboot --kexec", "kexec")?;
    ensure!(ssh.check("cat treasure")? == "kept", "a file is lost");
    Status::wait_settled(&ssh, SETTLE_DEADLINE)?;
    let status: Value = serde_json::from_str(&ssh.check("keelson os status --json")?)?;
    let version = status["version"].as_str().context("no version")?;
    let expected = format!("{line} keelson.kexec=keelson_{version}.efi");
    let now = ssh.check("cat /proc/cmdline")?;
    ensure!(
        now == expected,
        "the command line is {now:?}, not {expected:?}"
    );
    let (first, _) = now.split_once(' ').context("an empty command line")?;
    ensure!(first.starts_with("keelson.slot="), "{now}");
    let status = Status::read(&ssh)?;
    ensure!(
        status.state.persistent && status.failures.is_empty(),
        "{status:?}"
    );
    ensure!(
        !ssh.check("sudo dmesg")?.contains("recovery complete"),
        "the state partition was not clean"
    );
    let (ssh, usual) = restart(lab, &vm, ssh, "keelson reboot", "reboot")?;
    ensure!(
        !ssh.check("cat /proc/cmdline")?.contains("keelson.kexec"),
        "the firmware did not start it"
    );
    println!(
        "      from unmounted to SSH: {:.1} s by kexec, {:.1} s by the firmware",
        kexec.as_secs_f64(),
        usual.as_secs_f64()
    );
    Ok(())
}

/// Restarts; gives the next boot's SSH, and the time to it from the moment at which all was unmounted.
fn restart(lab: &Lab, vm: &Vm, ssh: Ssh, command: &str, action: &str) -> Result<(Ssh, Duration)> {
    let before = ssh.check(BOOT_ID)?;
    // The connection may end before the command does.
    let _ = ssh.run(command);
    vm.serial.wait_for(
        &format!("everything is unmounted clean; {action}"),
        DOWN_DEADLINE,
    )?;
    let (down, said) = (Instant::now(), vm.serial.text().len());
    drop(ssh);
    let ssh = Ssh::connect(vm, &lab.key, BOOT_DEADLINE)?;
    let time = down.elapsed();
    ensure!(ssh.check(BOOT_ID)? != before, "it is the same boot");
    let text = vm.serial.text();
    let heard = text.get(said..).unwrap_or_default();
    let firmware = FIRMWARE.iter().find(|word| heard.contains(**word));
    ensure!(
        firmware.is_some() == (action == "reboot"),
        "of the firmware was heard: {firmware:?}"
    );
    Ok((ssh, time))
}
