//! Loads modules beside the caller, who meanwhile waits for the devices that they bring: as many threads as there
//! are processors, and a queue in which what stands between the machine and its root comes first.

use super::Library;
use crate::kmsg;
use crate::timeline::{Timeline, now_us};
use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

/// What a request stands for, the most urgent first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Urgency {
    /// A disk of a virtual machine, which is where the slot is most of the time.
    LikelyDisk,
    /// What the root file system needs.
    Root,
    /// Any other device.
    Device,
}

impl Urgency {
    /// The urgency of a device's modalias.
    pub(crate) fn of_alias(alias: &str) -> Self {
        // virtio's block and SCSI devices; PCI's NVMe controllers.
        let likely = ["virtio:d00000002", "virtio:d00000008"]
            .iter()
            .any(|device| alias.starts_with(device))
            || (alias.starts_with("pci:") && alias.contains("bc01sc08"));
        if likely {
            Self::LikelyDisk
        } else {
            Self::Device
        }
    }
}

#[derive(Debug, Default)]
struct Queue {
    waiting: BinaryHeap<Reverse<(Urgency, usize, String)>>,
    running: BTreeSet<String>,
    spans: Vec<(String, u64, u64)>,
    /// Devices that nobody has asked for by themselves wait.
    held: bool,
    stopped: bool,
}

impl Queue {
    fn next(&mut self) -> Option<String> {
        let Reverse((urgency, ..)) = self.waiting.peek()?;
        if self.held && *urgency == Urgency::Device {
            return None;
        }
        self.waiting.pop().map(|Reverse((_, _, name))| name)
    }
}

#[derive(Debug, Default)]
struct Shared {
    queue: Mutex<Queue>,
    changed: Condvar,
}

impl Shared {
    /// The queue stays usable when a thread has ended with an internal error.
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, queue: MutexGuard<'a, Queue>) -> MutexGuard<'a, Queue> {
        self.changed
            .wait(queue)
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// The loader.
#[derive(Debug)]
pub(crate) struct Background {
    library: Arc<Library>,
    shared: Arc<Shared>,
    requested: BTreeSet<String>,
    threads: Vec<JoinHandle<()>>,
}

impl Background {
    /// A loader that has nothing to do yet.
    pub(crate) fn new(library: Library) -> Self {
        Self {
            library: Arc::new(library),
            shared: Arc::default(),
            requested: BTreeSet::new(),
            threads: Vec::new(),
        }
    }

    /// Puts what a name or alias means into the queue, unless that was asked for before.
    pub(crate) fn request(&mut self, request: &str, urgency: Urgency) {
        if !self.requested.insert(request.to_owned()) {
            return;
        }
        for name in self.library.resolve(request) {
            if name == request || self.requested.insert(name.clone()) {
                let order = self.requested.len();
                self.shared
                    .lock()
                    .waiting
                    .push(Reverse((urgency, order, name)));
            }
        }
    }

    /// Puts the module of a device into the queue.
    pub(crate) fn request_device(&mut self, alias: &str) {
        self.request(alias, Urgency::of_alias(alias));
    }

    /// Lets the threads work on the queue.
    pub(crate) fn start(&mut self) {
        self.shared.changed.notify_all();
        let processors = thread::available_parallelism().map_or(1, usize::from);
        while self.threads.len() < processors {
            let (library, shared) = (Arc::clone(&self.library), Arc::clone(&self.shared));
            match thread::Builder::new()
                .stack_size(128 * 1024)
                .spawn(move || work(&library, &shared))
            {
                Ok(thread) => self.threads.push(thread),
                Err(error) => {
                    kmsg::error(format_args!("start a thread to load modules: {error}"));
                    break;
                }
            }
        }
    }

    /// Waits until the module of this name has been loaded, when it was asked for.
    pub(crate) fn wait_for(&mut self, name: &str) {
        let wanted = name.replace('-', "_");
        self.wait_while(|queue| {
            queue.running.contains(&wanted)
                || queue
                    .waiting
                    .iter()
                    .any(|Reverse((_, _, name))| *name == wanted)
        });
    }

    /// The slot is there: drivers of other devices wait, so that they do not keep processors from what is left to do.
    pub(crate) fn hold_devices(&mut self) {
        self.shared.lock().held = true;
    }

    /// Waits for everything that was asked for.
    pub(crate) fn wait_for_all(&mut self) {
        self.shared.lock().held = false;
        self.shared.changed.notify_all();
        self.wait_while(|queue| !queue.running.is_empty() || !queue.waiting.is_empty());
    }

    fn wait_while(&mut self, busy: impl Fn(&Queue) -> bool) {
        if self.threads.is_empty() {
            return;
        }
        let mut queue = self.shared.lock();
        while busy(&queue) {
            queue = self.shared.wait(queue);
        }
    }

    /// Nothing more is needed: waits for the files that the kernel has in hand, and leaves the rest, which the
    /// devices ask for again on the real root.
    pub(crate) fn stop(mut self, timeline: &mut Timeline) {
        {
            let mut queue = self.shared.lock();
            queue.stopped = true;
            queue.waiting.clear();
        }
        self.shared.changed.notify_all();
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                kmsg::error("loading modules ended with an internal error (see above)");
            }
        }
        for (name, start_us, end_us) in self.shared.lock().spans.drain(..) {
            timeline.add_span(&format!("module {name}"), start_us, end_us);
        }
    }
}

/// One thread: the next module of the queue, and again, until it is stopped.
fn work(library: &Library, shared: &Shared) {
    let mut queue = shared.lock();
    loop {
        if queue.stopped {
            return;
        }
        let Some(name) = queue.next() else {
            queue = shared.wait(queue);
            continue;
        };
        queue.running.insert(name.clone());
        drop(queue);
        let start_us = now_us();
        let loaded = library.load_while(&name, || !shared.lock().stopped);
        kmsg::tolerate("going on without a kernel module", loaded);
        queue = shared.lock();
        queue.running.remove(&name);
        queue.spans.push((name, start_us, now_us()));
        shared.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cmdline::Options;

    #[test]
    fn disks_of_virtual_machines_come_first() {
        assert_eq!(
            Urgency::of_alias("virtio:d00000002v00001AF4"),
            Urgency::LikelyDisk
        );
        assert_eq!(
            Urgency::of_alias("pci:v00001B36d00000010sv00001AF4sd00001100bc01sc08i02"),
            Urgency::LikelyDisk
        );
        assert_eq!(
            Urgency::of_alias("pci:v00008086d00002922sv00001AF4sd00001100bc01sc06i01"),
            Urgency::Device
        );
        assert!(Urgency::LikelyDisk < Urgency::Root && Urgency::Root < Urgency::Device);
    }

    #[test]
    fn all_that_was_asked_for_is_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(
            directory.path().join("modules.dep"),
            "kernel/a.ko:\nkernel/b.ko:\nkernel/c.ko:\n",
        )
        .unwrap();
        let library = Library::at(directory.path().to_owned(), Options::parse("")).unwrap();
        let mut background = Background::new(library);
        background.request("a", Urgency::Root);
        background.request("b", Urgency::Device);
        background.request("a", Urgency::Root);
        background.start();
        background.wait_for("a");
        background.hold_devices();
        background.request("c", Urgency::Device);
        background.wait_for_all();
        assert_eq!(background.shared.lock().spans.len(), 3);
        background.stop(&mut Timeline::default());
    }
}
