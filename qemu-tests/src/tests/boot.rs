//! From the firmware to a running container.

use std::time::Duration;

use anyhow::{Result, ensure};

use crate::harness::docker::{self, IMAGE};
use crate::harness::lab::{BOOT_DEADLINE, Lab, PAGE_TEXT, SETTLE_DEADLINE, write_page};
use crate::harness::machine::{Boot, Network, PAGE_URL};
use crate::harness::status::Status;
use crate::harness::{console, http, seed};

pub(super) fn uefi_boot_reaches_a_login_and_docker_runs_an_image_made_on_the_spot(
    lab: &mut Lab,
) -> Result<()> {
    let mut machine = lab.machine()?;
    machine.boot = Boot::Uefi;
    machine.network = Network::User {
        forwards: vec![22, 8080],
        page: Some(write_page(lab.dir())?),
    };
    let vm = lab.start(&machine)?;
    // The firmware's own words.
    vm.serial.wait_for("BdsDxe: starting", BOOT_DEADLINE)?;
    vm.serial.wait_for("login:", BOOT_DEADLINE)?;
    let ssh = lab.ssh(&vm)?;
    Status::wait_settled(&ssh, SETTLE_DEADLINE)?;
    // The seed is applied while the prompt is there already; by now the password is known.
    console::log_in(&vm.serial, "keelson", seed::PASSWORD)?;
    let timeline = console::run(&vm.serial, "keelson boot", Duration::from_secs(30))?;
    for part in ["kernel", "initrd", "docker", "console"] {
        ensure!(
            timeline.contains(part),
            "the boot's time line has no {part}: {timeline}"
        );
    }
    ensure!(
        ssh.check("hostname")? == seed::HOSTNAME,
        "the seed's hostname was not taken"
    );
    docker::import(&ssh)?;

    let page = docker::run(&ssh, &format!("{IMAGE} wget -q -O - {PAGE_URL}"))?;
    ensure!(
        page == PAGE_TEXT,
        "a container's view of the network is {page:?}"
    );

    let write = format!("-v shelf:/www {IMAGE} sh -c 'echo from the volume >/www/index.html'");
    docker::run(&ssh, &write)?;
    docker::run_detached(
        &ssh,
        &format!("--name web -p 8080:80 -v shelf:/www {IMAGE} httpd -f -h /www"),
    )?;
    let body = http::get(vm.port(8080)?, "/", docker::DOCKER_DEADLINE)?;
    ensure!(
        body == "from the volume\n",
        "the published port serves {body:?}"
    );
    Ok(())
}
