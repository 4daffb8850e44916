//! The verdict on a boot: a version that is on trial becomes good, or is given up and the machine goes back; and what became of a
//! trial that another boot has ended.

use std::collections::VecDeque;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use keelson_engine::log_query::{Query, Record};
use keelson_sys::notify::notify;

use super::System;
use crate::entry::{Entry, Reason};
use crate::esp::Esp;
use crate::health::Engine;
use crate::journal::{Journal, Pending, now_us, timestamp};
use crate::protocol::Happened;

/// So many lines of the log go into the history, and so many of services that are the reason.
const LOG_LINES: usize = 30;
const NAMED_LINES: usize = 20;
/// Of a version that was not on trial, what was logged so long before this boot.
const LAST_WORDS_US: u64 = 10 * 60 * 1_000_000;
const LOG_TIMEOUT: Duration = Duration::from_secs(10);
/// The version before a trial that nobody has begun: one that was given up runs again, because the other one is worse.
const UNKNOWN: &str = "unknown";
/// PID 1 does not wait any longer for word that this boot is good.
const HEALTHY: &str = "X_KEELSON_HEALTHY=1";

impl System {
    /// Judges this boot. Ends when that is done; a boot that is found wanting ends in a restart.
    ///
    /// # Errors
    /// The disk or the state partition cannot be read or written.
    pub fn judge(&self) -> Result<()> {
        let Some(trial) = self.trial_of_this_boot()? else {
            notify(HEALTHY)?;
            if let Err(error) = self.note_floor() {
                eprintln!("<4>that this version is good is not noted: {error:#}");
            }
            return Ok(());
        };
        let deadline = self.deadline();
        println!(
            "<5>version {} is on trial: all services have to be up within {} s",
            trial.to,
            deadline.as_secs()
        );
        self.set_trial(Some(&trial));
        let outcome = match self.verdict(&trial.down, deadline)? {
            Ok(()) => self.bless(&trial),
            Err(why) => self.give_up(trial, why),
        };
        self.set_trial(None);
        outcome
    }

    /// Whether all services are up, and the user's checks pass.
    fn verdict(&self, down: &[String], deadline: Duration) -> Result<Result<(), String>> {
        let end = Instant::now() + deadline;
        let checks = self.settings().unwrap_or_default().checks;
        if checks.is_empty() {
            return self.engine.verdict(down, deadline);
        }
        println!("<5>{} checks have to pass, too", checks.len());
        let checker = self.checker.clone();
        let checking = thread::spawn(move || checker.all_pass(&checks, end));
        let up = self.engine.verdict(down, deadline)?;
        if let Err(why) = &up
            && Instant::now() < end
        {
            // It will not come any more, whatever the checks say.
            return Ok(Err(why.clone()));
        }
        let passed = checking.join();
        let passed = passed.unwrap_or_else(|_| Err("the checks could not be made".to_owned()));
        let passed = passed.map_err(|why| format!("not within {} s: {why}", deadline.as_secs()));
        match (up, passed) {
            (Ok(()), Ok(())) => {}
            (Err(why), Err(more)) => return Ok(Err(format!("{why}; {more}"))),
            (Err(why), Ok(())) | (Ok(()), Err(why)) => return Ok(Err(why)),
        }
        // The checks may have taken longer, and services may have failed meanwhile.
        let again = Engine {
            steady: Duration::ZERO,
            ..self.engine.clone()
        };
        again.verdict(down, end.saturating_duration_since(Instant::now()))
    }

    /// A version that runs and is not on trial is good.
    fn note_floor(&self) -> Result<()> {
        if self.slot()?.is_none() {
            return Ok(());
        }
        self.journal()?.raise_floor(&self.version()?)
    }

    fn set_trial(&self, trial: Option<&Pending>) {
        if let Ok(mut held) = self.trial.lock() {
            *held = trial.map(|trial| format!("version {} has to show that it is good", trial.to));
        }
    }

