//! From an event to what has to be done.

use super::entry::{Entry, Task};
use super::worker::Job;
use super::{Engine, Input, Shared, UNCLAIMED_MAX};
use crate::changes;
use crate::clock::now_us;
use crate::compose::service::OnChange;
use crate::compose::{Definition, Slice};
use crate::failpoint;
use crate::graph::{self, Verdict};
use crate::healthcheck::Check;
use crate::lifecycle::{Action, Ending, Event, State};
use crate::readiness::register;
use crate::{record, slices};
use keelson_sys::control::ToInit;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;

impl Engine {
    /// Gives an event to a service: its state changes, the change is recorded, then it is acted upon.
    pub(super) fn apply(&mut self, name: &str, event: Event) {
        let Some(entry) = self.services.get_mut(name) else {
            return;
        };
        let before = entry.record.life.clone();
        let created = match &event {
            Event::Created(process) => Some(process.pid),
            _ => None,
        };
        let actions = entry.record.life.transition(event, &entry.policy, now_us());
        if entry.record.life != before {
            // What has been killed stands still no longer.
            entry.record.paused &= entry.record.life.state.process().is_some();
            self.save(name);
            self.may_die(name, &before.state);
        }
        self.keep_company(name, before.state.process().map(|process| process.pid));
        for action in actions {
            self.act(name, action);
        }
        self.log_may_have_changed(name, &before.state);
        self.container_may_have_changed(name, &before);
        self.service_may_have_changed(name, &before);
        self.listen_as_its_state_says(name);
        if let Some(pid) = created
            && let Some(at) = self.unclaimed.iter().position(|(other, _)| *other == pid)
            && let Some((_, ending)) = self.unclaimed.remove(at)
        {
            self.apply(name, Event::Exited(ending));
        }
    }

    /// A container's change has been recorded, and nothing else has happened yet.
    fn may_die(&self, name: &str, before: &State) {
        let Some(entry) = self.services.get(name).filter(|_| self.is_container(name)) else {
            return;
        };
        match (before, entry.state()) {
            (_, State::Creating) => failpoint::reach("start-recorded"),
            (State::Ready { .. }, State::Stopping { .. }) => failpoint::reach("stop-recorded"),
            (State::Stopping { .. }, state) if state.is_down() => {
                failpoint::reach("end-recorded");
            }
            _ => {}
        }
    }

    /// Stores what is known of a service for the next engine.
    pub(super) fn save(&self, name: &str) {
        let Some(entry) = self.services.get(name) else {
            return;
        };
        if let Err(error) = record::save(&self.shared.options.records(), name, &entry.record) {
            self.shared
                .console
                .error(&format!("service {name}: {error:#}"));
        }
    }

    fn act(&mut self, name: &str, action: Action) {
        let console = &self.shared.console;
        match action {
            Action::Create => return self.create(name),
            // A container is its maker's concern, not that of the person at the machine.
            Action::Error(_) | Action::Info(_) if self.is_container(name) => return,
            Action::Error(text) => return console.error(&self.complaint(name, &text)),
            Action::Info(text) => return console.info(&format!("service {name} {text}")),
            Action::Launch | Action::Delete | Action::Signal(_) => {}
        }
        let Some(entry) = self.services.get(name) else {
            return;
        };
        match action {
            Action::Launch => drop(entry.jobs.send(Job::Launch {
                attempt: entry.attempt,
                again: false,
            })),
            // PID 1 ends everything anyway.
            Action::Delete if self.shutdown.is_some() && self.shared.link.is_connected() => {}
            Action::Delete => drop(entry.jobs.send(Job::Delete)),
            Action::Signal(signal) => {
                if entry.stored.is_some() && !entry.killed {
                    self.tell_signal(name, signal);
                }
                let sent = entry
                    .pidfd
                    .as_ref()
                    .map(|process| keelson_sys::pidfd::send_signal(process, signal));
                if self.is_container(name) {
                    failpoint::reach("stop-signalled");
                }
                if let Some(Err(error)) = sent.filter(|sent| !is_gone(sent)) {
                    console.error(&format!(
                        "service {name}: cannot send it signal {signal}: {error}"
                    ));
                }
            }
            _ => {}
        }
    }

