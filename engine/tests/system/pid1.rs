//! Plays PID 1: keeps what the engine stores, reaps what is re-parented and reports it.

use keelson_sys::control::{self, Ending, ToEngine, ToInit};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, Once};

/// What PID 1 holds over engine restarts.
#[derive(Default)]
pub(crate) struct Held {
    pub(crate) stored: BTreeMap<String, OwnedFd>,
    exits: Vec<(u64, i32, Ending)>,
    next_seq: u64,
    engine: Option<OwnedFd>,
    said: Option<Sender<ToInit>>,
}

pub(crate) type Init = Arc<Mutex<Held>>;

/// All that were made: the reaper tells each of them of every exit, as PID 1 tells of processes that nobody knows.
static ALL: Mutex<Vec<Init>> = Mutex::new(Vec::new());

/// Makes a PID 1. What the engine says, other than about descriptors and exits, goes to `said`.
pub(crate) fn new(said: Sender<ToInit>) -> Init {
    reap();
    let init = Init::new(Mutex::new(Held {
        said: Some(said),
        ..Held::default()
    }));
    ALL.lock().unwrap().push(init.clone());
    init
}

/// Takes in orphans and reaps everything, for all tests of this process. So nobody here waits for a child.
pub(crate) fn reap() {
    static REAPER: Once = Once::new();
    REAPER.call_once(|| {
        nix::sys::prctl::set_child_subreaper(true).unwrap();
        std::thread::spawn(|| {
            loop {
                let (pid, ending) = match waitid(Id::All, WaitPidFlag::WEXITED) {
                    Ok(WaitStatus::Exited(pid, code)) => (pid.as_raw(), Ending::Code(code)),
                    Ok(WaitStatus::Signaled(pid, signal, _)) => {
                        (pid.as_raw(), Ending::Signal(signal as i32))
                    }
                    _ => {
                        std::thread::sleep(std::time::Duration::from_millis(5));
                        continue;
                    }
                };
                for init in ALL.lock().unwrap().iter() {
                    report(init, pid, ending);
                }
            }
        });
    });
}

fn report(init: &Init, pid: i32, ending: Ending) {
    let mut held = init.lock().unwrap();
    held.next_seq += 1;
    let seq = held.next_seq;
    held.exits.push((seq, pid, ending));
    if let Some(engine) = &held.engine {
        let _ = control::send(
            engine.as_fd(),
            &ToEngine::Exited { seq, pid, ending }.encode(),
            None,
        );
    }
}

/// Greets a new engine on `socket` with everything that is held and listens to it.
pub(crate) fn attach(init: &Init, socket: OwnedFd) {
    fcntl(&socket, FcntlArg::F_SETFL(OFlag::empty())).unwrap();
    let reader = socket.try_clone().unwrap();
    let mut held = init.lock().unwrap();
    for (name, fd) in &held.stored {
        let stored = ToEngine::Stored { name: name.clone() };
        control::send(socket.as_fd(), &stored.encode(), Some(fd.as_fd())).unwrap();
    }
    for (seq, pid, ending) in held.exits.clone() {
        control::send(
            socket.as_fd(),
            &ToEngine::Exited { seq, pid, ending }.encode(),
            None,
        )
        .unwrap();
    }
    control::send(socket.as_fd(), &ToEngine::HelloEnd.encode(), None).unwrap();
    held.engine = Some(socket);
    drop(held);
    let init = init.clone();
    std::thread::spawn(move || {
        while let Ok(Some(packet)) = control::recv(reader.as_fd()) {
            let mut held = init.lock().unwrap();
            match (ToInit::decode(&packet.bytes).unwrap(), packet.fd) {
                (ToInit::Store { name }, Some(fd)) => drop(held.stored.insert(name, fd)),
                (ToInit::Drop { name }, None) => drop(held.stored.remove(&name)),
                (ToInit::Ack { seq }, None) => held.exits.retain(|(other, _, _)| *other > seq),
                (message, None) => {
                    let _ = held.said.as_ref().unwrap().send(message);
                }
                (message, Some(_)) => panic!("{message:?} came with a descriptor"),
            }
        }
    });
}

/// Says something to the engine.
pub(crate) fn say(init: &Init, message: &ToEngine) {
    let held = init.lock().unwrap();
    control::send(
        held.engine.as_ref().unwrap().as_fd(),
        &message.encode(),
        None,
    )
    .unwrap();
}
