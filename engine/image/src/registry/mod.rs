//! Registries: the OCI distribution specification 1.1, from the client's side, for pulling.
//!
//! - [`settings`]: what is said of registries: mirrors, certificates, credentials
//! - [`challenge`]: what a registry asks for (RFC 9110, section 11.6.1); [`authority`]: how that is answered
//! - [`client`]: one repository of one registry

mod authority;
mod challenge;
mod client;
pub(crate) mod settings;

pub(crate) use authority::Credentials;
pub(crate) use client::{Fetched, Remote, authorities};
