//! The whole, as a loop over events.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result};
use keelson_config::instance::{
    APPEND_DIRECTORY, CONFIG_DIRECTORY, CONFIGURED_FILE, FILES_DIRECTORY, FQDN_FILE, SSH_DIRECTORY,
    USERS_DIRECTORY,
};
use keelson_sys::durable::Tree;
use keelson_sys::notify::notify;
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, gethostname};

use crate::accounts::Accounts;
use crate::children::Child;
use crate::events::{Event, Events};
use crate::scripts::{Scripts, Wanted};
use crate::{host_keys, layers, log, terminals};

const SSHD: &str = "/usr/sbin/sshd";
/// There is to be no sshd when this file is among its settings.
const SSHD_OFF: &str = "off";
/// Where sshd is told of its host keys.
const SSHD_RUN: &str = "/run/sshd";
const SSHD_HOST_KEYS: &str = "host-keys.conf";
/// sshd writes it when it listens.
const SSHD_PID_FILE: &str = "sshd.pid";
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
const CONSOLE: &str = "/dev/console";
const RUN: &str = "/run";
const NETWORK: &str = "/run/keelson/network";
const DOCKER: &str = "/run/keelson/docker";
const DOCKER_SOCKET: &str = "/run/docker.sock";
/// How long those who are logged in get to end when the console stops.
const STOP_TIMEOUT: Duration = Duration::from_secs(2);

/// The watched directories, in the order in which they are watched.
const WATCHED: [Watched; 6] = [
    Watched::Config,
    Watched::Users,
    Watched::Etc,
    Watched::Run,
    Watched::Network,
    Watched::Docker,
];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Watched {
    Config,
    Users,
    Etc,
    Run,
    Network,
    Docker,
}

impl Watched {
    fn path(self) -> PathBuf {
        match self {
            Watched::Config => CONFIG_DIRECTORY.into(),
            Watched::Users => Path::new(CONFIG_DIRECTORY).join(USERS_DIRECTORY),
            Watched::Etc => "/etc".into(),
            Watched::Run => RUN.into(),
            Watched::Network => NETWORK.into(),
            Watched::Docker => DOCKER.into(),
        }
    }
}

struct Console {
    root: Tree,
    accounts: Accounts,
    scripts: Scripts,
    /// sshd is the first one, when there is one.
    children: Vec<Child>,
    has_sshd: bool,
    sshd_settings: Settings,
    /// Host keys were made of which nobody was told.
    are_keys_new: bool,
    ready: bool,
}

/// Files of sshd's settings and keys below the configuration's, and when each was written.
type Settings = BTreeMap<PathBuf, SystemTime>;

fn sshd_settings() -> Settings {
    let directory = Path::new(CONFIG_DIRECTORY).join(SSH_DIRECTORY);
    let mut settings = Settings::new();
    for part in ["", "sshd_config.d"] {
        let Ok(entries) = fs::read_dir(directory.join(part)) else {
            continue;
        };
        for entry in entries.flatten() {
            if let Ok(file) = entry.metadata()
                && file.is_file()
            {
                let path = Path::new(part).join(entry.file_name());
                settings.insert(path, file.modified().unwrap_or(SystemTime::UNIX_EPOCH));
            }
        }
    }
    settings
}

/// Runs until the container is to stop.
pub(crate) fn run() -> Result<()> {
    let mut events = Events::new()?;
    prepare_run()?;
    for watched in WATCHED {
        let path = watched.path();
        // What nobody has made yet is made here, so that what appears in it is seen.
        fs::create_dir_all(&path).with_context(|| format!("make {}", path.display()))?;
        events.watch(&path)?;
    }
    let mut console = Console {
        root: Tree::open(Path::new("/")).context("open /")?,
        accounts: Accounts::open(&Watched::Users.path(), &Watched::Etc.path())?,
        scripts: Scripts::new(
            Path::new(CONFIG_DIRECTORY),
            Wanted {
                addresses: Path::new(NETWORK).join("addresses"),
                docker: Path::new(DOCKER).join("docker.sock"),
            },
            &fs::read_to_string(BOOT_ID).context("read the boot's id")?,
        )?,
        children: Vec::new(),
        has_sshd: false,
        sshd_settings: Settings::new(),
        are_keys_new: false,
        ready: false,
    };
    console.configure();
    console.start_children();
    console.scripts.look(Instant::now());
    loop {
        for event in events.wait(console.due())? {
            match event {
                Event::Child => console.reap(),
                Event::Stop => return console.stop(&mut events),
                Event::Hostname => console.name_host(),
                Event::Changed { directory, name } => {
                    if let Some(watched) = WATCHED.get(directory) {
                        console.changed(*watched, &name);
                    }
                }
            }
        }
        let now = Instant::now();
        console
            .children
            .iter_mut()
            .for_each(|child| child.start_if_due(now));
        console.scripts.go_on(now);
    }
}

