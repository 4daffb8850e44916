//! What starts a machine without being installed on it, and the disk image in other formats.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::harness::lab::Lab;
use crate::harness::machine::{Boot, Machine};
use crate::harness::process;
use crate::harness::status::Status;

const TOOL_DEADLINE: Duration = Duration::from_secs(120);

pub(super) fn one_image_starts_by_uefi_and_bios_from_disc_and_stick_and_by_the_network(
    lab: &mut Lab,
) -> Result<()> {
    let image = output(lab, "keelson.iso")?;
    let as_a_disc = |boot| -> Result<Machine> {
        let mut machine = Machine::new(boot).with_raw(&lab.seed()?);
        let file = image.display();
        machine.extra.extend([
            "-drive".into(),
            format!("if=none,id=disc,media=cdrom,format=raw,readonly=on,file={file}").into(),
            "-device".into(),
            "ide-cd,drive=disc,bootindex=0".into(),
        ]);
        Ok(machine)
    };
    println!("      a disc, by UEFI");
    live(lab, &as_a_disc(Boot::Uefi)?)?;
    println!("      a disc, by BIOS");
    lab.boot_to(&as_a_disc(Boot::Bios)?, "login:")?;
    println!("      a stick, by UEFI");
    lab.boot_to(&Machine::new(Boot::Uefi).with_raw(&image), "login:")?;
    println!("      a stick, by BIOS");
    lab.boot_to(&Machine::new(Boot::Bios).with_raw(&image), "login:")?;
    println!("      the network");
    let line = std::fs::read_to_string(output(lab, "netboot-cmdline")?)?;
    let boot = Boot::Kernel {
        kernel: lab.shipped.kernel(),
        initrd: output(lab, "netboot-initrd")?,
        cmdline: line.trim().to_owned(),
    };
    live(lab, &Machine::new(boot).with_raw(&lab.seed()?))?;
    looked_at_by_others(&image)
}

pub(super) fn the_disk_image_is_the_same_in_the_formats_of_hypervisors(
    lab: &mut Lab,
) -> Result<()> {
    for format in ["qcow2", "vmdk", "vhdx"] {
        let mut compare = Command::new("qemu-img");
        compare.args(["compare", "-f", "raw", "-F", format]);
        compare.arg(lab.shipped.disk());
        compare.arg(output(lab, &format!("keelson.{format}"))?);
        process::check(&mut compare, TOOL_DEADLINE)
            .with_context(|| format!("comparing {format}"))?;
    }
    Ok(())
}

/// Starts a machine, and looks whether it keeps nothing and has on its medium what an installed system has on its disk.
fn live(lab: &Lab, machine: &Machine) -> Result<()> {
    let (vm, ssh) = lab.boot(machine)?;
    let status = Status::read(&ssh)?;
    ensure!(
        !status.state.persistent,
        "a live system keeps its state on a disk"
    );
    ssh.check("grep -qw keelson.live=1 /proc/cmdline")?;
    let shown = ssh.check("keelson os status 2>&1; true")?;
    ensure!(shown.contains("live system"), "{shown}");
    drop(vm);
    Ok(())
}

fn looked_at_by_others(image: &Path) -> Result<()> {
    let said = process::check(Command::new("sgdisk").arg("-v").arg(image), TOOL_DEADLINE)?;
    ensure!(said.contains("No problems found"), "sgdisk: {said}");
    let mut xorriso = Command::new("xorriso");
    xorriso.args(["-indev"]).arg(image);
    let said = process::check(xorriso.args(["-report_el_torito", "plain"]), TOOL_DEADLINE)?;
    for platform in ["BIOS", "UEFI"] {
        ensure!(said.contains(platform), "no {platform} in {said}");
    }
    Ok(())
}

/// One of the build's outputs.
fn output(lab: &Lab, name: &str) -> Result<PathBuf> {
    let path = lab.out().join(name);
    ensure!(
        path.is_file(),
        "{} is missing: build it (./mkimage.sh build --iso --netboot --format qcow2 --format vmdk --format vhdx)",
        path.display()
    );
    path.canonicalize().context("finding an output")
}
