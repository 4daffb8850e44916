//! The last steps in the container's process: find the program, for `exec` put seccomp on, and become it.

use std::convert::Infallible;
use std::env;
use std::ffi::OsStr;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use libcontainer::capabilities::drop_privileges;
use libcontainer::oci_spec::runtime::{LinuxCapabilities, LinuxSeccomp, Process, Spec};
use libcontainer::syscall::syscall::create_syscall;
use libcontainer::workload::{Executor, ExecutorError, ExecutorValidationError};
use rustix::fs::{Access, AtFlags, CWD, accessat};
use rustix::process::ioctl_tiocsctty;

/// Runs the container's program. Unlike libcontainer's own executor it finds absolute paths without a
/// `PATH`, takes programs only root may run, and reports a failed `exec` on the container's stderr.
#[derive(Clone, Default)]
pub(crate) struct Program {
    /// What an added process has to put on itself: libcontainer runs those without any seccomp.
    pub(crate) confinement: Option<Confinement>,
    /// Standard input is a terminal that has to become the process's controlling one.
    pub(crate) controlling_terminal: bool,
}

/// The seccomp profile of the container, and the capabilities that the process keeps after loading it.
#[derive(Clone)]
pub(crate) struct Confinement {
    pub(crate) seccomp: LinuxSeccomp,
    pub(crate) capabilities: LinuxCapabilities,
}

impl Confinement {
    fn apply(&self) -> Result<(), ExecutorError> {
        let failed = |what: &str, error: &dyn std::fmt::Display| {
            ExecutorError::Other(format!("{what}: {error}"))
        };
        libcontainer::seccomp::initialize_seccomp(&self.seccomp)
            .map_err(|error| failed("load the seccomp profile", &error))?;
        drop_privileges(&self.capabilities, create_syscall().as_ref())
            .map_err(|error| failed("drop capabilities", &error))
    }
}

impl Executor for Program {
    fn validate(&self, spec: &Spec) -> Result<(), ExecutorValidationError> {
        let invalid = ExecutorValidationError::ArgValidationError;
        let process = spec
            .process()
            .as_ref()
            .ok_or_else(|| invalid("no process given".into()))?;
        find(process).map(|_| ()).map_err(invalid)
    }

    fn exec(&self, spec: &Spec) -> Result<(), ExecutorError> {
        let process = spec.process().as_ref().ok_or(ExecutorError::InvalidArg)?;
        let program = find(process).map_err(ExecutorError::Other)?;
        if self.controlling_terminal {
            // libcontainer has made the process the leader of a session of its own.
            ioctl_tiocsctty(std::io::stdin())
                .map_err(|error| ExecutorError::Other(format!("take the terminal: {error}")))?;
        }
        if let Some(confinement) = &self.confinement {
            confinement.apply()?;
        }
        let Err(error) = become_program(&program, process);
        // Nobody listens any more to errors of the container's process: its own stderr is what remains.
        eprintln!("keelson-runtime: run {}: {error}", program.display());
        let not_found = error.kind() == std::io::ErrorKind::NotFound;
        std::process::exit(if not_found { 127 } else { 126 });
    }
}

fn become_program(program: &Path, process: &Process) -> Result<Infallible, std::io::Error> {
    let (name, arguments) = process
        .args()
        .as_deref()
        .and_then(<[String]>::split_first)
        .ok_or_else(|| std::io::Error::new(std::io::ErrorKind::InvalidInput, "no arguments"))?;
    Err(Command::new(program).arg0(name).args(arguments).exec())
}

/// The program's path: as given when it has a slash, else from the container's `PATH`.
fn find(process: &Process) -> Result<PathBuf, String> {
    let name = process
        .args()
        .as_deref()
        .and_then(<[String]>::first)
        .ok_or("no arguments")?;
    if name.contains('/') {
        return runnable(Path::new(name))
            .map(|()| name.into())
            .map_err(|error| format!("{name}: {error}"));
    }
    let environment = process.env().as_deref().unwrap_or_default();
    let path = environment
        .iter()
        .rev()
        .find_map(|entry| entry.strip_prefix("PATH="));
    let path = path.ok_or_else(|| format!("{name}: no PATH to find it in"))?;
    env::split_paths(OsStr::new(path))
        .map(|directory| directory.join(name))
        .find(|candidate| runnable(candidate).is_ok())
        .ok_or_else(|| format!("exec: \"{name}\": executable file not found in $PATH ({path})"))
}

fn runnable(path: &Path) -> std::io::Result<()> {
    if std::fs::metadata(path)?.is_dir() {
        return Err(std::io::ErrorKind::IsADirectory.into());
    }
    Ok(accessat(CWD, path, Access::EXEC_OK, AtFlags::EACCESS)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use libcontainer::oci_spec::runtime::ProcessBuilder;

    fn process(program: &str, environment: &[&str]) -> Process {
        let environment: Vec<String> = environment
            .iter()
            .map(|entry| (*entry).to_owned())
            .collect();
        ProcessBuilder::default()
            .args([program.to_owned()])
            .env(environment)
            .build()
            .unwrap()
    }

    #[test]
    fn absolute_programs_need_no_path() {
        assert_eq!(
            find(&process("/bin/sh", &[])).unwrap(),
            Path::new("/bin/sh")
        );
    }

    #[test]
    fn names_are_looked_up_in_the_containers_path() {
        assert_eq!(
            find(&process("sh", &["PATH=/nowhere:/bin"])).unwrap(),
            Path::new("/bin/sh")
        );
    }

    #[test]
    fn what_cannot_be_run_is_said() {
        for (program, environment, expected) in [
            ("sh", vec![], "no PATH"),
            (
                "no-such",
                vec!["PATH=/bin"],
                "exec: \"no-such\": executable file not found in $PATH",
            ),
            ("/etc/passwd", vec![], "/etc/passwd: Permission denied"),
            ("/etc", vec![], "is a directory"),
        ] {
            let error = find(&process(program, &environment)).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
    }
}