/// Makes what sshd and login expect below `/run`, which is empty at each start.
fn prepare_run() -> Result<()> {
    fs::create_dir_all(SSHD_RUN).context("make /run/sshd")?;
    fs::set_permissions(SSHD_RUN, fs::Permissions::from_mode(0o755))
        .context("set the mode of /run/sshd")?;
    // Those who keep the list of who is logged in only add to it when it is there.
    if !Path::new("/run/utmp").exists() {
        fs::write("/run/utmp", "").context("make /run/utmp")?;
    }
    // Where docker(1) looks; the socket itself comes and goes with the user engine.
    if Path::new(DOCKER_SOCKET).symlink_metadata().is_err() {
        symlink(Path::new(DOCKER).join("docker.sock"), DOCKER_SOCKET)
            .with_context(|| format!("make {DOCKER_SOCKET}"))?;
    }
    Ok(())
}

impl Console {
    /// Gives the root what the state partition says.
    fn configure(&self) {
        let config = Path::new(CONFIG_DIRECTORY);
        self.accounts.take_over();
        layers::lay(
            &self.root,
            &config.join(FILES_DIRECTORY),
            &config.join(APPEND_DIRECTORY),
        );
        self.name_host();
    }

    fn name_host(&self) {
        let hostname = gethostname()
            .map(|name| name.to_string_lossy().into_owned())
            .unwrap_or_default();
        let fqdn = fs::read_to_string(Path::new(CONFIG_DIRECTORY).join(FQDN_FILE)).ok();
        let fqdn = fqdn
            .as_deref()
            .map(str::trim)
            .filter(|fqdn| fqdn.starts_with(&hostname));
        if let Err(error) = layers::name_host(&self.root, &hostname, fqdn) {
            log::error(&format!("{error:#}"));
        }
    }

    fn start_children(&mut self) {
        let now = Instant::now();
        let terminals = terminals::find(Path::new("/sys"), Path::new("/dev"));
        let gettys = terminals.iter().map(|terminal| {
            Child::start(
                &format!("getty on {}", terminal.name),
                terminals::getty(terminal),
                now,
            )
        });
        // The gettys first: making host keys takes a moment at the first boot.
        let gettys: Vec<Child> = gettys.collect();
        self.make_host_keys();
        if is_configured() {
            self.tell_host_keys();
        }
        self.sshd_settings = sshd_settings();
        let is_off = self.sshd_settings.contains_key(Path::new(SSHD_OFF));
        if !is_off {
            self.start_sshd();
        }
        self.children.extend(gettys);
        if is_off {
            self.be_ready();
        } else if !self.has_sshd {
            log::warning(&format!(
                "this console has no {SSHD}: people log in at the machine only, until it is installed and the console started again"
            ));
            self.be_ready();
        }
    }

    /// Starts sshd where there is one; it is the first of the children.
    fn start_sshd(&mut self) {
        self.has_sshd = Path::new(SSHD).exists();
        if self.has_sshd {
            name_host_keys();
            let sshd = [SSHD, "-D", "-e"].map(str::to_owned).to_vec();
            let child = Child::start("sshd", sshd, Instant::now());
            self.children.insert(0, child);
        }
    }

    /// When something is due that no event announces.
    fn due(&self) -> Option<Instant> {
        self.children
            .iter()
            .filter_map(Child::due)
            .chain(self.scripts.due())
            .min()
    }

    fn changed(&mut self, watched: Watched, name: &OsStr) {
        match watched {
            Watched::Config if name == CONFIGURED_FILE => {
                log::info("the machine's configuration is applied");
                self.configure();
                self.make_host_keys();
                self.tell_host_keys();
                self.reconfigure_sshd();
                self.scripts.look(Instant::now());
            }
            // Its temporary files have other names.
            Watched::Users if !name.as_encoded_bytes().starts_with(b".") => {
                self.accounts.take_over()
            }
            Watched::Etc => self.accounts.keep(name),
            Watched::Run if name == SSHD_PID_FILE => self.be_ready(),
            _ => {}
        }
    }