    /// A message about a service, with the place in its definition that is at fault.
    fn complaint(&self, name: &str, text: &str) -> String {
        let entry = self.services.get(name);
        let failure = entry.and_then(|entry| {
            let key = entry.record.fault.as_deref()?;
            Some(entry.definition.failure(key, text.to_owned()))
        });
        match failure {
            Some(failure) => describe(&failure),
            None => format!("service {name}: {text}"),
        }
    }

    /// The kernel's own word on whether it killed a service for want of memory.
    fn out_of_memory(&self, name: &str, ending: Ending) -> Option<Ending> {
        let entry = self.services.get(name)?;
        let killed = ending == Ending::Signal(nix::libc::SIGKILL)
            && slices::out_of_memory(&self.shared.options.cgroups, entry.definition.slice(), name);
        killed.then_some(Ending::OutOfMemory)
    }

    fn create(&mut self, name: &str) {
        if let Some(entry) = self.services.get_mut(name) {
            entry.bring_up_to_date();
        }
        let planned = self.plan(name);
        let Some(entry) = self.services.get_mut(name) else {
            return;
        };
        entry.attempt += 1;
        entry.killed = false;
        entry.record.fault = None;
        match planned {
            Ok(plan) => drop(entry.jobs.send(Job::Create {
                attempt: entry.attempt,
                plan: Box::new(plan),
            })),
            Err(error) => {
                let event = Event::LaunchFailed {
                    why: format!("{error:#}"),
                    permanent: false,
                };
                let (service, attempt) = (name.to_owned(), entry.attempt);
                let _ = self.shared.inputs.send(Input::Event {
                    service,
                    attempt,
                    event,
                    fault: None,
                });
            }
        }
    }

    /// Opens and watches a new process, starts its health check and what else is watched for it; forgets those of a
    /// process that is gone.
    pub(super) fn keep_company(&mut self, name: &str, before: Option<i32>) {
        let shared = self.shared.clone();
        let Some(entry) = self.services.get_mut(name) else {
            return;
        };
        let process = entry.state().process();
        let runs = matches!(
            entry.state(),
            State::Starting { launched: true, .. } | State::Ready { .. }
        );
        if process.map(|process| process.pid) != before || process.is_none() {
            entry.health = None;
            entry.watch = None;
            entry.changes.clear();
            if process.is_some() {
                // Begun before its program is, so that no change is missed; one that was adopted may have missed some.
                entry.changes = watch_changes(&shared, &entry.definition, runs);
            }
            entry.pidfd = process.and_then(|process| keelson_sys::pidfd::open(process.pid).ok());
            if let (false, Some(process), Some(pidfd)) =
                (shared.link.is_connected(), process, &entry.pidfd)
                && let Ok(pidfd) = pidfd.try_clone()
            {
                let (inputs, pid) = (shared.inputs.clone(), process.pid);
                entry.watch = Some(Task::spawn(async move {
                    let ending = wait_for(pidfd).await;
                    let _ = inputs.send(Input::Exited { pid, ending });
                }));
            }
        }
        match (runs, &entry.health, Check::of(&entry.definition.service)) {
            (true, None, Some(check)) => {
                let (service, attempt, inputs) =
                    (name.to_owned(), entry.attempt, shared.inputs.clone());
                entry.health = Some(Task::spawn(check.watch(
                    shared.runtime.clone(),
                    name.to_owned(),
                    move |healthy| {
                        let event = Event::Health(healthy);
                        let _ = inputs.send(Input::Event {
                            service: service.clone(),
                            attempt,
                            event,
                            fault: None,
                        });
                    },
                )));
            }
            (false, Some(_), _) => entry.health = None,
            _ => {}
        }
    }

    /// A process ended: a container's first one, or one of those that got lost to PID 1.
    pub(super) fn exited(&mut self, pid: i32, ending: Ending) {
        let mut services = self.services.iter();
        let owner = services.find(|(_, entry)| {
            entry
                .state()
                .process()
                .is_some_and(|process| process.pid == pid)
        });
        match owner.map(|(name, _)| name.clone()) {
            Some(name) => {
                let ending = self.out_of_memory(&name, ending).unwrap_or(ending);
                self.apply(&name, Event::Exited(ending));
            }
            None => {
                self.unclaimed.push_back((pid, ending));
                if self.unclaimed.len() > UNCLAIMED_MAX {
                    self.unclaimed.pop_front();
                }
            }
        }
    }

