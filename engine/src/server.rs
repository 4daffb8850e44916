//! The HTTP server of the API: turns requests into messages to the engine and its answers into JSON.
//!
//! - `services`: the engine's own API about services

mod services;

use crate::api::{Boot, ErrorBody, Reloaded, Service, Status};
use crate::containers::Stored;
use crate::docker::container::Container;
use crate::docker::networks::View;
use crate::docker::update::Update;
use crate::docker::{self, Command, Condition, Context as Docker, Paths};
use crate::events::{Attributes, Subscription};
use crate::exec::Execs;
use crate::network::{Network, New};
use crate::relay::Attached;
use anyhow::Context;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Json, Response};
use axum::routing::get;
use bollard_stubs::models::{EndpointSettings, EventMessageTypeEnum};
use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::net::UnixListener as StdListener;
use std::path::Path;
use std::sync::Arc;
use tokio::net::UnixListener;
use tokio::sync::{mpsc, oneshot};

/// Why something did not happen.
#[derive(Debug)]
pub enum Refusal {
    /// What was asked for makes no sense.
    Invalid(String),
    /// It cannot be done as things are.
    Conflict(String),
    /// It is not done at all.
    Forbidden(String),
    /// There is no service of that name.
    NoSuchService(String),
    /// It did not come up.
    Failed(String),
}

/// What a client asks; the engine answers on the channel.
#[derive(Debug)]
pub enum Request {
    /// All services, as containers.
    Containers(oneshot::Sender<Vec<Container>>),
    /// A container that is on the disk already is taken in.
    Add(Box<Stored>, oneshot::Sender<Result<(), Refusal>>),
    /// A container is removed.
    Remove {
        /// Its key.
        key: String,
        /// Also when it runs.
        force: bool,
        /// When it is gone.
        answer: oneshot::Sender<Result<(), Refusal>>,
    },
    /// A container gets another name.
    Rename {
        /// Its key.
        key: String,
        /// The new name.
        name: String,
        /// When that is on the disk.
        answer: oneshot::Sender<Result<(), Refusal>>,
    },
    /// A container stands still, or goes on.
    Freeze {
        /// Its key.
        key: String,
        /// It stands still.
        frozen: bool,
        /// When it does.
        answer: oneshot::Sender<Result<(), Refusal>>,
    },
    /// A container gets other limits, or another restart policy.
    Update {
        /// Its key.
        key: String,
        /// What changes.
        update: Box<Update>,
        /// When that is on the disk.
        answer: oneshot::Sender<Result<(), Refusal>>,
    },
    /// Somebody wants to know how a container ends.
    Wait(
        String,
        Condition,
        oneshot::Sender<Result<oneshot::Receiver<i32>, Refusal>>,
    ),
    /// A client is connected to a container's streams; nothing comes of it when they go to the log only.
    Attach {
        /// Its key.
        key: String,
        /// The client types, too.
        input: bool,
        /// The client's ends.
        answer: oneshot::Sender<Result<Option<Attached>, Refusal>>,
    },
    /// A container's terminal gets another size.
    Resize {
        /// Its key.
        key: String,
        /// Lines.
        rows: u16,
        /// Letters in a line.
        columns: u16,
        /// When that is done.
        answer: oneshot::Sender<Result<(), Refusal>>,
    },
    /// Those who listen are told of something that the engine does not see by itself.
    Tell {
        /// What it happened to.
        kind: EventMessageTypeEnum,
        /// What happened.
        action: &'static str,
        /// To which.
        id: String,
        /// More about it.
        attributes: Attributes,
        /// When it is told.
        answer: oneshot::Sender<()>,
    },
    /// The same of a container, by its key.
    TellOfContainer {
        /// Which one.
        key: String,
        /// What happened.
        action: String,
        /// More about it.
        attributes: Attributes,
        /// When it is told.
        answer: oneshot::Sender<()>,
    },
    /// All networks.
    Networks(oneshot::Sender<Vec<View>>),
    /// A network is made.
    AddNetwork(Box<New>, oneshot::Sender<Result<Network, Refusal>>),
    /// A container is connected to a network.
    JoinNetwork {
        /// Its key.
        key: String,
        /// The network's name.
        network: String,
        /// What it asks of it.
        settings: Box<EndpointSettings>,
        /// When it is, for good.
        answer: oneshot::Sender<Result<(), Refusal>>,
    },
    /// A container is disconnected from a network.
    LeaveNetwork {
        /// Its key.
        key: String,
        /// The network's name.
        network: String,
        /// When it is, for good.
        answer: oneshot::Sender<Result<(), Refusal>>,
    },
    /// A network is removed.
    RemoveNetwork(String, oneshot::Sender<Result<(), Refusal>>),
    /// What happened, and what will.
    Events(oneshot::Sender<Subscription>),
    /// Something is to be done with a service.
    Control(String, Command, oneshot::Sender<Result<(), Refusal>>),
    /// All services.
    Services(oneshot::Sender<Vec<Service>>),
    /// The whole system.
    Status(oneshot::Sender<Status>),
    /// The time line.
    Boot(oneshot::Sender<Boot>),
    /// The definitions of services are read again.
    Reload(oneshot::Sender<Reloaded>),
    /// Whether a service starts with the machine.
    Enable(String, bool, oneshot::Sender<Result<(), Refusal>>),
    /// A service is started, anew when it is outdated.
    Up(String, oneshot::Sender<Result<(), Refusal>>),
    /// A service is stopped and its root thrown away.
    Down(String, oneshot::Sender<Result<(), Refusal>>),
    /// A service gets another image at the machine's next start.
    Choose(String, String, oneshot::Sender<Result<(), Refusal>>),
    /// A service gets another image.
    Upgrade {
        /// The service.
        name: String,
        /// The image, which is there.
        image: String,
        /// When it is ready, or back on the old one.
        answer: oneshot::Sender<Result<(), Refusal>>,
    },
}

