//! What the configuration says (`keelson.upgrade`), as first-boot writes it for this service.

use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde::Deserialize;

use crate::checks::Check;
use crate::policy::window::Window;

/// How long a new version may take unless told otherwise.
const DEADLINE: Duration = Duration::from_secs(5 * 60);
/// The source is asked about this often.
const INTERVAL: Duration = Duration::from_secs(24 * 60 * 60);
/// Machines that restart by themselves do so within this time of each other.
const JITTER: Duration = Duration::from_secs(10 * 60);

/// What is done without being asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Policy {
    /// Nothing.
    #[default]
    Manual,
    /// Newer versions are put on the disk; whoever restarts the machine starts them.
    Download,
    /// And the machine restarts.
    Auto,
}

impl Policy {
    /// As in the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Policy::Manual => "manual",
            Policy::Download => "download",
            Policy::Auto => "auto",
        }
    }
}

/// The settings.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Settings {
    /// Where releases come from.
    pub source: Option<String>,
    /// How long a new version may take to be up, in seconds.
    deadline_s: Option<u64>,
    /// What is done without being asked.
    pub policy: Policy,
    /// The source is asked about this often, in seconds.
    interval_s: Option<u64>,
    /// When the machine may restart by itself; at any time when there is none.
    pub window: Option<Window>,
    /// Its restart is put off by up to so many seconds.
    jitter_s: Option<u64>,
    /// What has to pass before a new version is good.
    pub checks: Vec<Check>,
}

impl Settings {
    /// Reads the file; there need be none.
    ///
    /// # Errors
    /// It cannot be read, or is malformed.
    pub fn read(path: &Path) -> Result<Self> {
        match fs::read(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Settings::default()),
            Err(error) => Err(error).context("read the settings"),
            Ok(bytes) => serde_json::from_slice(&bytes).context("read the settings"),
        }
    }

    /// How long a new version may take to be up.
    pub fn deadline(&self) -> Duration {
        self.deadline_s.map_or(DEADLINE, Duration::from_secs)
    }

    /// The source is asked about this often.
    pub fn interval(&self) -> Duration {
        self.interval_s.map_or(INTERVAL, Duration::from_secs)
    }

    /// A restart is put off by up to this.
    pub fn jitter(&self) -> Duration {
        self.jitter_s.map_or(JITTER, Duration::from_secs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checks::What;

    #[test]
    fn what_first_boot_writes_is_read() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("settings.json");
        assert_eq!(Settings::read(&path).unwrap(), Settings::default());
        // The same text stands in config/src/cloud_config/upgrade/mod.rs.
        let text = r#"{"source":"example.org/os:stable","deadline_s":120,"policy":"auto","interval_s":3600,"window":{"days":[6,0],"from_min":120,"to_min":300,"offset_min":60},"jitter_s":0,"checks":[{"name":"shop","http":"http://127.0.0.1:80/"},{"name":"db","tcp":"db:5432"},{"name":"disk","exec":["test","-e","/x"]},{"name":"web","container":"web"}]}"#;
        fs::write(&path, text).unwrap();
        let settings = Settings::read(&path).unwrap();
        assert_eq!(settings.deadline(), Duration::from_secs(120));
        assert_eq!(settings.policy, Policy::Auto);
        assert_eq!(settings.jitter(), Duration::ZERO);
        assert_eq!(settings.window.unwrap().offset_min, 60);
        assert_eq!(settings.checks.len(), 4);
        assert_eq!(
            settings.checks[2].what,
            What::Exec(vec!["test".into(), "-e".into(), "/x".into()])
        );
        fs::write(&path, "{").unwrap();
        assert!(Settings::read(&path).is_err());
    }
}
