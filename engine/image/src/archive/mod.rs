//! Tar archives of images and of files.
//!
//! - [`load`], [`save`]: images, as Docker's `save` and the OCI image layout have them; [`import`]: a root file system
//! - [`copy`]: files into a container and out of it; [`snapshot`]: what it has written, as an image
//! - [`pack`]: a tree of files as an archive

pub(crate) mod copy;
pub(crate) mod import;
pub(crate) mod load;
pub(crate) mod pack;
pub(crate) mod save;
pub(crate) mod snapshot;
