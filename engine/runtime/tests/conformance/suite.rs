//! Goes through the table.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use nix::mount::{MsFlags, mount};
use nix::sys::prctl::set_child_subreaper;

use crate::cases;
use crate::container::{Runtime, Workplace};
use crate::timing;

/// What a case needs besides a runtime.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Need {
    /// A controller of cgroup v2.
    Controller(&'static str),
    /// Behaviour that only keelson-runtime promises.
    Keelson,
}

/// A line of the table.
pub(crate) struct Case {
    /// The sentence that it proves.
    pub(crate) name: &'static str,
    pub(crate) needs: &'static [Need],
    pub(crate) run: fn(&Workplace) -> anyhow::Result<()>,
}

/// Runs the suite or the stopwatch; whether nothing failed.
pub(crate) fn main(arguments: &[String]) -> anyhow::Result<bool> {
    let runtimes =
        runtimes(&std::env::var("KEELSON_RUNTIMES").context("KEELSON_RUNTIMES is not set")?)?;
    // Containers' first processes become this process's children when the runtime ends.
    set_child_subreaper(true).context("become the reaper of containers")?;
    let controllers = fs::read_to_string("/sys/fs/cgroup/cgroup.controllers")
        .context("no cgroup v2 at /sys/fs/cgroup (try: unshare -m, umount it, mount -t cgroup2)")?;
    let directory = PathBuf::from("/run/keelson-conformance");
    fs::create_dir_all(&directory)?;
    mount(
        Some("tmpfs"),
        &directory,
        Some("tmpfs"),
        MsFlags::empty(),
        Some("mode=755"),
    )
    .context("mount a workplace")?;
    match arguments {
        [flag, count] if flag == "--time" => {
            timing::print(&directory, &runtimes, count.parse()?).map(|()| true)
        }
        [] => run(&directory, &runtimes, &controllers, ""),
        [pattern] => run(&directory, &runtimes, &controllers, pattern),
        _ => bail!("usage: conformance [PATTERN | --time N]"),
    }
}

fn run(
    directory: &Path,
    runtimes: &[Runtime],
    controllers: &str,
    pattern: &str,
) -> anyhow::Result<bool> {
    let (mut passed, mut failed, mut skipped) = (0, 0, 0);
    let present: Vec<&str> = controllers.split_whitespace().collect();
    for case in cases::ALL
        .iter()
        .flat_map(|cases| cases.iter())
        .filter(|case| case.name.contains(pattern))
    {
        for runtime in runtimes {
            let title = format!("{} {}", case.name, runtime.name);
            let lacking = case.needs.iter().find_map(|need| match need {
                Need::Controller(name) if !present.contains(name) => {
                    Some(format!("no cgroup v2 controller {name} here"))
                }
                Need::Keelson if !runtime.name.starts_with("keelson") => {
                    Some("promised by keelson-runtime only".into())
                }
                _ => None,
            });
            if let Some(lacking) = lacking {
                println!("SKIPPED {title}: {lacking}");
                skipped += 1;
                continue;
            }
            let place = Workplace::make(directory, runtime.clone())?;
            match (case.run)(&place) {
                Ok(()) => {
                    println!("ok {title}");
                    passed += 1;
                }
                Err(error) => {
                    println!("FAILED {title}: {error:#}");
                    failed += 1;
                }
            }
        }
    }
    println!("{passed} passed, {failed} failed, {skipped} skipped");
    Ok(failed == 0 && passed > 0)
}

fn runtimes(text: &str) -> anyhow::Result<Vec<Runtime>> {
    text.split_whitespace()
        .map(|entry| {
            let (name, path) = entry
                .split_once('=')
                .with_context(|| format!("{entry:?} is not NAME=PATH"))?;
            if !Path::new(path).exists() {
                bail!("{path} does not exist");
            }
            Ok(Runtime {
                name: name.to_owned(),
                path: path.into(),
            })
        })
        .collect()
}
