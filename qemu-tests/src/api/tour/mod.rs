//! A tour through Docker's API with bollard, which knows nothing of Keelson.
//!
//! * `container`: the life of a container

mod container;

use anyhow::{Context, Result, bail, ensure};
use bollard::container::LogOutput;
use bollard::errors::Error;
use bollard::query_parameters as query;
use bollard::{API_DEFAULT_VERSION, Docker};
use futures_util::{Stream, TryStreamExt};
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

/// Makes every call once, in the same order, and gives the answers. What was made is removed again. `now` is the time of
/// the machine that the engine is on, in seconds since 1970.
///
/// # Errors
/// When the engine does not answer, or not with what the library understands.
pub fn run(socket: &Path, now: impl Fn() -> Result<u64>) -> Result<Vec<Answer>> {
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
        tour.events(now()?).await?;
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

    /// Removes everything.
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
        self.note("volume prune", pruned)
    }

    /// What has happened to the container until now.
    async fn events(&mut self, now_s: u64) -> Result<()> {
        let until = (now_s + 1).to_string();
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
