//! Makes the bundle of a container and the container itself.

use super::{Shared, image, volumes};
use crate::choices::Pin;
use crate::compose::Definition;
use crate::compose::volume::Kind;
use crate::containers::Stored;
use crate::failpoint;
use crate::images::Image;
use crate::lifecycle::Process;
use crate::network::Wire;
use crate::relay::terminal;
use crate::rootfs::{self, Layers, Writes, make_directory};
use crate::runtime::Streams;
use crate::spec::{self, Host};
use anyhow::{Context, anyhow};
use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Why a container could not be made.
pub(super) struct Fault {
    pub(super) error: anyhow::Error,
    /// Trying again cannot help.
    pub(super) permanent: bool,
    /// The key of the definition that asks for the impossible.
    pub(super) key: Option<&'static str>,
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

pub(super) fn permanent(key: &'static str) -> impl Fn(anyhow::Error) -> Fault {
    move |error| Fault {
        error,
        permanent: true,
        key: Some(key),
    }
}

/// What a container is made from.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) definition: std::rc::Rc<Definition>,
    /// Of a container that a client made.
    pub(super) stored: Option<std::sync::Arc<Stored>>,
    /// Of a service: the image that it was given in place of its definition's.
    pub(super) pin: Option<Pin>,
    /// Of a service: the name by which its image is held.
    pub(super) lease: String,
    pub(super) streams: Streams,
    /// The process whose network namespace it joins.
    pub(super) network_of: Option<i32>,
    /// Its interfaces in networks of the engine.
    pub(super) wires: Vec<Wire>,
    /// Who is in its networks, in the form of hosts(5).
    pub(super) hosts: String,
}

/// Makes a container; with a terminal, its master side comes too.
pub(super) async fn create(
    shared: &Shared,
    mut plan: Plan,
) -> Result<(Process, Option<OwnedFd>), Fault> {
    let image = match &plan.stored {
        None => Some(image::find(shared, &plan).await?),
        Some(_) => None,
    };
    if let Some(image) = image.as_ref().filter(|image| !image.built_in) {
        plan.definition = image::complete(&plan.definition, &image.config);
    }
    let _turn = shared.making.acquire().await.context("the engine ends")?;
    let (options, definition) = (&shared.options, plan.definition.clone());
    let (service, name) = (&definition.service, &definition.name);
    shared
        .runtime
        .delete(name)
        .await
        .context("cannot remove what is left of an earlier container")?;
    let container = options.container(name);
    make_directory(&container)?;
    make_directories(&definition)?;
    make_sources(shared, &definition)?;
    let config = match (&plan.stored, &image) {
        (Some(stored), _) => container_root(shared, &plan, stored, &container)?,
        (None, Some(image)) => service_root(shared, &plan, image, &container)?,
        (None, None) => return Err(anyhow!("it has no image").into()),
    };
    if plan.stored.is_some() {
        volumes::fill(shared, &definition, &container.join("rootfs")).await?;
    }
    for warning in &config.warnings {
        shared.console.info(&format!("service {name}: {warning}"));
    }
    let file = container.join("config.json");
    let text = serde_json::to_vec(&config.json).context("cannot encode config.json")?;
    fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))?;
    failpoint::reach("start-mounted");
    let (pid, terminal) = if service.tty {
        create_with_terminal(shared, name, &container, plan.streams).await?
    } else {
        let created = shared.runtime.create(name, &container, plan.streams, None);
        (created.await.context("cannot make its container")?, None)
    };
    failpoint::reach("start-made");
    let process = Process::inspect(pid)
        .ok_or_else(|| anyhow!("its first process ended before it was started"))?;
    shared.switchboard.connect(pid, plan.wires).await?;
    failpoint::reach("start-connected");
    Ok((process, terminal))
}

