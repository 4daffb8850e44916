//! Machines booted once and continued by many tests.
//!
//! The guest's memory goes to a file, its disk is frozen; each test continues in a QEMU of its own over a fresh overlay, so
//! tests share nothing and may end their machine as they like.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::harness::accel::Accel;
use crate::harness::disk;
use crate::harness::machine::Machine;
use crate::harness::vm::Vm;

/// How long QEMU may take to write the guest's memory.
const SAVE_DEADLINE: Duration = Duration::from_secs(120);

/// A saved machine. Its first disk is the one that is written to.
pub struct Snapshot {
    machine: Machine,
    memory: PathBuf,
    disk: PathBuf,
}

impl Snapshot {
    /// Stops `vm`, which was started from `machine`, and saves it in `dir`.
    ///
    /// # Errors
    /// When QEMU cannot save it.
    pub fn take(mut vm: Vm, machine: Machine, dir: &Path) -> Result<Self> {
        let memory = dir.join("memory");
        vm.qmp
            .save_to(&memory.display().to_string(), SAVE_DEADLINE)?;
        vm.qmp.execute("quit", serde_json::json!({}))?;
        vm.wait_off(SAVE_DEADLINE)?;
        let disk = machine
            .disks
            .first()
            .context("a snapshot needs a disk")?
            .path
            .clone();
        Ok(Snapshot {
            machine,
            memory,
            disk,
        })
    }

    /// Continues it, with logs and a new overlay in `dir`.
    ///
    /// # Errors
    /// When QEMU cannot load it.
    pub fn resume(&self, accel: Accel, dir: &Path) -> Result<Vm> {
        let mut machine = self.machine.clone();
        let overlay = disk::overlay(&self.disk, "qcow2", &dir.join("disk.qcow2"))?;
        if let Some(first) = machine.disks.first_mut() {
            first.path = overlay;
        }
        machine.incoming = Some(self.memory.clone());
        Vm::start(&machine, accel, dir)
    }
}
