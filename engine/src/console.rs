//! Words for the person at the machine: written to the kernel's log, which shows on every console and which the log
//! service reads. Without PID 1 they go to standard error.

use std::cell::RefCell;
use std::fs::{File, OpenOptions};
use std::io::Write;

/// The longest record that the kernel takes from user space, a little less.
const RECORD_MAX_BYTES: usize = 900;

/// Where messages go.
#[derive(Debug)]
pub struct Console {
    kmsg: Option<RefCell<File>>,
}

impl Console {
    /// The kernel's log when `system`, standard error otherwise or when it cannot be opened.
    pub fn open(system: bool) -> Self {
        let kmsg = if system {
            OpenOptions::new().write(true).open("/dev/kmsg").ok()
        } else {
            None
        };
        Self {
            kmsg: kmsg.map(RefCell::new),
        }
    }

    /// Something failed.
    pub fn error(&self, text: &str) {
        self.write(3, text);
    }

    /// Something happened.
    pub fn info(&self, text: &str) {
        self.write(6, text);
    }

    /// One write is one record.
    fn write(&self, priority: u8, text: &str) {
        let text = text.replace('\n', "; ");
        let mut end = text.len().min(RECORD_MAX_BYTES);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        let line = &text[..end];
        // Nobody is left to tell when this fails.
        let _ = match &self.kmsg {
            Some(file) => file
                .borrow_mut()
                .write_all(format!("<{priority}>keelson-engine: {line}\n").as_bytes()),
            None => std::io::stderr().write_all(format!("keelson-engine: {line}\n").as_bytes()),
        };
    }
}
