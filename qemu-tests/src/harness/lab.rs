//! What every test is given: where its files go, the images, and ready-made machines.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};

use crate::harness::accel::Accel;
use crate::harness::artifacts::Artifacts;
use crate::harness::machine::{Boot, FIRMWARE_VARIABLES, Machine, Network};
use crate::harness::observer::Observer;
use crate::harness::snapshot::Snapshot;
use crate::harness::ssh::{Key, Ssh};
use crate::harness::status::Status;
use crate::harness::vm::Vm;
use crate::harness::{disk, docker, seed};
use crate::runner::report::remove_disks;

/// How long a boot to sshd may take on a slow, busy machine.
pub const BOOT_DEADLINE: Duration = Duration::from_secs(120);
/// How long all services may take to settle after that.
pub const SETTLE_DEADLINE: Duration = Duration::from_secs(120);

/// What the kernel says when a CPU's timer has stopped, and when it finds none because the host was too busy to run it.
const LOST_TIMERS: [&str; 2] = [
    "rcu_preempt kthread timer wakeup didn't happen",
    "8254 timer not connected to IO-APIC",
];

/// What every test is given.
pub struct Lab {
    /// What runs the guests.
    pub accel: Accel,
    /// The image as it is shipped.
    pub shipped: Artifacts,
    /// More rounds where a test has rounds.
    pub soak: bool,
    /// Seed of whatever is random.
    pub random_seed: u64,
    /// The key that the seeds carry.
    pub key: Key,
    out: PathBuf,
    dir: PathBuf,
    // Ends the names of folders that tests of one lab share.
    lane: &'static str,
    // Or why there is none: the second try would only take the same time again.
    booted: Option<Result<Snapshot, String>>,
    observed: Option<Result<Snapshot, String>>,
    usual_boot: Option<Duration>,
    enrolled: Option<Result<PathBuf, String>>,
}

impl Lab {
    /// A lab for the images below `out`.
    ///
    /// # Errors
    /// When there is no image.
    pub fn new(out: &Path, soak: bool, random_seed: u64) -> Result<Self> {
        let shipped = Artifacts::open(out)?;
        let dir = out.join("tests");
        fs::create_dir_all(&dir).with_context(|| format!("making {}", dir.display()))?;
        let accel = Accel::probe(&shipped.kernel(), &dir);
        Ok(Lab {
            accel,
            shipped,
            soak,
            random_seed,
            key: Key::generate()?,
            out: out.to_owned(),
            dir,
            lane: "",
            booted: None,
            observed: None,
            usual_boot: None,
            enrolled: None,
        })
    }

    /// Another one for the same images, for tests that run beside those of this one. `lane` is a word for its folders.
    ///
    /// # Errors
    /// When there is no key for it.
    pub fn another(&self, lane: &'static str) -> Result<Self> {
        Ok(Lab {
            accel: self.accel,
            shipped: self.shipped.clone(),
            soak: self.soak,
            random_seed: self.random_seed,
            key: Key::generate()?,
            out: self.out.clone(),
            dir: self.out.join("tests"),
            lane,
            booted: None,
            observed: None,
            usual_boot: None,
            enrolled: None,
        })
    }

    /// Removes the disks that its tests shared.
    pub fn remove_shared(&self) {
        for name in ["_booted", "_observed", "_enrolled"] {
            remove_disks(&self.shared(name));
        }
    }

    fn shared(&self, name: &str) -> PathBuf {
        self.out.join("tests").join(format!("{name}{}", self.lane))
    }

