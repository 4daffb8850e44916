//! Two machines with cables between them: what is made of the cables, and what is let in.

use std::ffi::OsString;
use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::json;

use crate::harness::disk;
use crate::harness::docker;
use crate::harness::lab::{Lab, SETTLE_DEADLINE};
use crate::harness::machine::Machine;
use crate::harness::seed;
use crate::harness::status::Status;

const DEADLINE: Duration = Duration::from_secs(90);
/// Keys of the two ends: private, public (Curve25519).
const KEYS: [(&str, &str); 2] = [
    (
        "dwdtCnMYpX08FsFyUbJmRd9PL5LrwJkqwXf7pR25LCo=",
        "FQT3NeYmy4QCMKbLmp2CmcWvHYf06EgbbqyiVBONI1E=",
    ),
    (
        "XasIfmJKikt54X+Lg4AO5m87sSkmGLb9HC+LJ/+I4Os=",
        "3p7bfXt9wbTTW2HC7OQ1Nz+DQ8hbeGdNrfx+FG+IK08=",
    ),
];
/// By what machine 1 reaches machine 2, and at which address.
const JOINED: [(&str, &str); 11] = [
    ("b0", "10.50.0.2"),
    ("b0", "fd50::2"),
    ("b0.7", "10.57.0.2"),
    ("wg1", "10.58.0.2"),
    ("gre1", "10.59.0.2"),
    ("gt1", "10.60.0.2"),
    ("ipip1", "10.61.0.2"),
    ("sit1", "fd61::2"),
    ("six1", "fd62::2"),
    ("gsix1", "fd63::2"),
    ("far", "10.62.0.2"),
];

/// What machine 1 or 2 is told.
fn user_data(key: &str, own: usize) -> String {
    let other = 3 - own;
    let ((private, _), (_, public)) = (KEYS[own - 1], KEYS[other - 1]);
    format!(
        "#cloud-config
hostname: end-{own}
ssh_authorized_keys: ['{key}']
keelson:
  ssh: {{ports: [22, 2022]}}
  network:
    version: 2
    ethernets:
      ssh: {{match: {{macaddress: '52:54:00:12:34:56'}}, dhcp4: true}}
      first: {{match: {{macaddress: '02:00:00:00:0{own}:01'}}, wakeonlan: true}}
      second: {{match: {{macaddress: '02:00:00:00:0{own}:02'}}}}
      awake: {{match: {{macaddress: '02:00:00:00:0{own}:03'}}, wakeonlan: true}}
    bonds:
      b0:
        interfaces: [first, second]
        parameters: {{mode: active-backup, primary: first, mii-monitor-interval: 100}}
        addresses: [10.50.0.{own}/24, 'fd50::{own}/64', 172.17.0.{own}/16, 10.213.0.{own}/24]
    vlans: {{b0.7: {{id: 7, link: b0, addresses: [10.57.0.{own}/24]}}}}
    tunnels:
      wg1:
        mode: wireguard
        key: '{private}'
        port: 51820
        addresses: [10.58.0.{own}/24]
        peers: [{{keys: {{public: '{public}'}}, endpoint: '10.50.0.{other}:51820', allowed-ips: [10.58.0.0/24]}}]
      gre1: {{mode: gre, local: 10.50.0.{own}, remote: 10.50.0.{other}, key: 0.0.0.7, addresses: [10.59.0.{own}/24]}}
      gt1: {{mode: gretap, local: 10.50.0.{own}, remote: 10.50.0.{other}, keys: {{input: {own}, output: {other}}}, addresses: [10.60.0.{own}/24]}}
      ipip1: {{mode: ipip, local: 10.50.0.{own}, remote: 10.50.0.{other}, ttl: 64, addresses: [10.61.0.{own}/24]}}
      sit1: {{mode: sit, local: 10.50.0.{own}, remote: 10.50.0.{other}, addresses: ['fd61::{own}/64']}}
      six1: {{mode: ip6ip6, local: 'fd50::{own}', remote: 'fd50::{other}', addresses: ['fd62::{own}/64']}}
      gsix1: {{mode: ip6gre, local: 'fd50::{own}', remote: 'fd50::{other}', addresses: ['fd63::{own}/64']}}
      far: {{mode: vxlan, id: 42, local: 10.50.0.{own}, remote: 10.50.0.{other}, port: 4789, link: b0, addresses: [10.62.0.{own}/24]}}
    dummy-devices: {{d0: {{addresses: [10.70.0.{own}/32]}}}}
    vrfs: {{red: {{table: 70, interfaces: [d0]}}}}
"
    )
}

/// Machine 1 or 2, with an end of two cables and a card that leads nowhere.
fn end(lab: &Lab, own: usize) -> Result<Machine> {
    let other = 3 - own;
    let directory = lab.dir().join(format!("end-{own}"));
    fs::create_dir_all(&directory).with_context(|| directory.display().to_string())?;
    let data = user_data(lab.key.public()?.trim(), own);
    let mut machine = lab.machine()?;
    machine.disks.clear();
    let system = disk::overlay(&lab.shipped.disk(), "raw", &directory.join("disk.qcow2"))?;
    let mut machine = machine
        .with_disk(&system)
        .with_raw(&seed::fat(&directory, &data)?);
    machine.cpus = 1;
    machine.memory_mib = 1024;
    // Sockets have short names.
    let socket =
        |cable: usize, end: usize| format!("/tmp/keelson-{}-{cable}-{end}", std::process::id());
    for cable in [1, 2] {
        let (here, there) = (socket(cable, own), socket(cable, other));
        machine.extra.extend(
            [
                "-netdev".to_owned(),
                format!("dgram,id=cable{cable},local.type=unix,local.path={here},remote.type=unix,remote.path={there}"),
                "-device".to_owned(),
                format!("virtio-net-pci,id=card{cable},netdev=cable{cable},mac=02:00:00:00:0{own}:0{cable}"),
            ]
            .map(OsString::from),
        );
    }
    machine.extra.extend(
        [
            "-netdev".to_owned(),
            "hubport,id=nowhere,hubid=9".to_owned(),
            "-device".to_owned(),
            format!("vmxnet3,netdev=nowhere,mac=02:00:00:00:0{own}:03"),
        ]
        .map(OsString::from),
    );
    Ok(machine)
}

