//! Images pulled from a real registry, Debian's `docker-registry`, into a store; saved, loaded, removed. As root, as the
//! engine runs the program.

mod disturbed;
mod pulls;
mod read;
mod server;
mod store;
mod tokens;
mod world;
