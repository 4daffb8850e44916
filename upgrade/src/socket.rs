//! The service's socket. Whoever can connect may ask: the socket's mode and group decide that.

use std::fs::{self, Permissions};
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::Result;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::journal::Restart;
use crate::protocol::{Answer, Progress, Request};
use crate::system::System;

const REQUEST_MAX_BYTES: u64 = 16 * 1024;
/// A client that says nothing, or does not read, is let go after this.
const CLIENT_TIMEOUT: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(200);

/// Binds the socket for root and this group.
///
/// # Errors
/// What bind(2), chmod(2) or chown(2) report.
pub fn bind(path: &Path, group: Option<u32>) -> io::Result<UnixListener> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, Permissions::from_mode(0o660))?;
    if group.is_some() {
        chown(path, None, group)?;
    }
    Ok(listener)
}

/// Answers requests, for ever; each client in a thread of its own, so that an upgrade holds up nobody who asks how it stands.
pub fn run(listener: &UnixListener, system: &Arc<System>) -> ! {
    loop {
        let client = match listener.accept() {
            Ok((client, _)) => client,
            Err(error) => {
                eprintln!("<4>a client is lost: {error}");
                // Of too many open files there may be fewer in a while.
                thread::sleep(PAUSE);
                continue;
            }
        };
        let system = Arc::clone(system);
        let serve = move || {
            // The client has gone away: nobody is left to be told.
            let _ = serve(client, &system);
        };
        if let Err(error) = thread::Builder::new().spawn(serve) {
            eprintln!("<4>a client is turned away: {error}");
        }
    }
}

fn serve(client: UnixStream, system: &System) -> io::Result<()> {
    exchange(&client, REQUEST_MAX_BYTES, |request, progress| {
        answer(system, request, progress)
    })
}

/// Reads one request, and sends what `answer` tells and gives.
///
/// # Errors
/// The client says nothing, or does not read.
pub fn exchange<R: DeserializeOwned>(
    client: &UnixStream,
    limit_bytes: u64,
    answer: impl FnOnce(R, &mut dyn FnMut(Progress) -> Result<()>) -> Result<serde_json::Value>,
) -> io::Result<()> {
    client.set_read_timeout(Some(CLIENT_TIMEOUT))?;
    client.set_write_timeout(Some(CLIENT_TIMEOUT))?;
    let mut line = String::new();
    BufReader::new(client.take(limit_bytes)).read_line(&mut line)?;
    let answer = match serde_json::from_str::<R>(&line) {
        Err(error) => Answer::Error(format!("bad request: {error}")),
        Ok(request) => {
            let mut progress = |progress: Progress| -> Result<()> {
                Ok(send(client, &Answer::Progress(progress))?)
            };
            match answer(request, &mut progress) {
                Ok(value) => Answer::Done(value),
                Err(error) => {
                    eprintln!("<4>{error:#}");
                    Answer::Error(format!("{error:#}"))
                }
            }
        }
    };
    send(client, &answer)
}

fn answer(
    system: &System,
    request: Request,
    progress: &mut dyn FnMut(Progress) -> Result<()>,
) -> Result<serde_json::Value> {
    fn json(value: &impl Serialize) -> Result<serde_json::Value> {
        Ok(serde_json::to_value(value)?)
    }
    match request {
        Request::Status {} => json(&system.status()?),
        Request::History {} => json(&system.history()?),
        Request::List { source } => json(&system.list(source.as_deref())?),
        Request::Check { source } => json(&system.check(source.as_deref())?),
        Request::Upgrade {
            source,
            version,
            in_window,
        } => {
            let restart = in_window.then_some(Restart::Asked);
            let (source, version) = (source.as_deref(), version.as_deref());
            json(&system.upgrade(source, version, restart, progress)?)
        }
        Request::Rollback {} => json(&system.rollback()?),
        Request::Kexec {} => json(&system.prepare_kexec()?),
        Request::Reset { cancel } => json(&system.reset(!cancel)?),
    }
}

fn send(mut client: &UnixStream, answer: &Answer) -> io::Result<()> {
    let mut line = serde_json::to_vec(answer)?;
    line.push(b'\n');
    client.write_all(&line)
}
