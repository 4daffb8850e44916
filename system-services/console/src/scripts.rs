//! Scripts of the configuration: those of each boot, those that run once on the machine, and those of a new instance (`runcmd`,
//! user-data that is a script). The last two run once, whatever happens: a mark is made before one is started, so that a script
//! that reboots the machine, or a power cut, does not have it run again.

use std::collections::VecDeque;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use keelson_config::instance::{
    BOOT_SCRIPTS, CONFIGURED_FILE, FINISHED_FILE, INSTANCE_FILE, Instance, ONCE_SCRIPTS,
    SCRIPTS_DIRECTORY, STARTED_FILE,
};
use keelson_sys::durable::{Access, Tree};
use nix::unistd::Pid;

use crate::children::spawn;
use crate::log;

const MAX_RECORD_BYTES: u64 = 1024 * 1024;
/// Scripts may be short of the network or of Docker after this long.
const LONGEST_WAIT: Duration = Duration::from_secs(60);
const MARK: Access = Access::root(0o600);

/// What the scripts of an instance rather have before they start.
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
    boot_id: String,
    state: State,
}

enum State {
    Idle,
    /// Waits for what the scripts want.
    Waiting {
        until: Instant,
    },
    Running {
        pid: Pid,
        script: PathBuf,
        batch: Batch,
    },
}

/// Scripts that run one after the other.
struct Batch {
    instance_id: String,
    scripts: VecDeque<PathBuf>,
    /// Each is marked as started by itself.
    marks_each: bool,
    /// The mark that all have run, relative to the configuration.
    finished: Option<PathBuf>,
}

impl Scripts {
    /// `config` is the configuration's directory on the state partition; `boot_id` is this boot's.
    pub(crate) fn new(config: &Path, wanted: Wanted, boot_id: &str) -> Result<Self> {
        let config = Tree::open(config).with_context(|| format!("open {}", config.display()))?;
        Ok(Scripts {
            config,
            wanted,
            boot_id: boot_id.trim().to_owned(),
            state: State::Idle,
        })
    }

    /// Looks whether there are scripts that were not started: once the configuration of this boot is applied.
    pub(crate) fn look(&mut self, now: Instant) {
        if !matches!(self.state, State::Idle) {
            return;
        }
        let looked = self.look_for_boot_scripts().and_then(|started| {
            if !started && self.has_pending()? {
                self.state = State::Waiting {
                    until: now + LONGEST_WAIT,
                };
            }
            Ok(())
        });
        if let Err(error) = looked {
            log::error(&format!("look for scripts: {error:#}"));
        }
        self.go_on(now);
    }

    /// Starts the scripts when what they want is there, or has not come for too long.
    pub(crate) fn go_on(&mut self, now: Instant) {
        let State::Waiting { until } = &self.state else {
            return;
        };
        let late = *until <= now;
        if !late && !self.wanted.is_there() {
            return;
        }
        if late {
            log::warning("the scripts start although the network or Docker is not up yet");
        }
        self.state = State::Idle;
        if let Err(error) = self.start_pending() {
            log::error(&format!("start the scripts: {error:#}"));
        }
    }

    /// When [`go_on`](Self::go_on) is due whatever happens.
    pub(crate) fn due(&self) -> Option<Instant> {
        match &self.state {
            State::Waiting { until } => Some(*until),
            _ => None,
        }
    }

    /// Takes note that the process `pid` has ended; gives whether it was a script.
    pub(crate) fn ended(&mut self, pid: Pid, how: &str, success: bool) -> bool {
        if !matches!(&self.state, State::Running { pid: own, .. } if *own == pid) {
            return false;
        }
        if let State::Running { script, batch, .. } =
            std::mem::replace(&mut self.state, State::Idle)
        {
            if success {
                log::info(&format!("{} has ended", name_of(&script)));
            } else {
                log::error(&format!("{} failed: {how}", name_of(&script)));
            }
            self.next(batch);
        }
        true
    }

    fn text(&self, path: &Path) -> Result<Option<String>> {
        let content = self
            .config
            .read(path, MAX_RECORD_BYTES)
            .with_context(|| format!("read {}", path.display()))?;
        Ok(content.map(|content| String::from_utf8_lossy(&content).trim().to_owned()))
    }

    fn instance(&self) -> Result<Option<Instance>> {
        let record = self
            .config
            .read(Path::new(INSTANCE_FILE), MAX_RECORD_BYTES)
            .context("read the instance's record")?;
        let record = record.map(|record| Instance::from_json(&record));
        record.transpose().context("read the instance's record")
    }

