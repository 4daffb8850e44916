//! Options of `exec`.

use std::path::PathBuf;

use anyhow::{Context as _, bail};

use super::Given;

/// Options of `exec`.
#[derive(Debug)]
pub(crate) struct ExecOptions {
    pub(crate) id: String,
    pub(crate) process: ExecProcess,
    pub(crate) pid_file: Option<PathBuf>,
    pub(crate) console_socket: Option<PathBuf>,
    /// Return once the process runs, instead of waiting for its end.
    pub(crate) detach: bool,
}

/// The process that `exec` adds.
#[derive(Debug)]
pub(crate) enum ExecProcess {
    /// File with an OCI `process` object.
    File(PathBuf),
    /// The container's own process with another command.
    Command(ExecCommand),
}

/// A command, and what is different from the container's own process.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct ExecCommand {
    pub(crate) arguments: Vec<String>,
    pub(crate) tty: bool,
    pub(crate) cwd: Option<String>,
    /// `NAME=VALUE` each.
    pub(crate) env: Vec<String>,
    pub(crate) user: Option<User>,
}

/// Numbers of a user and, when given, of a group.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct User {
    pub(crate) uid: u32,
    pub(crate) gid: Option<u32>,
}

/// Options that change what the container's own process would be.
const COMMAND_OPTIONS: &[&str] = &["tty", "cwd", "env", "user"];

impl Given {
    pub(super) fn exec_options(&mut self, id: String) -> anyhow::Result<ExecOptions> {
        Ok(ExecOptions {
            id,
            process: self.exec_process()?,
            pid_file: self.path("pid-file"),
            console_socket: self.path("console-socket"),
            detach: self.flags.contains(&"detach"),
        })
    }

    fn exec_process(&mut self) -> anyhow::Result<ExecProcess> {
        let arguments = std::mem::take(&mut self.words);
        let file = self.path("process");
        match (file, arguments.is_empty()) {
            (Some(file), true) => {
                let given = self.values.iter().map(|(name, _)| name);
                let mut given = given.chain(&self.flags);
                if let Some(name) = given.find(|name| COMMAND_OPTIONS.contains(name)) {
                    bail!("--{name} goes with a command: the file of --process says it itself");
                }
                Ok(ExecProcess::File(file))
            }
            (None, false) => Ok(ExecProcess::Command(ExecCommand {
                arguments,
                tty: self.flags.contains(&"tty"),
                cwd: self.texts("cwd")?.pop(),
                env: self.environment()?,
                user: self
                    .texts("user")?
                    .pop()
                    .map(|text| parse_user(&text))
                    .transpose()?,
            })),
            _ => bail!("give either --process FILE or a command"),
        }
    }

    fn environment(&self) -> anyhow::Result<Vec<String>> {
        let entries = self.texts("env")?;
        match entries
            .iter()
            .find(|entry| entry.find('=').unwrap_or(0) == 0)
        {
            Some(entry) => bail!("--env {entry:?} is not NAME=VALUE"),
            None => Ok(entries),
        }
    }
}

/// The short options that runc and crun have for `exec`.
pub(super) fn short_option(letter: char) -> Option<&'static str> {
    match letter {
        'd' => Some("detach"),
        't' => Some("tty"),
        'e' => Some("env"),
        'u' => Some("user"),
        'p' => Some("process"),
        _ => None,
    }
}

/// `UID` or `UID:GID`.
fn parse_user(text: &str) -> anyhow::Result<User> {
    let number = |text: &str| {
        text.parse()
            .with_context(|| format!("--user {text:?}: give numbers, UID or UID:GID"))
    };
    match text.split_once(':') {
        Some((uid, gid)) => Ok(User {
            uid: number(uid)?,
            gid: Some(number(gid)?),
        }),
        None => Ok(User {
            uid: number(text)?,
            gid: None,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arguments::{Command, Invocation};

    fn parse(line: &str) -> Result<ExecOptions, String> {
        let words = line.split_whitespace().map(str::to_owned);
        match Invocation::parse(words).map(|invocation| invocation.command) {
            Ok(Command::Exec(options)) => Ok(options),
            Ok(other) => Err(other.to_string()),
            Err(error) => Err(format!("{error:#}")),
        }
    }

    fn command(options: ExecOptions) -> ExecCommand {
        match options.process {
            ExecProcess::Command(command) => command,
            ExecProcess::File(file) => panic!("{} is not a command", file.display()),
        }
    }

    #[test]
    fn everything_after_the_container_is_passed_on() {
        let options = parse("r exec --pid-file /p web ls --force -l").unwrap();
        assert_eq!(command(options).arguments, ["ls", "--force", "-l"]);
    }

    #[test]
    fn a_file_comes_without_a_command() {
        let options = parse("r exec --detach -p /p --console-socket /s --pid-file /n web").unwrap();
        assert!(options.detach);
        assert!(matches!(options.process, ExecProcess::File(file) if file.as_os_str() == "/p"));
        assert_eq!(options.console_socket, Some(PathBuf::from("/s")));
        assert_eq!(options.pid_file, Some(PathBuf::from("/n")));
    }

    #[test]
    fn a_command_comes_with_what_is_different_from_the_containers_process() {
        let options = parse("r exec -dt --cwd /tmp -e A=1 --env B=2=3 -u 12:34 web ls").unwrap();
        assert!(options.detach);
        let expected = ExecCommand {
            arguments: vec!["ls".to_owned()],
            tty: true,
            cwd: Some("/tmp".to_owned()),
            env: vec!["A=1".to_owned(), "B=2=3".to_owned()],
            user: Some(User {
                uid: 12,
                gid: Some(34),
            }),
        };
        assert_eq!(command(options), expected);
    }

    #[test]
    fn what_does_not_fit_is_named() {
        for (line, expected) in [
            ("r exec web", "either --process FILE or a command"),
            (
                "r exec --process /p web ls",
                "either --process FILE or a command",
            ),
            ("r exec -t --process /p web", "--tty goes with a command"),
            (
                "r exec --user 1 --process /p web",
                "--user goes with a command",
            ),
            ("r exec -x web ls", "unknown option -x"),
            ("r exec --env =x web ls", "\"=x\" is not NAME=VALUE"),
            ("r exec --env COLOUR web ls", "\"COLOUR\" is not NAME=VALUE"),
            ("r exec --user root web ls", "\"root\": give numbers"),
            ("r exec --user 1:staff web ls", "\"staff\": give numbers"),
        ] {
            let error = parse(line).unwrap_err();
            assert!(error.contains(expected), "{line}: {error}");
        }
    }
}
