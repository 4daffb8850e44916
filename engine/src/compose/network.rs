//! `network_mode` and `networks`.

use super::lists::Ordered;
use super::values::{Text, scalar, scalars};
use crate::network::request::plain;
use crate::network::{Attachment, DEFAULT};
use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use std::borrow::Cow;
use std::fmt;
use std::net::Ipv4Addr;
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
    /// The network of the engine that it names.
    pub fn network(&self) -> Option<&String> {
        match self {
            Self::Network(name) => Some(name),
            _ => None,
        }
    }

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
                "`{text}` is not one of: none, host, bridge, service:NAME, container:NAME"
            )),
        }
    }
}

scalars!(NetworkMode);

/// The mode as files have it, where `bridge` is the default network.
struct FileMode(NetworkMode);

impl FromStr for FileMode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            DEFAULT => Ok(Self(NetworkMode::Network(text.to_owned()))),
            _ => text.parse().map(Self),
        }
    }
}

/// Reads the mode from a file.
pub(super) fn file_mode<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<NetworkMode>, D::Error> {
    scalar(deserializer).map(|FileMode(mode)| Some(mode))
}

/// What is said of a service in a network.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Member {
    aliases: Vec<Text>,
    ipv4_address: Option<Ipv4Addr>,
}

/// `networks` of a service, from a list or a map.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Networks(Vec<(String, Member)>);

impl Networks {
    /// Their names.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(name, _)| name.as_str())
    }

    /// What the service wants to be in, the one with its default route first.
    pub fn attachments(&self) -> Vec<Attachment> {
        let attachment = |(name, member): &(String, Member)| Attachment {
            network: plain(name).to_owned(),
            aliases: member.aliases.iter().map(|text| text.0.clone()).collect(),
            address: member.ipv4_address,
        };
        self.0.iter().map(attachment).collect()
    }
}

impl<'de> Deserialize<'de> for Networks {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ListOrMap;
        impl<'de> Visitor<'de> for ListOrMap {
            type Value = Networks;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a list of networks, or a map with what is said of each")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Networks, A::Error> {
                let mut all: Vec<(String, Member)> = Vec::new();
                while let Some(Text(name)) = seq.next_element()? {
                    if all.iter().any(|(other, _)| *other == name) {
                        return Err(de::Error::custom(format!("`{name}` stands twice")));
                    }
                    all.push((name, Member::default()));
                }
                Ok(Networks(all))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Networks, A::Error> {
                let map = de::value::MapAccessDeserializer::new(map);
                let Ordered(all) = Ordered::<Option<Member>>::deserialize(map)?;
                let said =
                    |(name, member): (String, Option<Member>)| (name, member.unwrap_or_default());
                Ok(Networks(all.into_iter().map(said).collect()))
            }
        }
        deserializer.deserialize_any(ListOrMap)
    }
}

/// A network of a file's own list, which has to be there already.
#[derive(Clone, Copy, Debug)]
pub(super) struct Declared;

impl<'de> Deserialize<'de> for Declared {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(serde::Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Said {
            #[serde(default)]
            external: bool,
        }
        match Option::<Said>::deserialize(deserializer)? {
            Some(Said { external: true }) => Ok(Self),
            _ => Err(de::Error::custom(
                "a network has to be `external`: networks are made with `system-docker network create`, not by files of services",
            )),
        }
    }
}
