//! How long Docker takes to answer and how much memory is used then, beside two references; and the system engine beside
//! dockerd.
//!
//! * [`floor`]: a shell script as PID 1 that starts dockerd and nothing else
//! * [`debian`]: stock Debian 13 with systemd, docker.io and openssh-server
//! * [`keelson`]: the image as it is shipped, and the service that asks
//! * [`engine`]: the system engine beside dockerd
//! * [`measure`]: boots one of them and reads its figures
//! * [`tree`]: file systems out of Debian packages
//!
//! Nothing here passes or fails: the figures are printed.

pub mod debian;
pub mod engine;
pub mod floor;
pub mod keelson;
pub mod measure;
pub mod tree;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::harness::artifacts::Artifacts;
use measure::{Clock, Figures};

/// The systems, the one that the others are compared with first.
const SYSTEMS: [&str; 3] = ["floor", "debian", "keelson"];

/// A system that can be booted, and then prints its figures on the serial console.
pub struct System {
    /// What the table calls it.
    pub name: &'static str,
    /// Kernel image.
    pub kernel: PathBuf,
    /// Initial RAM disk.
    pub initrd: PathBuf,
    /// Kernel command line.
    pub cmdline: String,
    /// Disks, the first of which is written to.
    pub disks: Vec<Disk>,
}

/// A disk of a system.
pub struct Disk {
    /// Image file; the machine works on an overlay.
    pub path: PathBuf,
    /// `qcow2` or `raw`.
    pub format: &'static str,
}

/// Builds what is not there yet, measures the systems named (all when none is) and prints the table.
/// `out` holds the image's artifacts; the references are kept in `out/bench`.
///
/// # Errors
/// When a system cannot be built or does not boot.
pub fn run(out: &Path, names: &[String], rounds: usize) -> Result<()> {
    if let Some((first, parts)) = names.split_first()
        && first == "engine"
    {
        return engine::run(out, parts);
    }
    let dir = out.join("bench");
    fs::create_dir_all(&dir).with_context(|| format!("making {}", dir.display()))?;
    if let Some(unknown) = names.iter().find(|name| !SYSTEMS.contains(&name.as_str())) {
        bail!(
            "unknown system {unknown:?}: one of {}; or engine, and parts of that",
            SYSTEMS.join(", ")
        );
    }
    let artifacts = Artifacts::open(out)?;
    let mut rows = Vec::new();
    for name in SYSTEMS {
        if !names.is_empty() && !names.iter().any(|given| given == name) {
            continue;
        }
        let system = match name {
            "floor" => floor::build(&dir)?,
            "debian" => debian::build(&dir)?,
            _ => keelson::build(&dir)?,
        };
        let ready = measure::Ready::prepare(&system)?;
        for clock in [Clock::Instructions, Clock::Wall] {
            let mut taken = Vec::new();
            for round in 1..=rounds {
                println!("bench: {name} by {clock}, round {round} of {rounds}");
                taken.push(ready.measure(clock, &dir.join(name))?);
            }
            rows.push((name, clock, taken));
        }
    }
    print!("{}", table(&rows));
    println!("{}", sizes(&artifacts));
    Ok(())
}

/// Medians of each system, and their ratio to the first one's.
fn table(rows: &[(&str, Clock, Vec<Figures>)]) -> String {
    let mut text = format!(
        "{:10} {:14} {:>16} {:>14} {:>16}\n",
        "system", "clock", "docker answers", "x the first", "memory used"
    );
    for clock in [Clock::Instructions, Clock::Wall] {
        let mut first = None;
        for (name, _, taken) in rows.iter().filter(|(_, of, _)| *of == clock) {
            let answers = median(
                taken
                    .iter()
                    .map(|figures| figures.docker_answers_s)
                    .collect(),
            );
            let used = median(
                taken
                    .iter()
                    .map(|figures| figures.memory_used_mib)
                    .collect(),
            );
            let reference: f64 = *first.get_or_insert(answers);
            let clock = clock.to_string();
            text.push_str(&format!(
                "{name:10} {clock:14} {answers:14.1} s {:14.2} {used:12.0} MiB\n",
                answers / reference
            ));
        }
    }
    text
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// What has to be loaded to boot.
fn sizes(artifacts: &Artifacts) -> String {
    let size = |path: &Path| fs::metadata(path).map_or(0, |data| data.len());
    let root = artifacts.kernel().with_file_name("root.img");
    let parts = [
        ("root", size(&root)),
        ("kernel", size(&artifacts.kernel())),
        ("initrd", size(&artifacts.initrd())),
    ];
    let total: u64 = parts.iter().map(|(_, bytes)| bytes).sum();
    let list: Vec<String> = parts
        .iter()
        .map(|(name, bytes)| format!("{name} {}", mb(*bytes)))
        .collect();
    format!("keelson's size: {} = {}", list.join(" + "), mb(total))
}

fn mb(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_shows_medians_and_ratios_to_the_first_system() {
        let figures = |docker_answers_s| Figures {
            docker_answers_s,
            memory_used_mib: 100.0,
        };
        let rows = [
            (
                "floor",
                Clock::Instructions,
                vec![figures(9.0), figures(4.0), figures(5.0)],
            ),
            ("keelson", Clock::Instructions, vec![figures(6.0)]),
        ];
        let text = table(&rows);
        let line = text.lines().nth(2).unwrap();
        assert!(line.contains("6.0 s") && line.contains("1.20"), "{text}");
    }
}
