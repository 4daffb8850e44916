//! The settings, from the environment: the service definition has them.

use anyhow::{Context, Result};
use std::env;
use std::path::PathBuf;
use std::str::FromStr;

const DEFAULT_SIZE_MIB: u64 = 64;

/// What can be set.
#[derive(Debug, Clone)]
pub struct Config {
    /// `KEELSON_LOG_DIRECTORY`: where records are kept.
    pub directory: PathBuf,
    /// `KEELSON_LOG_RUN_DIRECTORY`: where the sockets are, and what must outlive this process but not this boot.
    pub run_directory: PathBuf,
    /// `KEELSON_LOG_SIZE_MIB`: how much is kept.
    pub size_bytes: u64,
    /// `KEELSON_LOG_KMSG`: the kernel's log.
    pub kmsg: PathBuf,
    /// `KEELSON_LOG_SYSLOG_SERVICE`: whose messages those on the syslog socket are.
    pub syslog_service: String,
    /// `KEELSON_LOG_QUERY_GROUP`: the group (a number) that may ask, beside root.
    pub query_group: Option<u32>,
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
        let size_mib = number("KEELSON_LOG_SIZE_MIB")?.unwrap_or(DEFAULT_SIZE_MIB);
        Ok(Self {
            directory: path("KEELSON_LOG_DIRECTORY", "/state/log"),
            run_directory: path("KEELSON_LOG_RUN_DIRECTORY", "/run/keelson/log"),
            size_bytes: size_mib.saturating_mul(1 << 20),
            kmsg: path("KEELSON_LOG_KMSG", "/dev/kmsg"),
            syslog_service: env::var("KEELSON_LOG_SYSLOG_SERVICE")
                .unwrap_or_else(|_| "syslog".to_owned()),
            query_group: number("KEELSON_LOG_QUERY_GROUP")?,
        })
    }
}

fn number<N>(name: &str) -> Result<Option<N>>
where
    N: FromStr<Err = std::num::ParseIntError>,
{
    let Some(value) = env::var_os(name) else {
        return Ok(None);
    };
    let text = value.to_string_lossy();
    let number = text
        .parse()
        .with_context(|| format!("reading {name}={text}"))?;
    Ok(Some(number))
}
