//! What a user asks of the machine: cloud-config, user-data formats and meta-data, as typed settings.
//!
//! Bytes go in; settings and diagnostics come out. Nothing here reads a file, a clock or the network, and no input makes
//! it panic: what cannot be understood becomes a [`Diagnostic`] with file, line and column, and the rest still applies.
//!
//! - [`user_data`]: recognises what the bytes are (cloud-config, script, gzip ...) and reads them
//! - [`cloud_config`]: the typed settings of a `#cloud-config` document
//! - [`sources`]: what data sources say, in their own formats
//! - [`layers`]: files, user-data and command line as one configuration
//! - [`instance`]: what first-boot leaves on the state partition and others read there
//! - [`diagnostic`]: messages with a position
//! - [`yaml`]: a YAML 1.1 tree whose nodes know their position
//! - [`network`]: interfaces, addresses, routes
//! - [`schema`]: what may stand in a document, for editors
//! - [`names`]: what may be the name of a user, a group, a host
//! - [`shell`]: command lists as shell scripts

pub mod cloud_config;
pub mod diagnostic;
pub mod instance;
pub mod layers;
pub mod names;
pub mod network;
pub mod schema;
pub mod shell;
pub mod sources;
pub mod user_data;
pub mod yaml;

pub use cloud_config::CloudConfig;
pub use diagnostic::{Diagnostic, Diagnostics, Position, Severity, Source};
pub use sources::meta_data::MetaData;
pub use sources::{Source as DataSource, meta_data};
pub use user_data::UserData;

/// The largest document that is read, packed or unpacked.
pub const MAX_DOCUMENT_BYTES: usize = 1024 * 1024;
