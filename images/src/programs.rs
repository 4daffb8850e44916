//! The project's own programs, built by cargo as static binaries that are the same wherever they are built.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::command;
use crate::files;
use crate::recipe::Profile;
use crate::workspace::Workspace;

/// The target is spelled out so that build scripts are not linked statically too.
const TARGET: &str = "x86_64-unknown-linux-gnu";

/// Where Debian's static libraries are.
const LIBRARIES: &str = "/usr/lib/x86_64-linux-gnu";

/// Programs that have been built.
#[derive(Debug)]
pub(crate) struct Programs {
    binaries: BTreeMap<(Profile, String), PathBuf>,
}

/// Runs a program of the workspace on the build machine; built first where it is not up to date.
///
/// # Errors
/// When it cannot be built or fails; it has said why.
pub(crate) fn run_tool(package: &str, name: &str, arguments: &[String]) -> Result<()> {
    let mut cargo = Command::new("cargo");
    cargo.args([
        "run",
        "--quiet",
        "--locked",
        "--profile",
        "tool",
        "-p",
        package,
    ]);
    let status = cargo.args(["--bin", name, "--"]).args(arguments).status();
    match status.context("starting cargo")?.success() {
        true => Ok(()),
        false => bail!("{name} failed"),
    }
}

impl Programs {
    /// Builds the programs `wanted`; cargo itself knows what is up to date.
    ///
    /// # Errors
    /// When a program does not compile or is unknown to the workspace.
    pub(crate) fn build(
        workspace: &Workspace,
        wanted: &BTreeSet<(Profile, String)>,
    ) -> Result<Self> {
        let mut binaries = BTreeMap::new();
        for profile in [Profile::Pid1, Profile::Release] {
            let names: Vec<&String> = wanted
                .iter()
                .filter(|(of, _)| *of == profile)
                .map(|(_, name)| name)
                .collect();
            if names.is_empty() {
                continue;
            }
            compile(workspace, profile, &names)?;
            for name in names {
                let binary = workspace
                    .target
                    .join(TARGET)
                    .join(profile.name())
                    .join(name);
                binaries.insert((profile, name.clone()), binary);
            }
        }
        Ok(Self { binaries })
    }

    /// SHA-256 of every binary.
    ///
    /// # Errors
    /// When one cannot be read.
    pub(crate) fn digests(&self) -> Result<BTreeSet<String>> {
        self.binaries
            .values()
            .map(|path| files::sha256(path))
            .collect()
    }

    /// The binary of the program `name`.
    ///
    /// # Errors
    /// When it was not among the wanted ones.
    pub(crate) fn path(&self, name: &str, profile: Profile) -> Result<PathBuf> {
        match self.binaries.get(&(profile, name.to_owned())) {
            Some(path) => Ok(path.clone()),
            None => bail!(
                "program {name} was not built with the profile {}",
                profile.name()
            ),
        }
    }
}

fn compile(workspace: &Workspace, profile: Profile, names: &[&String]) -> Result<()> {
    let running = workspace
        .progress
        .begin(&format!("programs ({})", profile.name()));
    let mut cargo = Command::new("cargo");
    cargo.current_dir(&workspace.top);
    cargo.args([
        "build",
        "--locked",
        "--profile",
        profile.name(),
        "--target",
        TARGET,
    ]);
    for name in names {
        cargo.args(["--bin", name]);
    }
    cargo
        .env("CARGO_TARGET_DIR", &workspace.target)
        .env("RUSTFLAGS", rust_flags(workspace));
    cargo.env("SOURCE_DATE_EPOCH", workspace.epoch_seconds.to_string());
    cargo
        .env("CARGO_TERM_COLOR", "never")
        .env("CARGO_TERM_PROGRESS_WHEN", "never");
    cargo
        .env("LIBSECCOMP_LINK_TYPE", "static")
        .env("LIBSECCOMP_LIB_PATH", LIBRARIES);
    let mut compiled = 0_u32;
    command::run_watched(&mut cargo, |line| {
        running.busy_with(line);
        compiled += u32::from(line.trim_start().starts_with("Compiling"));
    })
    .context("building the programs from the sources")?;
    let detail = if compiled == 0 {
        "up to date".to_owned()
    } else {
        format!("{compiled} crates compiled")
    };
    running.done(&detail);
    Ok(())
}

/// Static, and without the names of this machine's folders in the binaries.
fn rust_flags(workspace: &Workspace) -> String {
    let cargo_home = std::env::var("CARGO_HOME").unwrap_or_else(|_| "/root/.cargo".to_owned());
    let mut flags = "-C target-feature=+crt-static".to_owned();
    // The last prefix that matches is the one that counts: general ones come first.
    for (from, to) in [
        (workspace.top.display().to_string(), "/keelson-source"),
        (workspace.target.display().to_string(), "/keelson-target"),
        (cargo_home, "/cargo"),
    ] {
        flags.push_str(&format!(" --remap-path-prefix={from}={to}"));
    }
    flags
}
