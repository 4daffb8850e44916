//! `reboot`, `poweroff`, `halt`, also under their classic names.

use std::ffi::OsString;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use serde::Deserialize;

use crate::failure::Failure;
use crate::os;
use crate::output::Output;

const SOCKET: &str = "/run/keelson/power/power.sock";
const POWER: &str = "the power service";
const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);

/// How the machine is to go down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// And come up again.
    Reboot,
    /// And come up again without the firmware.
    Kexec,
    /// And be switched off.
    Poweroff,
    /// And stay on.
    Halt,
}

impl Action {
    fn as_str(self) -> &'static str {
        match self {
            Action::Reboot => "reboot",
            Action::Kexec => "kexec",
            Action::Poweroff => "poweroff",
            Action::Halt => "halt",
        }
    }
}

#[derive(Debug, Deserialize)]
struct Answer {
    error: Option<String>,
}

/// Asks the power service. The machine goes down in the background. Where it cannot come up without the firmware it comes up with it, and
/// standard error says why.
pub(crate) fn run(mut action: Action, output: &mut Output<'_>) -> Result<(), Failure> {
    if action == Action::Kexec
        && let Err(failure) = os::prepare_kexec()
    {
        eprintln!("keelson: no kexec: {failure}; restarting by the firmware");
        action = Action::Reboot;
    }
    ask(Path::new(SOCKET), action)?;
    if output.json {
        return output.value(&serde_json::json!({"action": action.as_str()}));
    }
    Ok(())
}

fn ask(socket: &Path, action: Action) -> Result<(), Failure> {
    let answer = (|| {
        let mut stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
        stream.write_all(format!("{{\"action\":\"{}\"}}\n", action.as_str()).as_bytes())?;
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line)?;
        Ok(line)
    })();
    let line = answer.map_err(|error| Failure::unreachable(POWER, error))?;
    // The machine may be gone before it has answered.
    if line.is_empty() {
        return Ok(());
    }
    let answer: Answer = serde_json::from_str(&line).map_err(|error| {
        Failure::Failed(format!("read the answer of the power service: {error}"))
    })?;
    answer
        .error
        .map_or(Ok(()), |error| Err(Failure::Failed(error)))
}

/// What is meant when the program is called by the classic name `program`; `None` when it is not.
pub(crate) fn classic(program: &str, arguments: &[OsString]) -> Option<Result<Action, Failure>> {
    let action = match program {
        "reboot" => Action::Reboot,
        "poweroff" | "shutdown" => Action::Poweroff,
        "halt" => Action::Halt,
        _ => return None,
    };
    Some(classic_action(program, action, arguments))
}

fn classic_action(
    program: &str,
    mut action: Action,
    arguments: &[OsString],
) -> Result<Action, Failure> {
    for argument in arguments {
        match argument.to_string_lossy().as_ref() {
            "-r" | "--reboot" if program == "shutdown" => action = Action::Reboot,
            "-h" | "-P" | "-p" | "--poweroff" if program != "reboot" => action = Action::Poweroff,
            "-H" | "--halt" => action = Action::Halt,
            "now" | "+0" if program == "shutdown" => {}
            other => {
                let usage = match program {
                    "shutdown" => "shutdown [-r | -P | -H] [now]",
                    "halt" => "halt [-p]",
                    program => program,
                };
                return Err(Failure::Usage(format!(
                    "{program}: `{other}` is not understood; usage: {usage}"
                )));
            }
        }
    }
    Ok(action)
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    fn parse(line: &str) -> Option<Result<Action, String>> {
        let mut words = line.split(' ');
        let program = words.next().unwrap();
        let arguments: Vec<OsString> = words.map(OsString::from).collect();
        classic(program, &arguments).map(|result| result.map_err(|failure| failure.to_string()))
    }

    #[test]
    fn classic_names_mean_what_they_always_did() {
        for (line, action) in [
            ("reboot", Action::Reboot),
            ("poweroff", Action::Poweroff),
            ("halt", Action::Halt),
            ("halt -p", Action::Poweroff),
            ("shutdown now", Action::Poweroff),
            ("shutdown -h now", Action::Poweroff),
            ("shutdown -r +0", Action::Reboot),
            ("shutdown -H", Action::Halt),
        ] {
            assert_eq!(parse(line), Some(Ok(action)), "{line}");
        }
        assert_eq!(parse("keelson"), None);
        let error = parse("shutdown -r 23:00").unwrap().unwrap_err();
        assert_eq!(
            error,
            "shutdown: `23:00` is not understood; usage: shutdown [-r | -P | -H] [now]"
        );
        assert!(parse("reboot now").unwrap().is_err());
    }

    #[test]
    fn the_power_services_refusal_is_passed_on() {
        let directory = tempfile::tempdir().unwrap();
        for (answer, expected) in [
            ("{\"ok\":true}\n", None),
            ("{\"error\":\"busy\"}\n", Some("busy")),
            ("", None),
            ("nonsense\n", Some("read the answer")),
        ] {
            let path = directory.path().join("sock");
            let listener = UnixListener::bind(&path).unwrap();
            let server = std::thread::spawn(move || {
                let (mut stream, _) = listener.accept().unwrap();
                let mut line = String::new();
                BufReader::new(stream.try_clone().unwrap())
                    .read_line(&mut line)
                    .unwrap();
                stream.write_all(answer.as_bytes()).unwrap();
                line
            });
            let result = ask(&path, Action::Reboot);
            match expected {
                None => result.unwrap(),
                Some(part) => assert!(result.unwrap_err().to_string().contains(part)),
            }
            assert_eq!(server.join().unwrap(), "{\"action\":\"reboot\"}\n");
            std::fs::remove_file(path).unwrap();
        }
    }
}
