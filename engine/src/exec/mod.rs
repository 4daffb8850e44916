//! Further processes in running containers: Docker's `exec`.
//!
//! - [`registry`]: those that clients have made; [`run`]: one of them
//! - `process`: the OCI `process` object of one
//!
//! They belong to the engine: one that is killed takes their streams with it, never the container's own.

pub mod process;
pub mod registry;

pub use registry::{Exec, Execs, Progress};

use crate::options::Options;
use crate::output::Stream;
use crate::relay::{Attached, Chunk, terminal};
use crate::runtime::last_message;
use anyhow::{Context, bail};
use axum::body::Bytes;
use bollard_stubs::models::ExecConfig;
use std::fs;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};
use tokio::sync::mpsc;

/// Most that is read at once.
const CHUNK_BYTES: usize = 16 * 1024;
/// So many pieces of output wait for a client before the process does.
const BEHIND_MAX: usize = 16;

/// Starts a process that [`Execs::begin`] has marked, with the OCI `process` object given. Its streams come back.
///
/// # Errors
/// When the runtime could not be started.
pub async fn run(
    execs: &Execs,
    options: &Options,
    exec: &Exec,
    process: &serde_json::Value,
) -> anyhow::Result<Attached> {
    let started = start(options, exec, process).await;
    let (child, files, socket) = match started {
        Ok(started) => started,
        Err(error) => {
            execs.change(&exec.id, |exec| exec.progress = Progress::Ended(128));
            return Err(error);
        }
    };
    let (sender, output) = mpsc::channel(BEHIND_MAX);
    let wants_input = exec.config.attach_stdin.unwrap_or(false);
    let (typed, typing) = mpsc::channel(BEHIND_MAX);
    let (execs, id) = (execs.clone(), exec.id.clone());
    let supervision = Supervision {
        execs,
        id,
        files,
        sender,
        size: size(&exec.config),
    };
    tokio::spawn(async move {
        supervision.watch(child, socket, typing).await;
    });
    Ok(Attached {
        output,
        input: wants_input.then_some(typed),
    })
}

/// Files of one process that runs.
#[derive(Debug)]
struct Files {
    process: PathBuf,
    pid: PathBuf,
    log: PathBuf,
    socket: PathBuf,
}

impl Drop for Files {
    fn drop(&mut self) {
        for file in [&self.process, &self.pid, &self.log, &self.socket] {
            let _ = fs::remove_file(file);
        }
    }
}

async fn start(
    options: &Options,
    exec: &Exec,
    process: &serde_json::Value,
) -> anyhow::Result<(Child, Files, Option<terminal::Socket>)> {
    let directory = options.container(&exec.key);
    // A number of 64 digits would make the socket's path too long for its address.
    let short = exec.id.get(..16).unwrap_or(&exec.id);
    let file = |suffix: &str| directory.join(format!("exec-{short}.{suffix}"));
    let files = Files {
        process: file("json"),
        pid: file("pid"),
        log: file("log"),
        socket: file("sock"),
    };
    fs::write(&files.process, process.to_string())
        .with_context(|| format!("cannot write {}", files.process.display()))?;
    let mut command = Command::new(&options.runtime);
    command.arg("--root").arg(options.runtime_root());
    command.arg("--log").arg(&files.log).arg("exec");
    command.arg("--process").arg(&files.process);
    command.arg("--pid-file").arg(&files.pid);
    let tty = process["terminal"] == true;
    let socket = if tty {
        command.arg("--console-socket").arg(&files.socket);
        Some(terminal::Socket::bind(&files.socket)?)
    } else {
        None
    };
    command.arg(&exec.key);
    let piped = |wanted: bool| {
        if wanted {
            Stdio::piped()
        } else {
            Stdio::null()
        }
    };
    command
        .stdin(piped(!tty && exec.config.attach_stdin.unwrap_or(false)))
        .stdout(piped(!tty))
        .stderr(piped(!tty));
    let child = command
        .spawn()
        .with_context(|| format!("cannot start {}", options.runtime.display()))?;
    Ok((child, files, socket))
}

/// Looks after one process from its start to its end.
struct Supervision {
    execs: Execs,
    id: String,
    files: Files,
    sender: mpsc::Sender<Chunk>,
    /// Of its terminal, to begin with: lines and columns.
    size: Option<(u16, u16)>,
}

