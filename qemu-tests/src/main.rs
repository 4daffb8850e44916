//! Checks the sources, builds the image, and boots it in QEMU in every way that a test names.

use std::path::Path;
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Result;
use clap::Parser;
use keelson_qemu_tests::bench;
use keelson_qemu_tests::harness::lab::Lab;
use keelson_qemu_tests::runner::checks::{self, Check};
use keelson_qemu_tests::runner::report::Report;
use keelson_qemu_tests::runner::{lanes, select};
use keelson_qemu_tests::tests::{self, Test};

/// Where everything that is built goes; we run in the top folder of the sources.
const OUT: &str = "out";

/// Runs Keelson's tests. With names: those virtual machine tests only. With --bench: measures instead.
#[derive(Parser)]
#[command(name = "qemu-tests/run")]
struct Options {
    /// Tests to run, by name or the beginning of it
    names: Vec<String>,
    /// List the tests
    #[arg(long)]
    list: bool,
    /// Only boot: no format, lint and unit tests, and the images as they are
    #[arg(long)]
    no_checks: bool,
    /// More rounds where a test has rounds: 20 power cuts
    #[arg(long)]
    soak: bool,
    /// Measure the systems named (all: floor, debian, keelson), or `engine`, instead; nothing passes or fails
    #[arg(long)]
    bench: bool,
    /// Boots of each system by each clock, of which the median is shown
    #[arg(long, default_value_t = 3, requires = "bench")]
    rounds: usize,
    /// Seed of whatever is random (default: the time)
    #[arg(long)]
    seed: Option<u64>,
}

fn main() -> ExitCode {
    let options = Options::parse();
    match run(&options) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("qemu-tests: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn run(options: &Options) -> Result<bool> {
    if options.bench {
        return bench::run(Path::new(OUT), &options.names, options.rounds).map(|()| true);
    }
    let all = tests::all();
    let names: Vec<&str> = all.iter().map(|test| test.name).collect();
    let chosen: Vec<&Test> = select::select(&names, &options.names)?
        .into_iter()
        .map(|index| &all[index])
        .collect();
    if options.list {
        chosen.iter().for_each(|test| println!("{}", test.name));
        return Ok(true);
    }
    let report = Report::default();
    let whole = options.names.is_empty();
    let mut images_built = true;
    if !options.no_checks {
        let step = |check: &Check| {
            report.step(check.name, None, check.run)
                || (whole && report.again(check.name, None, check.run))
        };
        if whole {
            for check in &checks::SOURCES {
                step(check);
            }
        }
        for check in &checks::IMAGES {
            images_built &= step(check);
        }
        if whole {
            for check in &checks::KERNEL {
                step(check);
            }
        }
    }
    if !chosen.is_empty() {
        run_tests(options, &chosen, images_built, &report)?;
    }
    Ok(report.finish())
}

fn run_tests(
    options: &Options,
    chosen: &[&Test],
    images_built: bool,
    report: &Report,
) -> Result<()> {
    if !images_built {
        chosen
            .iter()
            .for_each(|test| report.not_run(test.name, "there is no image"));
        return Ok(());
    }
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |time| time.as_secs());
    let lab = Lab::new(Path::new(OUT), options.soak, options.seed.unwrap_or(now))?;
    println!(
        "      machines run with {:?}, random seed {}",
        lab.accel, lab.random_seed
    );
    lanes::run(chosen, lab, report, options.names.is_empty())
}
