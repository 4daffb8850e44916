//! The order of services: which wait for which, what a service still waits for, cycles.

use crate::api::Failure;
use crate::compose::{Condition, Definition};
use crate::lifecycle::{Lifecycle, State};
use std::collections::{BTreeMap, BTreeSet};

/// Whether a service may start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It may.
    Go,
    /// Not before these have come to something.
    Wait(Vec<String>),
    /// Never, unless this service comes back.
    Blocked {
        /// The service that it needs.
        by: String,
        /// For a person.
        why: String,
    },
}

/// Judges by what the services that it waits for are doing. `look` gives the life of a service, `None` when there is
/// no such service or its definition cannot be used.
pub fn judge<'a>(definition: &Definition, look: impl Fn(&str) -> Option<&'a Lifecycle>) -> Verdict {
    let mut waiting = Vec::new();
    for dependency in &definition.service.depends_on.0 {
        let name = &dependency.name;
        let blocked = match look(name) {
            Some(life) if holds(life, dependency.condition) => continue,
            Some(life) => match &life.state {
                State::Failed { .. } => Some(format!("needs {name}, which has failed")),
                State::Finished if dependency.condition == Some(Condition::Started) => continue,
                State::Stopped => Some(format!("needs {name}, which was stopped")),
                _ => None,
            },
            None => Some(format!(
                "needs {name}, which does not exist or cannot be read"
            )),
        };
        match blocked {
            None => waiting.push(name.clone()),
            Some(why) if dependency.required => {
                return Verdict::Blocked {
                    by: name.clone(),
                    why,
                };
            }
            Some(_) => {}
        }
    }
    for name in definition.after() {
        if look(&name).is_some_and(|life| !has_had_its_turn(&life.state)) {
            waiting.push(name);
        }
    }
    if waiting.is_empty() {
        Verdict::Go
    } else {
        Verdict::Wait(waiting)
    }
}

/// Whether what is asked of a needed service is true.
fn holds(life: &Lifecycle, condition: Option<Condition>) -> bool {
    match condition {
        // Whoever needs it will have it started.
        None | Some(Condition::Healthy | Condition::Started) if life.state == State::Listening => {
            true
        }
        None => matches!(life.state, State::Ready { .. } | State::Finished),
        Some(Condition::Healthy) => matches!(life.state, State::Ready { healthy: true, .. }),
        Some(Condition::Started) => life.state.process().is_some() && life.started_us.is_some(),
        Some(Condition::Completed) => life.state == State::Finished,
    }
}

/// Ready, or failed at least once: those who only come after it need wait no longer.
fn has_had_its_turn(state: &State) -> bool {
    state.is_settled() || matches!(state, State::Backoff { .. })
}

/// Gives those that others want to be before an `after`.
pub fn turn_before(definitions: &mut [Definition]) {
    let wishes: Vec<(String, Vec<String>)> = definitions
        .iter()
        .map(|definition| (definition.name.clone(), definition.before()))
        .collect();
    for (name, before) in wishes {
        for definition in definitions.iter_mut() {
            if before.contains(&definition.name) {
                let after = &mut definition.service.keelson.after.0;
                after.push(crate::compose::values::Text(name.clone()));
            }
        }
    }
}

/// For each service, those that wait for it: they are stopped before it.
pub fn dependents<'a>(
    definitions: impl Iterator<Item = &'a Definition>,
) -> BTreeMap<String, BTreeSet<String>> {
    let mut dependents: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for definition in definitions {
        for name in waits_for(definition) {
            dependents
                .entry(name)
                .or_default()
                .insert(definition.name.clone());
        }
    }
    dependents
}

fn waits_for(definition: &Definition) -> Vec<String> {
    let mut names = definition.after();
    names.extend(
        definition
            .service
            .depends_on
            .0
            .iter()
            .map(|dependency| dependency.name.clone()),
    );
    names
}