    /// Has sshd read its settings and keys again when they are others now, or ends it when there is to be none. Those who are
    /// logged in stay.
    fn reconfigure_sshd(&mut self) {
        let settings = sshd_settings();
        let is_off = settings.contains_key(Path::new(SSHD_OFF));
        if !self.has_sshd {
            if !is_off && self.sshd_settings.contains_key(Path::new(SSHD_OFF)) {
                self.sshd_settings = settings;
                self.start_sshd();
            }
            return;
        }
        if is_off {
            self.sshd_settings = settings;
            log::info("there is to be no sshd");
            self.children.remove(0).signal(Signal::SIGTERM);
            self.has_sshd = false;
            self.be_ready();
        } else if settings != self.sshd_settings {
            self.sshd_settings = settings;
            name_host_keys();
            if let Some(sshd) = self.children.first() {
                sshd.signal(Signal::SIGHUP);
            }
        }
    }

    fn make_host_keys(&mut self) {
        let directory = Path::new(CONFIG_DIRECTORY).join(SSH_DIRECTORY);
        if let Err(error) = fs::create_dir_all(&directory) {
            log::error(&format!("make {}: {error}", directory.display()));
        }
        let made = host_keys::ensure(&directory, Path::new("/run/keelson-console"));
        if made > 0 {
            log::info(&format!("made {made} host keys"));
            self.are_keys_new = true;
        }
    }

    /// Once for keys that were made, when it is known which of them are to be told.
    fn tell_host_keys(&mut self) {
        if std::mem::take(&mut self.are_keys_new) {
            let directory = Path::new(CONFIG_DIRECTORY).join(SSH_DIRECTORY);
            host_keys::tell(&directory, Path::new(CONSOLE));
        }
    }

    fn be_ready(&mut self) {
        if self.ready {
            return;
        }
        self.ready = true;
        if let Err(error) = notify("READY=1") {
            log::error(&format!("tell the engine: {error}"));
        }
    }

    fn reap(&mut self) {
        loop {
            let status = match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => return,
                Ok(status) => status,
                Err(Errno::EINTR) => continue,
                Err(error) => {
                    log::error(&format!("reap: {error}"));
                    return;
                }
            };
            let (pid, how, success) = match status {
                WaitStatus::Exited(pid, code) => (pid, format!("exit status {code}"), code == 0),
                WaitStatus::Signaled(pid, signal, _) => (pid, format!("killed by {signal}"), false),
                _ => continue,
            };
            let now = Instant::now();
            if self.scripts.ended(pid, &how, success) {
                continue;
            }
            let child = self
                .children
                .iter_mut()
                .position(|child| child.ended(pid, &how, now));
            // The gettys are there even when sshd will not start: the console is as ready as it gets.
            if child == Some(0) {
                self.be_ready();
            }
        }
    }

    /// Ends everything in the container, then itself.
    fn stop(&mut self, events: &mut Events) -> Result<()> {
        let deadline = Instant::now() + STOP_TIMEOUT;
        // Shells in a terminal take no notice of SIGTERM, and of SIGHUP only when they are not stopped.
        for signal in [Signal::SIGTERM, Signal::SIGHUP, Signal::SIGCONT] {
            match kill(Pid::from_raw(-1), signal) {
                Ok(()) | Err(Errno::ESRCH) => {}
                Err(error) => log::error(&format!("send {signal} to all: {error}")),
            }
        }
        loop {
            match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::StillAlive) if Instant::now() < deadline => {
                    events.wait(Some(deadline))?;
                }
                Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => return Ok(()),
                Ok(_) | Err(Errno::EINTR) => {}
                Err(error) => return Err(error).context("wait for the last ones"),
            }
        }
    }
}

/// Tells sshd which host keys it has, before it reads its settings.
fn name_host_keys() {
    let directory = Path::new(CONFIG_DIRECTORY).join(SSH_DIRECTORY);
    let file = (Path::new(SSHD_RUN), SSHD_HOST_KEYS);
    if let Err(error) = host_keys::name_for_sshd(&directory, file) {
        log::error(&format!("{error:#}"));
    }
}

/// Whether this boot's configuration is applied.
fn is_configured() -> bool {
    let boot = |path: &Path| fs::read_to_string(path).map(|id| id.trim().to_owned());
    match (
        boot(&Path::new(CONFIG_DIRECTORY).join(CONFIGURED_FILE)),
        boot(Path::new(BOOT_ID)),
    ) {
        (Ok(configured), Ok(current)) => configured == current,
        _ => false,
    }
}
