//! The settings, from the environment: the service definition has them.

use anyhow::{Context, Result};
use std::env;
use std::path::PathBuf;

/// What can be set.
#[derive(Debug, Clone)]
pub struct Config {
    /// `KEELSON_POWER_INPUT_DIRECTORY`: where the input devices are.
    pub input_directory: PathBuf,
    /// `KEELSON_POWER_RUN_DIRECTORY`: where the socket is, and what is known of this boot.
    pub run_directory: PathBuf,
    /// `KEELSON_POWER_SOCKET_GROUP`: the group (a number) that may ask, beside root.
    pub socket_group: Option<u32>,
    /// `KEELSON_POWER_WTMPDB`: the program that records boots.
    pub wtmpdb: PathBuf,
    /// `KEELSON_POWER_DATABASE`: the file that it keeps.
    pub database: PathBuf,
}

impl Config {
    /// Reads the environment.
    ///
    /// # Errors
    /// A number that is none.
    pub fn from_environment() -> Result<Self> {
        let path = |name: &str, default: &str| {
            env::var_os(name).map_or_else(|| default.into(), PathBuf::from)
        };
        let socket_group = match env::var("KEELSON_POWER_SOCKET_GROUP") {
            Ok(text) => Some(
                text.parse()
                    .with_context(|| format!("reading KEELSON_POWER_SOCKET_GROUP={text}"))?,
            ),
            Err(_) => None,
        };
        Ok(Self {
            input_directory: path("KEELSON_POWER_INPUT_DIRECTORY", "/dev/input"),
            run_directory: path("KEELSON_POWER_RUN_DIRECTORY", "/run/keelson/power"),
            socket_group,
            wtmpdb: path("KEELSON_POWER_WTMPDB", "/usr/bin/wtmpdb"),
            database: path("KEELSON_POWER_DATABASE", "/var/lib/wtmpdb/wtmp.db"),
        })
    }
}
