//! The system engine's images on the disk: an OCI image layout that any tool can read, and each layer unpacked once.
//!
//! - [`reference`]: names of images, as Docker reads and writes them
//! - [`digest`]: what content is called by
//! - [`document`]: manifests, indexes and configurations of the OCI image specification 1.1
//! - [`store`]: the directory of images; who holds which
//!
//! The engine links this library to look; everything that fetches, unpacks or packs is the program `keelson-image`, a
//! process of its own that the engine starts for one task.

pub mod digest;
pub mod document;
pub mod reference;
pub mod store;

pub use digest::Digest;
pub use reference::Reference;
pub use store::{Image, Store};
