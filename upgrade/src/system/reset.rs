//! Back to how the machine was delivered: the wish is noted in the partition table, and PID 1 carries it out early in the next boot.

use anyhow::{Result, bail};

use super::{System, read};
use crate::protocol::Reset;

/// The word of the kernel's command line that names another state partition.
const ELSEWHERE: &str = "keelson.state=";

impl System {
    /// Has the next boot make the state partition anew, or not after all.
    ///
    /// # Errors
    /// State is not kept on a partition of the system's disk, or the disk cannot be written.
    pub fn reset(&self, wished: bool) -> Result<Reset> {
        let _changing = self.change()?;
        let line = read(&self.paths.command_line)?;
        let elsewhere = line
            .split_ascii_whitespace()
            .find(|word| word.starts_with(ELSEWHERE));
        if let Some(word) = elsewhere {
            bail!(
                "the kernel's command line has {word}: only the state partition of the system's own disk can be reset"
            );
        }
        let disk = self.disk()?;
        let state = disk.wish_reset(wished)?;
        let verb = if wished { "makes" } else { "does not make" };
        println!(
            "<5>the next boot {verb} the state partition {} anew, as asked for",
            state.node.display()
        );
        Ok(Reset {
            device: state.node.clone(),
            pending: wished,
        })
    }
}
