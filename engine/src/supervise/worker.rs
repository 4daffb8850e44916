//! Makes, starts and removes the containers of one service, one step after the other.

use super::{Input, Shared};
use crate::compose::Definition;
use crate::compose::volume::Kind;
use crate::lifecycle::{Event, Process};
use crate::rootfs::{self, make_directory};
use crate::runtime::{Status, Streams};
use crate::spec::{self, Host};
use anyhow::{Context, anyhow};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::rc::Rc;
use tokio::sync::mpsc;

/// What a worker is asked to do.
#[derive(Debug)]
pub(super) enum Job {
    /// Make the container.
    Create { attempt: u64, streams: Streams },
    /// Let its first process run the program.
    Launch { attempt: u64 },
    /// Remove it.
    Delete,
    /// Remove it with its root: the system goes down.
    Remove,
}

/// Why a container could not be made.
struct Fault {
    error: anyhow::Error,
    /// Trying again cannot help.
    permanent: bool,
    /// The key of the definition that asks for the impossible.
    key: Option<&'static str>,
}

impl From<anyhow::Error> for Fault {
    fn from(error: anyhow::Error) -> Self {
        Self {
            error,
            permanent: false,
            key: None,
        }
    }
}

fn permanent(key: &'static str) -> impl Fn(anyhow::Error) -> Fault {
    move |error| Fault {
        error,
        permanent: true,
        key: Some(key),
    }
}

/// Works on jobs until nobody can send any more.
pub(super) async fn work(
    shared: Rc<Shared>,
    definition: Rc<Definition>,
    mut jobs: mpsc::UnboundedReceiver<Job>,
) {
    let name = &definition.name;
    let tell = |attempt, event, fault| {
        let _ = shared.inputs.send(Input::Event {
            service: name.clone(),
            attempt,
            event,
            fault,
        });
    };
    while let Some(job) = jobs.recv().await {
        match job {
            Job::Create { attempt, streams } => match create(&shared, &definition, streams).await {
                Ok(process) => tell(attempt, Event::Created(process), None),
                Err(Fault {
                    error,
                    permanent,
                    key,
                }) => {
                    tell(
                        attempt,
                        Event::LaunchFailed {
                            why: format!("{error:#}"),
                            permanent,
                        },
                        key,
                    );
                }
            },
            Job::Launch { attempt } => match launch(&shared, name).await {
                Ok(()) => tell(attempt, Event::Launched, None),
                Err(error) => {
                    tell(
                        attempt,
                        Event::LaunchFailed {
                            why: format!("{error:#}"),
                            permanent: false,
                        },
                        None,
                    );
                }
            },
            Job::Delete => delete(&shared, name).await,
            Job::Remove => {
                delete(&shared, name).await;
                rootfs::remove(&shared.options.container(name));
            }
        }
    }
}

async fn delete(shared: &Shared, name: &str) {
    if let Err(error) = shared.runtime.delete(name).await {
        shared.console.error(&format!(
            "service {name}: what is left of its container stays: {error:#}"
        ));
    }
}

async fn create(
    shared: &Shared,
    definition: &Definition,
    streams: Streams,
) -> Result<Process, Fault> {
    let _turn = shared.making.acquire().await.context("the engine ends")?;
    let (options, name) = (&shared.options, &definition.name);
    let service = &definition.service;
    let image = options.image(&service.image);
    if !image.is_dir() {
        let error = anyhow!(
            "there is no image `{}`: {} is not a directory",
            service.image,
            image.display()
        );
        return Err(permanent("image")(error));
    }
    shared
        .runtime
        .delete(name)
        .await
        .context("cannot remove what is left of an earlier container")?;
    let container = options.container(name);
    make_directory(&container)?;
    make_directories(definition)?;
    make_sources(shared, definition)?;
    let config = configure(shared, definition, &image, &container).map_err(permanent(""))?;
    for warning in &config.warnings {
        shared.console.info(&format!("service {name}: {warning}"));
    }
    let targets = spec::mounts::targets(&config.json);
    rootfs::mount_root(&container, &image, &targets, service.read_only)?;
    let file = container.join("config.json");
    let text = serde_json::to_vec(&config.json).context("cannot encode config.json")?;
    fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))?;
    let pid = shared
        .runtime
        .create(name, &container, streams)
        .await
        .context("cannot make its container")?;
    Process::inspect(pid)
        .ok_or_else(|| anyhow!("its first process ended before it was started").into())
}

fn configure(
    shared: &Shared,
    definition: &Definition,
    image: &Path,
    container: &Path,
) -> anyhow::Result<spec::Config> {
    let options = &shared.options;
    let seccomp = if definition.service.privileged {
        None
    } else {
        read_seccomp(shared)?
    };
    let host = Host {
        image,
        rootfs: &container.join("rootfs"),
        notify: &options.notify(&definition.name),
        seccomp: seccomp.as_deref(),
        limits: shared.limits,
    };
    spec::build(definition, &host)
}

/// Without PID 1 a missing profile is a warning; in the system it is an error, so that no service runs unfiltered.
fn read_seccomp(shared: &Shared) -> anyhow::Result<Option<Vec<u8>>> {
    let path = &shared.options.seccomp;
    match fs::read(path) {
        Ok(text) => Ok(Some(text)),
        Err(error)
            if !shared.link.is_connected() && error.kind() == std::io::ErrorKind::NotFound =>
        {
            if !shared.unfiltered.replace(true) {
                let path = path.display();
                shared.console.error(&format!(
                    "services run without seccomp: {path} does not exist"
                ));
            }
            Ok(None)
        }
        Err(error) => Err(anyhow!(
            "cannot read the seccomp profile {}: {error}",
            path.display()
        )),
    }
}

fn make_directories(definition: &Definition) -> anyhow::Result<()> {
    for directory in &definition.service.keelson.directories {
        let path = Path::new(&directory.path);
        make_directory(path)?;
        if let Some(mode) = directory.mode {
            fs::set_permissions(path, fs::Permissions::from_mode(mode.0))
                .with_context(|| format!("cannot set the mode of {}", path.display()))?;
        }
    }
    Ok(())
}

/// What volumes name and what does not exist is made, where that makes sense.
fn make_sources(shared: &Shared, definition: &Definition) -> anyhow::Result<()> {
    for volume in definition
        .service
        .volumes
        .iter()
        .filter(|volume| volume.kind == Kind::Bind)
    {
        let source = Path::new(&volume.source);
        if source.exists() {
            continue;
        }
        if !volume.create || !shared.options.may_create(source) {
            return Err(anyhow!(
                "volume {} does not exist on the host",
                source.display()
            ));
        }
        make_directory(source)?;
    }
    Ok(())
}

async fn launch(shared: &Shared, name: &str) -> anyhow::Result<()> {
    let Err(error) = shared.runtime.start(name).await else {
        return Ok(());
    };
    // An earlier engine may have been killed just after it had started it.
    match shared.runtime.status(name).await {
        Status::Running => Ok(()),
        _ => Err(error.context("cannot start its program")),
    }
}
