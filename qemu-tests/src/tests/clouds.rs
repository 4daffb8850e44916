//! Machines that a metadata service or their hypervisor tells who they are.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use crate::harness::cloud::Cloud;
use crate::harness::lab::{Lab, SETTLE_DEADLINE};
use crate::harness::machine::Network;
use crate::harness::seed;
use crate::harness::status::Status;

/// The firmware's word for Amazon's machines.
const IDENTITY: &str = "type=1,manufacturer=Amazon EC2,uuid=4b1c7d3e-0000-4000-8000-00000000cafe";
const DEADLINE: Duration = Duration::from_secs(120);

/// What EC2 says of a machine.
fn documents<'a>(id: &'a str, key: &'a str, user_data: &'a str) -> Vec<(&'static str, &'a str)> {
    vec![
        ("/latest/api/token", "token"),
        ("/2021-03-23/meta-data/instance-id", id),
        (
            "/2021-03-23/meta-data/",
            "instance-id\nlocal-hostname\nnetwork/\nplacement/\npublic-keys/",
        ),
        (
            "/2021-03-23/meta-data/local-hostname",
            "ip-10-0-0-5.ec2.internal",
        ),
        // A card that this machine has not: it is a copy, or the card was replaced.
        ("/2021-03-23/meta-data/network/", "interfaces/"),
        ("/2021-03-23/meta-data/network/interfaces/", "macs/"),
        (
            "/2021-03-23/meta-data/network/interfaces/macs/",
            "06:00:00:00:00:01/",
        ),
        (
            "/2021-03-23/meta-data/network/interfaces/macs/06:00:00:00:00:01/",
            "device-number",
        ),
        (
            "/2021-03-23/meta-data/network/interfaces/macs/06:00:00:00:00:01/device-number",
            "0",
        ),
        ("/2021-03-23/meta-data/placement/", "region"),
        ("/2021-03-23/meta-data/placement/region", "sea-south-1"),
        ("/2021-03-23/meta-data/public-keys/", "0=mine"),
        ("/2021-03-23/meta-data/public-keys/0/", "openssh-key"),
        ("/2021-03-23/meta-data/public-keys/0/openssh-key", key),
        ("/2021-03-23/user-data", user_data),
        (
            "/part",
            "## template: jinja\n#cloud-config\nhostname: {{ v1.region }}\nruncmd: ['echo {{ v1.instance_id }} >>/opt/runs']\n",
        ),
    ]
}

pub(super) fn a_machine_in_a_cloud_is_who_the_metadata_service_says_and_stays_so_without_it(
    lab: &mut Lab,
) -> Result<()> {
    let key = lab.key.public()?;
    let include = "#include\nhttp://169.254.169.254/part\n";
    let cloud = Cloud::start()?;
    let mut machine = lab.machine()?;
    machine.disks.truncate(1);
    machine.network = Network::Cloud {
        bridge: cloud.write_bridge(lab.dir())?,
    };
    machine.extra.extend(["-smbios", IDENTITY].map(Into::into));
    // The service has no time, and the console is there all the same.
    let vm = lab.start(&machine)?;
    vm.serial.wait_for("login:", DEADLINE)?;
    cloud.wait_asked(DEADLINE)?;
    cloud.has(&documents("i-1", key.trim(), include));
    let ssh = lab
        .ssh(&vm)
        .with_context(|| format!("the service was asked for {:?}", cloud.asked()))?;
    let all = ssh.check_within(
        "until test -s /opt/runs; do sleep 0.2; done; cat /opt/runs; hostname; wc -l <.ssh/authorized_keys",
        DEADLINE,
    )?;
    ensure!(all == "i-1\nsea-south-1\n1", "{all}");
    let asked = cloud.asked();
    ensure!(
        asked.iter().any(|line| line == "PUT /latest/api/token"),
        "{asked:?}"
    );
    Status::wait_settled(&ssh, SETTLE_DEADLINE)?;
    let service = ssh.check("keelson service logs metadata; keelson service privileges metadata; keelson service ls --all | grep metadata")?;
    ensure!(
        service.contains("Ec2: nothing is known yet")
            && service.contains("instance `i-1`")
            && service.contains("may ask for: configure")
            && service.contains("finished"),
        "{service}"
    );
    let host_key = ssh.host_key()?;
    let _ = ssh.run("sync; sudo reboot -f || true");
    drop(ssh);
    vm.cut_power();

    // What it said last holds while it has no time.
    cloud.has(&[]);
    let (vm, ssh) = lab.boot(&machine)?;
    let kept = ssh.check("hostname; cat /opt/runs")?;
    ensure!(kept == "sea-south-1\ni-1", "{kept}");
    ensure!(ssh.host_key()? == host_key, "the SSH host key has changed");
    // Another instance is another machine, as soon as the service says so.
    cloud.has(&documents("i-2", key.trim(), include));
    let runs = ssh.check_within(
        "until test $(wc -l </opt/runs) -eq 2; do sleep 0.2; done; xargs </opt/runs",
        DEADLINE,
    )?;
    ensure!(runs == "i-1 i-2", "{runs}");
    drop(ssh);
    let ssh = lab.ssh(&vm)?;
    let second_key = ssh.host_key()?;
    ensure!(
        ssh.host_key()? != host_key,
        "the SSH host key is the other machine's"
    );
    let _ = ssh.run("sync; sudo reboot -f || true");
    drop(ssh);
    vm.cut_power();

    // A copy of the machine is not the machine: its firmware says so before the service does.
    let copied = machine.extra.iter().map(|word| match word.to_str() {
        Some(IDENTITY) => IDENTITY.replace("cafe", "beef").into(),
        _ => word.clone(),
    });
    machine.extra = copied.collect();
    cloud.has(&[]);
    let vm = lab.start(&machine)?;
    vm.serial.wait_for("login:", DEADLINE)?;
    let ssh = lab.ssh(&vm)?;
    Status::wait_settled(&ssh, SETTLE_DEADLINE)?;
    let said = ssh.check("keelson service logs first-boot; cat /opt/runs")?;
    ensure!(
        said.contains("said it to another machine") && said.ends_with("i-1\ni-2"),
        "{said}"
    );
    cloud.has(&documents("i-3", key.trim(), include));
    let runs = ssh.check_within(
        "until test $(wc -l </opt/runs) -eq 3; do sleep 0.2; done; xargs </opt/runs",
        DEADLINE,
    )?;
    ensure!(runs == "i-1 i-2 i-3", "{runs}");
    drop(ssh);
    let ssh = lab.ssh(&vm)?;
    ensure!(
        ssh.host_key()? != second_key,
        "the copy has the machine's SSH host key"
    );
    Ok(())
}

