//! Commands run beside the system services, with the host's `/proc` in view.
//!
//! The shipped image offers no way to look at it from outside; the test image has one more service, `observer`
//! (`qemu-tests/services/observer`), which answers on a virtio-serial port.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::harness::vm::Vm;

/// Ends an answer; the exit status follows.
const END: &str = "@@done ";

/// The observer of a running machine. The host's root is at `/host`; process ids are the host's.
pub struct Observer {
    stream: BufReader<UnixStream>,
}

impl Observer {
    /// Takes the machine's observer port.
    ///
    /// # Errors
    /// When it has none.
    pub fn attach(vm: &mut Vm) -> Result<Self> {
        Ok(Observer {
            stream: BufReader::new(vm.take_observer()?),
        })
    }

    /// Runs a shell script (busybox) that must succeed, and gives its output.
    ///
    /// # Errors
    /// When it fails or does not end in time.
    pub fn run(&mut self, script: &str, deadline: Duration) -> Result<String> {
        let until = Instant::now() + deadline;
        let line = STANDARD.encode(script) + "\n";
        self.stream
            .get_mut()
            .write_all(line.as_bytes())
            .context("writing to the observer")?;
        let mut text = String::new();
        loop {
            let mut line = String::new();
            let left = until
                .saturating_duration_since(Instant::now())
                .max(Duration::from_millis(1));
            self.stream
                .get_ref()
                .set_read_timeout(Some(left))
                .context("setting a time limit")?;
            let count = self.stream.read_line(&mut line);
            let count = count.with_context(|| {
                format!("`{script}` did not end within {deadline:?}; so far: {text}")
            })?;
            if count == 0 {
                bail!("the observer's port was closed");
            }
            if let Some(at) = line.find(END) {
                text.push_str(&line[..at]);
                let status = line[at + END.len()..].trim();
                ensure!(
                    status == "0",
                    "`{script}` at the observer failed ({status}): {text}"
                );
                return Ok(text.trim_end().to_owned());
            }
            text.push_str(&line);
        }
    }
}
