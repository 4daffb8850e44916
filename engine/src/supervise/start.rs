//! From a command line to a running engine.

use super::adopt::{Legacy, wait_for_runtimes};
use super::apply::describe;
use super::entry::Entry;
use super::worker::work;
use super::{Ears, Engine, Shared, containers, definitions};
use crate::compose::Definition;
use crate::console::Console;
use crate::events::Events;
use crate::link::{Incoming, Link};
use crate::network::Switchboard;
use crate::options::Options;
use crate::output::Pipe;
use crate::rootfs::make_directory;
use crate::runtime::Runtime;
use crate::{graph, link, record, server, slices};
use anyhow::Context;
use keelson_sys::control::{ToEngine, ToInit};
use std::cell::Cell;
use std::collections::{BTreeMap, VecDeque};
use std::fs;
use std::os::fd::AsFd;
use std::rc::Rc;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::Instant;

/// How long PID 1 may take to give back what it holds.
const HELLO_TIMEOUT: Duration = Duration::from_secs(5);
/// The engine goes after all services when memory runs out.
const OOM_SCORE_ADJ: &str = "-900";
/// The name of the API's socket among PID 1's descriptors: clients in containers keep a way to the next engine.
const API_SOCKET: &str = "engine.api";
/// The name of the pipe that PID 1 made for the engine's own output.
const OWN_OUTPUT: &str = "engine.output";

/// Runs the engine until everything is stopped on request. Must be called within a `LocalSet`.
///
/// # Errors
/// When it cannot begin: no directory, no socket.
pub async fn start(options: Options) -> anyhow::Result<()> {
    let (link, mut incoming) = match link::inherited()? {
        Some(socket) => Link::open(socket)?,
        None => (Link::none(), mpsc::unbounded_channel().1),
    };
    let system = link.is_connected();
    let console = Console::open(system);
    let limits = (system || prepare_alone(&options, &console)) && !options.without_limits;
    for directory in [
        options.records(),
        options.run.join("containers"),
        options.run.join("boot"),
    ] {
        make_directory(&directory)?;
    }
    let mut legacy = collect(&mut incoming, &console, system).await;
    let (records, complaints) = record::load(&options.records());
    legacy.records = records;
    complaints
        .iter()
        .for_each(|complaint| console.error(complaint));

    let (inputs, inputs_receiver) = mpsc::unbounded_channel();
    let (requests, requests_receiver) = mpsc::channel(16);
    let runtime = Runtime::new(
        options.runtime.clone(),
        options.runtime_root(),
        options.runtime_timeout,
    );
    let (switchboard, complaints) = Switchboard::new(
        options.networks(),
        &options.image("network"),
        options.image("docker"),
    );
    complaints
        .iter()
        .for_each(|complaint| console.error(complaint));
    let shared = Rc::new(Shared {
        switchboard,
        options,
        console,
        runtime,
        link,
        limits,
        unfiltered: Cell::new(false),
        making: Semaphore::new(std::thread::available_parallelism().map_or(1, usize::from)),
        inputs,
        events: Events::default(),
    });
    let listener = listen(&shared, &mut legacy)?;
    let (mut engine, workers) = assemble(&shared, &mut legacy);
    if !legacy.records.is_empty() {
        wait_for_runtimes(&shared.options).await;
        shared
            .console
            .info("an earlier engine was here: going on with its services");
    }
    let (last_seq, shutdown) = (legacy.last_seq, legacy.shutdown);
    engine.adopt(legacy);
    if let Some(seq) = last_seq {
        shared.link.say(ToInit::Ack { seq });
    }
    if let Some(limit) = shutdown {
        engine.begin_shutdown(limit);
    }
    // What may start is under way before anything else is looked after.
    engine.settle();
    shared.link.say(ToInit::Ready);
    let shared_by_server = shared.clone();
    tokio::task::spawn_local(async move {
        let paths = shared_by_server.options.docker_paths();
        if let Err(error) = server::serve(listener, requests, paths).await {
            shared_by_server
                .console
                .error(&format!("the API does not answer any more: {error:#}"));
        }
    });
    let _resolver = super::resolver::watch(&shared);
    let terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    engine
        .run(Ears {
            incoming,
            inputs: inputs_receiver,
            requests: requests_receiver,
            terminate,
        })
        .await;
    drop(engine);
    for worker in workers {
        let _ = tokio::time::timeout(Duration::from_secs(10), worker).await;
    }
    Ok(())
}

