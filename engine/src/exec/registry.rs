//! All further processes that clients have made.

use crate::record::new_id;
use bollard_stubs::models::ExecConfig;
use std::collections::{BTreeMap, VecDeque};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// So many are remembered; the oldest that has ended goes first.
const REMEMBERED: usize = 512;
/// What a process is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Made, and not started.
    Made,
    /// It runs.
    Running,
    /// It has ended with this status.
    Ended(i32),
}

/// One process.
#[derive(Clone, Debug)]
pub struct Exec {
    /// 64 hexadecimal digits.
    pub id: String,
    /// The container's key.
    pub key: String,
    /// The container's number.
    pub container: String,
    /// What was asked for.
    pub config: ExecConfig,
    /// What it is doing.
    pub progress: Progress,
    /// Its number as the host sees it.
    pub pid: Option<i32>,
    /// Its terminal.
    pub terminal: Option<Arc<OwnedFd>>,
}

/// All that clients have made, by their numbers.
#[derive(Clone, Debug, Default)]
pub struct Execs {
    known: Arc<Mutex<Known>>,
    changed: Arc<Notify>,
}

#[derive(Debug, Default)]
struct Known {
    all: BTreeMap<String, Exec>,
    order: VecDeque<String>,
}

impl Execs {
    fn lock(&self) -> MutexGuard<'_, Known> {
        // What is kept stays whole whoever panics.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a new one in and gives its number.
    pub fn add(&self, key: String, container: String, config: ExecConfig) -> String {
        let id = new_id();
        let exec = Exec {
            id: id.clone(),
            key,
            container,
            config,
            progress: Progress::Made,
            pid: None,
            terminal: None,
        };
        let mut known = self.lock();
        known.all.insert(id.clone(), exec);
        known.order.push_back(id.clone());
        if known.order.len() > REMEMBERED
            && let Some(at) = known.order.iter().position(|id| {
                let exec = known.all.get(id);
                exec.is_none_or(|exec| exec.progress != Progress::Running)
            })
            && let Some(oldest) = known.order.remove(at)
        {
            known.all.remove(&oldest);
        }
        id
    }

    /// The one of that number.
    pub fn get(&self, id: &str) -> Option<Exec> {
        self.lock().all.get(id).cloned()
    }

    /// Those of a container that run.
    pub fn running(&self, key: &str) -> Vec<String> {
        let known = self.lock();
        let all = known.all.values();
        all.filter(|exec| exec.key == key && exec.progress == Progress::Running)
            .map(|exec| exec.id.clone())
            .collect()
    }

    /// Marks one as running; false when it was started before.
    pub fn begin(&self, id: &str) -> bool {
        let mut known = self.lock();
        match known.all.get_mut(id) {
            Some(exec) if exec.progress == Progress::Made => {
                exec.progress = Progress::Running;
                true
            }
            _ => false,
        }
    }

    /// Waits for the end of one; its exit status, `None` when it is remembered no longer.
    pub async fn ended(&self, id: &str) -> Option<i32> {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            // From here on no change is missed.
            changed.as_mut().enable();
            if let Progress::Ended(code) = self.get(id)?.progress {
                return Some(code);
            }
            changed.await;
        }
    }

    /// Changes what is known of one.
    pub(super) fn change(&self, id: &str, change: impl FnOnce(&mut Exec)) {
        if let Some(exec) = self.lock().all.get_mut(id) {
            change(exec);
            self.changed.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_started_once_and_the_oldest_that_do_not_run_are_forgotten() {
        let execs = Execs::default();
        let add = || execs.add("key".into(), "id".into(), ExecConfig::default());
        let (first, second) = (add(), add());
        assert!(execs.begin(&first));
        assert!(!execs.begin(&first) && !execs.begin("nothing"));
        assert_eq!(execs.running("key"), std::slice::from_ref(&first));
        for _ in 0..REMEMBERED {
            add();
        }
        assert!(execs.get(&first).is_some() && execs.get(&second).is_none());
    }
}
