//! What is done without being asked: the source is asked now and then, a newer version is put on the disk, and the machine restarts in its
//! window. One thread, which waits for the next of these or for a change of what they depend on.

use std::fs;
use std::sync::PoisonError;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result};
use keelson_sys::notify::notify;
use nix::time::{ClockId, clock_gettime};
use ring::rand::{SecureRandom as _, SystemRandom};

use super::{System, may_take};
use crate::journal::{Pending, Restart, timestamp};
use crate::policy::alarm::Alarm;
use crate::policy::choice::{Facts, leaves};
use crate::policy::share;
use crate::policy::window::restart_at;
use crate::release::find;
use crate::settings::{Policy, Settings};

/// The first question comes within this of the start.
const FIRST: Duration = Duration::from_secs(60 * 60);
/// After a failure it is asked again after this, then twice this, and so on.
const AGAIN: Duration = Duration::from_secs(60);
/// Once there is a network again, it is asked within this.
const SOON: Duration = Duration::from_secs(60);
/// A restart that was asked for and did not come is asked for again.
const RESTART_AGAIN: Duration = Duration::from_secs(10 * 60);

/// What comes by itself, for `keelson os status`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    /// The source is asked, in seconds of Unix time.
    pub(super) next_check: Option<i64>,
    /// What came of the last time, for a person.
    pub(super) last_check: Option<String>,
    /// The machine restarts, in seconds of Unix time.
    pub(super) next_restart: Option<i64>,
}

/// What the thread knows between two turns. Moments are those of the clock that counts from the start of the machine: nobody sets it.
#[derive(Debug, Default)]
pub(super) struct Watch {
    /// The settings by which the next check was set.
    settings: Settings,
    pub(super) next_check: Option<Duration>,
    failures: u32,
    /// There was no network when it was time.
    waits_for_network: bool,
    restarted: Option<Duration>,
}

impl System {
    /// Does so for ever.
    ///
    /// # Errors
    /// Times or changes cannot be waited for.
    pub fn follow_policy(&self) -> Result<()> {
        if self.slot()?.is_none() {
            // A live system has nothing to upgrade.
            return Ok(());
        }
        let settings = self
            .paths
            .settings
            .parent()
            .context("no directory of settings")?;
        let alarm = Alarm::new(&[settings, &self.paths.state, &self.paths.network])?;
        let mut watch = Watch::default();
        loop {
            let until = self.turn(&mut watch);
            alarm.wait(until)?;
        }
    }

    /// Does what is due; gives when something is next, in Unix time.
    pub(super) fn turn(&self, watch: &mut Watch) -> Option<Duration> {
        let settings = self.settings().unwrap_or_else(|error| {
            eprintln!("<4>nothing is done by itself: {error:#}");
            Settings::default()
        });
        watch.plan_check(&settings, self.is_away(&settings));
        if watch.next_check.is_some_and(|at| at <= since_start()) {
            self.check_is_due(watch, &settings);
        }
        let restart = self.restart_is_planned(&settings).unwrap_or_else(|error| {
            eprintln!("<4>no restart is planned: {error:#}");
            None
        });
        let now = now_s();
        let mut wake = restart;
        if restart.is_some_and(|at| at <= now) {
            wake = Some(now + seconds(self.restart(watch)));
        }
        let next_check = watch.next_check.map(|at| {
            let left = at.saturating_sub(since_start());
            // Not a moment too early: a second has parts.
            now.saturating_add(seconds(left)).saturating_add(1)
        });
        if let Ok(mut plan) = self.plan.lock() {
            plan.next_check = next_check;
            plan.next_restart = restart;
        }
        let until = [next_check, wake].into_iter().flatten().min()?;
        Some(Duration::from_secs(u64::try_from(until).unwrap_or(0)))
    }

    fn check_is_due(&self, watch: &mut Watch, settings: &Settings) {
        if self.is_away(settings) {
            watch.waits_for_network = true;
            watch.next_check = None;
            self.note_check("there is no network: the source is asked when there is".to_owned());
            return;
        }
        let wait = match self.take_by_itself(settings.policy) {
            Ok(words) => {
                watch.failures = 0;
                self.note_check(words);
                between(settings.interval() / 2, settings.interval() * 3 / 2)
            }
            Err(error) => {
                eprintln!("<4>{error:#}");
                self.note_check(format!("{error:#}"));
                let wait = AGAIN * 2_u32.pow(watch.failures.min(16));
                watch.failures += 1;
                // Not all machines at once when a registry is back.
                between(wait, wait * 2).min(settings.interval())
            }
        };
        watch.next_check = Some(since_start() + wait);
    }

    /// Takes what the source recommends, if this machine takes it by itself. Gives what came of it, for a person.
    pub(super) fn take_by_itself(&self, policy: Policy) -> Result<String> {
        let _changing = self.change()?;
        let (running, floor) = (self.version()?, self.floor()?);
        let mut source = self.source(None)?;
        let target = source.target().to_owned();
        let release = find(&mut source, &target, &self.keys()?)?;
        let journal = self.journal()?;
        let (history, pending) = (journal.history()?, journal.pending()?);
        let machine_id = self.machine_id();
        let facts = Facts {
            machine_id: machine_id.as_deref(),
            running: &running,
            history: &history,
            pending: pending.as_ref(),
        };
        if let Some(why) = leaves(&release.description, &facts) {
            return Ok(why);
        }
        may_take(&release.description, &running, &floor, None, &timestamp())?;
        let restart = (policy == Policy::Auto).then_some(Restart::Policy);
        let taken = self.take(&release, &mut source, &running, restart, &mut |_| Ok(()))?;
        Ok(format!("version {} is on the disk", taken.to))
    }

