//! Docker Engine API (v1.41 to v1.45) on the engine's socket, the part that makes sense for system containers.
//!
//! Names, statuses, bodies and messages are those of Docker's own API reference and daemon, so that the stock `docker`
//! command line is a client. docs/docker-api.md lists every endpoint and its state.
//!
//! - [`container`]: a service, or what a client made, as Docker shows it; `create`, `list`, `inspect`, `control`,
//!   [`update`], `remove`, `logs`, `processes`, `changes`: what is done with it
//! - `attach`: a client at its streams; `hijack`: the connection that they go over; `detach`: the keys to leave
//! - `exec`: further processes in a container
//! - `events`: what happens; `stats`: what a container uses; `usage`: what takes room on the disk
//! - [`networks`]: bridges that containers are in; `connection`: what a container has of them
//! - `volumes`: named volumes; `images`: what containers are made from; `transfer`: images and files in and out
//! - `commit`: an image of a container; and whether a registry takes credentials
//! - `filters`: the `filters` parameter
//! - `system`: version and state of the engine
//! - [`error`]: answers that are no success

mod attach;
mod changes;
mod commit;
mod connection;
pub mod container;
mod control;
mod create;
mod detach;
mod error;
mod events;
mod exec;
mod filters;
mod hijack;
mod images;
mod inspect;
mod list;
mod logs;
pub mod networks;
mod processes;
mod remove;
mod stats;
mod system;
mod transfer;
pub mod update;
mod usage;
mod volumes;

pub use control::{Command, Condition};

use crate::exec::Execs;
use crate::options::Options;
use crate::server::Engine;
use axum::Router;
use axum::extract::FromRef;
use axum::routing::{delete, get, post};
use std::path::PathBuf;
use std::sync::Arc;

/// The newest version of the API that is spoken: that of Debian 13's Docker.
const VERSION: &str = "1.45";
/// All that are; the oldest first.
const VERSIONS: [&str; 5] = ["1.41", "1.42", "1.43", "1.44", VERSION];

/// What the handlers work with.
#[derive(Clone, Debug)]
pub struct Context {
    /// Where requests go.
    pub engine: Engine,
    /// Where paths of the system are.
    pub paths: Arc<Paths>,
    /// Further processes in containers.
    pub execs: Execs,
}

/// Paths that the handlers read themselves.
#[derive(Debug)]
pub struct Paths {
    /// Where everything else is.
    pub options: Options,
    /// The log service's socket for queries.
    pub log_queries: PathBuf,
}

impl FromRef<Context> for Engine {
    fn from_ref(context: &Context) -> Self {
        context.engine.clone()
    }
}

/// All paths, with and without a version in front, as Docker has them.
pub fn routes() -> Router<Context> {
    let api = || {
        Router::new()
            .route("/_ping", get(system::ping))
            .route("/version", get(system::version))
            .route("/info", get(system::info))
            .route("/events", get(events::events))
            .route("/auth", post(commit::auth))
            .route("/commit", post(commit::commit))
            .route("/system/df", get(usage::usage))
            .route("/images/json", get(images::list))
            .route("/images/create", post(transfer::create))
            .route("/images/load", post(transfer::load))
            .route("/images/get", get(transfer::save))
            .route("/images/prune", post(images::prune))
            .route(
                "/images/{*path}",
                get(images::get).post(images::post).delete(images::remove),
            )
            .route(
                "/containers/{name}/archive",
                get(transfer::copy_out)
                    .head(transfer::look)
                    .put(transfer::copy_in),
            )
            .route("/containers/{name}/export", get(transfer::export))
            .route("/volumes", get(volumes::list))
            .route("/volumes/create", post(volumes::create))
            .route("/volumes/prune", post(volumes::prune))
            .route(
                "/volumes/{name}",
                get(volumes::inspect).delete(volumes::remove),
            )
            .route("/networks", get(networks::list))
            .route("/networks/create", post(networks::create))
            .route("/networks/prune", post(networks::prune))
            .route(
                "/networks/{name}",
                get(networks::inspect).delete(networks::remove),
            )
            .route("/networks/{name}/connect", post(networks::connect))
            .route("/networks/{name}/disconnect", post(networks::disconnect))
            .route("/containers/json", get(list::list))
            .route("/containers/create", post(create::create))
            .route("/containers/prune", post(remove::prune))
            .route("/containers/{name}", delete(remove::remove))
            .route("/containers/{name}/rename", post(update::rename))
            .route("/containers/{name}/update", post(update::update))
            .route("/containers/{name}/attach", post(attach::attach))
            .route("/containers/{name}/resize", post(attach::resize))
            .route("/containers/{name}/exec", post(exec::create))
            .route("/exec/{id}/start", post(exec::start))
            .route("/exec/{id}/json", get(exec::inspect))
            .route("/exec/{id}/resize", post(exec::resize))
            .route("/containers/{name}/json", get(inspect::inspect))
            .route("/containers/{name}/start", post(control::start))
            .route("/containers/{name}/stop", post(control::stop))
            .route("/containers/{name}/restart", post(control::restart))
            .route("/containers/{name}/kill", post(control::kill))
            .route("/containers/{name}/pause", post(control::pause))
            .route("/containers/{name}/unpause", post(control::unpause))
            .route("/containers/{name}/wait", post(control::wait))
            .route("/containers/{name}/logs", get(logs::logs))
            .route("/containers/{name}/changes", get(changes::changes))
            .route("/containers/{name}/top", get(processes::top))
            .route("/containers/{name}/stats", get(stats::stats))
    };
    VERSIONS.iter().fold(api(), |routes, version| {
        routes.nest(&format!("/v{version}"), api())
    })
}

pub(crate) use error::unknown_path;
