//! A tour through Docker's API with bollard, which knows nothing of Keelson.

use anyhow::{Context, Result, bail, ensure};
use bollard::container::LogOutput;
use bollard::errors::Error;
use bollard::exec::{CreateExecOptions, StartExecResults};
use bollard::query_parameters as query;
use bollard::{API_DEFAULT_VERSION, Docker, body_full};
use futures_util::{Stream, StreamExt, TryStreamExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::path::Path;

use super::compare::Answer;
use crate::harness::docker::IMAGE;

const TIMEOUT_S: u64 = 120;
const CONTAINER: &str = "mast";

/// A client and what it has heard.
struct Tour {
    docker: Docker,
    answers: Vec<Answer>,
}

/// Makes every call once, in the same order, and gives the answers. What was made is removed again.
///
/// # Errors
/// When the engine does not answer, or not with what the library understands.
pub fn run(socket: &Path) -> Result<Vec<Answer>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("making the event loop")?;
    runtime.block_on(async {
        let path = socket.display().to_string();
        let docker = Docker::connect_with_unix(&path, TIMEOUT_S, API_DEFAULT_VERSION)?;
        let mut tour = Tour {
            docker: docker.negotiate_version().await?,
            answers: Vec::new(),
        };
        tour.system().await?;
        tour.places().await?;
        tour.life().await?;
        tour.processes().await?;
        tour.files().await?;
        tour.changes().await?;
        tour.endings().await?;
        tour.images().await?;
        tour.cleaning().await?;
        Ok(tour.answers)
    })
}

/// A type of the library from its JSON.
fn of<T: DeserializeOwned>(value: Value) -> Result<T> {
    serde_json::from_value(value).context("this is not what the library has")
}

fn filters(pairs: &[(&str, &str)]) -> HashMap<String, Vec<String>> {
    let pair = |(key, value): &(&str, &str)| ((*key).to_owned(), vec![(*value).to_owned()]);
    pairs.iter().map(pair).collect()
}

/// What was printed, the two streams one after the other: their order is nobody's promise.
async fn printed(stream: impl Stream<Item = Result<LogOutput, Error>>) -> Result<Value, Error> {
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    let mut stream = Box::pin(stream);
    while let Some(piece) = stream.try_next().await? {
        match piece {
            LogOutput::StdErr { message } => stderr.extend(message),
            other => stdout.extend(other.into_bytes()),
        }
    }
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Ok(json!({ "stdout": text(stdout), "stderr": text(stderr) }))
}

impl Tour {
    fn note(&mut self, call: &str, result: Result<impl Serialize, Error>) -> Result<()> {
        let body = match result {
            Ok(body) => serde_json::to_value(body)?,
            Err(Error::DockerResponseServerError {
                status_code,
                message,
            }) => json!({ "status": status_code, "message": message }),
            Err(Error::DockerContainerWaitError { code, .. }) => json!({ "StatusCode": code }),
            Err(other) => bail!("{call}: {other}"),
        };
        self.answers.push(Answer {
            call: call.to_owned(),
            body,
        });
        Ok(())
    }

    async fn inspect(&mut self, call: &str) -> Result<()> {
        let inspected = self.docker.inspect_container(CONTAINER, None).await;
        self.note(call, inspected)
    }

    async fn system(&mut self) -> Result<()> {
        let ping = self.docker.ping().await;
        self.note("ping", ping)?;
        let version = self.docker.version().await;
        self.note("version", version)?;
        let info = self.docker.info().await;
        self.note("info", info)
    }

