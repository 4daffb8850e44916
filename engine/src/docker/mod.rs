//! Docker Engine API (v1.41 to v1.45) on the engine's socket, the part that makes sense for system containers.
//!
//! Names, statuses, bodies and messages are those of Docker's own API reference and daemon, so that the stock `docker`
//! command line is a client. docs/docker-api.md lists every endpoint and its state.
//!
//! - [`container`]: a service as a container; `list`, `inspect`, `control`, `logs`, `processes`: what is done with it
//! - `filters`: the `filters` parameter
//! - `system`: version and state of the engine
//! - [`error`]: answers that are no success

pub mod container;
mod control;
mod error;
mod filters;
mod inspect;
mod list;
mod logs;
mod processes;
mod system;

pub use control::Command;

use crate::server::Engine;
use axum::Router;
use axum::extract::FromRef;
use axum::routing::{get, post};
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
}

/// Paths that the handlers read themselves.
#[derive(Debug)]
pub struct Paths {
    /// Root directories of images.
    pub images: PathBuf,
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
            .route("/containers/json", get(list::list))
            .route("/containers/{name}/json", get(inspect::inspect))
            .route("/containers/{name}/start", post(control::start))
            .route("/containers/{name}/stop", post(control::stop))
            .route("/containers/{name}/restart", post(control::restart))
            .route("/containers/{name}/kill", post(control::kill))
            .route("/containers/{name}/wait", post(control::wait))
            .route("/containers/{name}/logs", get(logs::logs))
            .route("/containers/{name}/top", get(processes::top))
    };
    VERSIONS.iter().fold(api(), |routes, version| {
        routes.nest(&format!("/v{version}"), api())
    })
}

pub(crate) use error::unknown_path;