impl Supervision {
    async fn watch(
        self,
        mut child: Child,
        socket: Option<terminal::Socket>,
        typing: mpsc::Receiver<Bytes>,
    ) {
        let mut carriers = Vec::new();
        if let Some(stdout) = child.stdout.take() {
            carriers.push(tokio::spawn(carry(
                stdout,
                Stream::Stdout,
                self.sender.clone(),
            )));
        }
        if let Some(stderr) = child.stderr.take() {
            carriers.push(tokio::spawn(carry(
                stderr,
                Stream::Stderr,
                self.sender.clone(),
            )));
        }
        let status = match (socket, child.stdin.take()) {
            (Some(socket), _) => {
                let ended = tokio::select! {
                    biased;
                    terminal = socket.receive() => match terminal {
                        Ok(master) => {
                            carriers.extend(self.take_terminal(master, typing));
                            child.wait().await
                        }
                        Err(_) => child.wait().await,
                    },
                    status = child.wait() => status,
                };
                ended
            }
            (None, Some(stdin)) => {
                let typist = tokio::spawn(type_in(stdin, typing));
                let status = child.wait().await;
                typist.abort();
                status
            }
            (None, None) => child.wait().await,
        };
        // A process of its own that it left behind may keep its streams open for as long as it likes.
        for carrier in carriers {
            let _ = carrier.await;
        }
        let mut code = match status {
            Ok(status) => status.code().unwrap_or(128),
            Err(_) => 128,
        };
        let said = fs::read_to_string(&self.files.log).unwrap_or_default();
        if let Some(why) = last_message(&said) {
            code = crate::supervise::failed_start(&why);
            let text = format!("OCI runtime exec failed: {why}\r\n");
            let chunk = Chunk {
                stream: Stream::Stdout,
                bytes: text.into(),
            };
            let _ = self.sender.send(chunk).await;
        }
        self.execs.change(&self.id, |exec| {
            exec.progress = Progress::Ended(code);
            exec.terminal = None;
        });
    }

    fn take_terminal(
        &self,
        master: OwnedFd,
        mut typing: mpsc::Receiver<Bytes>,
    ) -> Option<tokio::task::JoinHandle<()>> {
        let master = Arc::new(master);
        if let Some((rows, columns)) = self.size {
            let _ = terminal::resize(&*master, rows, columns);
        }
        let pid = fs::read_to_string(&self.files.pid).ok();
        self.execs.change(&self.id, |exec| {
            exec.terminal = Some(master.clone());
            exec.pid = pid.and_then(|text| text.trim().parse().ok());
        });
        let writer = terminal::Terminal::new(master.try_clone().ok()?).ok()?;
        let reader = terminal::Terminal::new(master.try_clone().ok()?).ok()?;
        tokio::spawn(async move {
            while let Some(bytes) = typing.recv().await {
                if writer.write_all(&bytes).await.is_err() {
                    return;
                }
            }
        });
        let sender = self.sender.clone();
        Some(tokio::spawn(async move {
            while let Ok(bytes) = reader.read(CHUNK_BYTES).await
                && !bytes.is_empty()
            {
                let chunk = Chunk {
                    stream: Stream::Stdout,
                    bytes: bytes.into(),
                };
                // Who has gone reads no more; the process goes on, as with Docker.
                let _ = sender.send(chunk).await;
            }
        }))
    }
}

async fn carry(mut reader: impl AsyncRead + Unpin, stream: Stream, sender: mpsc::Sender<Chunk>) {
    let mut buffer = vec![0; CHUNK_BYTES];
    while let Ok(length @ 1..) = reader.read(&mut buffer).await {
        let bytes = Bytes::copy_from_slice(&buffer[..length]);
        let _ = sender.send(Chunk { stream, bytes }).await;
    }
}

async fn type_in(mut stdin: impl AsyncWriteExt + Unpin, mut typing: mpsc::Receiver<Bytes>) {
    while let Some(bytes) = typing.recv().await {
        if stdin.write_all(&bytes).await.is_err() {
            return;
        }
    }
}

/// What a client says of its window.
fn size(config: &ExecConfig) -> Option<(u16, u16)> {
    match config.console_size.as_deref()? {
        [rows, columns] => Some(((*rows).try_into().ok()?, (*columns).try_into().ok()?)),
        _ => None,
    }
}

/// Checks what was asked for.
///
/// # Errors
/// Docker's words.
pub fn check(config: &ExecConfig) -> anyhow::Result<()> {
    match config.cmd.as_deref() {
        None | Some([]) => bail!("No exec command specified"),
        Some(_) => Ok(()),
    }
}