    /// Volumes and networks.
    async fn places(&mut self) -> Result<()> {
        let volume = json!({ "Name": "hold", "Labels": {"deep": "yes"} });
        for call in ["volume create", "volume create again"] {
            let made = self
                .docker
                .create_volume(of::<bollard::models::VolumeCreateRequest>(volume.clone())?)
                .await;
            self.note(call, made)?;
        }
        let volume = self.docker.inspect_volume("hold").await;
        self.note("volume inspect", volume)?;
        let volume = self.docker.inspect_volume("none").await;
        self.note("volume inspect none", volume)?;
        let named = query::ListVolumesOptionsBuilder::default()
            .filters(&filters(&[("name", "hold")]))
            .build();
        let volumes = self.docker.list_volumes(Some(named)).await;
        self.note("volume ls", volumes)?;

        let network = json!({
            "Name": "deck", "Labels": {"high": "yes"},
            "IPAM": {"Config": [{"Subnet": "10.99.7.0/24", "Gateway": "10.99.7.1"}]},
        });
        for call in ["network create", "network create again"] {
            let made = self.docker.create_network(of(network.clone())?).await;
            self.note(call, made)?;
        }
        let overlapping =
            json!({ "Name": "deck2", "IPAM": {"Config": [{"Subnet": "10.99.7.0/25"}]} });
        let made = self.docker.create_network(of(overlapping)?).await;
        self.note("network create overlapping", made)?;
        let network = self.docker.inspect_network("deck", None).await;
        self.note("network inspect", network)?;
        let network = self.docker.inspect_network("none-such", None).await;
        self.note("network inspect none", network)?;
        let named = query::ListNetworksOptionsBuilder::default()
            .filters(&filters(&[("name", "deck")]))
            .build();
        let networks = self.docker.list_networks(Some(named)).await;
        self.note("network ls", networks)
    }

    /// A container is made and started.
    async fn life(&mut self) -> Result<()> {
        let body = json!({
            "Image": IMAGE, "Cmd": ["sh", "-c", "echo up; echo fault >&2; exec sleep 1000"], "Env": ["WIND=west"],
            "Labels": {"rig": "full"}, "Hostname": "mast", "WorkingDir": "/tmp", "User": "0", "StopSignal": "SIGKILL",
            "ExposedPorts": {"80/tcp": {}},
            "HostConfig": {
                "Binds": ["hold:/hold"], "NetworkMode": "deck", "Memory": 67108864, "NanoCpus": 500000000,
                "PidsLimit": 100, "CapDrop": ["NET_RAW"], "RestartPolicy": {"Name": "on-failure", "MaximumRetryCount": 2},
                "PortBindings": {"80/tcp": [{"HostIp": "127.0.0.1", "HostPort": "8077"}]}, "Tmpfs": {"/scratch": "size=1m"},
                "Ulimits": [{"Name": "nofile", "Soft": 100, "Hard": 200}],
            },
            "NetworkingConfig": {"EndpointsConfig": {"deck": {"Aliases": ["pole"], "IPAMConfig": {"IPv4Address": "10.99.7.9"}}}},
        });
        let named = || {
            let options = query::CreateContainerOptionsBuilder::default();
            Some(options.name(CONTAINER).build())
        };
        for call in ["create", "create again"] {
            let made = self
                .docker
                .create_container(named(), of(body.clone())?)
                .await;
            self.note(call, made)?;
        }
        let imageless = json!({ "Image": "nothing/here", "Cmd": ["true"] });
        let made = self.docker.create_container(None, of(imageless)?).await;
        self.note("create without image", made)?;
        let wrong = json!({ "Image": IMAGE, "Cmd": ["true"], "HostConfig": {"RestartPolicy": {"Name": "always", "MaximumRetryCount": 1}} });
        let made = self.docker.create_container(None, of(wrong)?).await;
        self.note("create with a wrong policy", made)?;
        self.inspect("inspect created").await?;

        for call in ["start", "start again"] {
            let started = self.docker.start_container(CONTAINER, None).await;
            self.note(call, started)?;
        }
        let started = self.docker.start_container("none-such", None).await;
        self.note("start none", started)?;
        self.inspect("inspect running").await?;
        let labelled = query::ListContainersOptionsBuilder::default()
            .all(true)
            .filters(&filters(&[("label", "rig=full"), ("status", "running")]))
            .build();
        let containers = self.docker.list_containers(Some(labelled)).await;
        self.note("ls", containers)?;
        let network = self.docker.inspect_network("deck", None).await;
        self.note("network inspect used", network)?;
        let removed = self.docker.remove_network("deck").await;
        self.note("network rm used", removed)?;
        let removed = self
            .docker
            .remove_volume("hold", None::<query::RemoveVolumeOptions>)
            .await;
        self.note("volume rm used", removed)
    }

