//! What is taken without being asked, and when the machine restarts for it. No input or output but in [`alarm`].
//!
//! - [`window`]: when a machine may restart
//! - [`choice`]: whether a release is taken
//! - [`share`]: which machines come first
//! - [`alarm`]: waits for a time or an event

pub mod alarm;
pub mod choice;
pub mod share;
pub mod window;
