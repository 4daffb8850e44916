//! Images that containers are made from.
//!
//! - [`find`]: those of the OS image, `keelson/NAME`, one directory each, read as it stands; and those of the store, that
//!   clients have pulled, loaded or imported
//! - [`tool`]: the program that fetches, unpacks and packs; a process of its own for each task
//!
//! The store is `keelson_image`'s.

pub mod tool;

use crate::options::Options;
use bollard_stubs::models::ImageConfig;
use keelson_image::document::Configuration;
use keelson_image::{Digest, Store, store};
use serde_json::json;
use std::fs;
use std::path::PathBuf;

/// An image that is there.
#[derive(Clone, Debug)]
pub struct Image {
    /// The digest of its configuration.
    pub id: String,
    /// Its names with tags.
    pub tags: Vec<String>,
    /// Its names with the digests that registries know it by.
    pub digests: Vec<String>,
    /// Bytes of its layers as they came, the lowest first.
    pub layer_bytes: Vec<u64>,
    /// Its layers' directories, the topmost first.
    pub layers: Vec<PathBuf>,
    /// What it says of itself.
    pub configuration: Configuration,
    /// What containers have from it unless they are told otherwise.
    pub config: ImageConfig,
    /// It belongs to the OS image, which cannot be changed.
    pub built_in: bool,
}

impl Image {
    /// Bytes of all its layers as they came.
    pub fn size_bytes(&self) -> u64 {
        self.layer_bytes.iter().sum()
    }
}

/// Whether a name means an image of the OS image.
pub fn is_of_the_os(name: &str) -> bool {
    name.starts_with("keelson/")
}

/// The images that clients have brought.
pub fn store(options: &Options) -> Store {
    Store::new(options.state.join("images"))
}

/// Finds an image by the name or number that a client gave.
///
/// # Errors
/// When there is none, or several.
pub fn find(options: &Options, name: &str) -> Result<Image, store::Error> {
    let built_in = built_in(options);
    let plain = name.strip_suffix(":latest").unwrap_or(name);
    let is_meant = |image: &Image| {
        image.id == name
            || image
                .tags
                .iter()
                .any(|tag| tag.strip_suffix(":latest") == Some(plain))
    };
    match built_in.into_iter().find(is_meant) {
        Some(image) => Ok(image),
        None => store(options).find(name).map(from_store),
    }
}

/// All images, the OS image's first.
///
/// # Errors
/// When the store cannot be read.
pub fn all(options: &Options) -> Result<Vec<Image>, store::Error> {
    let mut all = built_in(options);
    all.extend(store(options).images()?.into_iter().map(from_store));
    Ok(all)
}

fn from_store(image: keelson_image::Image) -> Image {
    // The specification's object is Docker's.
    let config = serde_json::from_value(image.configuration.config.clone());
    Image {
        id: image.id.to_string(),
        tags: image.repo_tags,
        digests: image.repo_digests,
        layer_bytes: image.layer_bytes,
        layers: image.layers,
        config: config.unwrap_or_default(),
        configuration: image.configuration,
        built_in: false,
    }
}

/// An image of the OS image by its name, `keelson/NAME`.
pub fn of_the_os(options: &Options, name: &str) -> Option<Image> {
    let plain = name.strip_prefix("keelson/")?;
    options
        .image(name)
        .is_dir()
        .then(|| describe(options, plain))
}

fn built_in(options: &Options) -> Vec<Image> {
    let entries = fs::read_dir(&options.images)
        .into_iter()
        .flatten()
        .flatten();
    let mut names: Vec<String> = entries
        .filter(|entry| entry.path().is_dir())
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect();
    names.sort();
    names
        .into_iter()
        .map(|name| describe(options, &name))
        .collect()
}

/// An image of the OS: its number is the digest of a configuration that says whose it is.
fn describe(options: &Options, name: &str) -> Image {
    let config = json!({ "Labels": { "io.keelson.image": name, "io.keelson.version": env!("CARGO_PKG_VERSION") } });
    let configuration = Configuration {
        architecture: "amd64".to_owned(),
        os: "linux".to_owned(),
        config: config.clone(),
        ..Configuration::default()
    };
    let text = serde_json::to_vec(&configuration).unwrap_or_default();
    Image {
        id: Digest::of(&text).to_string(),
        tags: vec![format!("keelson/{name}:latest")],
        digests: Vec::new(),
        layer_bytes: Vec::new(),
        layers: vec![options.images.join(name)],
        config: serde_json::from_value(config).unwrap_or_default(),
        configuration,
        built_in: true,
    }
}
