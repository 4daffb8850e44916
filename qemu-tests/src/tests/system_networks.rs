//! Networks and published ports of containers on the system engine.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};

use crate::harness::docker;
use crate::harness::lab::Lab;
use crate::harness::process;
use crate::harness::ssh::Ssh;

const DEADLINE: Duration = Duration::from_secs(60);
/// Two services, one of which asks the other by its name.
const PROJECT: &str = r#"
services:
  web:
    image: tests/busybox
    command: [sh, -c, "mkdir /www && echo hello >/www/index.html && exec busybox httpd -f -p 80 -h /www"]
    ports: ["127.0.0.1:8081:80"]
    healthcheck:
      test: [CMD, busybox, wget, -q, -O, "-", "http://127.0.0.1/"]
      interval: 1s
  client:
    image: tests/busybox
    command: [sh, -c, "busybox wget -q -O - http://web/ && exec sleep 1000"]
    depends_on:
      web: {condition: service_healthy}
    volumes: [data:/data]
volumes:
  data:
"#;

/// What a `system-docker` line has to print.
fn says(ssh: &Ssh, line: &str, expected: &str) -> Result<()> {
    let answer = ssh.check(&format!("system-docker {line}"))?;
    ensure!(
        answer.trim() == expected,
        "`{line}` says {answer}, not {expected}"
    );
    Ok(())
}

pub(super) fn containers_meet_in_networks_and_are_reached_at_published_ports(
    lab: &mut Lab,
) -> Result<()> {
    let (_vm, ssh, mut observer) = lab.observed()?;
    docker::import(&ssh)?;
    let image = docker::IMAGE;
    ssh.check(&format!(
        "docker save {image} | system-docker load --quiet && system-docker network create --label a=b back"
    ))?;
    let serve = "mkdir /www && echo hello >/www/index.html && exec busybox httpd -f -p 80 -h /www";
    ssh.check(&format!(
        "system-docker run -d --name web --network back --network-alias www -p 8080:80 {image} sh -c '{serve}'"
    ))?;
    // Peers know each other by name and alias; the host and other networks come by the published port alone.
    let fetch = "busybox wget -T 5 -q -O -";
    for name in ["web", "www"] {
        let line = format!("run --rm --network back {image} {fetch} http://{name}/");
        says(&ssh, &line, "hello")?;
    }
    // Another name is known to those who run already.
    ssh.check(&format!(
        "system-docker run -d --name peer --network back {image} sleep 1000 && system-docker rename web site"
    ))?;
    says(&ssh, &format!("exec peer {fetch} http://site/"), "hello")?;
    ssh.check("system-docker rename site web && system-docker rm -f peer")?;
    for address in ["127.0.0.1", "10.0.2.15"] {
        let answer = ssh.check(&format!("wget -T 5 -q -O - http://{address}:8080/"))?;
        ensure!(answer == "hello", "{address}: {answer}");
    }
    says(
        &ssh,
        &format!("run --rm {image} {fetch} http://10.213.0.1:8080/"),
        "hello",
    )?;
    let place = "{{.NetworkSettings.Networks.back.IPAddress}}";
    let address = ssh.check(&format!("system-docker inspect web --format '{place}'"))?;
    ensure!(address == "10.213.1.2", "{address}");
    ssh.check_fails(&format!(
        "system-docker run --rm {image} busybox wget -T 3 -q -O - http://{address}/"
    ))?;
    says(&ssh, "port web", "80/tcp -> 0.0.0.0:8080")?;
    says(
        &ssh,
        "ps --filter network=back --format '{{.Names}} {{.Ports}}'",
        "web 0.0.0.0:8080->80/tcp",
    )?;
    // The rest of the world is reached from a network that is not internal.
    let ping = format!("{image} busybox ping -c 1 -W 5 10.0.2.2");
    ssh.check(&format!("system-docker run --rm {ping}"))?;
    ssh.check("system-docker network create --internal inner")?;
    ssh.check_fails(&format!("system-docker run --rm --network inner {ping}"))?;

    // Who joins later is reached like the others, and who leaves is not.
    ssh.check(&format!(
        "system-docker run -d --name late {image} sleep 1000 && system-docker network connect --alias tardy back late"
    ))?;
    says(&ssh, &format!("exec late {fetch} http://web/"), "hello")?;
    ssh.check("system-docker exec web busybox ping -c 1 -W 5 tardy")?;
    let (_, twice) = ssh.check_fails("system-docker network connect back late")?;
    ensure!(twice.contains("already exists in network back"), "{twice}");
    ssh.check("system-docker network disconnect bridge late")?;
    ssh.check("system-docker exec late busybox ping -c 1 -W 5 10.0.2.2")?;
    let (_, gone) = ssh.check_fails("system-docker network disconnect bridge late")?;
    ensure!(
        gone.contains("is not connected to network bridge"),
        "{gone}"
    );
    ssh.check("system-docker restart --time 0 late")?;
    let networks =
        "inspect late --format '{{range $name, $_ := .NetworkSettings.Networks}}{{$name}} {{end}}'";
    says(&ssh, networks, "back")?;
    ssh.check("system-docker rm -f late")?;

    // A port belongs to one, also when the engine that gave it is dead.
    observer.run("kill -9 $(pidof keelson-engine)", DEADLINE)?;
    let (_, taken) = ssh.check_fails(&format!("system-docker run --rm -p 8080:80 {image} true"))?;
    ensure!(taken.contains("port is already allocated"), "{taken}");
    let answer = ssh.check("wget -T 5 -q -O - http://127.0.0.1:8080/")?;
    ensure!(answer == "hello", "{answer}");
    says(
        &ssh,
        &format!("run --rm --network back {image} {fetch} http://web/"),
        "hello",
    )?;
    let (_, used) = ssh.check_fails("system-docker network rm back")?;
    ensure!(used.contains("has active endpoints"), "{used}");
    ssh.check("system-docker rm -f web && system-docker network rm back inner")?;
    says(
        &ssh,
        "network ls --format '{{.Name}} {{.Driver}}' | sort",
        "bridge bridge\nhost host\nnone null",
    )?;
    let left = ssh.check("ip -o link | grep -c -e kb- -e ': ke[0-9a-f]\\{12\\}' || true")?;
    ensure!(left == "0", "{left} interfaces are left");
    let (_, refused) = ssh.check_fails("wget -T 5 -q -O - http://127.0.0.1:8080/ 2>&1")?;
    ensure!(!refused.contains("hello"), "{refused}");
    Ok(())
}