/// Without PID 1: containers become children of this process, and the slices are made here.
fn prepare_alone(options: &Options, console: &Console) -> bool {
    if let Err(error) = nix::sys::prctl::set_child_subreaper(true) {
        console.error(&format!("exit statuses of services stay unknown: {error}"));
    }
    let limits = slices::prepare(&options.cgroups);
    if !limits {
        console.error("the cgroup tree has no controllers: services run without limits");
    }
    limits
}

/// Everything that PID 1 holds. On a first start that is the pipe for the engine's own output.
async fn collect(
    incoming: &mut mpsc::UnboundedReceiver<Incoming>,
    console: &Console,
    system: bool,
) -> Legacy {
    let mut legacy = Legacy::default();
    if !system {
        return legacy;
    }
    let _ = fs::write("/proc/self/oom_score_adj", OOM_SCORE_ADJ);
    let deadline = Instant::now() + HELLO_TIMEOUT;
    loop {
        match tokio::time::timeout_at(deadline, incoming.recv()).await {
            Ok(Some((ToEngine::Stored { name }, Some(fd)))) => drop(legacy.stored.insert(name, fd)),
            Ok(Some((ToEngine::Exited { seq, pid, ending }, _))) => {
                legacy.last_seq = Some(seq);
                legacy.exits.push((pid, ending.into()));
            }
            Ok(Some((ToEngine::HelloEnd, _)) | None) => return legacy,
            Ok(Some((ToEngine::Shutdown { deadline, .. }, _))) => legacy.shutdown = Some(deadline),
            Ok(Some((ToEngine::Stored { .. }, None))) => {}
            Err(_) => {
                console.error("PID 1 did not say all that it holds; going on without");
                return legacy;
            }
        }
    }
}

fn listen(shared: &Shared, legacy: &mut Legacy) -> anyhow::Result<std::os::fd::OwnedFd> {
    if let Some(listener) = legacy.stored.remove(API_SOCKET) {
        return Ok(listener);
    }
    let listener = server::bind(&shared.options.api_socket())?;
    shared
        .link
        .store(API_SOCKET, listener.as_fd())
        .context("cannot duplicate the API's socket")?;
    Ok(listener)
}

/// Reads the definitions and makes an entry and a worker of each.
fn assemble(
    shared: &Rc<Shared>,
    legacy: &mut Legacy,
) -> (Engine, Vec<tokio::task::JoinHandle<()>>) {
    let files = definitions::stamps(&shared.options);
    let loaded = definitions::load(&shared.options);
    for warning in &loaded.warnings {
        shared.console.info(warning);
    }
    let choices = definitions::choices(shared);
    for failure in &loaded.failures {
        shared
            .console
            .error(&format!("{}; it is not started", describe(failure)));
    }
    let mut dependents = graph::dependents(loaded.definitions.iter());
    let (mut services, mut workers) = (BTreeMap::new(), Vec::new());
    for definition in loaded.definitions {
        let (mut entry, worker) = employ(shared, definition, &mut dependents);
        let choice = choices.of(&entry.definition.name);
        definitions::prepare(&mut entry, &choice, true);
        services.insert(entry.definition.name.clone(), entry);
        workers.push(worker);
    }
    for (entry, worker) in containers::load(shared, &legacy.records) {
        services.insert(entry.definition.name.clone(), entry);
        workers.push(worker);
    }
    let complete = fs::read_to_string(shared.options.boot_complete());
    let engine = Engine {
        shared: shared.clone(),
        services,
        choices,
        files,
        broken: loaded.failures,
        own_output: legacy.stored.remove(OWN_OUTPUT).map(Pipe::adopt),
        shutdown: None,
        boot_complete_us: complete.ok().and_then(|text| text.trim().parse().ok()),
        user_settled: false,
        unclaimed: VecDeque::new(),
        discarding: false,
    };
    (engine, workers)
}

/// An entry and its worker.
pub(super) fn employ(
    shared: &Rc<Shared>,
    definition: Definition,
    dependents: &mut BTreeMap<String, std::collections::BTreeSet<String>>,
) -> (Entry, tokio::task::JoinHandle<()>) {
    let dependents = dependents.remove(&definition.name).unwrap_or_default();
    let (jobs, receiver) = mpsc::unbounded_channel();
    let name = definition.name.clone();
    let entry = Entry::new(definition, dependents, jobs);
    let worker = tokio::task::spawn_local(work(shared.clone(), name, receiver));
    (entry, worker)
}
