//! Images that containers are made from.
//!
//! The OS image brings those of the system's own services, `keelson/NAME`: one directory each, read as it stands.

use crate::options::Options;
use bollard_stubs::models::ImageConfig;
use std::path::PathBuf;

/// An image that is there.
#[derive(Clone, Debug, Default)]
pub struct Image {
    /// What tells it from all others.
    pub id: String,
    /// Its layers' directories, the topmost first.
    pub layers: Vec<PathBuf>,
    /// What containers have from it unless they are told otherwise.
    pub config: ImageConfig,
}

/// Finds an image by the name that a client gave.
///
/// # Errors
/// Docker's words for an image that is not there.
pub fn find(options: &Options, name: &str) -> Result<Image, String> {
    let missing = || {
        let tagged = name.contains('@')
            || name
                .rsplit('/')
                .next()
                .is_some_and(|last| last.contains(':'));
        let tag = if tagged { "" } else { ":latest" };
        format!("No such image: {name}{tag}")
    };
    let own = name.strip_prefix("keelson/").ok_or_else(missing)?;
    let own = own.strip_suffix(":latest").unwrap_or(own);
    let directory = options.image(own);
    // A name, not a way around the directory of images.
    if own.is_empty() || own.contains(['/', '.']) || !directory.is_dir() {
        return Err(missing());
    }
    Ok(Image {
        id: format!("keelson/{own}"),
        layers: vec![directory],
        config: ImageConfig::default(),
    })
}
