//! What passed, what failed, and where to look.

use std::any::Any;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::Instant;

use anyhow::{Result, anyhow};

/// Counts and names.
#[derive(Default)]
pub struct Report {
    passed: usize,
    failed: Vec<String>,
}

impl Report {
    /// Runs one step and prints how it ended; a panic is a failure like any other. `logs` is where it wrote its logs.
    pub fn step(
        &mut self,
        name: &str,
        logs: Option<&Path>,
        step: impl FnOnce() -> Result<()>,
    ) -> bool {
        println!("----  {name}");
        let start = Instant::now();
        let result = catch_unwind(AssertUnwindSafe(step))
            .unwrap_or_else(|panic| Err(anyhow!(panic_text(&*panic))));
        let seconds = start.elapsed().as_secs_f64();
        match result {
            Ok(()) => {
                self.passed += 1;
                println!("ok    {name} ({seconds:.1} s)");
                if let Some(dir) = logs {
                    remove_disks(dir);
                }
                true
            }
            Err(error) => {
                println!("FAIL  {name} ({seconds:.1} s)\n      {error:#}");
                if let Some(dir) = logs {
                    println!("      logs: {}", dir.display());
                }
                self.failed.push(name.to_owned());
                false
            }
        }
    }

    /// Counts what could not even be tried.
    pub fn not_run(&mut self, name: &str, why: &str) {
        println!("FAIL  {name}: not run, {why}");
        self.failed.push(name.to_owned());
    }

    /// Whether nothing has failed so far.
    pub fn is_clean(&self) -> bool {
        self.failed.is_empty()
    }

    /// Prints the last lines; true when all went well.
    pub fn finish(self) -> bool {
        for name in &self.failed {
            println!("failed: {name}");
        }
        println!("{} passed, {} failed", self.passed, self.failed.len());
        self.failed.is_empty()
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
        let mut report = Report::default();
        assert!(report.step("good", None, || Ok(())));
        assert!(!report.step("bad", None, || Err(anyhow!("no"))));
        assert!(!report.step("worse", None, || panic!("on purpose")));
        assert_eq!((report.passed, report.failed.len()), (1, 2));
        assert!(!report.finish());
    }
}
