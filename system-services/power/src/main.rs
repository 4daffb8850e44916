//! Power key, reboot and poweroff. The parts are in the library; here they are put together.

use anyhow::{Context, Result};
use keelson_power::action::{Action, Engine};
use keelson_power::config::Config;
use keelson_power::history::History;
use keelson_power::{keys, socket};
use keelson_sys::notify::notify;
use std::fs;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::LocalSet;
use tokio::time::timeout;

/// The machine does not wait longer for the entry that last(1) shows.
const RECORD_TIMEOUT: Duration = Duration::from_secs(3);

fn main() -> ExitCode {
    match run() {
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
    LocalSet::new().block_on(&runtime, serve(&config))
}

async fn serve(config: &Config) -> Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("listening to SIGTERM")?;
    let run = &config.run_directory;
    fs::create_dir_all(run).with_context(|| format!("making {}", run.display()))?;
    let engine = Rc::new(Engine::default());
    let path = run.join("power.sock");
    let listener = socket::bind(&path, config.socket_group)
        .with_context(|| format!("making {}", path.display()))?;
    let history = History {
        program: config.wtmpdb.clone(),
        database: config.database.clone(),
        recorded: run.join("recorded-boot"),
    };
    let pressed = {
        let engine = Rc::clone(&engine);
        Rc::new(move || {
            println!("<5>the power key was pressed");
            if let Err(error) = engine.ask(Action::Poweroff) {
                eprintln!("<3>cannot ask the engine to power off: {error}");
            }
        })
    };
    notify("READY=1").context("telling the engine that this service is ready")?;
    let recording = tokio::task::spawn_local({
        let history = history.clone();
        async move { complain(history.record_boot().await.context("recording the boot")) }
    });
    tokio::select! {
        result = keys::run(&config.input_directory, pressed) => {
            return result.with_context(|| format!("watching {}", config.input_directory.display()));
        }
        result = socket::run(listener, Rc::clone(&engine)) => return result.context("answering requests"),
        _ = terminate.recv() => {}
    }
    // Only a stop that was asked for here is known to be the machine's; else it is this service's alone.
    if engine.was_asked() {
        let record = async {
            let _ = recording.await;
            history.record_shutdown().await
        };
        match timeout(RECORD_TIMEOUT, record).await {
            Ok(result) => complain(result.context("recording the shutdown")),
            Err(_elapsed) => eprintln!("<4>recording the shutdown takes too long"),
        }
    }
    Ok(())
}

/// Not being recorded keeps no machine from going up or down.
fn complain(result: Result<()>) {
    if let Err(error) = result {
        eprintln!("<4>{error:#}");
    }
}