pub(super) fn docker_compose_runs_a_project_on_the_system_engine(lab: &mut Lab) -> Result<()> {
    let (_vm, ssh, _observer) = lab.observed()?;
    docker::import(&ssh)?;
    ssh.check(&format!(
        "docker save {} | system-docker load --quiet",
        docker::IMAGE
    ))?;
    let directory = tempfile::tempdir()?;
    let socket = directory.path().join("system.sock");
    let _forwarded = ssh.forward_socket(&socket, "/run/keelson/system.sock")?;
    fs::write(directory.path().join("compose.yml"), PROJECT)?;
    let compose = |line: &str| compose(directory.path(), &socket, line);
    compose("up --detach")?;
    let names = compose("ps --format {{.Service}}:{{.State}}")?;
    let mut names: Vec<&str> = names.lines().collect();
    names.sort_unstable();
    ensure!(names == ["client:running", "web:running"], "{names:?}");
    let logs = compose("logs --no-log-prefix client")?;
    // It clears the line of its progress first.
    ensure!(logs.trim_end().ends_with("hello"), "{logs:?}");
    let answer = ssh.check("wget -T 5 -q -O - http://127.0.0.1:8081/")?;
    ensure!(answer == "hello", "{answer}");
    let again = compose("up --detach")?;
    ensure!(!again.contains("Created"), "{again}");
    compose("down --volumes")?;
    says(
        &ssh,
        "ps --all --quiet --filter label=com.docker.compose.project=two",
        "",
    )?;
    says(&ssh, "network ls --quiet --filter name=two", "")?;
    says(&ssh, "volume ls --quiet --filter name=two", "")
}

/// Runs a line of Docker's own Compose, as a plugin of no command.
fn compose(directory: &Path, socket: &Path, line: &str) -> Result<String> {
    let mut command = Command::new("/usr/libexec/docker/cli-plugins/docker-compose");
    command
        .current_dir(directory)
        .env("DOCKER_HOST", format!("unix://{}", socket.display()))
        .args(["--project-name", "two"])
        .args(line.split(' '));
    process::check(&mut command, DEADLINE)
}
