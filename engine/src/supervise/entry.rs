//! One service: its definition, its life, and the tasks that belong to it.

use super::worker::Job;
use crate::compose::Definition;
use crate::lifecycle::{Policy, State};
use crate::output::Output;
use crate::record::Record;
use std::collections::BTreeSet;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

/// A task that ends with what it belongs to.
#[derive(Debug)]
pub(super) struct Task(JoinHandle<()>);

impl Task {
    /// Starts a task on this thread.
    pub(super) fn spawn(future: impl Future<Output = ()> + 'static) -> Self {
        Self(tokio::task::spawn_local(future))
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Somebody who asked for a restart and waits for its outcome.
pub(super) type Waiter = oneshot::Sender<Result<(), String>>;

/// One service.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) definition: Rc<Definition>,
    pub(super) policy: Policy,
    /// What is stored for the next engine.
    pub(super) record: Record,
    /// Counts the containers made by this engine: late answers about earlier ones are told apart.
    pub(super) attempt: u64,
    /// Services that are stopped before this one.
    pub(super) dependents: BTreeSet<String>,
    /// Set at the first start, kept over restarts.
    pub(super) output: Option<Output>,
    /// Its first process.
    pub(super) pidfd: Option<OwnedFd>,
    pub(super) jobs: mpsc::UnboundedSender<Job>,
    pub(super) health: Option<Task>,
    pub(super) ears: Option<Task>,
    /// Dev mode, or no log service: read its output here.
    pub(super) drains: Vec<Task>,
    /// Without PID 1: waits for the end of its first process.
    pub(super) watch: Option<Task>,
    pub(super) waiters: Vec<Waiter>,
}

impl Entry {
    pub(super) fn new(
        definition: Definition,
        dependents: BTreeSet<String>,
        jobs: mpsc::UnboundedSender<Job>,
    ) -> Self {
        Self {
            policy: Policy::of(&definition),
            definition: Rc::new(definition),
            record: Record::default(),
            attempt: 0,
            dependents,
            output: None,
            pidfd: None,
            jobs,
            health: None,
            ears: None,
            drains: Vec::new(),
            watch: None,
            waiters: Vec::new(),
        }
    }

    pub(super) fn state(&self) -> &State {
        &self.record.life.state
    }

    /// Tells those who wait for a restart when it has come to something.
    pub(super) fn resolve_waiters(&mut self) {
        let outcome = match self.state() {
            State::Ready { .. } | State::Finished => Ok(()),
            State::Failed { why, .. } | State::Backoff { why, .. } => Err(why.clone()),
            State::Stopped => Err("it was stopped".to_owned()),
            _ => return,
        };
        for waiter in self.waiters.drain(..) {
            let _ = waiter.send(outcome.clone());
        }
    }
}