async fn create_with_terminal(
    shared: &Shared,
    name: &str,
    container: &Path,
    streams: Streams,
) -> anyhow::Result<(i32, Option<OwnedFd>)> {
    let path = container.join("console.sock");
    let socket = terminal::Socket::bind(&path)?;
    let receive = socket.receive();
    tokio::pin!(receive);
    let create = shared.runtime.create(name, container, streams, Some(&path));
    tokio::pin!(create);
    let failed = "cannot make its container";
    tokio::select! {
        terminal = &mut receive => Ok((create.await.context(failed)?, Some(terminal?))),
        // A runtime that has ended has sent it already, or never will.
        pid = &mut create => {
            let pid = pid.context(failed)?;
            let sent = tokio::time::timeout(shared.options.runtime_timeout, receive).await;
            Ok((pid, Some(sent.context("the runtime sent no terminal")??)))
        }
    }
}

/// The root of a service: read-only, or what is written to it is gone with the machine unless it is to be kept.
fn service_root(
    shared: &Shared,
    plan: &Plan,
    image: &Image,
    container: &Path,
) -> Result<spec::Config, Fault> {
    let (name, service) = (&plan.definition.name, &plan.definition.service);
    if plan.definition.arguments().is_empty() {
        let error = anyhow!("neither its definition nor its image names a program");
        return Err(permanent("command")(error));
    }
    image::renew_root(container, image)?;
    let directory = rootfs::mount_image(container, &image.layers)?;
    let mut config = configure(shared, plan, &directory, container, &[]).map_err(permanent(""))?;
    if !image.built_in {
        let files = own_files(plan, container, &directory, &config)?;
        config = configure(shared, plan, &directory, container, &files).map_err(permanent(""))?;
    }
    let targets = spec::mounts::targets(&config.json);
    let keeps = service.keelson.keep_root && !image.built_in;
    let writes = match (service.read_only, keeps) {
        (true, _) => Writes::None,
        (false, false) => Writes::InMemory,
        // What was written over one image makes no sense over another.
        (false, true) => Writes::Kept(
            shared
                .options
                .kept_root(name)
                .join(image.id.replace(':', "-")),
        ),
    };
    rootfs::mount_root(container, &directory, &targets, &writes)?;
    Ok(config)
}

/// Files of `/etc` that are mounted over those of a service's image; those that something else is mounted over already, or
/// that are links to such a place, are the service's own affair.
fn own_files(
    plan: &Plan,
    container: &Path,
    image: &Path,
    config: &spec::Config,
) -> anyhow::Result<Vec<(PathBuf, PathBuf)>> {
    let mounts = spec::mounts::targets(&config.json);
    let mut files = Vec::new();
    for (target, source) in super::files::write(&plan.definition, container, &plan.hosts)? {
        let place = Path::new("/").join(rootfs::resolve(image, target)?);
        if !mounts.iter().any(|(mount, _)| place.starts_with(mount)) {
            files.push((place, source));
        }
    }
    Ok(files)
}

/// The root of a container that a client made: what is written to it stays.
fn container_root(
    shared: &Shared,
    plan: &Plan,
    stored: &Stored,
    container: &Path,
) -> Result<spec::Config, Fault> {
    let kept = shared.options.containers().container(stored.key());
    let layers = Layers {
        image: stored.layers.clone(),
        upper: kept.join("upper"),
        work: kept.join("work"),
    };
    rootfs::mount_layers(container, &layers)?;
    let root = container.join("rootfs");
    if let Some(path) = &plan.definition.service.working_dir {
        rootfs::make_inside(&root, path)?;
    }
    let mut files = Vec::new();
    for (target, source) in super::files::write(&plan.definition, container, &plan.hosts)? {
        files.push((rootfs::make_file_inside(&root, target)?, source));
    }
    configure(shared, plan, &root, container, &files).map_err(permanent(""))
}

fn configure(
    shared: &Shared,
    plan: &Plan,
    image: &Path,
    container: &Path,
    files: &[(PathBuf, PathBuf)],
) -> anyhow::Result<spec::Config> {
    let (options, definition) = (&shared.options, &plan.definition);
    let seccomp = if definition.service.privileged {
        None
    } else {
        read_seccomp(shared)?
    };
    let network = plan
        .network_of
        .map(|pid| PathBuf::from(format!("/proc/{pid}/ns/net")));
    let host = Host {
        image,
        rootfs: &container.join("rootfs"),
        notify: &options.notify(&definition.name),
        network: network.as_deref(),
        files,
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
