//! `network_mode`.

use super::values::scalars;
use serde::de::{Deserialize, Deserializer};
use std::borrow::Cow;
use std::str::FromStr;

/// Which network a service has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NetworkMode {
    /// One of its own, with nothing in it.
    None,
    /// The host's.
    Host,
    /// That of another one, which has to run.
    Container(String),
    /// One of its own, connected to this network of the engine.
    Network(String),
}

impl NetworkMode {
    /// The word that stands in files.
    pub fn as_text(&self) -> Cow<'static, str> {
        match self {
            Self::None => Cow::Borrowed("none"),
            Self::Host => Cow::Borrowed("host"),
            Self::Container(name) => Cow::Owned(format!("container:{name}")),
            Self::Network(name) => Cow::Owned(name.clone()),
        }
    }
}

impl FromStr for NetworkMode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let other = text
            .strip_prefix("container:")
            .or_else(|| text.strip_prefix("service:"));
        match (text, other) {
            ("none", _) => Ok(Self::None),
            ("host", _) => Ok(Self::Host),
            (_, Some(name)) if !name.is_empty() => Ok(Self::Container(name.to_owned())),
            _ => Err(format!(
                "`{text}` is not one of: none, host, service:NAME, container:NAME"
            )),
        }
    }
}

scalars!(NetworkMode);