    /// What runs in it, and what it prints.
    async fn processes(&mut self) -> Result<()> {
        let top = self.docker.top_processes(CONTAINER, None).await;
        let top = top.map(|top| json!({ "processes": top.processes.map(|all| all.len()) }));
        self.note("top", top)?;
        let once = query::StatsOptionsBuilder::default()
            .stream(false)
            .one_shot(true)
            .build();
        let stats = self.docker.stats(CONTAINER, Some(once)).next().await;
        self.note("stats", stats.context("no stats")?)?;
        let both = query::LogsOptionsBuilder::default()
            .stdout(true)
            .stderr(true)
            .build();
        let logs = printed(self.docker.logs(CONTAINER, Some(both))).await;
        self.note("logs", logs)?;

        let exec = CreateExecOptions {
            attach_stdout: Some(true),
            attach_stderr: Some(true),
            cmd: Some(vec!["sh", "-c", "echo $WIND $MORE; pwd; exit 3"]),
            env: Some(vec!["MORE=wind"]),
            working_dir: Some("/hold"),
            ..CreateExecOptions::default()
        };
        let made = self.docker.create_exec(CONTAINER, exec).await?;
        let begun = self.docker.start_exec(&made.id, None).await?;
        let StartExecResults::Attached { output, .. } = begun else {
            bail!("exec is not attached");
        };
        let said = printed(output).await;
        self.note("exec", said)?;
        let inspected = self.docker.inspect_exec(&made.id).await;
        self.note("exec inspect", inspected)?;
        let inspected = self.docker.inspect_exec("none-such").await;
        self.note("exec inspect none", inspected)
    }

    async fn files(&mut self) -> Result<()> {
        let mut archive = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_size(5);
        header.set_mode(0o640);
        header.set_mtime(1_600_000_000);
        archive.append_data(&mut header, "flag", b"white".as_slice())?;
        let options = |path: &str| {
            let options = query::UploadToContainerOptionsBuilder::default();
            Some(options.path(path).build())
        };
        let body = bytes::Bytes::from(archive.into_inner()?);
        for path in ["/hold", "/none-such"] {
            let put = self
                .docker
                .upload_to_container(CONTAINER, options(path), body_full(body.clone()))
                .await;
            self.note(&format!("cp in {path}"), put)?;
        }
        for path in ["/hold/flag", "/none-such"] {
            let options = query::ContainerArchiveInfoOptionsBuilder::default();
            let found = self
                .docker
                .get_container_archive_info(CONTAINER, Some(options.path(path).build()))
                .await;
            let found = found.map(|found| {
                json!({ "name": found.name, "size": found.size, "mode": found.file_mode, "target": found.link_target })
            });
            self.note(&format!("stat {path}"), found)?;
        }
        let options = query::DownloadFromContainerOptionsBuilder::default();
        let stream = self
            .docker
            .download_from_container(CONTAINER, Some(options.path("/hold/flag").build()));
        let pieces: Vec<bytes::Bytes> = stream.try_collect().await?;
        let mut archive = tar::Archive::new(std::io::Cursor::new(pieces.concat()));
        let mut entries = Vec::new();
        for entry in archive.entries()? {
            let entry = entry?;
            let header = entry.header();
            entries.push(json!({
                "path": entry.path()?, "size": header.size()?, "mode": header.mode()?, "uid": header.uid()?,
                "mtime": header.mtime()?,
            }));
        }
        self.note("cp out", Ok(entries))?;

        let exec = CreateExecOptions {
            cmd: Some(vec!["sh", "-c", "echo new >/etc/new; rm /etc/passwd"]),
            attach_stdout: Some(true),
            ..CreateExecOptions::default()
        };
        let made = self.docker.create_exec(CONTAINER, exec).await?;
        if let StartExecResults::Attached { output, .. } =
            self.docker.start_exec(&made.id, None).await?
        {
            let _ = printed(output).await?;
        }
        let changes = self.docker.container_changes(CONTAINER).await;
        let changes = changes.map(|changes| {
            let mut changes = changes.unwrap_or_default();
            changes.sort_by(|a, b| a.path.cmp(&b.path));
            changes
        });
        self.note("diff", changes)
    }

