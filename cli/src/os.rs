//! `keelson os`: asks the upgrade service.

use std::io::{self, BufRead, BufReader, IsTerminal as _, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

use keelson_upgrade::protocol::{
    Answer, Happened, Offer, Prepared, Progress, Request, Reset, SOCKET, Status, Upgraded,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::arguments::{Os, Source};
use crate::failure::Failure;
use crate::output::{Output, size, table};
use crate::power::{self, Action};

const UPGRADE: &str = "the upgrade service";

/// Runs a command about the operating system.
pub(crate) fn run(command: Os, output: &mut Output<'_>) -> Result<(), Failure> {
    match command {
        Os::Status => {
            let (value, status): (_, Status) = ask(Request::Status {})?;
            show(output, &value, &render_status(&status))
        }
        Os::History => {
            let (value, history): (_, Vec<Happened>) = ask(Request::History {})?;
            show(output, &value, &render_history(&history))
        }
        Os::List(Source { source }) => {
            let (value, offers): (_, Vec<Offer>) = ask(Request::List { source })?;
            show(output, &value, &render_offers(&offers))
        }
        Os::Check(Source { source }) => {
            let (value, offer): (_, Offer) = ask(Request::Check { source })?;
            show(output, &value, &render_offer(&offer))
        }
        Os::Upgrade {
            source: Source { source },
            version,
            reboot,
            in_window,
            later: _,
            kexec,
        } => {
            let request = Request::Upgrade {
                source,
                version,
                in_window,
            };
            let (value, upgraded): (_, Upgraded) = ask(request)?;
            let next = match (reboot, in_window) {
                (true, _) => "starting it now",
                (_, true) => "it is started in the window (`keelson os status` says when)",
                _ => "`keelson reboot` starts it",
            };
            show(output, &value, &render_upgraded(&upgraded, next))?;
            finish(reboot, kexec)
        }
        Os::Rollback { reboot, kexec } => {
            let (value, upgraded): (_, Upgraded) = ask(Request::Rollback {})?;
            let text = format!(
                "Version {} is started next, not {}.\n",
                upgraded.to, upgraded.from
            );
            show(output, &value, &text)?;
            finish(reboot, kexec)
        }
        Os::Reset {
            yes,
            cancel,
            reboot,
        } => reset(yes, cancel, reboot, output),
    }
}

fn reset(yes: bool, cancel: bool, reboot: bool, output: &mut Output<'_>) -> Result<(), Failure> {
    if !yes && !cancel {
        let question = "All that is kept on this machine will be lost at its next start: users, containers, volumes, images, logs, \
             configuration. The operating system stays as it is.";
        confirm(question)?;
    }
    let (value, reset): (_, Reset) = ask(Request::Reset { cancel })?;
    let device = reset.device.display();
    let text = match (reset.pending, reboot) {
        (true, true) => format!("{device} is made anew, starting now.\n"),
        (true, false) => format!(
            "{device} is made anew at the next start: `keelson reboot`. `keelson os reset --cancel` takes that back.\n"
        ),
        (false, _) => format!("{device} stays as it is.\n"),
    };
    show(output, &value, &text)?;
    finish(reboot, false)
}

/// Has somebody say yes before something is lost; any other answer, or none, is no.
pub(crate) fn confirm(question: &str) -> Result<(), Failure> {
    let mut error = io::stderr();
    let asked = write!(error, "{question}\nGo on? Type yes: ").and_then(|()| error.flush());
    asked.map_err(Failure::Output)?;
    let mut answer = String::new();
    io::stdin().read_line(&mut answer).map_err(|error| {
        Failure::Failed(format!("read the answer: {error}; nothing was changed"))
    })?;
    match answer.trim() {
        "yes" => Ok(()),
        "" => Err(Failure::Failed(
            "nobody said yes, nothing was changed (--yes asks no question)".to_owned(),
        )),
        _ => Err(Failure::Failed("nothing was changed".to_owned())),
    }
}

fn finish(reboot: bool, kexec: bool) -> Result<(), Failure> {
    match (reboot, kexec) {
        (true, false) => power::run(Action::Reboot, &mut Output::nowhere()),
        (true, true) => power::run(Action::Kexec, &mut Output::nowhere()),
        (false, _) => Ok(()),
    }
}

/// Has what is started next laid out for a restart without the firmware.
pub(crate) fn prepare_kexec() -> Result<(), Failure> {
    ask(Request::Kexec {}).map(|(_, Prepared { .. })| ())
}

/// Shows an answer, to programs or to people.
pub(crate) fn show(output: &mut Output<'_>, value: &Value, text: &str) -> Result<(), Failure> {
    match output.json {
        true => output.value(value),
        false => output.text(text),
    }
}

/// Asks, and shows progress to whoever sits before a terminal.
fn ask<T: DeserializeOwned>(request: Request) -> Result<(Value, T), Failure> {
    let mut bar = Bar::default();
    let answer = ask_at(Path::new(SOCKET), &request, &mut |progress| {
        bar.show(&progress)
    });
    bar.clear();
    let value = answer?;
    let read = serde_json::from_value(value.clone()).map_err(|error| {
        Failure::Failed(format!("read the answer of the upgrade service: {error}"))
    })?;
    Ok((value, read))
}

fn ask_at(
    socket: &Path,
    request: &Request,
    progress: &mut dyn FnMut(Progress),
) -> Result<Value, Failure> {
    exchange(UPGRADE, socket, request, progress)
}

/// Sends one request to the service `name`, and hears its answers.
pub(crate) fn exchange(
    name: &'static str,
    socket: &Path,
    request: &impl Serialize,
    progress: &mut dyn FnMut(Progress),
) -> Result<Value, Failure> {
    let reach = |error| Failure::unreachable(name, error);
    let mut stream = UnixStream::connect(socket).map_err(reach)?;
    let mut line = serde_json::to_vec(request)
        .map_err(|error| Failure::Failed(format!("write a request: {error}")))?;
    line.push(b'\n');
    stream.write_all(&line).map_err(reach)?;
    for line in BufReader::new(stream).lines() {
        let answer = serde_json::from_str(&line.map_err(reach)?);
        match answer {
            Ok(Answer::Progress(step)) => progress(step),
            Ok(Answer::Done(value)) => return Ok(value),
            Ok(Answer::Error(error)) => return Err(Failure::Failed(error)),
            Err(error) => {
                let message = format!("read the answer of {name}: {error}");
                return Err(Failure::Failed(message));
            }
        }
    }
    Err(reach(io::ErrorKind::UnexpectedEof.into()))
}

/// One line on standard error that says how far it is, when that is a terminal.
#[derive(Default)]
pub(crate) struct Bar {
    shown: bool,
}

impl Bar {
    /// Shows how far it is.
    pub(crate) fn show(&mut self, progress: &Progress) {
        let mut error = io::stderr();
        if !error.is_terminal() {
            return;
        }
        let percent = match progress.total_bytes {
            0 => String::new(),
            total => format!(
                " {} %",
                u128::from(progress.done_bytes) * 100 / u128::from(total)
            ),
        };
        self.shown = true;
        // Whoever cannot see it misses nothing else.
        let _ = write!(error, "\r\x1b[K{}{percent}", progress.step);
    }

    /// Takes the line away.
    pub(crate) fn clear(&mut self) {
        if self.shown {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}

fn render_status(status: &Status) -> String {
    let mut text = format!("Keelson {}", status.version);
    if let Some(trial) = &status.trial {
        text.push_str(&format!(", on trial: {trial}"));
    }
    text.push('\n');
    match &status.source {
        Some(source) => text.push_str(&format!("releases: {source}\n")),
        None => text.push_str("releases: no source is configured (keelson.upgrade.source)\n"),
    }
    if !status.trusts {
        text.push_str("release keys: none is trusted, so this image cannot be upgraded\n");
    }
    text.push_str(&render_plan(status));
    if let Some(unable) = &status.unable {
        text.push_str(&format!("slots: {unable}\n"));
        return text;
    }
    let mark = |set: bool, word: &str| if set { word.to_owned() } else { String::new() };
    let rows: Vec<[String; 4]> = status
        .slots
        .iter()
        .map(|slot| {
            [
                slot.version.clone(),
                mark(slot.running, "running"),
                mark(slot.next, "next"),
                slot.standing.clone(),
            ]
        })
        .collect();
    text.push('\n');
    text.push_str(&table(["VERSION", "RUNS", "STARTS", "STANDING"], &rows));
    text
}

/// What is done without being asked.
fn render_plan(status: &Status) -> String {
    let mut text = match status.policy.as_str() {
        "download" => "by itself: fetches newer versions (download)\n".to_owned(),
        "auto" => "by itself: fetches newer versions and restarts for them (auto)\n".to_owned(),
        _ => "by itself: nothing (manual)\n".to_owned(),
    };
    for (what, said) in [
        ("last check", &status.last_check),
        ("next check", &status.next_check),
        ("next restart", &status.next_restart),
        ("oldest that is taken unless named", &status.floor),
    ] {
        if let Some(said) = said {
            text.push_str(&format!("{what}: {said}\n"));
        }
    }
    text
}

fn render_history(history: &[Happened]) -> String {
    let mut text = String::new();
    for happened in history {
        let Happened {
            time,
            what,
            from,
            to,
            ..
        } = happened;
        text.push_str(&format!("{time}  {what} from {from} to {to}\n"));
        if let Some(why) = &happened.why {
            text.push_str(&format!("    {why}\n"));
        }
        for line in &happened.log {
            let line: String = line
                .chars()
                .map(|letter| if letter.is_control() { ' ' } else { letter })
                .collect();
            text.push_str(&format!("    | {line}\n"));
        }
    }
    if text.is_empty() {
        text.push_str("Nothing has happened yet.\n");
    }
    text
}

fn render_offers(offers: &[Offer]) -> String {
    let rows: Vec<[String; 2]> = offers
        .iter()
        .map(|offer| {
            let newer = if offer.newer { "newer" } else { "" };
            [offer.version.clone(), newer.to_owned()]
        })
        .collect();
    table(["VERSION", ""], &rows)
}

fn render_offer(offer: &Offer) -> String {
    let created = offer.created.as_deref().unwrap_or("an unknown time");
    let of_size = offer
        .size_bytes
        .map(|bytes| format!(", {}", size(bytes)))
        .unwrap_or_default();
    let verdict = match offer.newer {
        true => "is newer than what runs: `keelson os upgrade` takes it",
        false => "is not newer than what runs",
    };
    format!(
        "Version {} of {created}{of_size} {verdict}.\n",
        offer.version
    )
}

fn render_upgraded(upgraded: &Upgraded, next: &str) -> String {
    format!(
        "Version {} is on the disk ({} of {} fetched); {next}.\n",
        upgraded.to,
        size(upgraded.fetched_bytes),
        size(upgraded.total_bytes)
    )
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn progress_comes_before_the_answer_and_an_error_is_passed_on() {
        let directory = tempfile::tempdir().unwrap();
        for (answers, steps, expected) in [
            (
                "{\"progress\":{\"step\":\"a\",\"done_bytes\":1,\"total_bytes\":2}}\n{\"done\":[1]}\n",
                1,
                Ok("[1]"),
            ),
            (
                "{\"error\":\"it is not signed\"}\n",
                0,
                Err("it is not signed"),
            ),
            ("nonsense\n", 0, Err("read the answer")),
            ("", 0, Err("does not answer")),
        ] {
            let path = directory.path().join("sock");
            let listener = UnixListener::bind(&path).unwrap();
            let server = std::thread::spawn(move || {
                let (stream, _) = listener.accept().unwrap();
                let mut line = String::new();
                BufReader::new(&stream).read_line(&mut line).unwrap();
                (&stream).write_all(answers.as_bytes()).unwrap();
                line
            });
            let mut seen = 0;
            let result = ask_at(&path, &Request::Rollback {}, &mut |_| seen += 1);
            assert_eq!(seen, steps);
            match expected {
                Ok(value) => assert_eq!(result.unwrap().to_string(), value),
                Err(part) => {
                    let error = result.unwrap_err().to_string();
                    assert!(error.contains(part), "{error}");
                }
            }
            assert_eq!(server.join().unwrap(), "{\"rollback\":{}}\n");
            std::fs::remove_file(path).unwrap();
        }
    }

    #[test]
    fn what_comes_by_itself_is_shown() {
        let mut status: Status = serde_json::from_str(
            r#"{"version":"1","slots":[],"trial":null,"source":"/mnt/x","trusts":true,"unable":null}"#,
        )
        .unwrap();
        assert_eq!(
            render_status(&status),
            "Keelson 1\nreleases: /mnt/x\nby itself: nothing (manual)\n\nVERSION  RUNS  STARTS  STANDING\n"
        );
        status.policy = "auto".into();
        status.next_check = Some("2026-01-01T00:00:00Z".into());
        status.next_restart = Some("2026-01-02T00:00:00Z".into());
        let text = render_status(&status);
        assert!(
            text.contains("(auto)\nnext check: 2026-01-01T00:00:00Z\nnext restart: 2026-01-02"),
            "{text}"
        );
    }

    #[test]
    fn the_history_says_from_what_to_what_when_and_why() {
        let happened = Happened {
            time: "2026-01-01T00:00:00Z".into(),
            what: "went back".into(),
            from: "2".into(),
            to: "1".into(),
            why: Some("service docker has failed: exit status 1".into()),
            log: vec!["docker: no\u{1b}[31m".into()],
        };
        assert_eq!(
            render_history(&[happened]),
            "2026-01-01T00:00:00Z  went back from 2 to 1\n    service docker has failed: exit status 1\n    | docker: no [31m\n"
        );
        assert_eq!(render_history(&[]), "Nothing has happened yet.\n");
    }
}