    /// When the machine restarts by itself, in seconds of Unix time.
    pub(super) fn restart_is_planned(&self, settings: &Settings) -> Result<Option<i64>> {
        let Some(pending) = self.journal()?.pending()? else {
            return Ok(None);
        };
        let wanted = match pending.restart {
            Some(Restart::Asked) => true,
            Some(Restart::Policy) => settings.policy == Policy::Auto,
            None => false,
        };
        // What an earlier boot has installed is what runs, or was left.
        if !wanted || pending.boot_id != self.boot_id()? || pending.to == self.version()? {
            return Ok(None);
        }
        Ok(Some(self.restart_of(&pending, settings)))
    }

    fn restart_of(&self, pending: &Pending, settings: &Settings) -> i64 {
        let id = self.machine_id().unwrap_or_default();
        let delay = share::delay(&id, &pending.to, settings.jitter());
        let installed = i64::try_from(pending.time_us / 1_000_000).unwrap_or(i64::MAX);
        restart_at(settings.window.as_ref(), installed, delay, now_s())
    }

    /// Restarts, unless that was asked for a moment ago; gives after which time to look again.
    fn restart(&self, watch: &mut Watch) -> Duration {
        let now = since_start();
        if let Some(before) = watch.restarted
            && now < before + RESTART_AGAIN
        {
            return before + RESTART_AGAIN - now;
        }
        watch.restarted = Some(now);
        println!("<5>the machine restarts by itself, to start the version that was installed");
        if let Err(error) = notify("X_KEELSON_POWER=reboot") {
            eprintln!("<3>the restart could not be asked for: {error}");
        }
        RESTART_AGAIN
    }

    /// Whether the source is on a network and there is none.
    fn is_away(&self, settings: &Settings) -> bool {
        let local = settings
            .source
            .as_ref()
            .is_some_and(|name| name.starts_with('/'));
        let addresses = fs::read_to_string(self.paths.network.join("addresses"));
        !local && addresses.is_ok_and(|text| text.trim().is_empty())
    }

    fn machine_id(&self) -> Option<String> {
        let text = fs::read_to_string(&self.paths.machine_id).ok()?;
        let id = text.trim();
        (!id.is_empty()).then(|| id.to_owned())
    }

    fn note_check(&self, words: String) {
        println!("<6>asked for releases: {words}");
        if let Ok(mut plan) = self.plan.lock() {
            plan.last_check = Some(format!("{}: {words}", timestamp()));
        }
    }

    pub(super) fn plan(&self) -> Plan {
        let plan = self.plan.lock().unwrap_or_else(PoisonError::into_inner);
        plan.clone()
    }
}

impl Watch {
    /// Sets the next check where there should be one and is none, or where it was set by other settings.
    fn plan_check(&mut self, settings: &Settings, away: bool) {
        if settings.policy == Policy::Manual || settings.source.is_none() {
            *self = Watch {
                restarted: self.restarted,
                ..Watch::default()
            };
            return;
        }
        let same = |old: &Settings| {
            (old.policy, old.interval(), &old.source)
                == (settings.policy, settings.interval(), &settings.source)
        };
        if !same(&self.settings) {
            self.waits_for_network = false;
            self.failures = 0;
            self.next_check = None;
        }
        self.settings = settings.clone();
        if self.waits_for_network && !away {
            self.waits_for_network = false;
            let wait = between(Duration::ZERO, SOON.min(settings.interval()));
            self.next_check = Some(since_start() + wait);
        }
        if self.next_check.is_none() && !self.waits_for_network {
            let wait = between(Duration::ZERO, FIRST.min(settings.interval()));
            self.next_check = Some(since_start() + wait);
        }
    }
}

/// A random time between two.
fn between(from: Duration, to: Duration) -> Duration {
    let mut bytes = [0; 8];
    // Without chance all machines would ask at once, which is no reason not to ask.
    let _ = SystemRandom::new().fill(&mut bytes);
    let range = u64::try_from(to.saturating_sub(from).as_millis()).unwrap_or(u64::MAX);
    let more = u64::from_le_bytes(bytes).checked_rem(range).unwrap_or(0);
    from + Duration::from_millis(more)
}

/// Since the machine was started, suspended or not.
fn since_start() -> Duration {
    clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(Duration::ZERO, Duration::from)
}

fn now_s() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, seconds)
}

fn seconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_secs()).unwrap_or(i64::MAX)
}

/// A time for people and programs; one that never comes is the last that can be written.
pub(super) fn rfc3339(seconds: i64) -> String {
    const LAST: u64 = 253_402_300_799;
    let seconds = u64::try_from(seconds).unwrap_or(0).min(LAST);
    humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_secs(seconds)).to_string()
}
