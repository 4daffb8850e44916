//! `env_file`: files with variables of a service.

use super::volume::short_or_long;
use serde::{Deserialize, Deserializer};
use std::str::FromStr;

/// A file with lines of `NAME=VALUE`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EnvironmentFile {
    /// Its path; what is relative begins where the Compose file is.
    pub path: String,
    /// False: no error when it does not exist.
    pub required: bool,
}

impl FromStr for EnvironmentFile {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "" => Err("the name of a file is missing".to_owned()),
            path => Ok(Self {
                path: path.to_owned(),
                required: true,
            }),
        }
    }
}

/// The long syntax.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LongEnvironmentFile {
    path: String,
    #[serde(default = "truth")]
    required: bool,
}

impl TryFrom<LongEnvironmentFile> for EnvironmentFile {
    type Error = String;

    fn try_from(long: LongEnvironmentFile) -> Result<Self, String> {
        let required = long.required;
        Ok(Self {
            required,
            ..long.path.parse()?
        })
    }
}

impl<'de> Deserialize<'de> for EnvironmentFile {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        short_or_long::<D, Self, LongEnvironmentFile>(deserializer, "a path, or a map with path")
    }
}

fn truth() -> bool {
    true
}