    /// Makes an empty folder for the test `name` and points [`Lab::dir`] to it.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn begin(&mut self, name: &str) -> Result<()> {
        self.dir = empty_dir(&self.out.join("tests").join(name))?;
        Ok(())
    }

    /// Where everything that is built goes.
    pub fn out(&self) -> &Path {
        &self.out
    }

    /// The running test's folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// A new overlay over an image's disk.
    ///
    /// # Errors
    /// When qemu-img fails.
    pub fn disk(&self, artifacts: &Artifacts) -> Result<PathBuf> {
        disk::overlay(&artifacts.disk(), "raw", &self.dir.join("disk.qcow2"))
    }

    /// The usual seed, as a FAT disk.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn seed(&self) -> Result<PathBuf> {
        seed::fat(&self.dir, &seed::usual(&self.key.public()?))
    }

    /// The shipped image on a new disk with the usual seed, not started yet.
    ///
    /// # Errors
    /// When its parts cannot be made.
    pub fn machine(&self) -> Result<Machine> {
        Ok(Machine::direct(&self.shipped)?
            .with_disk(&self.disk(&self.shipped)?)
            .with_raw(&self.seed()?))
    }

    /// Starts `machine` with its logs in the test's folder.
    ///
    /// # Errors
    /// As [`Vm::start`].
    pub fn start(&self, machine: &Machine) -> Result<Vm> {
        Vm::start(machine, self.accel, &self.dir)
    }

    /// Starts `machine` and waits for its SSH.
    ///
    /// # Errors
    /// As [`Vm::start`] and [`Ssh::connect`].
    pub fn boot(&self, machine: &Machine) -> Result<(Vm, Ssh)> {
        self.boot_until(machine, &self.dir, |vm| self.ssh(vm))
    }

    /// Starts `machine` and waits until its console has said `word`.
    ///
    /// # Errors
    /// As [`Vm::start`], when the kernel panics, or at [`BOOT_DEADLINE`].
    pub fn boot_to(&self, machine: &Machine, word: &str) -> Result<Vm> {
        let (vm, ()) = self.boot_until(machine, &self.dir, |vm| {
            let ends = [word, "Kernel panic"];
            match vm.serial.wait_for_any(&ends, BOOT_DEADLINE)? {
                0 => Ok(()),
                _ => Err(anyhow!("the kernel panics:\n{}", vm.serial.tail())),
            }
        })?;
        Ok(vm)
    }

    /// Starts `machine` with its logs in `dir` and waits as `wait` does.
    ///
    /// Once in some hundred boots QEMU's translator loses the timer of a CPU (seen with 10.0, in the kernel's first second):
    /// nothing wakes up on that CPU any more, as the kernel's RCU says itself; on a machine with far more to do than it can, it also
    /// starves the timer that the kernel tries out first of all. That is no word about Keelson: said, and tried once more.
    fn boot_until<T>(
        &self,
        machine: &Machine,
        dir: &Path,
        wait: impl Fn(&Vm) -> Result<T>,
    ) -> Result<(Vm, T)> {
        let vm = Vm::start(machine, self.accel, dir)?;
        match wait(&vm) {
            Ok(there) => return Ok((vm, there)),
            Err(_) if self.accel == Accel::Tcg && lost_its_timer(&vm) => {}
            Err(error) => return Err(error),
        }
        println!("    the emulator lost the timer of a CPU; the machine is started again");
        vm.cut_power();
        let vm = Vm::start(machine, self.accel, dir)?;
        let there = wait(&vm)?;
        Ok((vm, there))
    }

    /// Waits for SSH of a machine that boots.
    ///
    /// # Errors
    /// As [`Ssh::connect`].
    pub fn ssh(&self, vm: &Vm) -> Result<Ssh> {
        Ssh::connect(vm, &self.key, BOOT_DEADLINE)
    }

    /// The shipped image, booted, every service settled, with [`docker::IMAGE`] imported. Booted once for all tests.
    ///
    /// # Errors
    /// When it does not boot.
    pub fn booted(&mut self) -> Result<(Vm, Ssh)> {
        if self.booted.is_none() {
            let shipped = Ok(self.shipped.clone());
            let tried = self.boot_to_snapshot(shipped, false, "_booted");
            self.booted = Some(tried.map_err(|error| format!("{error:#}")));
        }
        let snapshot = usable(self.booted.as_ref())?;
        let vm = snapshot.resume(self.accel, &self.dir)?;
        let ssh = self.ssh(&vm)?;
        Ok((vm, ssh))
    }

    /// As [`Lab::booted`], but the test image, with its observer.
    ///
    /// # Errors
    /// When it does not boot.
    pub fn observed(&mut self) -> Result<(Vm, Ssh, Observer)> {
        if self.observed.is_none() {
            let artifacts = Artifacts::open(&self.out.join("test"));
            let tried = self.boot_to_snapshot(artifacts, true, "_observed");
            self.observed = Some(tried.map_err(|error| format!("{error:#}")));
        }
        let snapshot = usable(self.observed.as_ref())?;
        let mut vm = snapshot.resume(self.accel, &self.dir)?;
        let ssh = self.ssh(&vm)?;
        let observer = Observer::attach(&mut vm)?;
        Ok((vm, ssh, observer))
    }

    /// How long the usual machine takes to its login prompt, in this run.
    ///
    /// # Errors
    /// When it does not boot.
    pub fn usual_boot(&mut self) -> Result<Duration> {
        if let Some(time) = self.usual_boot {
            return Ok(time);
        }
        let booted = self.booted();
        // It counts up to the prompt, whatever went wrong after that.
        self.usual_boot.ok_or_else(|| match booted {
            Ok(_) => anyhow!("the usual boot was not measured"),
            Err(error) => error,
        })
    }

    /// The image signed for Secure Boot.
    ///
    /// # Errors
    /// When it has not been built.
    pub fn signed(&self) -> Result<Artifacts> {
        Artifacts::open(&self.out.join("signed"))
    }

    /// The folder of the keys that it is signed with, which are for tests only.
    pub fn signing_keys(&self) -> PathBuf {
        self.out.join("test-keys")
    }

    /// Firmware variables in which those keys are enrolled, by the first boot of the signed image. Made once for all tests; each
    /// machine needs a copy of its own.
    ///
    /// # Errors
    /// When the keys are not enrolled.
    pub fn enrolled(&mut self) -> Result<PathBuf> {
        if self.enrolled.is_none() {
            let tried = self.enrol();
            self.enrolled = Some(tried.map_err(|error| format!("{error:#}")));
        }
        match &self.enrolled {
            Some(Ok(variables)) => Ok(variables.clone()),
            Some(Err(why)) => Err(anyhow!("the keys were not enrolled: {why}")),
            None => Err(anyhow!("there are no firmware variables")),
        }
    }

    fn enrol(&self) -> Result<PathBuf> {
        let dir = empty_dir(&self.shared("_enrolled"))?;
        let variables = dir.join("variables");
        fs::copy(FIRMWARE_VARIABLES, &variables).context("copying the firmware's variables")?;
        let overlay = disk::overlay(&self.signed()?.disk(), "raw", &dir.join("disk.qcow2"))?;
        let boot = Boot::SecureUefi {
            variables: variables.clone(),
        };
        let mut machine = Machine::new(boot).with_disk(&overlay);
        machine.network = Network::None;
        machine.reboots = false;
        let mut vm = Vm::start(&machine, self.accel, &dir)?;
        vm.serial
            .wait_for("Enrolling secure boot keys", BOOT_DEADLINE)?;
        vm.serial.wait_for("successfully enrolled", BOOT_DEADLINE)?;
        vm.wait_off(BOOT_DEADLINE)?;
        Ok(variables)
    }

    /// What the console of the observed machine said during its boot.
    ///
    /// # Errors
    /// When its log cannot be read.
    pub fn observed_boot_console(&mut self) -> Result<String> {
        if self.observed.is_none() {
            drop(self.observed()?);
        }
        let log = self.shared("_observed").join("serial.log");
        fs::read_to_string(&log).with_context(|| format!("reading {}", log.display()))
    }

    fn boot_to_snapshot(
        &mut self,
        artifacts: Result<Artifacts>,
        observer: bool,
        name: &str,
    ) -> Result<Snapshot> {
        let artifacts = &artifacts?;
        let dir = &empty_dir(&self.shared(name))?;
        let overlay = disk::overlay(&artifacts.disk(), "raw", &dir.join("disk.qcow2"))?;
        let seed = seed::fat(dir, &seed::usual(&self.key.public()?))?;
        let page = write_page(dir)?;
        let mut machine = Machine::direct(artifacts)?
            .with_disk(&overlay)
            .with_raw(&seed);
        machine.network = Network::User {
            forwards: vec![22, 8080],
            page: Some(page),
        };
        machine.observer = observer;
        let (vm, started) = self.boot_until(&machine, dir, |vm| {
            vm.serial.wait_for("login:", BOOT_DEADLINE)?;
            Ok(vm.age())
        })?;
        if !observer {
            self.usual_boot = Some(started);
        }
        let ssh = self.ssh(&vm)?;
        Status::wait_settled(&ssh, SETTLE_DEADLINE)?;
        docker::import(&ssh)?;
        // On its way to the disk before the machine is frozen.
        ssh.check("sync")?;
        drop(ssh);
        Snapshot::take(vm, machine, dir)
    }
}