    /// Lets everything start that may, until nothing changes any more.
    pub(super) fn settle(&mut self) {
        while self.shutdown.is_none() {
            let mut events: Vec<(String, Event)> = Vec::new();
            for (name, entry) in &self.services {
                let failed = match entry.state() {
                    State::Waiting => false,
                    State::Failed {
                        blocked_by: Some(_),
                        ..
                    } => true,
                    _ => continue,
                };
                let look = |other: &str| self.services.get(other).map(|entry| &entry.record.life);
                match graph::judge(&entry.definition, look) {
                    Verdict::Go => events.push((name.clone(), Event::Unblocked)),
                    Verdict::Blocked { by, why } if !failed => {
                        events.push((name.clone(), Event::Blocked { by, why }))
                    }
                    _ => {}
                }
            }
            if events.is_empty() {
                break;
            }
            // The user engine takes longest until it is ready: it goes first.
            events.sort_by_key(|(name, _)| {
                self.services
                    .get(name)
                    .map(|entry| entry.definition.slice() == Slice::System)
            });
            for (name, event) in events {
                self.apply(&name, event);
            }
        }
        self.advance_shutdown();
        self.note_user_settled();
        self.note_boot_complete();
    }

    fn note_user_settled(&mut self) {
        let mut user = self
            .services
            .values()
            .filter(|entry| entry.stored.is_none() && entry.definition.slice() == Slice::User);
        if !self.user_settled && user.all(settled) {
            self.user_settled = true;
            self.shared.link.say(ToInit::UserSettled);
        }
    }

    fn note_boot_complete(&mut self) {
        if self.boot_complete_us.is_some()
            || self.shutdown.is_some()
            || !self
                .services
                .values()
                .all(|entry| entry.stored.is_some() || settled(entry))
        {
            return;
        }
        let now = now_us();
        self.boot_complete_us = Some(now);
        if let Err(error) = record::replace(
            &self.shared.options.boot_complete(),
            now.to_string().as_bytes(),
        ) {
            self.shared.console.error(&format!("{error:#}"));
        }
    }
}

/// Nothing more is to be expected of it in this boot: it is up, has ended, or goes on failing.
fn settled(entry: &Entry) -> bool {
    entry.state().is_settled() || matches!(entry.state(), State::Backoff { .. })
}

fn watch_changes(shared: &Rc<Shared>, definition: &Definition, at_once: bool) -> Vec<Task> {
    let watch = |on_change: &OnChange| {
        let (shared, name) = (shared.clone(), definition.name.clone());
        let runtime = shared.runtime.clone();
        let report = {
            let name = name.clone();
            move |text: String| shared.console.error(&format!("service {name}: {text}"))
        };
        Task::spawn(changes::watch(
            on_change.clone(),
            runtime,
            name,
            at_once,
            report,
        ))
    };
    let all = definition.service.keelson.on_change.iter();
    all.map(watch).collect()
}

/// `FILE:LINE:COLUMN: service NAME: MESSAGE`.
pub(super) fn describe(failure: &crate::api::Failure) -> String {
    let mut text = String::new();
    if let Some(file) = &failure.file {
        text.push_str(file);
        for number in [failure.line, failure.column].into_iter().flatten() {
            text.push_str(&format!(":{number}"));
        }
        text.push_str(": ");
    }
    text + &format!("service {}: {}", failure.source, failure.message)
}

fn is_gone(sent: &std::io::Result<()>) -> bool {
    sent.as_ref()
        .is_err_and(|error| error.raw_os_error() == Some(nix::libc::ESRCH))
}

/// Waits for the end of a process; how it ended is only known of one's own children.
async fn wait_for(pidfd: OwnedFd) -> Ending {
    use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
    let Ok(pidfd) = register(pidfd) else {
        return Ending::Unknown;
    };
    let _ = pidfd.readable().await;
    match waitid(Id::PIDFd(pidfd.as_fd()), WaitPidFlag::WEXITED) {
        Ok(WaitStatus::Exited(_, code)) => Ending::Code(code),
        Ok(WaitStatus::Signaled(_, signal, _)) => Ending::Signal(signal as i32),
        _ => Ending::Unknown,
    }
}
