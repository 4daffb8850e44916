//! The upgrade service: answers what is asked of it, and judges each boot.

use std::env;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result};
use keelson_sys::notify::notify;
use keelson_upgrade::esp::Esp;
use keelson_upgrade::health::Engine;
use keelson_upgrade::protocol::SOCKET;
use keelson_upgrade::socket;
use keelson_upgrade::source::Reader;
use keelson_upgrade::system::{Paths, System};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// The group (a number) that may ask, beside root.
const GROUP_VARIABLE: &str = "KEELSON_UPGRADE_SOCKET_GROUP";

/// Services that fail right after their start have done so by then.
const STEADY: Duration = Duration::from_secs(10);

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
    // Whatever is under way can be ended at any time.
    thread::spawn(move || {
        if signals.forever().next().is_some() {
            std::process::exit(0);
        }
    });
    let group = match env::var(GROUP_VARIABLE) {
        Ok(text) => Some(
            text.parse()
                .with_context(|| format!("read {GROUP_VARIABLE}={text}"))?,
        ),
        Err(_) => None,
    };
    let system = Arc::new(System::new(paths(), reader(), engine(), Esp::mount));
    let listener =
        socket::bind(Path::new(SOCKET), group).with_context(|| format!("listen on {SOCKET}"))?;
    notify("READY=1")?;
    let judged = Arc::clone(&system);
    thread::spawn(move || {
        if let Err(error) = judged.judge() {
            eprintln!("<3>this boot cannot be judged: {error:#}");
        }
        // Nothing is taken before this version has shown that it is good.
        if let Err(error) = judged.follow_policy() {
            eprintln!("<3>nothing is done by itself until the next start: {error:#}");
        }
    });
    socket::run(&listener, &system)
}

fn paths() -> Paths {
    Paths {
        block: "/sys/class/block".into(),
        devices: "/dev".into(),
        command_line: "/proc/cmdline".into(),
        boot_id: "/proc/sys/kernel/random/boot_id".into(),
        os_release: "/usr/share/keelson/os-release".into(),
        keys: "/usr/share/keelson/release-keys".into(),
        state: "/state/upgrade".into(),
        settings: "/state/config/upgrade/settings.json".into(),
        esp: "/run/esp".into(),
        log: "/run/keelson/log/query.sock".into(),
        machine_id: "/state/config/machine-id".into(),
        network: "/run/keelson/network".into(),
        kexec: "/run/keelson/kexec".into(),
        lockdown: "/run/security/lockdown".into(),
    }
}

fn reader() -> Reader {
    let config = Path::new("/state/config");
    Reader {
        program: "/usr/bin/keelson-image".into(),
        registries: vec![
            config.join("registries.yml"),
            "/state/engine/registries.yml".into(),
        ],
        certificates: vec![
            "/usr/share/keelson/certificates/ca-certificates.crt".into(),
            config.join("ca-certificates"),
        ],
        proxy: config.join("proxy.env"),
        confined: true,
    }
}

fn engine() -> Engine {
    let run = PathBuf::from("/run/keelson");
    Engine {
        socket: run.join("system.sock"),
        signs: vec![run.join("engine"), run.join("boot")],
        steady: STEADY,
    }
}
