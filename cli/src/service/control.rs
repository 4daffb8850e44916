//! Services are started and stopped.

use keelson_engine::api::{Reloaded, Service, State};

use super::{act, all_services, find};
use crate::client;
use crate::failure::Failure;
use crate::output::Output;

const RELOAD: &str = "/keelson/v1/reload";

/// Reads the definitions again and starts what is down or has changed.
pub(super) fn up(names: Vec<String>, output: &mut Output<'_>) -> Result<(), Failure> {
    let reloaded = reloaded(client::command("POST", RELOAD, &[])?)?;
    let services = all_services()?;
    let mut failures = complain(&reloaded);
    let names = if names.is_empty() {
        let wanted = services.iter().filter(|service| is_wanted(service));
        wanted.map(|service| service.name.clone()).collect()
    } else {
        for name in &names {
            find(name, &services)?;
        }
        // What was named is what counts.
        failures = 0;
        names
    };
    each(&names, "up", "up", output)?;
    match failures {
        0 => Ok(()),
        1 => Err(Failure::Failed("1 definition cannot be used".to_owned())),
        _ => Err(Failure::Failed(format!(
            "{failures} definitions cannot be used"
        ))),
    }
}

/// What the engine says about the definitions.
pub(super) fn reloaded(answer: Option<Vec<u8>>) -> Result<Reloaded, Failure> {
    serde_json::from_slice(&answer.unwrap_or_default())
        .map_err(|error| Failure::Failed(format!("read the engine's answer: {error}")))
}

/// Tells what cannot be used. How much that is.
pub(super) fn complain(reloaded: &Reloaded) -> usize {
    for failure in &reloaded.failures {
        let mut place = failure.file.clone().unwrap_or_default();
        for number in [failure.line, failure.column].into_iter().flatten() {
            place.push_str(&format!(":{number}"));
        }
        eprintln!(
            "keelson: {place}: service {}: {}",
            failure.source, failure.message
        );
    }
    reloaded.failures.len()
}

/// Whether `up` without names is about it.
fn is_wanted(service: &Service) -> bool {
    let is_down = matches!(service.state, State::Stopped | State::Failed);
    service.file.is_some() && (service.outdated || service.enabled && is_down)
}

/// Has the engine do the same with each; goes on when one fails, and says so at the end.
pub(super) fn each(
    names: &[String],
    verb: &str,
    done: &str,
    output: &mut Output<'_>,
) -> Result<(), Failure> {
    let (mut well, mut failed) = (Vec::new(), Vec::new());
    for name in names {
        match act(name, verb) {
            Ok(()) => {
                if !output.json {
                    output.text(&format!("{name}: {done}\n"))?;
                }
                well.push(name);
            }
            Err(failure @ Failure::Failed(_)) if names.len() > 1 => {
                eprintln!("keelson: {name}: {failure}");
                failed.push(name.as_str());
            }
            Err(failure) => return Err(failure),
        }
    }
    if output.json {
        output.value(&serde_json::json!({ done: well }))?;
    }
    match failed[..] {
        [] => Ok(()),
        _ => Err(Failure::Failed(format!(
            "{verb} failed for: {}",
            failed.join(", ")
        ))),
    }
}

/// Has services not start with the machine any more.
pub(super) fn disable(names: &[String], now: bool, output: &mut Output<'_>) -> Result<(), Failure> {
    each(names, "disable", "disabled", output)?;
    match now {
        true => each(names, "stop", "stopped", output),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::service;
    use super::*;

    #[test]
    fn up_is_about_what_is_down_or_has_changed() {
        let running = service("web");
        assert!(!is_wanted(&running));
        let changed = Service {
            outdated: true,
            enabled: false,
            ..running.clone()
        };
        assert!(is_wanted(&changed));
        let down = Service {
            state: State::Failed,
            ..running.clone()
        };
        assert!(is_wanted(&down));
        assert!(!is_wanted(&Service {
            enabled: false,
            ..down.clone()
        }));
        assert!(!is_wanted(&Service { file: None, ..down }));
        assert!(!is_wanted(&Service {
            state: State::Finished,
            ..running
        }));
    }
}