/// Takes out the services that wait for themselves, by way of others or at once; the failures print the cycle.
pub fn refuse_cycles(definitions: &mut Vec<Definition>) -> Vec<Failure> {
    let edges: BTreeMap<String, Vec<String>> = definitions
        .iter()
        .map(|definition| (definition.name.clone(), waits_for(definition)))
        .collect();
    let mut failures = Vec::new();
    definitions.retain(|definition| match cycle_through(&edges, &definition.name) {
        None => true,
        Some(cycle) => {
            let needs = definition
                .service
                .depends_on
                .0
                .iter()
                .any(|dependency| Some(&dependency.name) == cycle.get(1));
            let key = if needs {
                "depends_on"
            } else {
                "x-keelson.after"
            };
            let message = format!("it waits for itself: {}", cycle.join(" -> "));
            failures.push(definition.failure(key, message));
            false
        }
    });
    failures
}

/// The shortest way from a service back to itself.
fn cycle_through(edges: &BTreeMap<String, Vec<String>>, start: &str) -> Option<Vec<String>> {
    let mut paths = vec![vec![start.to_owned()]];
    let mut seen = BTreeSet::new();
    while !paths.is_empty() {
        let mut longer = Vec::new();
        for path in paths {
            let last = path.last().map(String::as_str).unwrap_or(start);
            for next in edges.get(last).into_iter().flatten() {
                let mut path = path.clone();
                path.push(next.clone());
                if next == start {
                    return Some(path);
                }
                if seen.insert(next.clone()) {
                    longer.push(path);
                }
            }
        }
        paths = longer;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compose::Environment;
    use crate::compose::load::parse;
    use crate::lifecycle::Process;
    use std::path::Path;

    fn definitions(text: &str) -> Vec<Definition> {
        parse(Path::new("t.yml"), text, &Environment::default()).unwrap()
    }

    fn ready() -> Lifecycle {
        let process = Process {
            pid: 1,
            start_ticks: 1,
        };
        Lifecycle {
            state: State::Ready {
                process,
                healthy: true,
                until_us: None,
            },
            ..Lifecycle::default()
        }
    }

    #[test]
    fn a_cycle_is_refused_and_printed_and_the_rest_stays() {
        let mut all = definitions(
            "services:\n  a: {image: i, command: c, depends_on: [b]}\n  b: {image: i, command: c, x-keelson: {after: [c]}}\n  c: {image: i, command: c, depends_on: [a]}\n  d: {image: i, command: c, depends_on: [a]}\n",
        );
        let failures = refuse_cycles(&mut all);
        let messages: Vec<_> = failures
            .iter()
            .map(|failure| failure.message.as_str())
            .collect();
        assert_eq!(
            messages,
            [
                "it waits for itself: a -> b -> c -> a",
                "it waits for itself: b -> c -> a -> b",
                "it waits for itself: c -> a -> b -> c"
            ]
        );
        assert_eq!(all.len(), 1);
    }

    #[test]
    fn rancheros_labels_order_services() {
        let mut all = definitions(
            "services:\n  a: {image: i, command: c, labels: {io.rancher.os.before: \"b, c\"}}\n  b: {image: i, command: c}\n  c: {image: i, command: c, labels: {io.rancher.os.after: b}}\n",
        );
        turn_before(&mut all);
        let after: Vec<Vec<String>> = all.iter().map(Definition::after).collect();
        assert_eq!(
            after,
            [vec![], vec!["a".to_owned()], vec!["a".into(), "b".into()]]
        );
    }

    #[test]
    fn need_and_order_differ_when_the_other_fails() {
        let all = definitions(
            "services:\n  need: {image: i, command: c, depends_on: [x]}\n  order: {image: i, command: c, x-keelson: {after: [x]}}\n",
        );
        let failed = Lifecycle {
            state: State::Failed {
                why: String::new(),
                blocked_by: None,
            },
            ..Lifecycle::default()
        };
        let waiting = Lifecycle::default();
        let ready = ready();
        for (life, need, order) in [
            (
                &waiting,
                Verdict::Wait(vec!["x".into()]),
                Verdict::Wait(vec!["x".into()]),
            ),
            (
                &failed,
                Verdict::Blocked {
                    by: "x".into(),
                    why: "needs x, which has failed".into(),
                },
                Verdict::Go,
            ),
            (&ready, Verdict::Go, Verdict::Go),
        ] {
            assert_eq!(judge(&all[0], |_| Some(life)), need);
            assert_eq!(judge(&all[1], |_| Some(life)), order);
        }
        assert!(matches!(judge(&all[0], |_| None), Verdict::Blocked { .. }));
        assert_eq!(judge(&all[1], |_| None), Verdict::Go);
    }
}
