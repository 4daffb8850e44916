//! One service: its definition, its life, and the tasks that belong to it.

use super::containers::Answer;
use super::worker::Job;
use crate::choices::Pin;
use crate::compose::Definition;
use crate::containers::Stored;
use crate::lifecycle::{Ending, Policy, State};
use crate::output::Output;
use crate::record::{self, Record};
use crate::relay::Relay;
use std::collections::BTreeSet;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
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
    /// A run has ended that had not at this moment (`ended_us` of then).
    NextExit(Option<u64>),
    /// It is there no more.
    Removed,
    /// Its program runs.
    Launched,
    /// It has come to something: ready, ended well, or failed.
    Settled,
    /// It does not run any more.
    Down,
}

/// Somebody who waits.
pub(super) type Waiter = (Until, oneshot::Sender<Result<(), String>>);

/// Somebody who waits for an exit status.
pub(super) type Exit = (Until, oneshot::Sender<i32>);

/// One service.
#[derive(Debug)]
pub(super) struct Entry {
    /// What it runs as.
    pub(super) definition: Rc<Definition>,
    /// Of a service: its definition as it was last read.
    pub(super) base: Rc<Definition>,
    /// Of a service: the image that was chosen for it.
    pub(super) pin: Option<Pin>,
    /// It runs as it was defined before.
    pub(super) outdated: bool,
    /// Its root is thrown away when it has ended.
    pub(super) discarding: bool,
    /// Those who wait for what comes of a new image.
    pub(super) trial_answers: Vec<Answer>,
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
    /// What is listened at for it, in the order of its definition.
    pub(super) sockets: Vec<super::sockets::Open>,
    /// Waits for somebody to connect.
    pub(super) caller: Option<Task>,
    /// Dev mode, or no log service: read its output here.
    pub(super) drains: Vec<Task>,
    /// Without PID 1: waits for the end of its first process.
    pub(super) watch: Option<Task>,
    pub(super) waiters: Vec<Waiter>,
    pub(super) exits: Vec<Exit>,
    /// Of a container that a client made.
    pub(super) stored: Option<Arc<Stored>>,
    /// So many writes of it are under way.
    pub(super) unstored: u32,
    /// Those who wait for them.
    pub(super) storing: Vec<Answer>,
    /// It is being removed, or is when it has ended; those who wait for that.
    pub(super) removing: Option<Vec<Answer>>,
    /// It was killed on request, which is no stop.
    pub(super) killed: bool,
    /// Its removal has begun.
    pub(super) disposing: bool,
    pub(super) relay: Option<Relay>,
}

impl Entry {
    pub(super) fn new(
        definition: Definition,
        dependents: BTreeSet<String>,
        jobs: mpsc::UnboundedSender<Job>,
    ) -> Self {
        let definition = Rc::new(definition);
        Self {
            policy: Policy::of(&definition),
            base: definition.clone(),
            definition,
            pin: None,
            outdated: false,
            discarding: false,
            trial_answers: Vec::new(),
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
            sockets: Vec::new(),
            caller: None,
            drains: Vec::new(),
            watch: None,
            waiters: Vec::new(),
            exits: Vec::new(),
            stored: None,
            unstored: 0,
            storing: Vec::new(),
            removing: None,
            killed: false,
            disposing: false,
            relay: None,
        }
    }

    pub(super) fn state(&self) -> &State {
        &self.record.life.state
    }

    /// A person's name for it.
    pub(super) fn title(&self) -> &str {
        match &self.stored {
            Some(stored) => &stored.name,
            None => &self.definition.name,
        }
    }

    /// Exit status of its last run; 127 or 128 when its program could not be started.
    pub(super) fn exit_code(&self) -> i32 {
        let life = &self.record.life;
        let unstarted = life.started_us.is_none();
        match (&life.state, life.last.and_then(Ending::exit_code)) {
            (State::Failed { why, .. }, _) if unstarted => failed_start(why),
            (_, Some(code)) => code,
            (State::Failed { .. }, None) => 128,
            _ => 0,
        }
    }

    /// Tells those who wait what has become of it. What is not on the disk yet is told to nobody.
    pub(super) fn resolve_waiters(&mut self) {
        if self.unstored > 0 {
            return;
        }
        let (state, ended_us) = (self.state().clone(), self.record.life.ended_us);
        let code = self.exit_code();
        for (until, waiter) in std::mem::take(&mut self.exits) {
            let is_over = match until {
                Until::Removed => false,
                Until::NextExit(before) => ended_us != before,
                _ => state.is_down(),
            };
            match is_over {
                true => drop(waiter.send(code)),
                false => self.exits.push((until, waiter)),
            }
        }
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
            _ if matches!(until, Until::NextExit(_) | Until::Removed) => None,
            State::Finished => Some(Ok(())),
            state if until == Until::Down => state.is_down().then_some(Ok(())),
            State::Starting { launched: true, .. } if until == Until::Launched => Some(Ok(())),
            State::Ready { .. } => Some(Ok(())),
            State::Listening if until == Until::Settled => Some(Ok(())),
            // It ran, and was quicker than whoever asked: how it ended is another question.
            State::Failed { .. } | State::Backoff { .. }
                if until == Until::Launched && self.record.life.started_us.is_some() =>
            {
                Some(Ok(()))
            }
            State::Failed { why, .. } | State::Backoff { why, .. } => Some(Err(why.clone())),
            State::Stopped => Some(Err("it was stopped".to_owned())),
            _ => None,
        }
    }
}

/// Docker's exit status for a program that could not be started: 127 when it is not there, 126 when it cannot be run.
pub(crate) fn failed_start(why: &str) -> i32 {
    let lower = why.to_ascii_lowercase();
    match () {
        () if lower.contains("not found") || lower.contains("no such file") => 127,
        () if lower.contains("permission denied") => 126,
        () => 128,
    }
}