    /// The trial that this boot is; what came of one that is over goes into the history.
    pub(super) fn trial_of_this_boot(&self) -> Result<Option<Pending>> {
        if self.slot()?.is_none() || self.is_live()? {
            // A live system: there is nothing to go back to.
            return Ok(None);
        }
        let journal = self.journal()?;
        let (running, boot_id, disk) = (self.version()?, self.boot_id()?, self.disk()?);
        let esp = self.esp(&disk, false)?;
        if let Err(error) = esp.reconcile() {
            eprintln!(
                "<4>the names of boot entries and what GRUB is told differ, and stay so: {error:#}"
            );
        }
        let entries = self.entries(&esp, &disk)?;
        let counted = entries
            .running
            .as_ref()
            .is_some_and(|entry| entry.tries.is_some());
        let pending = self.hear_reason(&esp, &journal, &running)?;
        match pending {
            Some(pending) if pending.to == running => {
                if !counted {
                    // It was found good, and the power failed before that was noted.
                    self.note_upgrade(&journal, &pending);
                }
                return Ok(counted.then_some(pending));
            }
            // Installed in this boot: this service was started again.
            Some(pending) if pending.boot_id == boot_id => return Ok(None),
            Some(pending) => {
                let entry = esp
                    .entries()?
                    .into_iter()
                    .find(|entry| entry.version == pending.to);
                let tries = entry.and_then(|entry| entry.tries);
                // Somebody chose this one in the boot loader's menu, and the other is still taken next.
                if tries.is_some_and(|tries| tries.left > 0) {
                    return Ok(None);
                }
                // Without an entry the power failed before it had one.
                if let Some(tries) = tries {
                    self.went_back(&journal, &pending, &running, tries.done)?;
                }
                journal.set_pending(None)?;
                if let Some(entry) = entries.running.filter(|_| pending.from == running) {
                    // It was good before, and had only stepped back.
                    esp.rename(&entry, &Entry::good(&running))?;
                    return Ok(None);
                }
            }
            None => {}
        }
        // Nothing is known of how it came here: the state was lost, or another program wrote it.
        Ok(counted.then(|| Pending {
            from: UNKNOWN.to_owned(),
            to: running,
            boot_id,
            time_us: now_us(),
            down: Vec::new(),
            why: None,
            log: Vec::new(),
            restart: None,
        }))
    }

    /// What PID 1 has to say of a version that it gave up goes into the history, or to what is pending of that version, which is given.
    fn hear_reason(&self, esp: &Esp, journal: &Journal, running: &str) -> Result<Option<Pending>> {
        let pending = journal.pending()?;
        // That it cannot be read is no reason not to judge this boot.
        let reason = esp.reason().unwrap_or_else(|error| {
            eprintln!("<4>{error:#}");
            None
        });
        let Some(Reason { version, why }) = reason else {
            return Ok(pending);
        };
        let pending = match pending {
            Some(pending) if pending.to == version && version != running => {
                let pending = Pending {
                    why: Some(why),
                    ..pending
                };
                journal.set_pending(Some(&pending))?;
                Some(pending)
            }
            other => {
                if version == running {
                    println!("<5>version {version} runs, though it was given up before: {why}");
                } else {
                    let log = self.log_between(
                        boot_time_us().saturating_sub(LAST_WORDS_US),
                        boot_time_us(),
                        "",
                    );
                    note_return(journal, &version, running, why, log.unwrap_or_default())?;
                }
                other
            }
        };
        esp.remove_reason()?;
        Ok(pending)
    }

    fn went_back(
        &self,
        journal: &Journal,
        pending: &Pending,
        running: &str,
        tries: u32,
    ) -> Result<()> {
        let unheard = match tries {
            0 => "it was marked so before it was ever started".to_owned(),
            _ => format!(
                "it was started {tries} times and never got as far as to be judged: a kernel panic, a hang, a power cut, or a root that could not be mounted"
            ),
        };
        let log = match pending.log.is_empty() {
            false => pending.log.clone(),
            true => self
                .log_between(pending.time_us, boot_time_us(), "")
                .unwrap_or_default(),
        };
        let why = pending.why.clone().unwrap_or(unheard);
        note_return(journal, &pending.to, running, why, log)
    }

    /// The version that runs is good: the boot loader counts its tries no longer.
    pub(super) fn bless(&self, trial: &Pending) -> Result<()> {
        let (disk, journal) = (self.disk()?, self.journal()?);
        let esp = self.esp(&disk, false)?;
        if !self.is_still(&journal, trial)? {
            return Ok(());
        }
        let entry = self.entries(&esp, &disk)?.running;
        let entry = entry.context("the boot entry of this version is gone")?;
        if esp
            .reason()?
            .is_some_and(|reason| reason.version == trial.to)
        {
            // PID 1 has given it up meanwhile: its slot decays.
            return Ok(());
        }
        esp.rename(&entry, &Entry::good(&trial.to))?;
        println!("<5>version {} is good", trial.to);
        notify(HEALTHY)?;
        if trial.from != UNKNOWN {
            self.note_upgrade(&journal, trial);
        }
        Ok(())
    }

    /// Notes that a version is good. That it cannot be noted makes it no worse.
    fn note_upgrade(&self, journal: &Journal, trial: &Pending) {
        let noted = journal.add(Happened {
            time: timestamp(),
            what: "upgraded".to_owned(),
            from: trial.from.clone(),
            to: trial.to.clone(),
            why: None,
            log: Vec::new(),
        });
        let noted = noted.and_then(|()| journal.raise_floor(&trial.to));
        if let Err(error) = noted.and_then(|()| journal.set_pending(None)) {
            eprintln!(
                "<4>the history lacks the upgrade to {}: {error:#}",
                trial.to
            );
        }
    }