    async fn changes(&mut self) -> Result<()> {
        let limits = json!({ "Memory": 134217728, "MemorySwap": 134217728, "RestartPolicy": {"Name": "no"} });
        let updated = self.docker.update_container(CONTAINER, of(limits)?).await;
        self.note("update", updated)?;
        let renamed = |name: &str| {
            query::RenameContainerOptionsBuilder::default()
                .name(name)
                .build()
        };
        for name in ["spar", CONTAINER] {
            let from = if name == CONTAINER { "spar" } else { CONTAINER };
            let done = self.docker.rename_container(from, renamed(name)).await;
            self.note("rename", done)?;
        }
        let connect = json!({ "Container": CONTAINER, "EndpointConfig": {"Aliases": ["far"]} });
        let connected = self.docker.connect_network("bridge", of(connect)?).await;
        self.note("network connect with an alias", connected)?;
        let connect = json!({ "Container": CONTAINER });
        for call in ["network connect", "network connect again"] {
            let connected = self
                .docker
                .connect_network("bridge", of(connect.clone())?)
                .await;
            self.note(call, connected)?;
        }
        self.inspect("inspect connected").await?;
        let disconnect = json!({ "Container": CONTAINER });
        for call in ["network disconnect", "network disconnect again"] {
            let done = self
                .docker
                .disconnect_network("bridge", of(disconnect.clone())?)
                .await;
            self.note(call, done)?;
        }
        for call in ["pause", "pause again"] {
            let paused = self.docker.pause_container(CONTAINER).await;
            self.note(call, paused)?;
        }
        self.inspect("inspect paused").await?;
        for call in ["unpause", "unpause again"] {
            let resumed = self.docker.unpause_container(CONTAINER).await;
            self.note(call, resumed)?;
        }
        Ok(())
    }

    /// Every way to end.
    async fn endings(&mut self) -> Result<()> {
        let removed = self.docker.remove_container(CONTAINER, None).await;
        self.note("rm running", removed)?;
        let wrong = query::KillContainerOptionsBuilder::default()
            .signal("NOTHING")
            .build();
        let killed = self.docker.kill_container(CONTAINER, Some(wrong)).await;
        self.note("kill with no signal", killed)?;
        for call in ["stop", "stop again"] {
            let stopped = self.docker.stop_container(CONTAINER, None).await;
            self.note(call, stopped)?;
        }
        self.inspect("inspect stopped").await?;
        let wait = self.docker.wait_container(CONTAINER, None).next().await;
        self.note("wait", wait.context("no answer to wait")?)?;
        let killed = self.docker.kill_container(CONTAINER, None).await;
        self.note("kill stopped", killed)?;
        let restarted = self.docker.restart_container(CONTAINER, None).await;
        self.note("restart", restarted)?;
        self.inspect("inspect restarted").await?;
        let killed = self.docker.kill_container(CONTAINER, None).await;
        self.note("kill", killed)?;
        let wait = self.docker.wait_container(CONTAINER, None).next().await;
        self.note("wait killed", wait.context("no answer to wait")?)?;

        // A program that is not there, and one that ends by itself.
        for (name, program) in [
            ("ghost", vec!["/none-such"]),
            ("brief", vec!["sh", "-c", "exit 5"]),
        ] {
            let body =
                json!({ "Image": IMAGE, "Cmd": program, "HostConfig": {"NetworkMode": "none"} });
            let options = query::CreateContainerOptionsBuilder::default()
                .name(name)
                .build();
            let made = self.docker.create_container(Some(options), of(body)?).await;
            self.note(&format!("create {name}"), made)?;
            let started = self.docker.start_container(name, None).await;
            self.note(&format!("start {name}"), started)?;
            let wait = self.docker.wait_container(name, None).next().await;
            self.note(&format!("wait {name}"), wait.context("no answer to wait")?)?;
            let inspected = self.docker.inspect_container(name, None).await;
            let state = inspected.map(|container| container.state);
            self.note(&format!("state of {name}"), state)?;
        }
        Ok(())
    }

