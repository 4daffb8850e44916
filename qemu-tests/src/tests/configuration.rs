//! What a user's configuration makes of a machine.

use std::time::Duration;

use anyhow::{Result, ensure};

use crate::harness::docker::DOCKER_DEADLINE;
use crate::harness::lab::{Lab, SETTLE_DEADLINE};
use crate::harness::seed;
use crate::harness::ssh::Ssh;
use crate::harness::status::Status;

const SCRIPT_DEADLINE: Duration = Duration::from_secs(120);

/// The card in a bond, a VLAN on it, a bridge over a dummy, a VRF; an address of its own, which QEMU's network answers.
const NETWORK: &str = "\
version: 2
ethernets:
  card: {match: {name: 'e*'}}
bonds:
  bond0:
    interfaces: [card]
    parameters: {mode: active-backup, mii-monitor-interval: 100}
    addresses: [10.0.2.15/24, 'fd00:77::15/64']
    routes: [{to: default, via: 10.0.2.2}]
    nameservers: {addresses: [10.0.2.3], search: [sea.example]}
vlans:
  bond0.7: {id: 7, link: bond0, addresses: [192.0.2.1/24]}
dummy-devices:
  mast: {addresses: [198.51.100.1/32]}
bridges:
  deck: {interfaces: [mast2], addresses: [203.0.113.1/24], parameters: {stp: false}}
vrfs:
  hold: {table: 77, interfaces: [bond0.8]}
";

fn user_data(keys: &[&str], hostname: &str) -> String {
    let keys: Vec<String> = keys.iter().map(|key| format!("  - {key}\n")).collect();
    format!(
        "Content-Type: multipart/mixed; boundary=\"==B==\"\nMIME-Version: 1.0\n\n\
--==B==\nContent-Type: text/cloud-config\n\n#cloud-config\nhostname: {hostname}\nssh_authorized_keys:\n{}\
timezone: Europe/Berlin\n\
ntp: {{servers: [10.0.2.2]}}\n\
bootcmd: ['echo booted $INSTANCE_ID >>/opt/boots']\n\
runcmd: ['echo ran >>/opt/runs', [sh, -c, 'docker info >/opt/docker']]\n\
write_files:\n- {{path: /opt/page, source: {{uri: 'http://10.0.2.100/'}}, content: beside, permissions: '0640'}}\n\
- {{path: /etc/page, source: {{uri: 'http://10.0.2.100/'}}, content: beside}}\n\
final_message: 'the $datasource machine is up after $UPTIME s'\n\
packages: [nginx]\n\
keelson:\n  sysctl: {{vm.swappiness: 7, net.core.somaxconn: 777}}\n  modules: [ifb numifbs=1]\n  docker: {{labels: [wood=oak]}}\n\n\
--==B==\nContent-Type: text/x-shellscript-per-boot\nContent-Disposition: attachment; filename=\"tide\"\n\n#!/bin/sh\necho tide >>/opt/boots\n\n\
--==B==\nContent-Type: text/jinja2\n\n## template: jinja\n#cloud-config\nmerge_how: dict(recurse_dict)+list(append)\nlocale: {{% if v1.cloud_name == 'nocloud' %}}C.UTF-8{{% endif %}}\n--==B==--\n",
        keys.concat()
    )
}

