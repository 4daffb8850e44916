//! What passed, what failed, and where to look.

use std::any::Any;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use anyhow::{Result, anyhow};

/// Counts and names, of steps that may run beside each other.
#[derive(Default)]
pub struct Report(Mutex<Results>);

#[derive(Default)]
struct Results {
    passed: usize,
    failed: Vec<Failure>,
    // What failed once and passed then.
    unsteady: Vec<Failure>,
}

struct Failure {
    name: String,
    why: String,
}

impl Report {
    /// Runs one step and prints how it ended; a panic is a failure like any other. `logs` is where it wrote its logs.
    pub fn step(&self, name: &str, logs: Option<&Path>, step: impl FnOnce() -> Result<()>) -> bool {
        match attempt(name, logs, step) {
            Ok(()) => self.results().passed += 1,
            Err(why) => self.results().failed.push(Failure {
                name: name.to_owned(),
                why,
            }),
        }
        !self.has_failed(name)
    }

    /// Runs a step that has failed once more. What passes now counts as passed, and is named at the end all the same.
    pub fn again(
        &self,
        name: &str,
        logs: Option<&Path>,
        step: impl FnOnce() -> Result<()>,
    ) -> bool {
        println!("      once more:");
        if attempt(name, logs, step).is_err() {
            return false;
        }
        let mut results = self.results();
        let failed = results.failed.iter().position(|one| one.name == name);
        if let Some(place) = failed {
            let failure = results.failed.remove(place);
            results.unsteady.push(failure);
        }
        results.passed += 1;
        true
    }

    /// Counts what could not even be tried.
    pub fn not_run(&self, name: &str, why: &str) {
        println!("FAIL  {name}: not run, {why}");
        self.results().failed.push(Failure {
            name: name.to_owned(),
            why: why.to_owned(),
        });
    }

    /// Whether the step of this name has failed, and not passed since.
    pub fn has_failed(&self, name: &str) -> bool {
        self.results().failed.iter().any(|one| one.name == name)
    }

    /// Whether nothing has failed so far.
    pub fn is_clean(&self) -> bool {
        self.results().failed.is_empty()
    }

    /// Prints the last lines; true when all went well.
    pub fn finish(self) -> bool {
        let results = self.0.into_inner().unwrap_or_else(PoisonError::into_inner);
        for one in &results.unsteady {
            println!("unsteady: {} failed once: {}", one.name, one.why);
        }
        for one in &results.failed {
            println!("failed: {}", one.name);
        }
        println!("{} passed, {} failed", results.passed, results.failed.len());
        results.failed.is_empty()
    }

    fn results(&self) -> MutexGuard<'_, Results> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Or the first line of what went wrong.
fn attempt(
    name: &str,
    logs: Option<&Path>,
    step: impl FnOnce() -> Result<()>,
) -> Result<(), String> {
    println!("----  {name}");
    let start = Instant::now();
    let result = catch_unwind(AssertUnwindSafe(step))
        .unwrap_or_else(|panic| Err(anyhow!(panic_text(&*panic))));
    let seconds = start.elapsed().as_secs_f64();
    match result {
        Ok(()) => {
            println!("ok    {name} ({seconds:.1} s)");
            logs.into_iter().for_each(remove_disks);
            Ok(())
        }
        Err(error) => {
            let error = format!("{error:#}");
            println!("FAIL  {name} ({seconds:.1} s)\n      {error}");
            if let Some(dir) = logs {
                println!("      logs: {}", dir.display());
            }
            Err(error.lines().next().unwrap_or_default().to_owned())
        }
    }
}

fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied());
    format!(
        "the test panicked: {}",
        text.unwrap_or("for no stated reason")
    )
}

/// Disks and memory of a test that passed are of no further use; its logs stay.
pub fn remove_disks(dir: &Path) {
    let Ok(entries) = fs::read_dir(dir) else {
        return;
    };
    for path in entries.flatten().map(|entry| entry.path()) {
        let large = path.extension().is_some_and(|extension| {
            extension == "qcow2" || extension == "raw" || extension == "cpio"
        });
        if large || path.ends_with("memory") {
            // Left behind it costs space only; the next run removes it.
            let _ = fs::remove_file(path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_and_panics_are_counted() {
        let report = Report::default();
        assert!(report.step("good", None, || Ok(())));
        assert!(!report.step("bad", None, || Err(anyhow!("no"))));
        assert!(!report.step("worse", None, || panic!("on purpose")));
        let counts = {
            let results = report.results();
            (results.passed, results.failed.len())
        };
        assert_eq!(counts, (1, 2));
        assert!(!report.finish());
    }

    #[test]
    fn what_passes_at_the_second_try_has_passed_and_is_named() {
        let report = Report::default();
        report.step("shaky", None, || Err(anyhow!("not now\nlater")));
        assert!(!report.again("shaky", None, || Err(anyhow!("still not"))));
        assert!(report.has_failed("shaky") && !report.is_clean());
        assert!(report.again("shaky", None, || Ok(())));
        assert!(report.is_clean());
        assert_eq!(report.results().unsteady[0].why, "not now");
        assert!(report.finish());
    }
}
