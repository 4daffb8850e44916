//! Broken input: a clear message on the console that names what is wrong, and the best boot that is still possible.

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::harness::disk::{self, Partition};
use crate::harness::lab::{BOOT_DEADLINE, Lab};
use crate::harness::machine::Machine;
use crate::harness::status::Status;
use crate::harness::{process, seed};

/// How long a message may come after the prompt.
const MESSAGE_DEADLINE: Duration = Duration::from_secs(30);
const NOISE_BYTES: u64 = 8 << 20;

pub(super) fn a_machine_without_any_disk_says_which_os_slot_it_misses(lab: &mut Lab) -> Result<()> {
    let machine = Machine::direct(&lab.shipped)?;
    let cmdline = lab.shipped.cmdline()?;
    let slot = cmdline
        .split_whitespace()
        .find_map(|word| word.strip_prefix("keelson.slot=PARTUUID="));
    let slot = slot.context("the command line names no slot")?;
    let vm = lab.start(&machine)?;
    vm.serial
        .wait_for_all(&["keelson-init: the OS slot", slot], BOOT_DEADLINE)
}

pub(super) fn unparsable_user_data_is_named_on_the_console_and_the_boot_goes_on(
    lab: &mut Lab,
) -> Result<()> {
    let mut machine = lab.machine()?;
    machine.disks.truncate(1);
    let broken = "#cloud-config\nhostname: timber\nssh_authorized_keys: [unclosed\n";
    let machine = machine.with_raw(&seed::iso(lab.dir(), broken)?);
    let vm = lab.start(&machine)?;
    vm.serial.wait_for("login:", BOOT_DEADLINE)?;
    // The list is still open where the document ends.
    vm.serial
        .wait_for_all(&["user-data:4:1: not valid YAML"], MESSAGE_DEADLINE)
}

pub(super) fn a_state_partition_full_of_noise_is_named_on_the_console_and_left_alone(
    lab: &mut Lab,
) -> Result<()> {
    let mut machine = lab.machine()?;
    let raw = disk::copy(&lab.shipped.disk(), &lab.dir().join("noise.raw"))?;
    let state = disk::partition(&raw, "KEELSON_STATE")?;
    disk::fill_with_noise(
        &raw,
        state.start_bytes,
        state.size_bytes.min(NOISE_BYTES),
        lab.random_seed,
    )?;
    use_disk(lab, &mut machine, &raw)?;
    let vm = lab.start(&machine)?;
    vm.serial.wait_for("login:", BOOT_DEADLINE)?;
    vm.serial.wait_for_all(
        &["the state partition /dev/vda4", "state is kept in memory"],
        MESSAGE_DEADLINE,
    )?;
    let status = Status::read(&lab.ssh(&vm)?)?;
    ensure!(
        !status.state.persistent,
        "state is said to be kept on a partition full of noise"
    );
    vm.cut_power();
    let after = disk::flatten(
        &lab.dir().join("spoilt.qcow2"),
        &lab.dir().join("after.raw"),
    )?;
    let limit = state.size_bytes.min(NOISE_BYTES).to_string();
    let skip = format!("--ignore-initial={}", state.start_bytes);
    let mut compare = std::process::Command::new("cmp");
    compare.args(["-n", &limit, &skip]).arg(&raw).arg(&after);
    process::check(&mut compare, MESSAGE_DEADLINE)
        .context("what was on the partition was overwritten")
        .map(drop)
}

pub(super) fn one_flipped_bit_in_the_os_slot_is_refused_with_a_message(
    lab: &mut Lab,
) -> Result<()> {
    let mut machine = lab.machine()?;
    let raw = disk::copy(&lab.shipped.disk(), &lab.dir().join("flipped.raw"))?;
    let Partition { start_bytes, .. } = disk::partition(&raw, "keelson-a")?;
    // In the root's first block, with the file system's superblock: a place that every boot reads.
    disk::flip_bit(&raw, start_bytes + 1024 + 64)?;
    use_disk(lab, &mut machine, &raw)?;
    let vm = lab.start(&machine)?;
    vm.serial.wait_for_all(
        &["keelson-init: OS slot", "dm-verity refuses"],
        BOOT_DEADLINE,
    )?;
    ensure!(
        !vm.serial.text().contains("login:"),
        "it booted from a slot that had been changed"
    );
    Ok(())
}

pub(super) fn a_service_with_an_unknown_image_is_named_on_the_console_and_the_others_run(
    lab: &mut Lab,
) -> Result<()> {
    let console = lab.observed_boot_console()?;
    let named = console
        .lines()
        .any(|line| line.contains("unknown-image") && line.contains("keelson/no-such-image"));
    ensure!(
        named,
        "no line of the console names the service and its image"
    );
    let (_vm, ssh, _) = lab.observed()?;
    let status = Status::read(&ssh)?;
    let service = status.service("unknown-image")?;
    ensure!(
        service.state == "failed",
        "the service is {}",
        service.state
    );
    let reason = service.detail.clone().unwrap_or_default();
    ensure!(
        reason.contains("keelson/no-such-image"),
        "the reason given is {reason:?}"
    );
    ensure!(
        status.service("docker")?.state == "ready",
        "docker is {}",
        status.service("docker")?.state
    );
    Ok(())
}

fn use_disk(lab: &Lab, machine: &mut Machine, raw: &std::path::Path) -> Result<()> {
    if let Some(first) = machine.disks.first_mut() {
        first.path = disk::overlay(raw, "raw", &lab.dir().join("spoilt.qcow2"))?;
    }
    Ok(())
}
