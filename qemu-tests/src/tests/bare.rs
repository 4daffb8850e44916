//! Machines that lack something: a login prompt all the same, within the usual time.

use std::fs;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::harness::lab::Lab;
use crate::harness::machine::{Boot, Machine, Network};
use crate::harness::status::Status;
use crate::harness::vm::Vm;
use crate::harness::{disk, process};

pub(super) fn without_a_disk_there_is_a_login_prompt_and_state_is_in_memory(
    lab: &mut Lab,
) -> Result<()> {
    let mut machine = lab.machine()?;
    remove_disk(lab, &mut machine)?;
    let vm = prompt(lab, &machine)?;
    vm.serial
        .wait_for_all(&["state is kept in memory"], Duration::from_secs(5))?;
    let status = Status::read(&lab.ssh(&vm)?)?;
    ensure!(
        !status.state.persistent,
        "state is said to be kept, and there is no partition for it"
    );
    Ok(())
}

pub(super) fn without_a_network_there_is_a_login_prompt(lab: &mut Lab) -> Result<()> {
    let mut machine = lab.machine()?;
    machine.network = Network::None;
    prompt(lab, &machine).map(drop)
}

pub(super) fn without_a_seed_there_is_a_login_prompt(lab: &mut Lab) -> Result<()> {
    let mut machine = lab.machine()?;
    machine.disks.truncate(1);
    prompt(lab, &machine).map(drop)
}

pub(super) fn without_disk_network_and_seed_there_is_a_login_prompt(lab: &mut Lab) -> Result<()> {
    let mut machine = lab.machine()?;
    remove_disk(lab, &mut machine)?;
    machine.network = Network::None;
    machine.disks.clear();
    prompt(lab, &machine).map(drop)
}

/// Waits for the prompt, for at most twice the time that the usual machine took in this run and a little.
fn prompt(lab: &mut Lab, machine: &Machine) -> Result<Vm> {
    let deadline = lab.usual_boot()? * 2 + Duration::from_secs(10);
    let vm = lab.start(machine)?;
    vm.serial.wait_for("login:", deadline)?;
    Ok(vm)
}

/// Takes the disk away; the slot that was on it comes with the initrd, as it does where there is no disk to boot from.
fn remove_disk(lab: &Lab, machine: &mut Machine) -> Result<()> {
    let tree = lab.dir().join("initrd-addition");
    let folder = "usr/lib/keelson";
    fs::create_dir_all(tree.join(folder)).context("making an addition to the initrd")?;
    let slot = disk::partition(&lab.shipped.disk(), "keelson-a")?;
    disk::extract(
        &lab.shipped.disk(),
        slot,
        &tree.join(folder).join("slot.img"),
    )?;
    let archive = lab.dir().join("addition.cpio");
    let mut command = Command::new("cpio");
    command
        .args(["--quiet", "-o", "-H", "newc", "-F"])
        .arg(&archive)
        .current_dir(&tree);
    let list = format!("usr\nusr/lib\n{folder}\n{folder}/slot.img\n");
    let output = process::run(&mut command, list.as_bytes(), Duration::from_secs(60))?;
    ensure!(output.status.success(), "cpio: {}", output.text());

    // Archives follow each other at multiples of four bytes.
    let mut joined = fs::read(lab.shipped.initrd()).context("reading the initrd")?;
    joined.resize(joined.len().next_multiple_of(4), 0);
    joined.extend(fs::read(&archive).context("reading the addition to the initrd")?);
    let path = lab.dir().join("initrd.raw");
    fs::write(&path, joined).context("writing the initrd")?;
    if let Boot::Kernel { initrd, .. } = &mut machine.boot {
        *initrd = path;
    }
    machine.disks.remove(0);
    fs::remove_dir_all(&tree).context("removing the addition to the initrd")
}
