//! A container from its making to its end, in every way there is.

use anyhow::{Context, Result, bail};
use bollard::body_full;
use bollard::exec::{CreateExecOptions, StartExecResults};
use bollard::query_parameters as query;
use futures_util::{StreamExt, TryStreamExt};
use serde_json::json;

use super::{CONTAINER, Tour, filters, of, printed};
use crate::harness::docker::IMAGE;

impl Tour {
    /// A container is made and started.
    pub(super) async fn life(&mut self) -> Result<()> {
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
    pub(super) async fn processes(&mut self) -> Result<()> {
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

    pub(super) async fn files(&mut self) -> Result<()> {
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
        self.note("diff", changes)?;
        let options = query::CommitContainerOptionsBuilder::default()
            .container(CONTAINER)
            .repo("tests/log")
            .tag("1")
            .comment("day one")
            .author("mate")
            .changes("ENV MOON=full")
            .build();
        let made = self
            .docker
            .commit_container(options, bollard::models::ContainerConfig::default())
            .await;
        self.note("commit", made)?;
        let image = self.docker.inspect_image("tests/log:1").await;
        self.note("image inspect committed", image)?;
        let history = self.docker.image_history("tests/log:1").await;
        self.note("image history committed", history)?;
        let removed = self
            .docker
            .remove_image("tests/log:1", None::<query::RemoveImageOptions>, None)
            .await;
        self.note("rmi committed", removed)
    }

    pub(super) async fn changes(&mut self) -> Result<()> {
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
    pub(super) async fn endings(&mut self) -> Result<()> {
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
}
