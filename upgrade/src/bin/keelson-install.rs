//! The installation service: started when somebody connects to its socket, and gone when nobody has asked anything for a while.

use std::os::fd::AsFd as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::ExitCode;
use std::thread;

use anyhow::{Context as _, Result, ensure};
use keelson_sys::notify::notify;
use keelson_sys::{block, inherited};
use keelson_upgrade::esp::Esp;
use keelson_upgrade::install::medium::{Medium, Paths};
use keelson_upgrade::install::protocol::{Installed, Request, Wish};
use keelson_upgrade::install::survey::{self, Machine, blkid};
use keelson_upgrade::install::{self, Extras, Tell, addon, state};
use keelson_upgrade::socket::exchange;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde_json::Value;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// The first descriptor that the engine hands over (sd_listen_fds(3)).
const FIRST_SOCKET: i32 = 3;
/// A configuration, and a little.
const REQUEST_MAX_BYTES: u64 = 2 << 20;
/// Whoever asks what there is asks for more soon after.
const IDLE_MS: u16 = 60_000;
/// Where temporary files are made.
const SCRATCH: &str = "/tmp";
/// The firmware's variable `SecureBoot`: four bytes of attributes, then 1 when it is on (UEFI 2.10, section 3.3).
const SECURE_BOOT: &str =
    "/run/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c";

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("<3>{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let mut signals = Signals::new([SIGTERM, SIGINT]).context("listen to signals")?;
    // A disk that is half written has no partition table.
    thread::spawn(move || {
        if signals.forever().next().is_some() {
            std::process::exit(0);
        }
    });
    let socket = inherited::duplicate(FIRST_SOCKET).context("there is no socket to listen at")?;
    let listener = UnixListener::from(socket);
    notify("READY=1")?;
    // One after the other: two installations at once help nobody.
    while is_called(&listener)? {
        let (client, _) = listener.accept().context("take a client")?;
        // The client has gone away: nobody is left to be told.
        let _ = serve(&client);
    }
    Ok(())
}

/// Whether somebody connects before it is time to end.
fn is_called(listener: &UnixListener) -> Result<bool> {
    loop {
        let mut ready = [PollFd::new(listener.as_fd(), PollFlags::POLLIN)];
        match poll(&mut ready, PollTimeout::from(IDLE_MS)) {
            Err(Errno::EINTR) => {}
            result => return Ok(result.context("wait for clients")? > 0),
        }
    }
}

fn serve(client: &UnixStream) -> std::io::Result<()> {
    exchange(client, REQUEST_MAX_BYTES, |request, tell| {
        let machine = machine();
        Ok(match request {
            Request::Disks {} => serde_json::to_value(machine.disks()?)?,
            Request::Disk { disk } => serde_json::to_value(machine.disk(&disk)?)?,
            Request::Install(wish) => install(&machine, &wish, tell)?,
        })
    })
}

fn machine() -> Machine {
    Machine {
        block: "/sys/class/block".into(),
        devices: "/dev".into(),
        swaps: "/proc/swaps".into(),
        probe: blkid,
        claim: survey::claim,
    }
}

fn paths() -> Paths {
    Paths {
        block: "/sys/class/block".into(),
        devices: "/dev".into(),
        command_line: "/proc/cmdline".into(),
        os_release: "/usr/share/keelson/os-release".into(),
        esp: "/run/esp".into(),
        live: "/run/keelson/medium".into(),
    }
}

fn install(machine: &Machine, wish: &Wish, tell: Tell<'_>) -> Result<Value> {
    let found = machine.disk(&wish.disk)?;
    if let Some(why) = &found.unfit {
        anyhow::bail!("{why}; nothing was changed");
    }
    ensure!(
        !(wish.spare_installed && found.is_installed()),
        "Keelson is on {} already: an installation that nobody is asked about leaves it alone; nothing was changed",
        found.disk.display()
    );
    let medium = Medium::running(&paths(), Esp::mount)?;
    if let Some(words) = &wish.append {
        addon::check(words)?;
        ensure!(
            !(medium.signed && is_secure_boot(Path::new(SECURE_BOOT))),
            "Secure Boot is on: kernel arguments that are appended are signed by nobody and would not be heeded; build an image that has them (images/disk.yml), and sign that"
        );
    }
    // From here on nobody else can use it.
    let disk =
        state::claim(&found.disk).with_context(|| format!("open {}", found.disk.display()))?;
    let size = block::size_bytes(&disk).context("measure the disk")?;
    let shown = found.disk.display();
    println!("<5>installation of {} on {shown} begins", medium.version);
    let extras = Extras {
        configuration: wish.configuration.as_deref(),
        append: wish.append.as_deref(),
    };
    install::install(&medium, &disk, size, &extras, Path::new(SCRATCH), tell)
        .with_context(|| format!("{shown} has no system on it now"))?;
    if let Err(error) = block::reread_partitions(&disk) {
        eprintln!("<4>the kernel does not see the new partitions of {shown} yet: {error}");
    }
    println!("<5>version {} is installed on {shown}", medium.version);
    Ok(serde_json::to_value(Installed {
        version: medium.version.clone(),
        disk: found.disk,
        root_bytes: medium.tree.image_bytes(),
    })?)
}

fn is_secure_boot(variable: &Path) -> bool {
    std::fs::read(variable).is_ok_and(|bytes| bytes.get(4) == Some(&1))
}