    async fn images(&mut self) -> Result<()> {
        let named = query::ListImagesOptionsBuilder::default()
            .filters(&filters(&[("reference", IMAGE)]))
            .build();
        let images = self.docker.list_images(Some(named)).await;
        self.note("image ls", images)?;
        let image = self.docker.inspect_image(IMAGE).await;
        self.note("image inspect", image)?;
        let image = self.docker.inspect_image("nothing/here").await;
        self.note("image inspect none", image)?;
        let history = self.docker.image_history(IMAGE).await;
        self.note("image history", history)?;
        let tag = |name: &str| {
            query::TagImageOptionsBuilder::default()
                .repo(name)
                .tag("1")
                .build()
        };
        for name in ["tests/copy", "NOT/ALLOWED"] {
            let tagged = self.docker.tag_image(IMAGE, Some(tag(name))).await;
            self.note(&format!("tag {name}"), tagged)?;
        }
        for call in ["rmi tag", "rmi none"] {
            let removed = self
                .docker
                .remove_image("tests/copy:1", None::<query::RemoveImageOptions>, None)
                .await;
            self.note(call, removed)?;
        }
        let removed = self
            .docker
            .remove_image(IMAGE, None::<query::RemoveImageOptions>, None)
            .await;
        self.note("rmi used", removed)
    }

    /// Removes everything; what has happened comes last.
    async fn cleaning(&mut self) -> Result<()> {
        for name in [CONTAINER, "ghost", "brief"] {
            let removed = self.docker.remove_container(name, None).await;
            self.note(&format!("rm {name}"), removed)?;
        }
        let removed = self.docker.remove_container(CONTAINER, None).await;
        self.note("rm none", removed)?;
        let removed = self.docker.remove_network("deck").await;
        self.note("network rm", removed)?;
        let removed = self
            .docker
            .remove_volume("hold", None::<query::RemoveVolumeOptions>)
            .await;
        self.note("volume rm", removed)?;
        let pruned = self.docker.prune_containers(None).await;
        self.note("container prune", pruned)?;
        let pruned = self.docker.prune_networks(None).await;
        self.note("network prune", pruned)?;
        let pruned = self
            .docker
            .prune_volumes(None::<query::PruneVolumesOptions>)
            .await;
        self.note("volume prune", pruned)?;

        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?;
        // The machine's clock may be another one.
        let until = (now.as_secs() + 1).to_string();
        let asked = query::EventsOptionsBuilder::default()
            .since("1")
            .until(&until)
            .filters(&filters(&[("container", CONTAINER)]))
            .build();
        let events: Result<Vec<_>, Error> = self.docker.events(Some(asked)).try_collect().await;
        let events = events.map(|events| {
            let told = events.iter().filter_map(|event| {
                let actor = event.actor.as_ref()?;
                let code = actor
                    .attributes
                    .as_ref()
                    .and_then(|all| all.get("exitCode"));
                Some(json!({ "kind": event.typ, "action": event.action, "code": code }))
            });
            // A stop and the end that it brings are told as they come.
            let mut told: Vec<Value> = told.collect();
            told.sort_by_key(Value::to_string);
            told
        });
        ensure!(events.is_ok(), "events: {events:?}");
        self.note("events", events)
    }
}
