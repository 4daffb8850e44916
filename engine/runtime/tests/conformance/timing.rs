//! How long a container's create, start and delete take.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::container::{Runtime, Workplace};

/// Prints medians of `count` containers each, runtimes taking turns so that all see the same load.
pub(crate) fn print(directory: &Path, runtimes: &[Runtime], count: usize) -> anyhow::Result<()> {
    let mut taken: Vec<[Vec<Duration>; 4]> = runtimes.iter().map(|_| Default::default()).collect();
    for round in 0..count + 2 {
        for (runtime, taken) in runtimes.iter().zip(&mut taken) {
            let place = Workplace::make(directory, runtime.clone())?;
            let steps = once(&place)?;
            // The first rounds fill caches.
            if round >= 2 {
                for (times, step) in taken.iter_mut().zip(steps) {
                    times.push(step);
                }
            }
        }
    }
    println!(
        "{:20} {:>10} {:>10} {:>10} {:>10}  (medians of {count}, ms)",
        "runtime", "create", "start", "delete", "total"
    );
    for (runtime, taken) in runtimes.iter().zip(&mut taken) {
        let [create, start, delete, total] = taken.each_mut().map(|times| median_ms(times));
        println!(
            "{:20} {create:10.2} {start:10.2} {delete:10.2} {total:10.2}",
            runtime.name
        );
    }
    Ok(())
}

fn once(place: &Workplace) -> anyhow::Result<[Duration; 4]> {
    let config = place.config("true");
    let begin = Instant::now();
    let container = place.create("c", &config)?;
    let created = Instant::now();
    container.start()?;
    let started = Instant::now();
    container.wait()?;
    let ended = Instant::now();
    place.call(&["delete", "c"])?;
    let delete = ended.elapsed();
    let (create, start) = (created - begin, started - created);
    Ok([create, start, delete, create + start + delete])
}

fn median_ms(times: &mut [Duration]) -> f64 {
    times.sort();
    times
        .get(times.len() / 2)
        .map_or(0.0, Duration::as_secs_f64)
        * 1000.0
}