/// The way to the engine.
pub type Engine = mpsc::Sender<Request>;

/// The group `system-docker` of the console: who may manage the system without being root.
const SYSTEM_DOCKER_GID: u32 = 997;

/// Makes the listening socket, for root and the group `system-docker` only.
///
/// # Errors
/// With the path.
pub fn bind(path: &Path) -> anyhow::Result<OwnedFd> {
    let _ = fs::remove_file(path);
    let listener =
        StdListener::bind(path).with_context(|| format!("cannot listen on {}", path.display()))?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o660))
        .with_context(|| format!("cannot set the mode of {}", path.display()))?;
    chown(path, None, Some(SYSTEM_DOCKER_GID))
        .with_context(|| format!("cannot set the group of {}", path.display()))?;
    Ok(listener.into())
}

/// Serves a listening socket until it breaks.
///
/// # Errors
/// When it cannot be listened on.
pub async fn serve(listener: OwnedFd, engine: Engine, paths: Paths) -> anyhow::Result<()> {
    let listener = StdListener::from(listener);
    listener.set_nonblocking(true)?;
    let routes = axum::Router::new()
        .route("/keelson/v1/status", get(status))
        .route("/keelson/v1/boot", get(boot))
        .merge(services::routes())
        .merge(docker::routes())
        .fallback(docker::unknown_path)
        .method_not_allowed_fallback(wrong_method)
        .with_state(Docker {
            engine,
            paths: Arc::new(paths),
            execs: Execs::default(),
        });
    axum::serve(UnixListener::from_std(listener)?, routes).await?;
    Ok(())
}

/// Asks the engine and waits for its answer.
pub(crate) async fn ask<T>(
    engine: &Engine,
    request: impl FnOnce(oneshot::Sender<T>) -> Request,
) -> Result<T, Refused> {
    let (sender, answer) = oneshot::channel();
    let gone = || {
        Refused(
            StatusCode::SERVICE_UNAVAILABLE,
            "the engine is ending".to_owned(),
        )
    };
    engine.send(request(sender)).await.map_err(|_| gone())?;
    answer.await.map_err(|_| gone())
}

/// An answer that is no success: status code, and a message for a person.
#[derive(Debug)]
pub(crate) struct Refused(pub StatusCode, pub String);

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        (self.0, Json(ErrorBody { message: self.1 })).into_response()
    }
}

async fn status(State(engine): State<Engine>) -> Result<Json<Status>, Refused> {
    ask(&engine, Request::Status).await.map(Json)
}

async fn boot(State(engine): State<Engine>) -> Result<Json<Boot>, Refused> {
    ask(&engine, Request::Boot).await.map(Json)
}

async fn wrong_method() -> Refused {
    Refused(
        StatusCode::METHOD_NOT_ALLOWED,
        "this path does not take that method".to_owned(),
    )
}
