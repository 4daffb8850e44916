//! The power socket: one line `{"action":"reboot"}` (or `kexec`, `poweroff`, `halt`) a request, answered by one line
//! `{"ok":true}` or `{"error":"..."}`. Whoever can connect may ask: the socket's mode and group decide that.

use crate::action::{Action, Engine};
use serde::Deserialize;
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::time::timeout;

const REQUEST_MAX_BYTES: u64 = 1024;
/// A client that says nothing is let go after this.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Request {
    action: Action,
}

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

/// Answers requests, for ever.
///
/// # Errors
/// What accept(2) reports.
pub async fn run(listener: UnixListener, engine: Rc<Engine>) -> io::Result<()> {
    loop {
        let (client, _) = listener.accept().await?;
        let engine = Rc::clone(&engine);
        tokio::task::spawn_local(async move {
            // The client has gone away or says nothing: nobody is left to be told.
            let _ = timeout(REQUEST_TIMEOUT, serve(client, &engine)).await;
        });
    }
}

async fn serve(client: UnixStream, engine: &Engine) -> io::Result<()> {
    let user = client.peer_cred()?.uid();
    let (reader, mut writer) = client.into_split();
    let mut line = String::new();
    BufReader::new(reader.take(REQUEST_MAX_BYTES))
        .read_line(&mut line)
        .await?;
    let answer = match serde_json::from_str::<Request>(&line) {
        Err(error) => serde_json::json!({"error": format!("bad request: {error}")}),
        Ok(Request { action }) => {
            println!("<5>user {user} asks for {}", action.as_str());
            match engine.ask(action) {
                Ok(()) => serde_json::json!({"ok": true}),
                Err(error) => {
                    serde_json::json!({"error": format!("cannot ask the engine: {error}")})
                }
            }
        }
    };
    writer.write_all(format!("{answer}\n").as_bytes()).await
}