pub(super) fn a_machine_is_who_its_hypervisor_says(lab: &mut Lab) -> Result<()> {
    let user_data = STANDARD.encode("#cloud-config\nruncmd: ['echo $INSTANCE_ID >/opt/runs']\n");
    let mut machine = lab.machine()?;
    machine.disks.truncate(1);
    let key = lab.key.public()?;
    for (option, value) in [
        (
            "-smbios",
            "type=1,uuid=4b1c7d3e-0000-4000-8000-00000000beef".to_owned(),
        ),
        (
            "-smbios",
            "type=11,value=io.systemd.credential:system.hostname=brig".to_owned(),
        ),
        (
            "-smbios",
            format!("type=11,value=io.systemd.credential.binary:keelson.user-data={user_data}"),
        ),
        (
            "-fw_cfg",
            format!(
                "name=opt/io.systemd.credentials/ssh.authorized_keys.root,string={}",
                key.trim()
            ),
        ),
    ] {
        machine.extra.extend([option.into(), value.into()]);
    }
    let (_vm, ssh) = lab.boot(&machine)?;
    let all = ssh.check_within(
        "until test -s /opt/runs; do sleep 0.2; done; cat /opt/runs; hostname; ! keelson service ls --all | grep metadata",
        DEADLINE,
    )?;
    ensure!(all == "4b1c7d3e-0000-4000-8000-00000000beef\nbrig", "{all}");
    Ok(())
}

pub(super) fn a_machine_of_azures_has_its_custom_data_from_the_disc_and_its_keys_from_the_service(
    lab: &mut Lab,
) -> Result<()> {
    const ID: &str = "4b1c7d3e-0000-4000-8000-00000000a2e0";
    let custom_data = STANDARD.encode("#cloud-config\nruncmd: ['echo $INSTANCE_ID >>/opt/runs']\n");
    let disc = seed::azure(lab.dir(), "from-the-disc", &custom_data)?;
    let cloud = Cloud::start()?;
    let instance = json!({
        "compute": {
            "vmId": "ANOTHER-SPELLING", "location": "westeurope", "osProfile": {"computerName": "node"},
            "publicKeys": [{"keyData": lab.key.public()?, "path": "x"}],
        },
        "network": {"interface": [{"macAddress": "525400123456", "ipv4": {"ipAddress": [{"privateIpAddress": "169.254.169.15"}]}}]},
    })
    .to_string();
    cloud.has(&[(
        "/metadata/instance?api-version=2021-08-01&extended=true",
        &instance,
    )]);
    let mut machine = lab.machine()?;
    machine.disks.truncate(1);
    machine.network = Network::Cloud {
        bridge: cloud.write_bridge(lab.dir())?,
    };
    let tag = "type=3,asset=7783-7084-3265-9085-8269-3286-77".to_owned();
    for value in [format!("type=1,uuid={ID}"), tag] {
        machine.extra.extend(["-smbios".into(), value.into()]);
    }
    let (vm, ssh) = lab.boot(&machine.clone().with_raw(&disc))?;
    let line =
        "until test -s /opt/runs && test $(hostname) = node; do sleep 0.2; done; cat /opt/runs";
    let runs = ssh.check_within(line, DEADLINE)?;
    ensure!(runs == ID, "{runs}");
    let said = ssh.check("keelson service logs first-boot; keelson service logs metadata")?;
    ensure!(said.contains("ovf-env.xml on vdb"), "{said}");
    let _ = ssh.run("sync; sudo reboot -f || true");
    drop(ssh);
    vm.cut_power();
    // The disc is there once; neither of the two has to be there again.
    cloud.has(&[]);
    let (_vm, ssh) = lab.boot(&machine)?;
    let kept = ssh.check("hostname; cat /opt/runs")?;
    ensure!(kept == format!("node\n{ID}"), "{kept}");
    Ok(())
}
