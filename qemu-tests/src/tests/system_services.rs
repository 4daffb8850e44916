//! Services of the machine's own, and services that get other images.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::harness::docker;
use crate::harness::lab::{Lab, SETTLE_DEADLINE};
use crate::harness::process;
use crate::harness::registry::Registry;
use crate::harness::seed;
use crate::harness::ssh::Ssh;
use crate::harness::status::Status;

const SCRIPT_DEADLINE: Duration = Duration::from_secs(120);

/// A service that says what it is every second until it is stopped.
const FILE: &str = "\
services:
  buoy:
    image: ${REGISTRY}/buoy:1
    environment: {WORD: \"${WORD:-none}\"}
    network_mode: host
    restart: always
    stop_signal: KILL
    healthcheck: {test: [CMD, test, -e, /tmp/up], start_interval: 100ms}
    x-keelson: {ready: health, start_timeout: 15s}
";

/// Images of the registry: 1 and 2 come up, 3 does not.
fn push_images(ssh: &Ssh, registry: &str) -> Result<()> {
    docker::import(ssh)?;
    for (tag, script) in [
        (
            "1",
            "touch /tmp/up; while :; do echo one $WORD; sleep 1; done",
        ),
        (
            "2",
            "touch /tmp/up; while :; do echo two $WORD; sleep 1; done",
        ),
        ("3", "sleep 1; exit 7"),
    ] {
        let name = format!("{registry}/buoy:{tag}");
        ssh.check(&format!(
            "docker create --name make {} true >/dev/null && docker commit --change 'CMD [\"sh\", \"-c\", \"{script}\"]' make {name} >/dev/null && docker rm make >/dev/null && docker push --quiet {name}",
            docker::IMAGE
        ))?;
    }
    Ok(())
}

fn image_of(ssh: &Ssh, service: &str) -> Result<String> {
    ssh.check(&format!(
        "keelson service ls --all | awk '$1 == \"{service}\" {{ print $(NF) }}'"
    ))
}

pub(super) fn a_compose_file_becomes_a_service_that_is_upgraded_and_goes_back_by_itself(
    lab: &mut Lab,
) -> Result<()> {
    let (_vm, ssh, _observer) = lab.observed()?;
    let registry = Registry::start()?;
    let _forwarded = ssh.reverse(registry.port)?;
    let address = format!("127.0.0.1:{}", registry.port);
    push_images(&ssh, &address)?;
    ssh.check(&format!(
        "sudo mkdir -p /state/config/services && printf 'REGISTRY={address}\\nWORD=oak\\n' | sudo tee /state/config/services/.env"
    ))?;
    super::system_images::trust(&ssh, &registry)?;

    // Wrong files name the place and change nothing.
    let wrong = FILE.replace("restart:", "restrat:");
    let output = ssh.run_with(
        "keelson service enable -",
        wrong.as_bytes(),
        SCRIPT_DEADLINE,
    )?;
    let said = &output.stderr;
    ensure!(
        !output.status.success() && said.contains("services.yml:6:5"),
        "{said}"
    );

    // From a URL, as from a file: the image is fetched when the service is first started.
    ssh.run_with(
        "cat >/home/keelson/buoy.yml",
        FILE.as_bytes(),
        SCRIPT_DEADLINE,
    )?;
    ssh.check(&format!(
        "docker run -d --name web --network host -v /home/keelson:/srv {} httpd -f -p 127.0.0.1:8765 -h /srv",
        docker::IMAGE
    ))?;
    let enabled = ssh.check_within(
        "keelson service enable --now http://127.0.0.1:8765/buoy.yml",
        SCRIPT_DEADLINE,
    )?;
    ensure!(enabled == "buoy: enabled\nbuoy: up", "{enabled}");
    let said = ssh.follow("keelson service logs -f buoy")?;
    let next = |word: &str| {
        let found = std::iter::from_fn(|| said.next(Duration::from_secs(30)))
            .find(|line| line.contains(word));
        found.with_context(|| format!("the service never said `{word}`"))
    };
    next("one oak")?;

    ssh.check_within(
        &format!("keelson service upgrade buoy --image {address}/buoy:2"),
        SCRIPT_DEADLINE,
    )?;
    next("two oak")?;
    let (_, why) = ssh.check_fails(&format!(
        "keelson service upgrade buoy --image {address}/buoy:3"
    ))?;
    ensure!(
        why.contains("did not come up") && why.contains("exit status 7") && why.contains("back on"),
        "{why}"
    );
    let service = Status::read(&ssh)?;
    let buoy = service.service("buoy")?;
    ensure!(buoy.state == "ready", "{}", buoy.state);
    next("two oak")?;
    let (_, used) = ssh.check_fails(&format!("system-docker rmi {address}/buoy:2"))?;
    ensure!(used.contains("buoy"), "{used}");

    let (_, own) = ssh.check_fails("keelson service rm log")?;
    ensure!(own.contains("belongs to the OS image"), "{own}");
    ssh.check("keelson service rm buoy")?;
    let left = ssh.check("keelson service ls --all --json | grep -c buoy || true")?;
    ensure!(left == "0", "{left}");
    Ok(())
}

/// Reached at a port of the host, by name in a network, by a socket that starts it, and slow on purpose.
const CONNECTED: &str = "\
services:
  berth:
    image: tests/busybox
    command: httpd -f -p 80 -h /srv
    ports: [\"127.0.0.1:8097:80\"]
    networks: {dock: {aliases: [quay]}}
    volumes: [/state/berth:/srv]
    blkio_config:
      device_write_bps: [{path: /dev/disk/by-label/KEELSON_STATE, rate: 1mb}]
  caller:
    image: tests/busybox
    command: sh -c 'until wget -qO- http://quay/word; do sleep 0.2; done; exec sleep 100000'
    networks: [dock]
    extra_hosts: {lighthouse: 192.0.2.7}
    dns: 192.0.2.53
    dns_search: [sea.example]
    depends_on: [berth]
    stop_signal: KILL
  bell:
    image: tests/busybox
    command: sh -c 'echo told $$LISTEN_FDS $$LISTEN_PID $$LISTEN_FDNAMES; dd bs=64 count=1 <&3'
    network_mode: none
    x-keelson:
      start: socket
      sockets: [{listen: \"127.0.0.1:8098\", type: dgram, name: rope}]
networks: {dock: {external: true}}
";

pub(super) fn services_have_networks_ports_sockets_and_limits_on_disks(
    lab: &mut Lab,
) -> Result<()> {
    let (_vm, ssh, mut observer) = lab.observed()?;
    docker::import(&ssh)?;
    ssh.check_within(
        "docker save tests/busybox | system-docker load && system-docker network create dock",
        SCRIPT_DEADLINE,
    )?;
    observer.run(
        "mkdir /host/state/berth && echo moored >/host/state/berth/word",
        SCRIPT_DEADLINE,
    )?;
    ssh.run_with(
        "cat >/home/keelson/harbour.yml",
        CONNECTED.as_bytes(),
        SCRIPT_DEADLINE,
    )?;
    ssh.check_within(
        "keelson service enable --now /home/keelson/harbour.yml",
        SCRIPT_DEADLINE,
    )?;
    let word = ssh.check_within(
        "until exec 3<>/dev/tcp/127.0.0.1/8097; do sleep 0.2; done 2>/dev/null; printf 'GET /word HTTP/1.0\\r\\n\\r\\n' >&3; tail -n 1 <&3",
        SCRIPT_DEADLINE,
    )?;
    ensure!(word == "moored", "{word}");
    let said = ssh.check_within(
        "until keelson service logs caller | grep moored; do sleep 0.2; done",
        SCRIPT_DEADLINE,
    )?;
    ensure!(said.contains("moored"), "{said}");
    let names = ssh.check("system-docker exec caller cat /etc/hosts /etc/resolv.conf")?;
    ensure!(
        names.contains("192.0.2.7\tlighthouse")
            && names.contains("nameserver 192.0.2.53\nsearch sea.example"),
        "{names}"
    );

    let limit = observer.run(
        "cat /host/sys/fs/cgroup/system/berth/io.max",
        SCRIPT_DEADLINE,
    )?;
    ensure!(limit.contains(" wbps=1048576 "), "{limit}");
    let seconds = "system-docker exec berth sh -c 'begun=$(cut -d. -f1 /proc/uptime); dd if=/dev/zero of=/srv/big bs=64k count=64 conv=fsync 2>/dev/null; echo $(($(cut -d. -f1 /proc/uptime) - begun))'";
    let seconds: u32 = ssh.check_within(seconds, SCRIPT_DEADLINE)?.parse()?;
    ensure!(
        seconds >= 2,
        "4 MB at 1 MB a second were written in {seconds} s"
    );
    ssh.check("system-docker run --rm --device-write-bps /dev/vda:2mb tests/busybox true")?;

    ensure!(Status::read(&ssh)?.service("bell")?.state == "listening");
    ssh.check("echo ding >/dev/udp/127.0.0.1/8098")?;
    let said = ssh.check_within(
        "until keelson service logs bell | grep ding; do sleep 0.2; done; keelson service logs bell",
        SCRIPT_DEADLINE,
    )?;
    ensure!(said.contains("told 1 1 rope"), "{said}");
    // It is rung again, and heard although the engine was killed meanwhile.
    observer.run("kill -9 $(pidof keelson-engine)", SCRIPT_DEADLINE)?;
    ssh.check("echo dong >/dev/udp/127.0.0.1/8098")?;
    ssh.check_within(
        "until keelson service logs bell | grep dong; do sleep 0.2; done",
        SCRIPT_DEADLINE,
    )?;
    Ok(())
}

pub(super) fn the_network_service_is_upgraded_and_applications_do_not_notice(
    lab: &mut Lab,
) -> Result<()> {
    let (_vm, ssh, _observer) = lab.observed()?;
    docker::import(&ssh)?;
    docker::run_detached(
        &ssh,
        "--name app --publish 8080:80 --volume /home/keelson/page:/srv tests/busybox httpd -f -h /srv",
    )?;
    let before = docker::life(&ssh, "app")?;
    let addresses = "ip -4 -brief address show scope global | grep -v kb- | sort";
    let had = ssh.check(addresses)?;
    // The same program, in an image of its own; and one that has no such program.
    ssh.check_within(
        "system-docker export network | system-docker import - new/network && docker save tests/busybox | system-docker load",
        SCRIPT_DEADLINE,
    )?;
    ssh.check_within(
        "keelson service upgrade network --image new/network",
        SCRIPT_DEADLINE,
    )?;
    let image = image_of(&ssh, "network")?;
    ensure!(image.starts_with("new/network"), "{image}");
    let (_, why) = ssh.check_fails("keelson service upgrade network --image tests/busybox")?;
    ensure!(why.contains("back on new/network"), "{why}");
    ensure!(Status::read(&ssh)?.service("network")?.state == "ready");
    ssh.check_within(
        "keelson service upgrade network --image keelson/network",
        SCRIPT_DEADLINE,
    )?;
    ensure!(ssh.check(addresses)? == had, "the addresses have changed");
    ensure!(
        docker::life(&ssh, "app")? == before,
        "the application has noticed"
    );
    Ok(())
}

pub(super) fn console_and_user_engine_are_switched_and_keep_what_is_theirs(
    lab: &mut Lab,
) -> Result<()> {
    let (vm, ssh, _observer) = lab.observed()?;
    docker::import(&ssh)?;
    docker::run_detached(
        &ssh,
        "--name app --restart always tests/busybox sleep 100000",
    )?;
    let before = docker::life(&ssh, "app")?;
    ssh.check_within(
        "system-docker export console | system-docker import --change 'LABEL io.rancher.os.console=own' - own/console",
        SCRIPT_DEADLINE,
    )?;
    let list = ssh.check("keelson console list")?;
    ensure!(
        list.contains("own/console") && list.contains("current"),
        "{list}"
    );
    let switch = |ssh: Ssh, image: &str| -> Result<Ssh> {
        // It ends this very login.
        let _ = ssh.run(&format!("keelson console switch {image}"));
        drop(ssh);
        let ssh = lab.ssh(&vm)?;
        let found = image_of(&ssh, "console")?;
        let expected = image.replace("default", "keelson/console");
        ensure!(found == expected, "the console is {found}");
        Ok(ssh)
    };
    let ssh = switch(ssh, "own/console:latest")?;
    ssh.check("sudo touch /etc/kept /home/keelson/mine")?;
    let ssh = switch(ssh, "default")?;
    ssh.check("test ! -e /etc/kept && test -e /home/keelson/mine")?;
    let ssh = switch(ssh, "own/console:latest")?;
    ssh.check("test -e /etc/kept && sudo docker ps >/dev/null && keelson status >/dev/null")?;
    ensure!(
        docker::life(&ssh, "app")? == before,
        "the application has noticed"
    );

    ssh.check_within(
        "system-docker export docker | system-docker import - own/engine",
        SCRIPT_DEADLINE,
    )?;
    ssh.check_within("keelson engine switch own/engine", SCRIPT_DEADLINE)?;
    let image = image_of(&ssh, "docker")?;
    ensure!(image == "own/engine", "the user engine is {image}");
    ssh.check_within(
        "until docker inspect --format '{{.State.Running}}' app | grep true; do sleep 1; done",
        SCRIPT_DEADLINE,
    )?;
    ensure!(docker::life(&ssh, "app")? != before, "it never ended");
    ssh.check_within("keelson engine switch default", SCRIPT_DEADLINE)?;
    Ok(())
}

/// The recipe of the Debian console.
const DEBIAN: &str = "system-services/console/debian/build";

pub(super) fn a_debian_console_has_apt_and_keeps_what_it_installs(lab: &mut Lab) -> Result<()> {
    let (vm, ssh, _observer) = lab.observed()?;
    let archive = lab.dir().join("debian-console.tar.zst");
    process::check(Command::new(DEBIAN).arg(&archive), SETTLE_DEADLINE)?;
    let archive = std::fs::read(&archive).context("reading the archive")?;
    let import =
        "system-docker import --change 'LABEL io.rancher.os.console=debian' - debian-console";
    let imported = ssh.run_with(import, &archive, SCRIPT_DEADLINE)?;
    ensure!(imported.status.success(), "{}", imported.text());
    let listed = ssh.check("keelson console list")?;
    ensure!(listed.contains("debian-console"), "{listed}");
    // It ends the login that asks for it.
    let switch = |ssh: Ssh, image: &str| -> Result<Ssh> {
        let _ = ssh.run(&format!("keelson console switch {image}"));
        drop(ssh);
        lab.ssh(&vm)
    };
    let ssh = switch(ssh, "debian-console")?;
    let id = ssh.check(". /etc/os-release; echo $ID")?;
    ensure!(id == "debian", "{id}");
    ssh.check(
        "keelson status >/dev/null && docker version >/dev/null && system-docker ps >/dev/null",
    )?;
    let package = "mkdir -p pennant/DEBIAN pennant/usr/bin && printf 'Package: pennant\\nVersion: 1\\nArchitecture: all\\nMaintainer: me <me@example.org>\\nDescription: flies\\n' >pennant/DEBIAN/control && printf '#!/bin/sh\\necho flies\\n' >pennant/usr/bin/pennant && chmod +x pennant/usr/bin/pennant && dpkg-deb --build pennant";
    ssh.check_within(package, SCRIPT_DEADLINE)?;
    ssh.check_within("sudo apt-get install --yes ./pennant.deb", SCRIPT_DEADLINE)?;
    let ssh = switch(ssh, "default")?;
    ssh.check("test -e pennant.deb && ! command -v pennant")?;
    let ssh = switch(ssh, "debian-console")?;
    let said = ssh.check("pennant && dpkg --status pennant | grep ^Status")?;
    ensure!(
        said.contains("flies") && said.contains("install ok installed"),
        "{said}"
    );
    Ok(())
}

pub(super) fn services_of_a_cloud_config_run_where_rancheros_ran_them(lab: &mut Lab) -> Result<()> {
    let user_data = format!(
        "{}\
keelson:
  environment: {{WORD: elm}}
  services:
    knot:
      image: keelson/console
      command: [sh, -c, 'echo $${{0}} $WORD; exec sleep 100000', tied]
      environment: [WORD]
      network_mode: none
rancher:
  services:
    splice:
      image: keelson/console
      command: sleep 100000
      net: none
      labels: {{io.rancher.os.scope: system, io.rancher.os.after: knot}}
    gone:
      image: nothing/here
      restart: always
",
        seed::usual(&lab.key.public()?)
    );
    let mut machine = lab.machine()?;
    machine.disks.truncate(1);
    let machine = machine.with_raw(&seed::fat(lab.dir(), &user_data)?);
    let (_vm, ssh) = lab.boot(&machine)?;
    let status = Status::wait_settled(&ssh, SETTLE_DEADLINE)?;
    for name in ["knot", "splice"] {
        let state = &status.service(name)?.state;
        ensure!(state == "ready", "{name} is {state}");
    }
    let said = ssh.check("keelson service logs knot")?;
    ensure!(said.contains("tied elm"), "{said}");
    // What RancherOS ran in its user Docker is for Docker: here it has no registry to ask.
    let asked = ssh.check_within(
        "until keelson service logs console | grep -m1 'nothing/here'; do sleep 1; done",
        SCRIPT_DEADLINE,
    )?;
    ensure!(!asked.is_empty());
    Ok(())
}
