//! The service.yml files in the source tree, as far as tests compare them with what runs.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

/// Names of the capabilities, by number (linux/capability.h), without `CAP_`.
const CAPABILITIES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// One service, as its service.yml has it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Definition {
    /// Capabilities to be kept.
    pub cap_add: Vec<String>,
    /// Everything allowed.
    pub privileged: bool,
    /// Root not writable.
    pub read_only: bool,
    /// `seccomp=unconfined` and the like.
    pub security_opt: Vec<String>,
}

#[derive(Deserialize)]
struct File {
    services: BTreeMap<String, Definition>,
}

impl Definition {
    /// The capabilities as the kernel writes them in `/proc/PID/status`: all for a privileged service.
    ///
    /// # Errors
    /// When one is unknown.
    pub fn mask(&self) -> Result<u64> {
        if self.privileged {
            return Ok((1 << CAPABILITIES.len()) - 1);
        }
        self.cap_add
            .iter()
            .try_fold(0, |mask, name| Ok(mask | (1 << number(name)?)))
    }
}

/// Reads every `FOLDER/*/service.yml`.
///
/// # Errors
/// When one cannot be read.
pub fn read_all(folder: &Path) -> Result<BTreeMap<String, Definition>> {
    let mut all = BTreeMap::new();
    for text in files(folder)? {
        let file: File =
            serde_yaml::from_str(&text.1).with_context(|| format!("reading {}", text.0))?;
        all.extend(file.services);
    }
    Ok(all)
}

/// Name and text of every `FOLDER/*/service.yml`.
///
/// # Errors
/// When one cannot be read.
pub fn files(folder: &Path) -> Result<Vec<(String, String)>> {
    let mut list = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))? {
        let path = entry?.path().join("service.yml");
        if path.exists() {
            let text =
                fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
            list.push((path.display().to_string(), text));
        }
    }
    Ok(list)
}

/// The number of a capability.
///
/// # Errors
/// When it is unknown.
pub fn number(name: &str) -> Result<u32> {
    match CAPABILITIES
        .iter()
        .position(|known| *known == name.trim_start_matches("CAP_"))
    {
        Some(number) => u32::try_from(number).context("numbering capabilities"),
        None => bail!("no capability is called {name}"),
    }
}

/// The names in a mask, for messages.
pub fn names(mask: u64) -> Vec<&'static str> {
    CAPABILITIES
        .iter()
        .enumerate()
        .filter(|(bit, _)| (mask >> bit) & 1 == 1)
        .map(|(_, name)| *name)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_are_those_of_the_kernel() {
        let definition = Definition {
            cap_add: vec!["CHOWN".into(), "CAP_SYS_ADMIN".into()],
            ..Definition::default()
        };
        assert_eq!(definition.mask().unwrap(), 0x20_0001);
        assert_eq!(names(0x20_0001), ["CHOWN", "SYS_ADMIN"]);
        assert_eq!(
            Definition {
                privileged: true,
                ..Definition::default()
            }
            .mask()
            .unwrap(),
            0x1ff_ffff_ffff
        );
        assert!(number("SYS_ADMIM").is_err());
    }
}
