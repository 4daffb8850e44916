//! The system engine as the stock Docker command line sees it.

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::harness::lab::Lab;
use crate::harness::ssh::Ssh;
use crate::harness::status::Status;

const DEADLINE: Duration = Duration::from_secs(60);

fn equal(ssh: &Ssh, line: &str, expected: &str) -> Result<()> {
    let answer = ssh.check(line)?;
    ensure!(
        answer.trim() == expected,
        "`{line}` says {answer}, not {expected}"
    );
    Ok(())
}

pub(super) fn the_stock_docker_command_lists_and_inspects_system_containers(
    lab: &mut Lab,
) -> Result<()> {
    let (_vm, ssh, _observer) = lab.observed()?;
    let server = "{{.Server.APIVersion}} {{.Server.MinAPIVersion}} {{.Client.APIVersion}}";
    equal(
        &ssh,
        &format!("system-docker version --format '{server}'"),
        "1.45 1.41 1.45",
    )?;

    let status = Status::read(&ssh)?;
    let mut running: Vec<String> = status.pids().into_keys().collect();
    running.sort();
    equal(
        &ssh,
        "system-docker ps --format '{{.Names}}' | sort",
        &running.join("\n"),
    )?;
    equal(
        &ssh,
        "system-docker info --format '{{.Containers}} {{.ContainersRunning}} {{.CgroupVersion}} {{.LoggingDriver}}'",
        &format!(
            "{} {} 2 keelson-log",
            ssh.check("system-docker ps --all --quiet | wc -l")?.trim(),
            running.len()
        ),
    )?;
    equal(
        &ssh,
        "system-docker ps -a --filter name=udev-coldplug --format '{{.State}}'",
        "exited",
    )?;
    let pid = status.service("time")?.pid.context("time does not run")?;
    let format = "{{.Name}} {{.State.Pid}} {{.HostConfig.ReadonlyRootfs}} {{.HostConfig.CapAdd}} {{.HostConfig.RestartPolicy.Name}}";
    equal(
        &ssh,
        &format!("system-docker inspect time --format '{format}'"),
        &format!("/time {pid} true [SYS_TIME] always"),
    )?;
    // By the beginning of its number as well.
    equal(
        &ssh,
        "system-docker inspect $(system-docker ps -q --filter name=time) --format '{{.Name}}'",
        "/time",
    )?;
    let processes = ssh.check("system-docker top time")?;
    ensure!(processes.contains("/usr/sbin/chronyd"), "{processes}");
    Ok(())
}

pub(super) fn the_stock_docker_command_stops_starts_and_reads_system_containers(
    lab: &mut Lab,
) -> Result<()> {
    let (_vm, ssh, mut observer) = lab.observed()?;
    let pid = |ssh: &Ssh| -> Result<Option<i32>> { Ok(Status::read(ssh)?.service("udev")?.pid) };
    let first = pid(&ssh)?;
    equal(&ssh, "system-docker restart udev", "udev")?;
    let second = pid(&ssh)?;
    ensure!(
        second.is_some() && second != first,
        "restart: {first:?}, then {second:?}"
    );

    // A wait that begins before the end hears of it.
    let line = "system-docker wait udev >/tmp/waited & sleep 1; system-docker stop --time 5 udev; wait; cat /tmp/waited";
    equal(&ssh, line, "udev\n0")?;
    equal(
        &ssh,
        "system-docker ps -a --filter name=^/udev$ --format '{{.State}}'",
        "exited",
    )?;
    equal(&ssh, "system-docker stop udev", "udev")?; // 304 is no error
    equal(&ssh, "system-docker start udev", "udev")?;
    ensure!(pid(&ssh)?.is_some(), "start did not start it");

    equal(&ssh, "system-docker kill udev", "udev")?;
    equal(
        &ssh,
        "system-docker inspect udev --format '{{.State.ExitCode}}'",
        "137",
    )?;
    equal(&ssh, "system-docker start udev", "udev")?;

    let log = ssh.check("system-docker logs --tail 1 network 2>&1")?;
    let ours = ssh.check("keelson service logs network --tail 1")?;
    ensure!(
        !log.trim().is_empty() && ours.contains(log.trim()),
        "{log:?}, {ours:?}"
    );
    let line = "system-docker logs --follow --tail 0 --timestamps observer 2>&1";
    let follow = ssh.follow(&format!("echo begun; exec {line}"))?;
    follow.next(DEADLINE).context("no follower")?;
    // What is said before the engine has asked the log service is not followed: said until it is heard.
    let heard = (0..50).find_map(|_| {
        // Descriptor 4 is the observer's own output.
        let said = observer.run("echo 'said by the test' >&4", DEADLINE);
        said.ok().and_then(|_| follow.next(Duration::from_secs(2)))
    });
    let line = heard.context("nothing came while following")?;
    ensure!(line.ends_with("Z said by the test"), "{line:?}");
    Ok(())
}

pub(super) fn mistakes_of_docker_users_are_answered_as_dockerd_does(lab: &mut Lab) -> Result<()> {
    let (_vm, ssh, _observer) = lab.observed()?;
    for line in [
        "stop nothing-of-that-name",
        "inspect nothing-of-that-name",
        "kill --signal NOTHING nothing-of-that-name",
        "logs nothing-of-that-name",
        "ps --filter colour=blue",
        "network inspect nothing-of-that-name",
        "network rm bridge",
        "network create --subnet 10.1.2.0/33 x1",
        "network create --driver nothing x1",
        "network connect bridge nothing-of-that-name",
        "network connect nothing-of-that-name nothing-else",
        "network disconnect bridge nothing-of-that-name",
    ] {
        let (_, theirs) = ssh.check_fails(&format!("docker {line}"))?;
        let (_, ours) = ssh.check_fails(&format!("system-docker {line}"))?;
        ensure!(
            ours == theirs,
            "`{line}`: dockerd says {theirs}, the system engine {ours}"
        );
    }
    for (line, says) in [
        ("swarm init", "the system engine does not do this"),
        ("commit udev copy:1", "udev is a service of the system"),
    ] {
        let (_, ours) = ssh.check_fails(&format!("system-docker {line}"))?;
        ensure!(ours.contains(says), "`{line}`: {ours}");
    }
    Ok(())
}
