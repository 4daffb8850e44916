//! The scripts of a new instance: `runcmd`, and user-data that is a script. Each runs once, whatever happens: a mark is made
//! before the first one is started, so that a script that reboots the machine, or a power cut, does not have it run again.

use std::collections::VecDeque;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use keelson_config::instance::{
    FINISHED_FILE, INSTANCE_FILE, Instance, SCRIPTS_DIRECTORY, STARTED_FILE,
};
use keelson_sys::durable::{Access, Tree};
use nix::unistd::Pid;

use crate::children::spawn;
use crate::log;

const MAX_RECORD_BYTES: u64 = 64 * 1024;
/// Scripts may be short of the network or of Docker after this long.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// What the scripts rather have before they start.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    /// Has an address once the network is up.
    pub(crate) addresses: PathBuf,
    /// The user engine's socket.
    pub(crate) docker: PathBuf,
}

impl Wanted {
    fn is_there(&self) -> bool {
        let is_up = fs::metadata(&self.addresses).is_ok_and(|file| file.len() > 0);
        is_up && self.docker.exists()
    }
}

/// The scripts and how far they are.
pub(crate) struct Scripts {
    config: Tree,
    wanted: Wanted,
    state: State,
}

enum State {
    Idle,
    /// Waits for what the scripts want.
    Waiting {
        instance: Instance,
        directory: PathBuf,
        until: Instant,
    },
    Running {
        pid: Pid,
        script: PathBuf,
        instance: Instance,
        directory: PathBuf,
        rest: VecDeque<PathBuf>,
    },
}

impl Scripts {
    /// `config` is the configuration's directory on the state partition.
    pub(crate) fn new(config: &Path, wanted: Wanted) -> Result<Self> {
        let config = Tree::open(config).with_context(|| format!("open {}", config.display()))?;
        Ok(Scripts {
            config,
            wanted,
            state: State::Idle,
        })
    }

    /// Looks whether the machine's instance has scripts that were never started.
    pub(crate) fn look(&mut self, now: Instant) {
        if !matches!(self.state, State::Idle) {
            return;
        }
        match self.pending() {
            Ok(Some((instance, directory))) => {
                self.state = State::Waiting {
                    instance,
                    directory,
                    until: now + LONGEST_WAIT,
                };
                self.go_on(now);
            }
            Ok(None) => {}
            Err(error) => log::error(&format!("look for scripts: {error:#}")),
        }
    }

    /// Starts the scripts when what they want is there, or has not come for too long.
    pub(crate) fn go_on(&mut self, now: Instant) {
        let State::Waiting { until, .. } = &self.state else {
            return;
        };
        let late = *until <= now;
        if !late && !self.wanted.is_there() {
            return;
        }
        if late {
            log::warning("the scripts start although the network or Docker is not up yet");
        }
        if let State::Waiting {
            instance,
            directory,
            ..
        } = std::mem::replace(&mut self.state, State::Idle)
            && let Err(error) = self.start(instance, directory)
        {
            log::error(&format!("start the scripts: {error:#}"));
        }
    }

    /// When [`go_on`](Self::go_on) is due whatever happens.
    pub(crate) fn due(&self) -> Option<Instant> {
        match &self.state {
            State::Waiting { until, .. } => Some(*until),
            _ => None,
        }
    }

    /// Takes note that the process `pid` has ended; gives whether it was a script.
    pub(crate) fn ended(&mut self, pid: Pid, how: &str, success: bool) -> bool {
        if !matches!(&self.state, State::Running { pid: own, .. } if *own == pid) {
            return false;
        }
        if let State::Running {
            script,
            instance,
            directory,
            rest,
            ..
        } = std::mem::replace(&mut self.state, State::Idle)
        {
            if success {
                log::info(&format!("{} has ended", name_of(&script)));
            } else {
                log::error(&format!("{} failed: {how}", name_of(&script)));
            }
            self.next(instance, directory, rest);
        }
        true
    }

