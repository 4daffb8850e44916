//! Machines that lack something: a login prompt all the same, within the usual time.

use std::time::Duration;

use anyhow::{Result, ensure};

use crate::harness::disk;
use crate::harness::lab::Lab;
use crate::harness::machine::{Machine, Network};
use crate::harness::status::Status;
use crate::harness::vm::Vm;

pub(super) fn without_a_state_partition_there_is_a_login_prompt_and_state_is_in_ram(
    lab: &mut Lab,
) -> Result<()> {
    let mut machine = lab.machine()?;
    remove_state(lab, &mut machine)?;
    let vm = prompt(lab, &machine)?;
    vm.serial.wait_for_all(&["RAM"], Duration::from_secs(5))?;
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

pub(super) fn without_state_partition_network_and_seed_there_is_a_login_prompt(
    lab: &mut Lab,
) -> Result<()> {
    let mut machine = lab.machine()?;
    remove_state(lab, &mut machine)?;
    machine.network = Network::None;
    machine.disks.truncate(1);
    prompt(lab, &machine).map(drop)
}

/// Waits for the prompt, for at most twice the time that the usual machine took in this run and a little.
fn prompt(lab: &mut Lab, machine: &Machine) -> Result<Vm> {
    let deadline = lab.usual_boot()? * 2 + Duration::from_secs(10);
    let vm = lab.start(machine)?;
    vm.serial.wait_for("login:", deadline)?;
    Ok(vm)
}

/// Replaces the first disk by one whose table has no state partition.
fn remove_state(lab: &Lab, machine: &mut Machine) -> Result<()> {
    let raw = disk::copy(&lab.shipped.disk(), &lab.dir().join("stateless.raw"))?;
    let state = disk::partition(&raw, "KEELSON_STATE")?;
    disk::delete_partition(&raw, state.number)?;
    if let Some(first) = machine.disks.first_mut() {
        first.path = disk::overlay(&raw, "raw", &lab.dir().join("stateless.qcow2"))?;
    }
    Ok(())
}
