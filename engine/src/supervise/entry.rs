//! One service: its definition, its life, and the tasks that belong to it.

use super::worker::Job;
use crate::compose::Definition;
use crate::lifecycle::{Policy, State};
use crate::output::Output;
use crate::record::{self, Record};
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

/// What somebody waits for who asked for something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Until {
    /// Its program runs.
    Launched,
    /// It has come to something: ready, ended well, or failed.
    Settled,
    /// It does not run any more.
    Down,
}

/// Somebody who waits.
pub(super) type Waiter = (Until, oneshot::Sender<Result<(), String>>);

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
    /// Watch for changes of files that it wants to hear of.
    pub(super) changes: Vec<Task>,
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
            record: Record {
                id: record::new_id(),
                ..Record::default()
            },
            attempt: 0,
            dependents,
            output: None,
            pidfd: None,
            jobs,
            health: None,
            changes: Vec::new(),
            ears: None,
            drains: Vec::new(),
            watch: None,
            waiters: Vec::new(),
        }
    }

    pub(super) fn state(&self) -> &State {
        &self.record.life.state
    }

    /// Tells those who wait what has become of it.
    pub(super) fn resolve_waiters(&mut self) {
        for (until, waiter) in std::mem::take(&mut self.waiters) {
            match self.outcome(until) {
                Some(outcome) => drop(waiter.send(outcome)),
                None => self.waiters.push((until, waiter)),
            }
        }
    }

    /// What came of it; `None` while that is open.
    fn outcome(&self, until: Until) -> Option<Result<(), String>> {
        match self.state() {
            State::Finished => Some(Ok(())),
            state if until == Until::Down => state.is_down().then_some(Ok(())),
            State::Starting { launched: true, .. } if until == Until::Launched => Some(Ok(())),
            State::Ready { .. } => Some(Ok(())),
            State::Failed { why, .. } | State::Backoff { why, .. } => Some(Err(why.clone())),
            State::Stopped => Some(Err("it was stopped".to_owned())),
            _ => None,
        }
    }
}
