//! Images of the system engine: from a registry and back, to and from dockerd.

use anyhow::{Result, ensure};

use crate::harness::docker;
use crate::harness::lab::Lab;
use crate::harness::proxy::Proxy;
use crate::harness::registry::Registry;
use crate::harness::ssh::Ssh;

/// Writes what is said of registries: a container that has the directory can.
pub(super) fn trust(ssh: &Ssh, registry: &Registry) -> Result<()> {
    let text = format!(
        "registries: {{\\\"127.0.0.1:{}\\\": {{insecure: true}}}}",
        registry.port
    );
    let script = format!("echo '{text}' >/engine/registries.yml");
    ssh.check(&format!(
        "system-docker run --rm --network none -v /state/engine:/engine keelson/console sh -c \"{script}\""
    ))?;
    Ok(())
}

pub(super) fn an_image_is_pulled_from_a_registry_and_run_by_the_system_engine(
    lab: &mut Lab,
) -> Result<()> {
    let (_vm, ssh, _observer) = lab.observed()?;
    docker::import(&ssh)?;
    let registry = Registry::start()?;
    let forwarded = ssh.reverse(registry.port)?;
    let name = format!("127.0.0.1:{}/team/box:1", registry.port);
    ssh.check(&format!(
        "docker tag {} {name} && docker push --quiet {name}",
        docker::IMAGE
    ))?;

    // Without TLS only when that is said.
    let (_, refused) = ssh.check_fails(&format!("system-docker pull {name}"))?;
    ensure!(refused.contains("https://127.0.0.1"), "{refused}");
    ssh.check(&format!(
        "sudo keelson config set --apply keelson.registries '{{\"127.0.0.1:{}\": {{insecure: true}}}}' && until sudo test -s /state/config/registries.yml; do sleep 0.1; done",
        registry.port
    ))?;
    let pulled = ssh.check(&format!("system-docker pull {name}"))?;
    ensure!(
        pulled.contains("Status: Downloaded newer image for"),
        "{pulled}"
    );
    let again = ssh.check(&format!("system-docker pull {name}"))?;
    ensure!(again.contains("Image is up to date"), "{again}");
    // Both engines call the image by the same number.
    let numbers = ssh.check(&format!(
        "docker inspect --format '{{{{.Id}}}}' {name}; system-docker inspect --format '{{{{.Id}}}}' {name}"
    ))?;
    let (theirs, ours) = numbers.split_once('\n').unwrap_or_default();
    ensure!(theirs == ours && !ours.is_empty(), "{numbers}");

    ssh.check(&format!(
        "system-docker run -d --name fresh --network none {name} sleep 1000"
    ))?;
    let inside = ssh
        .check("system-docker exec fresh sh -c 'echo kept >/file; cat /file; busybox | head -1'")?;
    ensure!(inside.starts_with("kept\nBusyBox"), "{inside}");
    let copied = ssh.check(
        "echo copied >/tmp/one && system-docker cp -q /tmp/one fresh:/two && system-docker cp -q fresh:/two - | tar xO",
    )?;
    ensure!(copied == "copied", "{copied}");
    let (_, used) = ssh.check_fails(&format!("system-docker rmi {name}"))?;
    ensure!(used.contains("is using its referenced image"), "{used}");
    ssh.check(&format!(
        "system-docker rm -f fresh && system-docker rmi {name}"
    ))?;
    let left =
        ssh.check("system-docker images --format '{{.Repository}}' | grep -v ^keelson/ | wc -l")?;
    ensure!(left.trim() == "0", "{left} images are left");
    // What is missing is pulled by `run`.
    let run = ssh.check(&format!(
        "system-docker run --rm --network none {name} echo pulled 2>/dev/null"
    ))?;
    ensure!(run == "pulled", "{run}");
    ssh.check(&format!(
        "system-docker image prune --all --force && docker rmi {name}"
    ))?;

    // The registry is out of reach, but for a proxy.
    drop(forwarded);
    ssh.check_fails(&format!("system-docker pull {name}"))?;
    let proxy = Proxy::start()?;
    let _forwarded = ssh.reverse(proxy.port)?;
    ssh.check(&format!(
        "sudo keelson config set --apply keelson.proxy '{{http_proxy: \"http://127.0.0.1:{0}\", https_proxy: \"http://127.0.0.1:{0}\"}}' && until sudo test -s /state/config/proxy.env; do sleep 0.1; done",
        proxy.port
    ))?;
    let pulled = ssh.check(&format!("system-docker pull {name}"))?;
    let said = proxy.said();
    ensure!(
        pulled.contains("Status: Downloaded newer image for")
            && said.contains(&registry.port.to_string()),
        "{pulled}\n{said}"
    );
    Ok(())
}

pub(super) fn images_go_from_dockerd_to_the_system_engine_and_back(lab: &mut Lab) -> Result<()> {
    let (_vm, ssh, _observer) = lab.observed()?;
    docker::import(&ssh)?;
    let image = docker::IMAGE;
    let loaded = ssh.check(&format!("docker save {image} | system-docker load"))?;
    ensure!(
        loaded.contains("Loaded image: tests/busybox:latest"),
        "{loaded}"
    );
    let run = ssh.check(&format!(
        "system-docker run --rm --network none {image} echo ran"
    ))?;
    ensure!(run == "ran", "{run}");
    ssh.check(&format!(
        "system-docker tag {image} back:1 && system-docker save back:1 | docker load"
    ))?;
    let run = docker::run(&ssh, "back:1 echo there")?;
    ensure!(run == "there", "{run}");
    let history = ssh.check("system-docker history --quiet back:1 | wc -l")?;
    ensure!(history.trim() == "1", "{history}");
    ssh.check(&format!(
        "system-docker rmi {image} back:1 && docker rmi back:1"
    ))?;
    Ok(())
}
