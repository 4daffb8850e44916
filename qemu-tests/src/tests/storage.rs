//! Disks that a configuration asks for.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::json;

use crate::harness::docker;
use crate::harness::docker::DOCKER_DEADLINE;
use crate::harness::lab::{Lab, SETTLE_DEADLINE};
use crate::harness::machine::Disk;
use crate::harness::process;
use crate::harness::seed;
use crate::harness::status::Status;

const DEADLINE: Duration = Duration::from_secs(60);
const DOWN_DEADLINE: Duration = Duration::from_secs(60);

const STORAGE: &str = "\
device_aliases: {hold: /dev/vdc}
disk_setup:
  hold: {table_type: gpt, layout: [50, [50, 82]], overwrite: true}
fs_setup:
- {device: hold.1, filesystem: ext4, label: cargo, overwrite: true}
- {device: hold.2, filesystem: swap}
- {device: vdd, filesystem: FIRST, partition: auto}
swap: {filename: /swap.img, size: 32M}
mounts:
- [LABEL=cargo, /mnt/cargo, ext4, 'defaults,noatime']
- [/dev/vdd, /data]
- [hold.2, none, swap, sw]
- [/mnt/cargo, /home/keelson/cargo, none, bind]
- [/dev/disk/by-id/virtio-late, /srv/late]
";

fn blank(dir: &Path, name: &str, mib: u64) -> Result<PathBuf> {
    let path = dir.join(name);
    File::create(&path)
        .and_then(|file| file.set_len(mib << 20))
        .with_context(|| format!("making {}", path.display()))?;
    Ok(path)
}

pub(super) fn disks_are_parted_formatted_and_mounted_where_people_and_applications_see_them(
    lab: &mut Lab,
) -> Result<()> {
    let key = lab.key.public()?;
    let user_data = |kind: &str| {
        format!(
            "#cloud-config\nssh_authorized_keys: ['{}']\n{}",
            key.trim(),
            STORAGE.replace("FIRST", kind)
        )
    };
    let mut machine = lab.machine()?;
    machine.disks.truncate(1);
    let writable = |path: PathBuf| Disk {
        path,
        format: "raw",
        read_only: false,
        log: None,
    };
    let hold = blank(lab.dir(), "hold.raw", 256)?;
    let second = blank(lab.dir(), "second.raw", 320)?;
    let late = blank(lab.dir(), "late.raw", 64)?;
    process::check(Command::new("mkfs.ext4").args(["-Fq"]).arg(&late), DEADLINE)?;
    let with_seed = |user_data: &str| -> Result<_> {
        let mut machine = machine.clone().with_raw(&seed::fat(lab.dir(), user_data)?);
        machine
            .disks
            .extend([writable(hold.clone()), writable(second.clone())]);
        // For the disk that is plugged in later.
        machine.extra.extend(
            ["-device", "pcie-root-port,id=latecomer,chassis=9"].map(std::ffi::OsString::from),
        );
        Ok(machine)
    };
    let (mut vm, ssh) = lab.boot(&with_seed(&user_data("xfs"))?)?;
    Status::wait_settled(&ssh, SETTLE_DEADLINE)?;
    let said = ssh.check("keelson service ls; keelson service logs storage")?;
    ensure!(ssh.run("test -d /mnt/cargo")?.status.success(), "{said}");
    let seen = ssh.check(
        "cat /proc/mounts | grep -E ' /(mnt|data|home|srv)/?' | sort; tail -n +2 /proc/swaps; sudo sh -c 'echo wood >/mnt/cargo/a && echo sail >/data/b'; cat /home/keelson/cargo/a",
    )?;
    for part in [
        "/dev/vdc1 /mnt/cargo ext4 rw",
        "noatime",
        "/dev/vdd /data xfs",
        "/dev/vdc1 /home/keelson/cargo ext4",
        "/state/storage/swap",
        "/dev/vdc2",
        "wood",
    ] {
        ensure!(seen.contains(part), "no {part} in:\n{seen}\n{said}");
    }
    ensure!(said.contains("virtio-late is not there"), "{said}");
    docker::import(&ssh)?;
    let inside = ssh.check_within(
        "docker run --rm -v /mnt/cargo:/c -v /data:/d tests/busybox sh -c 'cat /c/a /d/b' && \
         docker run -d --name boat --restart always -v /mnt/cargo:/c tests/busybox sh -c 'cat /c/a && sleep 10000'",
        DOCKER_DEADLINE,
    )?;
    ensure!(inside.starts_with("wood\nsail\n"), "{inside}");

    // A disk that comes later.
    vm.qmp.execute(
        "blockdev-add",
        json!({"node-name": "late", "driver": "raw", "file": {"driver": "file", "filename": late}}),
    )?;
    vm.qmp.execute(
        "device_add",
        json!({"driver": "virtio-blk-pci", "drive": "late", "serial": "late", "bus": "latecomer"}),
    )?;
    ssh.check_within(
        "until grep -q ' /srv/late ' /proc/mounts; do sleep 0.2; done; sudo touch /srv/late/x; sync",
        DEADLINE,
    )?;

    let _ = ssh.run("sudo poweroff");
    vm.wait_off(DOWN_DEADLINE)?;
    ensure!(
        vm.serial.text().contains("everything is unmounted clean"),
        "{}",
        vm.serial.tail()
    );
    // Another file system is asked for where there is one: what is there stays. Docker begins when the disks are there.
    let (_vm, ssh) = lab.boot(&with_seed(&user_data("ext4"))?)?;
    Status::wait_settled(&ssh, SETTLE_DEADLINE)?;
    let after = ssh.check_within(
        "cat /mnt/cargo/a /data/b; until test $(docker logs boat | wc -l) = 2; do sleep 0.5; done; docker logs boat; keelson service logs storage",
        DOCKER_DEADLINE,
    )?;
    ensure!(
        after.starts_with("wood\nsail\nwood\nwood\n")
            && after.contains("fs_setup: /dev/vdd: a part of /dev/vdd is in use"),
        "{after}"
    );
    Ok(())
}
