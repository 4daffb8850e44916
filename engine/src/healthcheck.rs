//! Health checks: a program run in the container at intervals (Compose specification, `healthcheck`).

use crate::compose::Service;
use crate::compose::service::HealthCheck;
use crate::runtime::Runtime;
use std::time::Duration;

/// A health check with its defaults filled in (those of Docker; `start_interval` is 1 s rather than 5 s).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    command: Vec<String>,
    interval: Duration,
    timeout: Duration,
    retries: u32,
    start_period: Duration,
    start_interval: Duration,
}

/// What is run; `None` when the check is switched off.
///
/// # Errors
/// When `test` has none of its forms.
pub fn command(check: &HealthCheck) -> Result<Option<Vec<String>>, String> {
    let words: Vec<String> = check.test.0.iter().map(|text| text.0.clone()).collect();
    let shell = |line: &str| vec!["/bin/sh".to_owned(), "-c".to_owned(), line.to_owned()];
    if check.disable || words.first().is_some_and(|word| word == "NONE") {
        return Ok(None);
    }
    match &words[..] {
        [] => Err("`test` is missing".to_owned()),
        [kind, rest @ ..] if kind == "CMD" && !rest.is_empty() => Ok(Some(rest.to_vec())),
        [kind, line] if kind == "CMD-SHELL" => Ok(Some(shell(line))),
        [line] if line != "CMD" && line != "CMD-SHELL" => Ok(Some(shell(line))),
        _ => Err("`test` is a line, or a list that begins with CMD, CMD-SHELL or NONE".to_owned()),
    }
}

impl Check {
    /// The check of a service; `None` when it has none.
    pub fn of(service: &Service) -> Option<Self> {
        let check = service.healthcheck.as_ref()?;
        let span = |value: Option<crate::compose::values::Span>, default_seconds| {
            value.map_or(Duration::from_secs(default_seconds), |span| span.0)
        };
        Some(Self {
            command: command(check).ok()??,
            interval: span(check.interval, 30),
            timeout: span(check.timeout, 30),
            retries: check.retries.unwrap_or(3).max(1),
            start_period: span(check.start_period, 0),
            start_interval: span(check.start_interval, 1),
        })
    }

    /// Checks at intervals for as long as the container runs; tells `healthy(true)` after a success and
    /// `healthy(false)` after so many failures in a row. Ends only when the task is aborted.
    pub async fn watch(self, runtime: Runtime, id: String, mut healthy: impl FnMut(bool)) {
        let started = tokio::time::Instant::now();
        let (mut failures, mut was_healthy) = (0_u32, false);
        loop {
            let pause = if was_healthy || failures >= self.retries {
                self.interval
            } else {
                self.start_interval
            };
            tokio::time::sleep(pause.min(self.interval)).await;
            match runtime.exec(&id, &self.command, self.timeout).await {
                Ok(true) => {
                    (failures, was_healthy) = (0, true);
                    healthy(true);
                }
                Ok(false) | Err(_) => {
                    if !was_healthy && started.elapsed() < self.start_period {
                        continue;
                    }
                    failures = failures.saturating_add(1);
                    if failures >= self.retries {
                        healthy(false);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(test: &str) -> Result<Option<Vec<String>>, String> {
        command(&serde_yaml::from_str(&format!("test: {test}")).unwrap())
    }

    #[test]
    fn a_test_has_four_forms() {
        assert_eq!(check("[CMD, a, b]").unwrap().unwrap(), ["a", "b"]);
        assert_eq!(
            check("[CMD-SHELL, a | b]").unwrap().unwrap(),
            ["/bin/sh", "-c", "a | b"]
        );
        assert_eq!(check("a | b").unwrap().unwrap(), ["/bin/sh", "-c", "a | b"]);
        assert_eq!(check("[NONE]").unwrap(), None);
        for wrong in ["[]", "[CMD]", "[CMD-SHELL, a, b]", "[a, b]"] {
            assert!(check(wrong).is_err(), "{wrong}");
        }
    }
}
