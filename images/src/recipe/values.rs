//! Values as recipes write them: `mode: "0755"`, `owner: "0:0"`, `path: /etc/hosts`.

use std::path::{Component, Path};

use serde::{Deserialize, Deserializer, de::Error};

/// Permission bits of a file, written in octal between quotes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mode(pub(crate) u32);

impl<'de> Deserialize<'de> for Mode {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        match u32::from_str_radix(&text, 8) {
            Ok(mode) if mode <= 0o7777 => Ok(Self(mode)),
            _ => Err(D::Error::custom(format!(
                "mode {text:?} is not octal permission bits such as \"0755\""
            ))),
        }
    }
}

/// Numeric user and group of a file, written `"USER:GROUP"`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Owner {
    /// User id.
    pub(crate) user: u32,
    /// Group id.
    pub(crate) group: u32,
}

impl<'de> Deserialize<'de> for Owner {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let parsed = text.split_once(':').and_then(|(user, group)| {
            Some(Self {
                user: user.parse().ok()?,
                group: group.parse().ok()?,
            })
        });
        parsed.ok_or_else(|| {
            D::Error::custom(format!("owner {text:?} is not \"USER:GROUP\" in numbers"))
        })
    }
}

/// An absolute path inside an image, kept without its leading slash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TreePath(String);

impl TreePath {
    /// The path relative to the image's root.
    pub(crate) fn relative(&self) -> &str {
        &self.0
    }
}

impl<'de> Deserialize<'de> for TreePath {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let Some(relative) = text.strip_prefix('/') else {
            return Err(D::Error::custom(format!(
                "path {text:?} must begin with a slash"
            )));
        };
        if !Path::new(relative)
            .components()
            .all(|part| matches!(part, Component::Normal(_)))
        {
            return Err(D::Error::custom(format!(
                "path {text:?} must not contain `..` or double slashes"
            )));
        }
        Ok(Self(relative.trim_end_matches('/').to_owned()))
    }
}
