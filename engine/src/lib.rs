//! The system engine: runs the operating system's own services as containers.
//!
//! - [`api`]: types of the HTTP API on `/run/keelson/system.sock`; [`server`]: the HTTP server
//! - [`docker`]: Docker's API on the same socket
//! - [`compose`]: service definitions; [`graph`]: their order; [`choices`]: what people decide about them
//! - [`containers`]: what clients of Docker's API make; [`images`]: what from; [`events`]: who hears of it
//! - [`lifecycle`]: the life of one service as a state machine; [`record`]: what is stored of it
//! - [`supervise`]: the engine itself
//! - [`spec`], [`seccomp`], [`rootfs`]: from a definition to an OCI bundle; [`runtime`]: drives the OCI runtime
//! - [`notify`], [`healthcheck`]: how a service is known to be well; [`changes`]: how it hears of changed files
//! - [`sockets`]: what is listened at for services
//! - [`network`]: bridges, addresses and published ports of containers
//! - [`relay`]: clients that are attached to a container; [`exec`]: further processes in one
//! - [`output`], [`handover`]: what services print, and its way to the log service; [`log_query`]: and back
//! - [`link`]: the socket to PID 1; [`readiness`]: waiting for descriptors; [`console`]: words for the person at the machine
//! - [`failpoint`]: where tests let it die
//! - [`boot`]: the time line; [`slices`]: the cgroup tree; [`options`]: command line and paths; [`clock`]

pub mod api;
pub mod boot;
pub mod changes;
pub mod choices;
pub mod client;
pub mod clock;
pub mod compose;
pub mod console;
pub mod containers;
pub mod docker;
pub mod events;
pub mod exec;
pub mod failpoint;
pub mod graph;
pub mod handover;
pub mod healthcheck;
pub mod images;
pub mod lifecycle;
pub mod link;
pub mod log_query;
pub mod network;
pub mod notify;
pub mod options;
pub mod output;
pub mod readiness;
pub mod record;
pub mod relay;
pub mod rootfs;
pub mod runtime;
pub mod seccomp;
pub mod server;
pub mod slices;
pub mod sockets;
pub mod spec;
pub mod supervise;