    fn pending(&self) -> Result<Option<(Instance, PathBuf)>> {
        let record = self
            .config
            .read(Path::new(INSTANCE_FILE), MAX_RECORD_BYTES)
            .context("read the instance's record")?;
        let Some(record) = record else {
            return Ok(None);
        };
        let instance = Instance::from_json(&record).context("read the instance's record")?;
        let Some(name) = &instance.scripts else {
            return Ok(None);
        };
        let directory = Path::new(SCRIPTS_DIRECTORY).join(name);
        let mark = |mark: &str| {
            self.config
                .read(&directory.join(mark), MAX_RECORD_BYTES)
                .map(|found| found.is_some())
        };
        if mark(STARTED_FILE).context("look for the mark")? {
            if !mark(FINISHED_FILE).context("look for the mark")? {
                log::warning(&format!(
                    "the scripts of instance `{}` were interrupted; they are not run again (they are in {})",
                    instance.instance_id,
                    self.config.path().join(&directory).display()
                ));
            }
            return Ok(None);
        }
        Ok(Some((instance, directory)))
    }

    fn start(&mut self, instance: Instance, directory: PathBuf) -> Result<()> {
        let path = self.config.path().join(&directory);
        let mut scripts = Vec::new();
        for entry in fs::read_dir(&path).with_context(|| format!("list {}", path.display()))? {
            let entry = entry.context("list the scripts")?;
            if entry.file_name().as_bytes().first() != Some(&b'.') {
                scripts.push(entry.path());
            }
        }
        scripts.sort();
        self.config
            .write(&directory.join(STARTED_FILE), b"", Access::root(0o600))
            .context("make the mark")?;
        self.next(instance, directory, scripts.into());
        Ok(())
    }

    /// Starts the next script that can be started, or makes the mark that all have run.
    fn next(&mut self, instance: Instance, directory: PathBuf, mut rest: VecDeque<PathBuf>) {
        while let Some(script) = rest.pop_front() {
            match run(&script, &instance.instance_id) {
                Ok(pid) => {
                    log::info(&format!("runs {}", name_of(&script)));
                    self.state = State::Running {
                        pid,
                        script,
                        instance,
                        directory,
                        rest,
                    };
                    return;
                }
                Err(error) => log::error(&format!("run {}: {error:#}", name_of(&script))),
            }
        }
        if let Err(error) =
            self.config
                .write(&directory.join(FINISHED_FILE), b"", Access::root(0o600))
        {
            log::error(&format!("make the mark that the scripts have run: {error}"));
        }
    }
}

fn name_of(script: &Path) -> String {
    script
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}

/// Runs a script by its interpreter, so that it runs also where the state partition allows no programs.
fn run(script: &Path, instance_id: &str) -> Result<Pid> {
    let content = fs::read(script).context("read it")?;
    let first = content
        .split(|byte| *byte == b'\n')
        .next()
        .unwrap_or_default();
    let line = String::from_utf8_lossy(first);
    let line = line
        .trim()
        .strip_prefix("#!")
        .context("its first line names no interpreter")?
        .trim();
    let (interpreter, argument) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
    let environment = [
        "HOME=/root",
        "USER=root",
        "LOGNAME=root",
        "SHELL=/bin/bash",
        "LANG=C.UTF-8",
    ]
    .map(str::to_owned);
    let mut command = vec!["/usr/bin/env".to_owned()];
    command.extend(environment);
    command.push(format!("INSTANCE_ID={instance_id}"));
    command.push(interpreter.to_owned());
    if !argument.trim().is_empty() {
        command.push(argument.trim().to_owned());
    }
    command.push(script.to_string_lossy().into_owned());
    spawn(&command).context("start it")
}

#[cfg(test)]
mod tests {
    use nix::sys::wait::{WaitStatus, waitpid};

    use super::*;

    struct Machine {
        directory: tempfile::TempDir,
    }