pub(super) fn a_machine_is_what_all_layers_of_its_configuration_say_and_follows_them(
    lab: &mut Lab,
) -> Result<()> {
    let own = lab.key.public()?;
    let other =
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHarbourHarbourHarbourHarbourHarbourHarbour other";
    let vendor = "#cloud-config\nhostname: vendor\nkeelson: {sysctl: {vm.page-cluster: 1}}\n";
    let files = |user_data: &str| {
        seed::fat_of(
            lab.dir(),
            &[
                ("user-data", user_data),
                ("meta-data", "instance-id: i-7\nlocal-hostname: meta\n"),
                ("vendor-data", vendor),
                ("network-config", NETWORK),
            ],
        )
    };
    let mut machine = lab.machine()?;
    machine.disks.truncate(1);
    let page = crate::harness::lab::write_page(lab.dir())?;
    if let crate::harness::machine::Network::User { page: wanted, .. } = &mut machine.network {
        *wanted = Some(page);
    }
    let first = files(&user_data(&[own.trim(), other], "brig"))?;
    let machine_1 = machine.clone().with_raw(&first);
    let (vm, ssh) = lab.boot(&machine_1)?;
    Status::wait_settled(&ssh, SETTLE_DEADLINE)?;

    let said = ssh.check("keelson service logs first-boot")?;
    ensure!(
        said.contains("packages that will be missing: nginx"),
        "{said}"
    );
    network(&ssh)?;
    let names = ssh.check("hostname; cat /etc/timezone; date +%Z | grep -q CE && echo berlin; cat /etc/default/locale")?;
    ensure!(
        names == "brig\nEurope/Berlin\nberlin\nLANG=C.UTF-8",
        "{names}"
    );
    let kernel = ssh.check("cat /proc/sys/vm/swappiness /proc/sys/net/core/somaxconn /proc/sys/vm/page-cluster | xargs")?;
    ensure!(kernel == "7 777 1", "{kernel}");
    let modules =
        ssh.check("grep -c '^ifb ' /proc/modules; keelson service privileges module-ifb")?;
    ensure!(
        modules.starts_with('1') && modules.contains("SYS_MODULE"),
        "{modules}"
    );
    let sources = ssh.check("system-docker exec time chronyc -n sources")?;
    ensure!(sources.contains("10.0.2.2"), "{sources}");
    ssh.check_within(
        "until docker info --format '{{.Labels}}' | grep wood=oak; do sleep 0.5; done",
        DOCKER_DEADLINE,
    )?;
    let scripts = ssh.check_within(
        "until test -s /opt/docker && sudo sh -c 'ls /state/config/scripts/*/finished' 2>/dev/null; do sleep 0.5; done >/dev/null; cat /opt/boots /opt/runs; sudo cmp /opt/page /etc/page && cat /etc/page; stat -c %a /opt/page",
        SCRIPT_DEADLINE,
    )?;
    ensure!(
        scripts
            == format!(
                "booted i-7\ntide\nran\n{}640",
                crate::harness::lab::PAGE_TEXT
            ),
        "{scripts}"
    );
    ensure!(
        vm.serial.text().contains("the nocloud machine is up after"),
        "{}",
        vm.serial.tail()
    );
    let keys = ssh.check("cut -d' ' -f3 .ssh/authorized_keys | xargs")?;
    ensure!(keys.ends_with("other"), "{keys}");

    // What is set counts more than what the user's document says, at once when it is applied.
    ssh.check("sudo keelson config set keelson.sysctl.'\"vm.swappiness\"' 9 && sudo keelson config set hostname sloop")?;
    let (_, refused) = ssh.check_fails("sudo keelson config set timezone ../../x")?;
    ensure!(
        refused.contains("timezone: `../../x`") || refused.contains("there is an error"),
        "{refused}"
    );
    ssh.check_within("sudo keelson config apply", SCRIPT_DEADLINE)?;
    ssh.check_within("until grep -q 9 /proc/sys/vm/swappiness; do keelson service up kernel-parameters; sleep 0.5; done", SCRIPT_DEADLINE)?;
    // The console follows as well.
    ssh.check_within(
        "sudo keelson config set --apply locale C && until grep -qx LANG=C /etc/default/locale; do sleep 0.2; done",
        SCRIPT_DEADLINE,
    )?;
    let got = ssh.check("sudo keelson config get hostname; sudo keelson config get keelson.modules.0; hostname; wc -l </opt/boots")?;
    ensure!(got == "sloop\nifb numifbs=1\nsloop\n2", "{got}");
    let exported = ssh.check("sudo keelson config export")?;
    ensure!(
        exported.starts_with("#cloud-config")
            && exported.contains("sloop")
            && !exported.contains("vendor"),
        "{exported}"
    );

    // The same instance with one key less, at the next start: settings follow, scripts do not run again.
    let _ = ssh.run("sync; sudo reboot -f || true");
    drop(ssh);
    vm.cut_power();
    let second = files(&user_data(&[own.trim()], "brig"))?;
    let (_vm, ssh) = lab.boot(&machine.with_raw(&second))?;
    Status::wait_settled(&ssh, SETTLE_DEADLINE)?;
    let said = ssh.check("keelson service logs first-boot")?;
    ensure!(
        said.contains("its settings are applied, its scripts are not run"),
        "{said}"
    );
    network(&ssh)?;
    let keys = ssh.check("cat .ssh/authorized_keys")?;
    ensure!(keys.trim() == own.trim(), "{keys}");
    let after = ssh.check_within(
        "until test $(wc -l </opt/boots) -ge 4; do sleep 0.2; done; cat /opt/boots /opt/runs | xargs; hostname; cat /proc/sys/vm/swappiness /etc/page",
        SCRIPT_DEADLINE,
    )?;
    let page = crate::harness::lab::PAGE_TEXT.trim_end();
    ensure!(
        after == format!("booted i-7 tide booted i-7 tide ran\nsloop\n9\n{page}"),
        "{after}"
    );

    // What was made goes with what declared it, and the card has an address of its own: this very connection goes on.
    let links = ssh.check_within(
        "sudo keelson config set --apply keelson.network '{version: 2, ethernets: {card: {match: {name: \"e*\"}, dhcp4: true}}}' && \
         until ! test -e /sys/class/net/bond0 && ip -br -4 address | grep -q '^e.*UP.*10[.]0[.]2[.]15/24'; do sleep 0.5; done; ip -br link",
        SCRIPT_DEADLINE,
    )?;
    ensure!(
        ["bond0", "mast", "deck", "hold"]
            .iter()
            .all(|gone| !links.contains(gone)),
        "{links}"
    );
    let status = ssh.check("keelson network status")?;
    ensure!(
        status.contains("10.0.2.15/24") && status.contains("DHCP from 10.0.2.2"),
        "{status}"
    );

    // Another network without this very connection, which nobody confirms; then one that somebody does.
    let other =
        "{version: 2, ethernets: {card: {match: {name: \"e*\"}, addresses: [10.0.2.99/24]}}}";
    ssh.check_within(
        &format!("echo '{other}' | sudo keelson network apply --confirm 6s && \
         until ip -br -4 address | grep 10[.]0[.]2[.]99; do sleep 0.2; done && until ip -br -4 address | grep 10[.]0[.]2[.]15; do sleep 0.2; done; ! sudo keelson network confirm"),
        SCRIPT_DEADLINE,
    )?;
    let kept = ssh.check_within(
        "echo '{version: 2, ethernets: {card: {match: {name: \"e*\"}, dhcp4: true, addresses: [192.0.2.77/24]}}}' | sudo keelson network apply --confirm 60s && \
         until ip -br -4 address | grep 192[.]0[.]2[.]77; do sleep 0.2; done && sudo keelson network confirm && \
         sudo keelson config get keelson.network.ethernets.card.addresses; sudo ls /state/config/network; keelson network status",
        SCRIPT_DEADLINE,
    )?;
    ensure!(
        kept.contains("192.0.2.77/24")
            && kept.contains("configuration")
            && !kept.contains("trial.json"),
        "{kept}"
    );
    Ok(())
}

fn network(ssh: &Ssh) -> Result<()> {
    let addresses = ssh.check(
        "ip -br address; ip route; cat /etc/resolv.conf; cat /sys/class/net/bond0/bonding/mode",
    )?;
    for part in [
        "10.0.2.15/24",
        "fd00:77::15/64",
        "192.0.2.1/24",
        "198.51.100.1/32",
        "203.0.113.1/24",
        "default via 10.0.2.2 dev bond0",
        "search sea.example",
        "nameserver 10.0.2.3",
        "active-backup",
        "hold ",
    ] {
        ensure!(addresses.contains(part), "no {part} in:\n{addresses}");
    }
    let card = ssh.check("ip -d link show master bond0 | head -1; ip -d link show bond0.7")?;
    ensure!(
        card.contains("master bond0") && card.contains("vlan protocol 802.1Q id 7"),
        "{card}"
    );
    Ok(())
}
