//! What the upgrade service is asked, over its socket: one request, a line of JSON; answers are lines of JSON, the last of which is
//! `done` or `error`.

use serde::{Deserialize, Serialize};

/// Where it listens.
pub const SOCKET: &str = "/run/keelson/upgrade/upgrade.sock";

/// A request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// [`Status`]
    Status {},
    /// [`Vec<Happened>`], the oldest first
    History {},
    /// [`Vec<Offer>`]: the releases of a source
    List {
        /// The source; the configured one when there is none.
        #[serde(default)]
        source: Option<String>,
    },
    /// [`Offer`]: the release that the source recommends
    Check {
        /// As in `list`.
        #[serde(default)]
        source: Option<String>,
    },
    /// [`Upgraded`], after any number of `progress`
    Upgrade {
        /// As in `list`.
        #[serde(default)]
        source: Option<String>,
        /// This version, also when it is older than the running one or out of date.
        #[serde(default)]
        version: Option<String>,
        /// The machine restarts by itself then, in the window that the configuration names.
        #[serde(default)]
        in_window: bool,
    },
    /// [`Upgraded`]: the other slot is started next
    Rollback {},
    /// [`Prepared`]: what is started next is laid out for a restart without the firmware
    Kexec {},
    /// [`Reset`]: the next boot makes the state partition anew, or does not after all
    Reset {
        /// Not after all.
        #[serde(default)]
        cancel: bool,
    },
}

/// A line of an answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    /// How far it is.
    Progress(Progress),
    /// What was asked for.
    Done(serde_json::Value),
    /// Why not; a sentence for a person.
    Error(String),
}

/// How far an upgrade is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// What is being done, for a person.
    pub step: String,
    /// Bytes that are in place.
    pub done_bytes: u64,
    /// Of so many; 0 when that is not known.
    pub total_bytes: u64,
}

/// A slot, as its boot entry says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slot {
    /// The version in it.
    pub version: String,
    /// It runs.
    pub running: bool,
    /// The boot loader takes it next.
    pub next: bool,
    /// `good`, `on trial` or `given up`.
    pub standing: String,
}

/// How the operating system stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The version that runs.
    pub version: String,
    /// The versions on the disk.
    pub slots: Vec<Slot>,
    /// What this boot has still to show; `None` when it is good.
    pub trial: Option<String>,
    /// The configured source of releases.
    pub source: Option<String>,
    /// Release keys are trusted.
    pub trusts: bool,
    /// Why there is nothing to upgrade, when there is not: a live system, or one whose EFI system partition cannot be read.
    pub unable: Option<String>,
    /// What is done without being asked: `manual`, `download` or `auto`.
    #[serde(default)]
    pub policy: String,
    /// When the source is asked next without anybody's asking, RFC 3339.
    #[serde(default)]
    pub next_check: Option<String>,
    /// What came of the last time, for a person.
    #[serde(default)]
    pub last_check: Option<String>,
    /// When the machine restarts by itself, RFC 3339.
    #[serde(default)]
    pub next_restart: Option<String>,
    /// The highest version that was good on this machine: older ones are taken by name only.
    #[serde(default)]
    pub floor: Option<String>,
}

/// A release that a source has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offer {
    /// Its version.
    pub version: String,
    /// When it was made, RFC 3339; `None` where only its tag was looked at.
    #[serde(default)]
    pub created: Option<String>,
    /// It is newer than what runs.
    pub newer: bool,
    /// Bytes of the whole release.
    #[serde(default)]
    pub size_bytes: Option<u64>,
}

/// What an upgrade or a rollback has done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Upgraded {
    /// The version that ran.
    pub from: String,
    /// The version that the next boot starts.
    pub to: String,
    /// Bytes that were fetched.
    pub fetched_bytes: u64,
    /// Bytes that the running version had already.
    pub copied_bytes: u64,
    /// Of so many.
    pub total_bytes: u64,
}

/// What a restart without the firmware would start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Prepared {
    /// The version.
    pub version: String,
}

/// What the next boot does with the state partition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reset {
    /// Its device.
    pub device: std::path::PathBuf,
    /// It is made anew.
    pub pending: bool,
}

/// An entry of the history.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Happened {
    /// When, RFC 3339.
    pub time: String,
    /// `upgraded`, `rolled back` (by somebody) or `went back` (by itself).
    pub what: String,
    /// The version before.
    pub from: String,
    /// The version after.
    pub to: String,
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// The last lines of the log of a boot that failed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub log: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_have_short_forms() {
        for (text, request) in [
            (r#"{"status":{}}"#, Request::Status {}),
            (
                r#"{"upgrade":{}}"#,
                Request::Upgrade {
                    source: None,
                    version: None,
                    in_window: false,
                },
            ),
            (
                r#"{"check":{"source":"example.org/os"}}"#,
                Request::Check {
                    source: Some("example.org/os".into()),
                },
            ),
        ] {
            assert_eq!(serde_json::from_str::<Request>(text).unwrap(), request);
        }
        assert!(serde_json::from_str::<Request>(r#"{"upgrade":{"sauce":1}}"#).is_err());
        let answer = serde_json::to_string(&Answer::Error("no".into())).unwrap();
        assert_eq!(answer, r#"{"error":"no"}"#);
    }
}
