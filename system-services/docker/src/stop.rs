//! The orderly end: applications get their own stop signals and are running again after the next boot, if that is
//! their restart policy.
//!
//! With live restore dockerd would leave the applications behind, to be killed with this container. So it is turned
//! off first, through a reload of the configuration. dockerd then stops each container with its own signal, and
//! counts none of them as stopped by hand.

use crate::cgroup;
use crate::events;
use crate::settings;
use crate::supervisor::{Supervisor, complain};
use anyhow::{Context, Result};
use nix::sys::signal::Signal;
use std::time::{Duration, Instant};

/// For all of it: the engine's grace period for this container is ten seconds.
const LIMIT: Duration = Duration::from_secs(9);
/// Applications that have not ended by then are killed, so that dockerd can still write down that they ended.
const APPLICATIONS_LIMIT: Duration = Duration::from_secs(7);
const RELOAD_LIMIT: Duration = Duration::from_secs(1);
const CONTAINERD_LIMIT: Duration = Duration::from_millis(500);

/// Stops applications, dockerd and containerd, in this order.
///
/// # Errors
/// Signals cannot be sent or waited for. The applications end with this process in any case.
pub fn run(supervisor: &mut Supervisor) -> Result<()> {
    let start = Instant::now();
    println!("<6>stopping the applications and Docker");
    supervisor.stopping = true;
    if supervisor.ready
        && let Err(error) = turn_live_restore_off(supervisor)
    {
        complain(&format!(
            "applications are killed instead of stopped: {error:#}"
        ));
    }
    supervisor.dockerd.signal(Signal::SIGTERM)?;
    wait(supervisor, start + APPLICATIONS_LIMIT, dockerd_runs)?;
    if dockerd_runs(supervisor) {
        complain("some applications do not end: killed");
        if let Err(error) = cgroup::kill_applications(&supervisor.paths.cgroup) {
            complain(&format!("{error:#}"));
        }
        wait(supervisor, start + LIMIT, dockerd_runs)?;
    }
    if dockerd_runs(supervisor) {
        complain("dockerd does not end: killed");
        supervisor.dockerd.signal(Signal::SIGKILL)?;
    }
    supervisor.containerd.signal(Signal::SIGTERM)?;
    let limit = Instant::now() + CONTAINERD_LIMIT;
    wait(supervisor, limit, |supervisor| {
        dockerd_runs(supervisor) || supervisor.containerd.pid().is_some()
    })
}

fn dockerd_runs(supervisor: &Supervisor) -> bool {
    supervisor.dockerd.pid().is_some()
}

fn wait(
    supervisor: &mut Supervisor,
    limit: Instant,
    goes_on: impl Fn(&Supervisor) -> bool,
) -> Result<()> {
    while goes_on(supervisor) && Instant::now() < limit {
        // Told once more to stop: it is stopping.
        supervisor.turn(Some(limit))?;
    }
    Ok(())
}

fn turn_live_restore_off(supervisor: &mut Supervisor) -> Result<()> {
    let keys = &mut supervisor.settings.keys;
    let off = Some(serde_json::Value::Bool(false));
    if keys.insert("live-restore".to_owned(), false.into()) == off {
        return Ok(());
    }
    let file = supervisor.paths.settings();
    settings::write(keys, &file).with_context(|| format!("writing {}", file.display()))?;
    let dockerd = &supervisor.dockerd;
    events::wait_for_reload(&supervisor.paths.docker_socket, RELOAD_LIMIT, || {
        dockerd.signal(Signal::SIGHUP)
    })
}