    /// Whether nobody has rolled back meanwhile.
    fn is_still(&self, journal: &Journal, trial: &Pending) -> Result<bool> {
        let pending = journal.pending()?;
        Ok(trial.from == UNKNOWN || pending.as_ref() == Some(trial))
    }

    /// The version that runs is not: the next boot takes the other one, and says why.
    pub(super) fn give_up(&self, mut trial: Pending, why: String) -> Result<()> {
        let (disk, journal) = (self.disk()?, self.journal()?);
        let esp = self.esp(&disk, false)?;
        if !self.is_still(&journal, &trial)? {
            return Ok(());
        }
        eprintln!("<3>version {} is given up: {why}", trial.to);
        let entries = self.entries(&esp, &disk)?;
        let bad = Entry::bad(&trial.to);
        let other = entries
            .other
            .filter(|other| other.cmp_as_loader(&bad).is_lt());
        let (Some(entry), Some(_)) = (entries.running, other) else {
            eprintln!("<3>there is no other version to go back to: this one goes on as it is");
            notify(HEALTHY)?;
            return Ok(());
        };
        trial.log = self
            .log_between(boot_time_us(), u64::MAX, &why)
            .unwrap_or_default();
        trial.why = Some(why);
        if let Err(error) = journal.set_pending(Some(&trial)) {
            eprintln!("<4>the history will lack the reason: {error:#}");
        }
        esp.rename(&entry, &bad)?;
        drop(esp);
        notify("X_KEELSON_POWER=reboot")?;
        Ok(())
    }

    /// The last lines of the log between two moments, in microseconds of Unix time; those of services that `why` names reach further back.
    fn log_between(&self, from_us: u64, until_us: u64, why: &str) -> Result<Vec<String>> {
        let mut stream = UnixStream::connect(&self.paths.log).context("ask the log service")?;
        stream.set_read_timeout(Some(LOG_TIMEOUT))?;
        let query = Query {
            service: None,
            tail: None,
            follow: false,
            since_us: Some(from_us),
        };
        let mut request = serde_json::to_vec(&query)?;
        request.push(b'\n');
        stream.write_all(&request)?;
        let named: Vec<&str> = why.split_ascii_whitespace().collect();
        let mut lines = Lines::default();
        for line in BufReader::new(stream).lines() {
            let Ok(record) = serde_json::from_str::<Record>(&line?) else {
                continue;
            };
            if record.time_us < until_us {
                let is_named = named.contains(&record.service.as_str());
                lines.add(format!("{}: {}", record.service, record.message), is_named);
            }
        }
        Ok(lines.into_vec())
    }
}

/// The machine has gone back by itself.
fn note_return(
    journal: &Journal,
    from: &str,
    to: &str,
    why: String,
    log: Vec<String>,
) -> Result<()> {
    eprintln!("<3>version {from} was given up, {to} runs again: {why}");
    journal.add(Happened {
        time: timestamp(),
        what: "went back".to_owned(),
        from: from.to_owned(),
        to: to.to_owned(),
        why: Some(why),
        log,
    })
}

/// The last lines of all, and of some that count more.
#[derive(Debug, Default)]
struct Lines {
    count: u64,
    all: VecDeque<(u64, String)>,
    named: VecDeque<(u64, String)>,
}

impl Lines {
    fn add(&mut self, line: String, is_named: bool) {
        let (lines, most) = match is_named {
            true => (&mut self.named, NAMED_LINES),
            false => (&mut self.all, LOG_LINES),
        };
        if lines.len() == most {
            lines.pop_front();
        }
        lines.push_back((self.count, line));
        self.count += 1;
    }

    /// In the order in which they came.
    fn into_vec(self) -> Vec<String> {
        let mut lines: Vec<(u64, String)> = self.all.into_iter().chain(self.named).collect();
        lines.sort_by_key(|(number, _)| *number);
        lines.into_iter().map(|(_, line)| line).collect()
    }
}

/// When this boot began, in microseconds of Unix time.
fn boot_time_us() -> u64 {
    let up = nix::time::clock_gettime(nix::time::ClockId::CLOCK_BOOTTIME).map(Duration::from);
    let up = up.map_or(0, |up| u64::try_from(up.as_micros()).unwrap_or(0));
    now_us().saturating_sub(up)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_service_at_fault_are_kept_when_others_say_more() {
        let mut lines = Lines::default();
        lines.add("leak: water".to_owned(), true);
        (0..100).for_each(|number| lines.add(format!("kernel: {number}"), false));
        lines.add("leak: more".to_owned(), true);
        let lines = lines.into_vec();
        assert_eq!(lines.len(), LOG_LINES + 2);
        assert_eq!(
            (lines[0].as_str(), lines[1].as_str()),
            ("leak: water", "kernel: 70")
        );
        assert_eq!(lines[LOG_LINES + 1], "leak: more");
    }
}
