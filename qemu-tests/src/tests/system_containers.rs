//! Containers that clients of Docker's API make on the system engine.

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::harness::lab::Lab;
use crate::harness::ssh::Ssh;

const DEADLINE: Duration = Duration::from_secs(60);
/// The image that the tests run: the console's own.
const IMAGE: &str = "keelson/console";

/// Runs a `system-docker` line and compares what it prints.
fn equal(ssh: &Ssh, line: &str, expected: &str) -> Result<()> {
    let answer = ssh.check(&format!("system-docker {line}"))?;
    ensure!(
        answer.trim() == expected,
        "`{line}` says {answer}, not {expected}"
    );
    Ok(())
}

/// Exit status of a `system-docker` line.
fn status(ssh: &Ssh, line: &str, expected: &str) -> Result<()> {
    let answer = ssh.check(&format!("system-docker {line} >/dev/null 2>&1; echo $?"))?;
    ensure!(
        answer.trim() == expected,
        "`{line}` ends with {answer}, not {expected}"
    );
    Ok(())
}

pub(super) fn a_container_of_the_system_engine_is_run_as_docker_runs_one(
    lab: &mut Lab,
) -> Result<()> {
    let (_vm, ssh, _observer) = lab.observed()?;
    let run = format!("run --rm --network none {IMAGE}");
    equal(
        &ssh,
        &format!("{run} sh -c 'echo out; echo err >&2' 2>&1"),
        "out\nerr",
    )?;
    status(&ssh, &format!("{run} sh -c 'exit 7'"), "7")?;
    status(&ssh, &format!("{run} no-such-program"), "127")?;
    let typed = ssh.check(&format!(
        "echo typed | system-docker run --rm -i --network none {IMAGE} cat"
    ))?;
    ensure!(typed == "typed", "{typed:?}");
    let terminal = ssh.check(&format!(
        "system-docker run --rm -t --network none {IMAGE} sh -c 'tty; echo $TERM'"
    ))?;
    ensure!(terminal == "/dev/pts/0\r\nxterm", "{terminal:?}");
    // Confined as Docker does it.
    let who = ssh.check(&format!(
        "system-docker run --rm --network none --user 1000:5 --cap-drop ALL -w /new/place -e A=b --hostname other \
         --read-only --tmpfs /scratch {IMAGE} \
         sh -c 'id -u; pwd; echo $A; hostname; grep CapEff /proc/self/status; touch /x 2>&1; touch /scratch/x && echo written'"
    ))?;
    let expected = "1000\n/new/place\nb\nother\nCapEff:\t0000000000000000\n\
                    touch: cannot touch '/x': Read-only file system\nwritten";
    ensure!(who == expected, "{who}");
    // All of them have gone with their ends.
    equal(&ssh, "ps -a --filter name=container- -q", "")
}

