//! Machines that a metadata service tells who they are.

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::harness::cloud::Cloud;
use crate::harness::lab::{Lab, SETTLE_DEADLINE};
use crate::harness::machine::Network;
use crate::harness::status::Status;

const DEADLINE: Duration = Duration::from_secs(120);

/// What EC2 says of a machine.
fn documents<'a>(id: &'a str, key: &'a str, user_data: &'a str) -> Vec<(&'static str, &'a str)> {
    vec![
        ("/latest/api/token", "token"),
        ("/2021-03-23/meta-data/instance-id", id),
        (
            "/2021-03-23/meta-data/",
            "instance-id\nlocal-hostname\nplacement/\npublic-keys/",
        ),
        (
            "/2021-03-23/meta-data/local-hostname",
            "ip-10-0-0-5.ec2.internal",
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
    machine
        .extra
        .extend(["-smbios", "type=1,manufacturer=Amazon EC2"].map(Into::into));
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
    ensure!(
        ssh.host_key()? != host_key,
        "the SSH host key is the other machine's"
    );
    Ok(())
}
