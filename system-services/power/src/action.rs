//! What can be asked, and asking the engine for it.

use keelson_sys::notify::notify;
use serde::Deserialize;
use std::cell::Cell;
use std::io;

/// How the machine goes down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// Start again.
    Reboot,
    /// Start again without the firmware.
    Kexec,
    /// Turn the power off.
    Poweroff,
    /// Stop, power stays on.
    Halt,
}

impl Action {
    /// The word that the engine understands.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Reboot => "reboot",
            Self::Kexec => "kexec",
            Self::Poweroff => "poweroff",
            Self::Halt => "halt",
        }
    }
}

/// The way to the engine.
#[derive(Debug, Default)]
pub struct Engine {
    asked: Cell<bool>,
}

impl Engine {
    /// Asks the engine to take the machine down. It begins at once; this service is then told to stop like all others.
    ///
    /// # Errors
    /// The engine does not listen: it is being restarted, or this program was started by hand.
    pub fn ask(&self, action: Action) -> io::Result<()> {
        if !notify(&format!("X_KEELSON_POWER={}", action.as_str()))? {
            return Err(io::Error::other(
                "there is no engine to ask: NOTIFY_SOCKET is not set",
            ));
        }
        self.asked.set(true);
        Ok(())
    }

    /// Whether it was asked: then a stop of this service is the machine's.
    #[must_use]
    pub fn was_asked(&self) -> bool {
        self.asked.get()
    }
}