    /// Starts the scripts of this boot, unless they were; gives whether it did.
    fn look_for_boot_scripts(&mut self) -> Result<bool> {
        if self.text(Path::new(CONFIGURED_FILE))?.as_ref() != Some(&self.boot_id) {
            return Ok(false);
        }
        let directory = Path::new(SCRIPTS_DIRECTORY).join(BOOT_SCRIPTS);
        let started = directory.join(STARTED_FILE);
        let scripts = self.list(&directory)?;
        if scripts.is_empty() || self.text(&started)?.as_ref() == Some(&self.boot_id) {
            return Ok(false);
        }
        self.config
            .write(&started, self.boot_id.as_bytes(), MARK)
            .context("make the mark")?;
        let batch = Batch {
            instance_id: self
                .instance()?
                .map(|instance| instance.instance_id)
                .unwrap_or_default(),
            scripts,
            marks_each: false,
            finished: None,
        };
        self.next(batch);
        Ok(!matches!(self.state, State::Idle))
    }

    fn has_pending(&self) -> Result<bool> {
        if self.text(Path::new(CONFIGURED_FILE))?.as_ref() != Some(&self.boot_id) {
            return Ok(false);
        }
        Ok(!self.once()?.is_empty() || self.of_instance()?.is_some())
    }

    /// Scripts that run once on the machine and were not started yet.
    fn once(&self) -> Result<VecDeque<PathBuf>> {
        let directory = Path::new(SCRIPTS_DIRECTORY).join(ONCE_SCRIPTS);
        let mut scripts = self.list(&directory)?;
        scripts.retain(|script| !mark_of(script).exists());
        Ok(scripts)
    }

    /// The machine's instance and the directory of its scripts, when they were never started.
    fn of_instance(&self) -> Result<Option<(Instance, PathBuf)>> {
        let Some(instance) = self.instance()? else {
            return Ok(None);
        };
        let Some(name) = &instance.scripts else {
            return Ok(None);
        };
        let directory = Path::new(SCRIPTS_DIRECTORY).join(name);
        if self.text(&directory.join(STARTED_FILE))?.is_some() {
            if self.text(&directory.join(FINISHED_FILE))?.is_none() {
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

    /// The scripts in a directory, in order of name.
    fn list(&self, directory: &Path) -> Result<VecDeque<PathBuf>> {
        let path = self.config.path().join(directory);
        let entries = match fs::read_dir(&path) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Ok(VecDeque::new());
            }
            Err(error) => return Err(error).with_context(|| format!("list {}", path.display())),
        };
        let mut scripts = Vec::new();
        for entry in entries {
            let entry = entry.context("list the scripts")?;
            let is_hidden = entry.file_name().as_bytes().first() == Some(&b'.');
            let mode = entry.metadata().map(|file| file.permissions().mode());
            if !is_hidden && mode.is_ok_and(|mode| mode & 0o100 != 0) && entry.path().is_file() {
                scripts.push(entry.path());
            }
        }
        scripts.sort();
        Ok(scripts.into())
    }

    /// Starts what runs once on the machine, or else what runs once for its instance.
    fn start_pending(&mut self) -> Result<()> {
        let once = self.once()?;
        if !once.is_empty() {
            let instance = self.instance()?;
            self.next(Batch {
                instance_id: instance
                    .map(|instance| instance.instance_id)
                    .unwrap_or_default(),
                scripts: once,
                marks_each: true,
                finished: None,
            });
            return Ok(());
        }
        let Some((instance, directory)) = self.of_instance()? else {
            return Ok(());
        };
        let scripts = self.list(&directory)?;
        self.config
            .write(&directory.join(STARTED_FILE), b"", MARK)
            .context("make the mark")?;
        self.next(Batch {
            instance_id: instance.instance_id,
            scripts,
            marks_each: false,
            finished: Some(directory.join(FINISHED_FILE)),
        });
        Ok(())
    }

    /// Starts the next script that can be started; after the last one, makes the mark that all have run and looks for others.
    fn next(&mut self, mut batch: Batch) {
        while let Some(script) = batch.scripts.pop_front() {
            if batch.marks_each
                && let Err(error) = self.mark(&script)
            {
                // Looking again would find it again.
                log::error(&format!("mark {} as started: {error}", name_of(&script)));
                return;
            }
            match run(&script, &batch.instance_id) {
                Ok(pid) => {
                    log::info(&format!("runs {}", name_of(&script)));
                    self.state = State::Running { pid, script, batch };
                    return;
                }
                Err(error) => log::error(&format!("run {}: {error:#}", name_of(&script))),
            }
        }
        if let Some(mark) = &batch.finished
            && let Err(error) = self.config.write(mark, b"", MARK)
        {
            log::error(&format!("make the mark that the scripts have run: {error}"));
        }
        self.look(Instant::now());
    }

    /// Makes the mark that a script which runs once was started.
    fn mark(&self, script: &Path) -> std::io::Result<()> {
        let mark = mark_of(script);
        let path = mark.strip_prefix(self.config.path());
        let path = path.map_err(std::io::Error::other)?;
        self.config.write(path, b"", MARK)
    }
}

/// Beside a script that runs once: it was started.
fn mark_of(script: &Path) -> PathBuf {
    let mut name = std::ffi::OsString::from(".");
    name.push(script.file_name().unwrap_or_default());
    name.push(".started");
    script.with_file_name(name)
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
mod tests;
