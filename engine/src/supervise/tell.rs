//! What of a life's changes becomes an event.

use super::Engine;
use crate::events::Attributes;
use crate::healthcheck::Check;
use crate::lifecycle::{Ending, Lifecycle, State};

impl Engine {
    /// Tells what has changed in a life since `before`.
    pub(super) fn tell_changes(&self, key: &str, before: &Lifecycle) {
        let Some(entry) = self.services.get(key) else {
            return;
        };
        let after = &entry.record.life;
        let checked = Check::of(&entry.definition.service).is_some();
        for (action, attributes) in changes(before, after, checked) {
            if action == "stop" && entry.killed {
                continue;
            }
            self.tell(key, action, attributes);
        }
    }
}

/// Actions in Docker's words, in order.
fn changes(
    before: &Lifecycle,
    after: &Lifecycle,
    checked: bool,
) -> Vec<(&'static str, Attributes)> {
    let mut told = Vec::new();
    if after.started_us.is_some() && after.started_us != before.started_us {
        told.push(("start", Attributes::new()));
    }
    let health = |life: &Lifecycle| match life.state {
        State::Ready { healthy, .. } if checked => Some(healthy),
        _ => None,
    };
    match health(after).filter(|_| health(after) != health(before)) {
        Some(true) => told.push(("health_status: healthy", Attributes::new())),
        Some(false) => told.push(("health_status: unhealthy", Attributes::new())),
        None => {}
    }
    if after.ended_us != before.ended_us {
        if after.last == Some(Ending::OutOfMemory) {
            told.push(("oom", Attributes::new()));
        }
        let code = after.last.and_then(Ending::exit_code).unwrap_or(0);
        told.push((
            "die",
            Attributes::from([("exitCode".to_owned(), code.to_string())]),
        ));
    }
    if after.state == State::Stopped && matches!(before.state, State::Stopping { .. }) {
        told.push(("stop", Attributes::new()));
    }
    told
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lifecycle::{Process, Then};

    fn names(before: &Lifecycle, after: &Lifecycle) -> Vec<&'static str> {
        let told = changes(before, after, true);
        told.iter().map(|(action, _)| *action).collect()
    }

    #[test]
    fn a_life_is_told_in_dockers_words() {
        let process = Process {
            pid: 1,
            start_ticks: 1,
        };
        let down = Lifecycle::default();
        let up = Lifecycle {
            state: State::Ready {
                process,
                healthy: true,
                until_us: None,
            },
            started_us: Some(1),
            ..down.clone()
        };
        let stopping = Lifecycle {
            state: State::Stopping {
                process: Some(process),
                then: Then::Stop,
                until_us: None,
            },
            ..up.clone()
        };
        let stopped = Lifecycle {
            state: State::Stopped,
            ended_us: Some(2),
            last: Some(Ending::OutOfMemory),
            ..stopping.clone()
        };
        assert_eq!(names(&down, &up), ["start", "health_status: healthy"]);
        assert_eq!(names(&up, &stopping), [] as [&str; 0]);
        assert_eq!(names(&stopping, &stopped), ["oom", "die", "stop"]);
        assert_eq!(names(&stopped, &stopped), [] as [&str; 0]);
    }
}
