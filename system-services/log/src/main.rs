//! Collects what the system prints and keeps it on disk. The parts are in the library; here they are put together.

use anyhow::{Context, Result, anyhow};
use keelson_log::config::Config;
use keelson_log::pipes::{self, Pipes};
use keelson_log::positions::BootId;
use keelson_log::store::{SharedStore, Store, StoreConfig};
use keelson_log::{forward, handover, kmsg, query, sync, syslog};
use keelson_sys::notify::notify;
use std::cell::RefCell;
use std::fs;
use std::future::Future;
use std::io;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use std::process::ExitCode;
use std::rc::Rc;
use tokio::net::{UnixDatagram, UnixListener};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::LocalSet;

const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let ended = match arguments.split_first() {
        Some((word, remotes)) if word == "forward" => forward::run(remotes),
        Some((word, _)) => Err(anyhow!("`{word}` is nothing to do; `forward SERVER...` is")),
        None => run(),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("<3>{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let config = Config::from_environment()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("making the event loop")?;
    let result = LocalSet::new().block_on(&runtime, serve(&config));
    // A disk that hangs in fdatasync(2) must not hold up the end.
    runtime.shutdown_background();
    result
}

async fn serve(config: &Config) -> Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("listening to SIGTERM")?;
    fs::create_dir_all(&config.run_directory).with_context(|| making(&config.run_directory))?;
    let store = Store::open(StoreConfig {
        directory: config.directory.clone(),
        fallback: config.run_directory.join("memory"),
        size_bytes: config.size_bytes,
        boot_id: boot_id()?,
    })
    .context("opening the log")?;
    let store: SharedStore = Rc::new(RefCell::new(store));
    let pipes = Pipes::open(&config.run_directory.join("spool"), Rc::clone(&store))
        .context("opening the spool")?;
    let pipes = Rc::new(RefCell::new(pipes));
    let mut tasks = Vec::new();
    let mut start = |task| tasks.push(task);

    let path = config.run_directory.join("log.sock");
    let listener = handover::bind_socket(&path).with_context(|| making(&path))?;
    start(spawn(
        "taking pipes over",
        handover::run(listener, Rc::clone(&pipes)),
    ));
    start(spawn("reading pipes", pipes::run(Rc::clone(&pipes))));
    let socket = bind_syslog(&config.run_directory.join("dev-log"))?;
    let service = config.syslog_service.clone();
    start(spawn(
        "reading syslog",
        syslog::run(socket, service, Rc::clone(&store)),
    ));
    let listener = bind_query(&config.run_directory.join("query.sock"), config.query_group)?;
    start(spawn(
        "answering queries",
        query::run(listener, Rc::clone(&store)),
    ));
    start(spawn("syncing", sync::run(Rc::clone(&store))));
    match kmsg::open(&config.kmsg) {
        Ok(kmsg) => start(spawn(
            "reading kernel messages",
            kmsg::run(kmsg, Rc::clone(&store)),
        )),
        Err(error) => {
            let text = format!(
                "no kernel messages: cannot open {}: {error}",
                config.kmsg.display()
            );
            store.borrow_mut().note(3, &text)?;
        }
    }
    tell_engine("READY=1\nSTATUS=collecting", &store)?;
    tokio::select! {
        failed = first_failure(tasks) => return Err(failed),
        _ = terminate.recv() => {}
    }
    tell_engine("STOPPING=1", &store)?;
    pipes.borrow_mut().drain().context("reading what is left")?;
    let files = store.borrow().files();
    sync::sync(&files).context("writing what is left to the disk")
}

/// The engine may be restarting just now: that is noted, and no reason to stop.
fn tell_engine(message: &str, store: &SharedStore) -> Result<()> {
    if let Err(error) = notify(message) {
        let text = format!("cannot tell the engine {message:?}: {error}");
        store.borrow_mut().note(4, &text)?;
    }
    Ok(())
}

type Task = tokio::task::JoinHandle<Result<()>>;

fn spawn(doing: &'static str, task: impl Future<Output = io::Result<()>> + 'static) -> Task {
    tokio::task::spawn_local(async move { task.await.context(doing) })
}

/// None of the tasks ends of itself while all is well, except that of a kernel log that ends.
async fn first_failure(tasks: Vec<Task>) -> anyhow::Error {
    let (sender, mut receiver) = tokio::sync::mpsc::channel(1);
    for task in tasks {
        let sender = sender.clone();
        tokio::task::spawn_local(async move {
            if let Err(error) = task
                .await
                .map_err(anyhow::Error::from)
                .and_then(|result| result)
            {
                // Only the first one is waited for.
                let _ = sender.send(error).await;
            }
        });
    }
    drop(sender);
    match receiver.recv().await {
        Some(error) => error,
        None => anyhow!("all tasks have ended"),
    }
}

fn bind_syslog(path: &Path) -> Result<UnixDatagram> {
    handover::remove_stale(path).with_context(|| making(path))?;
    let socket = UnixDatagram::bind(path).with_context(|| making(path))?;
    // Whoever reaches the socket may log: that is what it is for.
    fs::set_permissions(path, fs::Permissions::from_mode(0o666)).with_context(|| making(path))?;
    Ok(socket)
}

fn bind_query(path: &Path, group: Option<u32>) -> Result<UnixListener> {
    handover::remove_stale(path).with_context(|| making(path))?;
    let listener = UnixListener::bind(path).with_context(|| making(path))?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o660)).with_context(|| making(path))?;
    if group.is_some() {
        chown(path, None, group).with_context(|| making(path))?;
    }
    Ok(listener)
}

fn making(path: &Path) -> String {
    format!("making {}", path.display())
}

fn boot_id() -> Result<BootId> {
    let text = fs::read_to_string(BOOT_ID).with_context(|| format!("reading {BOOT_ID}"))?;
    let digits: String = text.chars().filter(char::is_ascii_hexdigit).collect();
    let number =
        u128::from_str_radix(&digits, 16).with_context(|| format!("reading {BOOT_ID}: {text}"))?;
    Ok(number.to_be_bytes())
}