pub(super) fn containers_of_the_system_engine_are_managed_with_dockers_verbs(
    lab: &mut Lab,
) -> Result<()> {
    let (_vm, ssh, _observer) = lab.observed()?;
    let docker = |line: &str| ssh.check(&format!("system-docker {line}"));
    let listen = ssh.follow(
        "echo begun; exec system-docker events --filter label=a=b --format '{{.Action}}'",
    )?;
    listen.next(DEADLINE).context("no listener")?;
    docker(&format!(
        "create --name first --network none --label a=b -v kept:/data --restart on-failure:2 {IMAGE} sh -c 'echo begun; exec sleep 1000'"
    ))?;
    equal(
        &ssh,
        "ps -a --filter label=a=b --format '{{.Names}} {{.State}}'",
        "first created",
    )?;
    docker("start first")?;
    status(&ssh, "start first", "0")?;
    equal(
        &ssh,
        "exec first sh -c 'echo inside > /data/file; cat /proc/1/comm'",
        "sleep",
    )?;
    let typed = ssh.check("echo typed | system-docker exec -i first cat")?;
    ensure!(typed == "typed", "{typed:?}");
    let terminal = docker("exec -t first sh -c 'tty; echo $TERM'")?;
    ensure!(terminal == "/dev/pts/0\r\nxterm", "{terminal:?}");
    equal(&ssh, "pause first", "first")?;
    equal(
        &ssh,
        "ps --filter name=first --format '{{.State}}'",
        "paused",
    )?;
    status(&ssh, "exec first true", "1")?;
    status(&ssh, "pause first", "1")?;
    equal(&ssh, "unpause first", "first")?;
    status(&ssh, "exec first sh -c 'exit 3'", "3")?;
    status(&ssh, "exec first no-such-program", "127")?;
    equal(
        &ssh,
        "exec --user 5 --env A=b -w /data first sh -c 'id -u; echo $A; pwd'",
        "5\nb\n/data",
    )?;
    equal(&ssh, "logs first", "begun")?;
    status(&ssh, "rm first", "1")?;
    equal(&ssh, "top first | wc -l", "2")?;
    equal(
        &ssh,
        "stats --no-stream --format '{{.Name}} {{.PIDs}}' first",
        "first 1",
    )?;
    equal(&ssh, "update --memory 32m --restart no first", "first")?;
    equal(
        &ssh,
        "inspect first --format '{{.HostConfig.Memory}} {{.HostConfig.RestartPolicy.Name}}'",
        "33554432 no",
    )?;
    docker("rename first second")?;
    status(&ssh, "inspect first", "1")?;
    equal(&ssh, "kill --signal TERM second", "second")?;
    docker("stop --time 1 second")?;
    equal(
        &ssh,
        "inspect second --format '{{.State.Status}} {{.State.ExitCode}}'",
        "exited 137",
    )?;
    // What it wrote is there when it runs again, and its volume outlives it.
    docker("start second")?;
    equal(&ssh, "exec second cat /data/file", "inside")?;
    docker("rm --force second")?;
    let again = docker(&format!(
        "run --rm --network none -v kept:/data {IMAGE} cat /data/file"
    ))?;
    ensure!(again == "inside", "{again:?}");
    equal(&ssh, "volume rm kept", "kept")?;
    // A new one begins with what the image has in its place, and only then.
    let there = docker(&format!(
        "run --rm --network none -v fresh:/etc/ssh {IMAGE} sh -c 'stat -c %a /etc/ssh/sshd_config && rm /etc/ssh/sshd_config'"
    ))?;
    ensure!(there == "644", "{there}");
    docker(&format!(
        "run --rm --network none -v fresh:/etc/ssh {IMAGE} test ! -e /etc/ssh/sshd_config"
    ))?;
    equal(&ssh, "volume rm fresh", "fresh")?;
    equal(&ssh, "volume ls -q", "")?;

    let mut heard = Vec::new();
    while heard.last().is_none_or(|last| last != "destroy") {
        heard.push(listen.next(DEADLINE).context("the events end early")?);
    }
    ensure!(
        heard.first().is_some_and(|first| first == "create") && heard.contains(&"start".to_owned()),
        "{heard:?}"
    );
    Ok(())
}

pub(super) fn a_container_that_runs_out_of_memory_is_reported_so(lab: &mut Lab) -> Result<()> {
    let (_vm, ssh, _observer) = lab.observed()?;
    ssh.check(&format!(
        "system-docker run -d --name hungry --network none --memory 16m {IMAGE} sh -c 'x=$(head -c 100000000 /dev/zero | tr \"\\0\" x); sleep 100'"
    ))?;
    equal(&ssh, "wait hungry", "137")?;
    equal(
        &ssh,
        "inspect hungry --format '{{.State.OOMKilled}}'",
        "true",
    )?;
    equal(&ssh, "rm hungry", "hungry")
}

pub(super) fn killing_the_engine_loses_no_container_status_or_line(lab: &mut Lab) -> Result<()> {
    let (_vm, ssh, mut observer) = lab.observed()?;
    let docker = |line: &str| ssh.check(&format!("system-docker {line}"));
    docker(&format!(
        "run -d --name stays --network none {IMAGE} sh -c 'for n in $(seq 1000); do echo line $n; sleep 0.02; done; exit 5'"
    ))?;
    // Relayed through the engine, as it was made with its streams attached.
    docker(&format!(
        "create --name relayed --network none -a stdout {IMAGE} sh -c 'for n in $(seq 1000); do echo line $n; sleep 0.02; done; exit 6'"
    ))?;
    docker("start relayed")?;
    let pid = |name: &str| docker(&format!("inspect {name} --format '{{{{.State.Pid}}}}'"));
    let before = (pid("stays")?, pid("relayed")?);
    for _ in 0..5 {
        observer.run("kill -9 $(pidof keelson-engine)", DEADLINE)?;
        // It answers again as soon as the next one listens.
        docker("version")?;
        let after = (pid("stays")?, pid("relayed")?);
        ensure!(after == before, "{before:?}, then {after:?}");
    }
    equal(&ssh, "wait stays relayed", "5\n6")?;
    let lines: Vec<String> = (1..=1000).map(|number| format!("line {number}")).collect();
    for name in ["stays", "relayed"] {
        let printed = docker(&format!("logs {name}"))?;
        ensure!(
            printed.trim() == lines.join("\n"),
            "{name}: {} lines, the last is {:?}",
            printed.lines().count(),
            printed.lines().last()
        );
    }
    equal(&ssh, "rm stays relayed", "stays\nrelayed")
}
