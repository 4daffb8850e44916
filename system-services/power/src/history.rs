//! Boots and shutdowns as last(1) tells them: entries in wtmpdb's database, written by its own program. pam_wtmpdb
//! writes the sessions, in the console.

use anyhow::{Context, Result, bail};
use std::fs;
use std::path::{Path, PathBuf};
use tokio::process::Command;

const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// The database and who writes it.
#[derive(Debug, Clone)]
pub struct History {
    /// wtmpdb(8)
    pub program: PathBuf,
    /// Its file.
    pub database: PathBuf,
    /// A file in memory that says which boot is recorded, so that a restart of this service records no second one.
    pub recorded: PathBuf,
}

impl History {
    /// Records this boot, once.
    ///
    /// # Errors
    /// The program cannot be run or reports failure; what it says goes to standard error.
    pub async fn record_boot(&self) -> Result<()> {
        let boot_id = read(Path::new(BOOT_ID))?;
        if fs::read_to_string(&self.recorded).is_ok_and(|recorded| recorded == boot_id) {
            return Ok(());
        }
        self.run("boot").await?;
        fs::write(&self.recorded, boot_id)
            .with_context(|| format!("writing {}", self.recorded.display()))
    }

    /// Records that the machine goes down now.
    ///
    /// # Errors
    /// As [`History::record_boot`].
    pub async fn record_shutdown(&self) -> Result<()> {
        self.run("shutdown").await
    }

    async fn run(&self, command: &str) -> Result<()> {
        let program = self.program.display();
        let status = Command::new(&self.program)
            .arg(command)
            .arg("--file")
            .arg(&self.database)
            .kill_on_drop(true)
            .status()
            .await
            .with_context(|| format!("running {program}"))?;
        if !status.success() {
            bail!("{program} {command} failed: {status}");
        }
        Ok(())
    }
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))
}