pub(super) fn two_machines_are_joined_by_bonds_vlans_and_tunnels_and_let_in_what_is_said(
    lab: &mut Lab,
) -> Result<()> {
    let (mut first, mut second) = (lab.start(&end(lab, 1)?)?, lab.start(&end(lab, 2)?)?);
    let (one, two) = (lab.ssh(&first)?, lab.ssh(&second)?);
    let log = || -> Result<String> {
        let text = one.check("ip -br addr; keelson service logs network | tail -60")?;
        Ok(format!(
            "{text}\n---\n{}",
            two.check("ip -br addr; keelson service logs network | tail -60")?
        ))
    };
    for (interface, address) in JOINED {
        let line = format!("until ping -q -c 1 -W 2 {address}; do sleep 0.2; done");
        let reached = one.check_within(&line, DEADLINE);
        reached.with_context(|| format!("{interface}: {}", log().unwrap_or_default()))?;
        let route = one.check(&format!("ip route get {address}"))?;
        ensure!(route.contains(&format!(" dev {interface} ")), "{route}");
    }
    let made = one.check("ip -d link show dev gre1; ip -d link show dev b0; ip route show table 70; ip link show dev d0")?;
    for part in [
        "ikey 0.0.0.7 okey 0.0.0.7",
        "mode active-backup",
        "primary ",
        "master red",
    ] {
        ensure!(made.contains(part), "no {part}: {made}\n{}", log()?);
    }
    // vmxnet3's driver can wake the machine, virtio's cannot.
    let said = one.check("keelson service logs network | grep -i 'wake-on-lan'")?;
    ensure!(
        said.lines().count() == 1 && said.contains("setting wake-on-LAN: Operation not supported"),
        "{said}"
    );
    // The other cable takes over, whichever was in use.
    let cable = |vm: &mut crate::harness::vm::Vm, up: bool| {
        vm.qmp
            .execute("set_link", json!({"name": "card1", "up": up}))
    };
    cable(&mut first, false)?;
    cable(&mut second, false)?;
    one.check_within(
        "until ping -q -c 1 -W 2 10.57.0.2; do sleep 0.2; done",
        DEADLINE,
    )?;
    cable(&mut first, true)?;
    cable(&mut second, true)?;
    let primary = "until test $(cat /sys/class/net/b0/bonding/active_slave) = $(cut -d' ' -f1 /sys/class/net/b0/bonding/primary); do sleep 0.2; done";
    one.check_within(primary, DEADLINE)?;

    // Who is let in: everybody, and then those who are named. What Docker publishes is Docker's to say.
    Status::wait_settled(&two, SETTLE_DEADLINE)?;
    docker::import(&two)?;
    docker::run_detached(
        &two,
        "-p 8080:80 tests/busybox sh -c 'mkdir /w && echo cargo >/w/index.html && exec httpd -f -h /w'",
    )?;
    // Networks of containers are none of the machine's own.
    let places = two.check_within(
        "docker network inspect -f '{{(index .IPAM.Config 0).Subnet}}' bridge; \
         docker save tests/busybox | sudo system-docker load >&2; sudo system-docker run --rm tests/busybox ip -4 addr show dev eth0",
        DEADLINE,
    )?;
    ensure!(
        places.starts_with("10.214.0.0/16")
            && !places.contains("10.213.0.")
            && places.contains("inet 10.213.1."),
        "{places}"
    );
    let reaches = |address: &str, port: u16| -> Result<bool> {
        let line = format!("timeout 5 bash -c 'exec 3<>/dev/tcp/{address}/{port}'");
        Ok(one.run(&line)?.status.success())
    };
    ensure!(reaches("10.50.0.2", 2022)? && reaches("fd50::2", 2022)?);
    two.check_within(
        "sudo keelson config set --apply keelson.firewall '{allow: [22, {port: 2022, from: [10.57.0.0/24]}]}'",
        DEADLINE,
    )?;
    let there = "until sudo keelson service logs network | grep -q 'packet filter lets in'; do sleep 0.2; done";
    two.check_within(there, DEADLINE)
        .with_context(|| log().unwrap_or_default())?;
    for (address, port, expected) in [
        ("10.50.0.2", 22, true),
        ("fd50::2", 22, true),
        ("10.57.0.2", 2022, true),
        ("10.50.0.2", 2022, false),
        ("fd50::2", 2022, false),
        ("10.50.0.2", 8080, true),
    ] {
        ensure!(reaches(address, port)? == expected, "{address} {port}");
    }
    one.check("ping -q -c 1 -W 5 10.50.0.2 && ping -q -c 1 -W 5 fd50::2")?;
    let page = one.check("wget -q -O - http://10.50.0.2:8080/")?;
    ensure!(page == "cargo", "{page}");
    two.check_within(
        "sudo keelson config unset --apply keelson.firewall",
        DEADLINE,
    )?;
    one.check_within(
        "until timeout 5 bash -c 'exec 3<>/dev/tcp/10.50.0.2/2022'; do sleep 0.2; done",
        DEADLINE,
    )?;
    Ok(())
}