    impl Machine {
        fn new(scripts: &[(&str, &str)]) -> Self {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("scripts/abc");
            fs::create_dir_all(&path).unwrap();
            for (name, text) in scripts {
                fs::write(
                    path.join(name),
                    text.replace("OUT", &directory.path().join("out").to_string_lossy()),
                )
                .unwrap();
            }
            let instance = Instance {
                instance_id: "i-1".into(),
                user_data_sha256: String::new(),
                scripts: Some("abc".into()),
            };
            fs::write(directory.path().join(INSTANCE_FILE), instance.to_json()).unwrap();
            Machine { directory }
        }

        fn scripts(&self) -> Scripts {
            let wanted = Wanted {
                addresses: self.directory.path().join("addresses"),
                docker: self.directory.path().join("docker.sock"),
            };
            Scripts::new(self.directory.path(), wanted).unwrap()
        }

        fn network_comes_up(&self) {
            fs::write(self.directory.path().join("addresses"), "10.0.2.15\n").unwrap();
            fs::write(self.directory.path().join("docker.sock"), "").unwrap();
        }

        fn output(&self) -> String {
            fs::read_to_string(self.directory.path().join("out")).unwrap_or_default()
        }

        fn finished(&self) -> bool {
            self.directory
                .path()
                .join("scripts/abc")
                .join(FINISHED_FILE)
                .exists()
        }
    }

    fn reap_all(scripts: &mut Scripts) {
        while let State::Running { pid, .. } = scripts.state {
            let status = waitpid(pid, None).unwrap();
            assert!(scripts.ended(pid, "", matches!(status, WaitStatus::Exited(_, 0))));
        }
    }

    #[test]
    fn scripts_run_in_order_and_once_though_one_fails() {
        let machine = Machine::new(&[
            (
                "part-001",
                "#!/bin/sh -e\necho one $INSTANCE_ID >> OUT\nfalse\necho not here >> OUT\n",
            ),
            ("part-002", "no interpreter\n"),
            ("runcmd", "#!/bin/sh\necho two $HOME >> OUT\n"),
        ]);
        machine.network_comes_up();
        let mut scripts = machine.scripts();
        scripts.look(Instant::now());
        reap_all(&mut scripts);
        assert_eq!(machine.output(), "one i-1\ntwo /root\n");
        assert!(machine.finished());
        scripts.look(Instant::now());
        machine.scripts().look(Instant::now());
        assert_eq!(machine.output(), "one i-1\ntwo /root\n");
    }

    #[test]
    fn scripts_wait_for_network_and_docker_but_not_for_ever() {
        let machine = Machine::new(&[("runcmd", "#!/bin/sh\necho ran >> OUT\n")]);
        let mut scripts = machine.scripts();
        let now = Instant::now();
        scripts.look(now);
        assert_eq!(scripts.due(), Some(now + LONGEST_WAIT));
        scripts.go_on(now);
        assert_eq!(machine.output(), "");
        scripts.go_on(now + LONGEST_WAIT);
        reap_all(&mut scripts);
        assert_eq!(machine.output(), "ran\n");
    }

    #[test]
    fn scripts_that_were_interrupted_are_not_run_again() {
        let machine = Machine::new(&[("runcmd", "#!/bin/sh\necho ran >> OUT\n")]);
        machine.network_comes_up();
        fs::write(
            machine
                .directory
                .path()
                .join("scripts/abc")
                .join(STARTED_FILE),
            "",
        )
        .unwrap();
        let mut scripts = machine.scripts();
        scripts.look(Instant::now());
        assert!(matches!(scripts.state, State::Idle));
        assert_eq!(machine.output(), "");
    }

    #[test]
    fn a_machine_without_an_instance_has_no_scripts() {
        let directory = tempfile::tempdir().unwrap();
        let wanted = Wanted {
            addresses: "/nonexistent".into(),
            docker: "/nonexistent".into(),
        };
        let mut scripts = Scripts::new(directory.path(), wanted).unwrap();
        scripts.look(Instant::now());
        assert_eq!(scripts.due(), None);
    }
}