fn lost_its_timer(vm: &Vm) -> bool {
    let text = vm.serial.text();
    LOST_TIMERS.iter().any(|words| text.contains(words))
}

fn usable(snapshot: Option<&Result<Snapshot, String>>) -> Result<&Snapshot> {
    match snapshot {
        Some(Ok(snapshot)) => Ok(snapshot),
        Some(Err(why)) => Err(anyhow!(
            "the machine that many tests share is not usable: {}",
            why.lines().next().unwrap_or_default()
        )),
        None => Err(anyhow!("there is no machine that tests share")),
    }
}

/// Text of the page that the guest finds at [`crate::harness::machine::PAGE_URL`].
pub const PAGE_TEXT: &str = "hello from the harbour";

/// Writes that page as a whole HTTP answer.
///
/// # Errors
/// When it cannot be written.
pub fn write_page(dir: &Path) -> Result<PathBuf> {
    let path = dir.join("page.http");
    let length = PAGE_TEXT.len();
    let answer = format!(
        "HTTP/1.0 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{PAGE_TEXT}"
    );
    fs::write(&path, answer).with_context(|| format!("writing {}", path.display()))?;
    path.canonicalize().context("finding the page")
}

fn empty_dir(dir: &Path) -> Result<PathBuf> {
    if dir.exists() {
        fs::remove_dir_all(dir).with_context(|| format!("emptying {}", dir.display()))?;
    }
    fs::create_dir_all(dir).with_context(|| format!("making {}", dir.display()))?;
    dir.canonicalize()
        .with_context(|| format!("finding {}", dir.display()))
}
