//! The command line: the OCI runtime verbs and their options.
//!
//! - [`exec`]: what is special to `exec`

pub(crate) mod exec;

use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;

use anyhow::{Context as _, bail};
use lexopt::Arg::{Long, Short, Value};
use lexopt::ValueExt as _;
use rustix::process::Signal;

pub(crate) use exec::{ExecOptions, ExecProcess, User};

/// Where records of containers lie unless `--root` says otherwise.
const DEFAULT_ROOT: &str = "/run/keelson/runtime";

/// For messages about a command that is missing or unknown.
const COMMANDS: &str = "create, start, state, pause, resume, update, kill, delete, exec";

/// A parsed command line.
#[derive(Debug)]
pub(crate) struct Invocation {
    /// Directory of the containers' records.
    pub(crate) root: PathBuf,
    /// File that errors are appended to; without one they go to stderr.
    pub(crate) log: Option<PathBuf>,
    pub(crate) command: Command,
}

/// What to do.
#[derive(Debug)]
pub(crate) enum Command {
    Create(CreateOptions),
    Start { id: String },
    State { id: String },
    Pause { id: String },
    Resume { id: String },
    Update(UpdateOptions),
    Kill { id: String, signal: Signal },
    Delete { id: String, force: bool },
    Exec(ExecOptions),
    Version,
}

/// Options of `create`.
#[derive(Debug)]
pub(crate) struct CreateOptions {
    pub(crate) id: String,
    pub(crate) bundle: PathBuf,
    pub(crate) pid_file: Option<PathBuf>,
    pub(crate) console_socket: Option<PathBuf>,
}

/// Options of `update`.
#[derive(Debug)]
pub(crate) struct UpdateOptions {
    pub(crate) id: String,
    /// File with an OCI `linux.resources` object; `-` is standard input.
    pub(crate) resources: PathBuf,
}

impl fmt::Display for Command {
    /// The command and its container, as error messages start with.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Create(options) => write!(f, "create {}", options.id),
            Self::Start { id } => write!(f, "start {id}"),
            Self::State { id } => write!(f, "state {id}"),
            Self::Pause { id } => write!(f, "pause {id}"),
            Self::Resume { id } => write!(f, "resume {id}"),
            Self::Update(options) => write!(f, "update {}", options.id),
            Self::Kill { id, .. } => write!(f, "kill {id}"),
            Self::Delete { id, .. } => write!(f, "delete {id}"),
            Self::Exec(options) => write!(f, "exec {}", options.id),
            Self::Version => write!(f, "--version"),
        }
    }
}

/// Options of all commands together; each command then takes what it knows.
#[derive(Default)]
struct Given {
    values: Vec<(&'static str, OsString)>,
    flags: Vec<&'static str>,
    words: Vec<String>,
}

impl Invocation {
    /// Parses a command line whose first element is the program's name.
    ///
    /// # Errors
    /// Names the option, command or word that is unknown, missing or left over.
    pub(crate) fn parse<I>(arguments: I) -> anyhow::Result<Self>
    where
        I: IntoIterator,
        I::Item: Into<OsString>,
    {
        let mut parser = lexopt::Parser::from_iter(arguments);
        let mut root = PathBuf::from(DEFAULT_ROOT);
        let mut log = None;
        let verb = loop {
            match parser.next()? {
                Some(Long("root")) => root = parser.value()?.into(),
                Some(Long("log")) => log = Some(parser.value()?.into()),
                Some(Long("version") | Short('v')) => {
                    return Ok(Self {
                        root,
                        log,
                        command: Command::Version,
                    });
                }
                Some(Value(verb)) => break verb.string()?,
                Some(other) => return Err(other.unexpected().into()),
                None => bail!("no command: one of {COMMANDS}"),
            }
        };
        let command = parse_command(&verb, parser).with_context(|| verb.clone())?;
        Ok(Self { root, log, command })
    }
}

fn parse_command(verb: &str, mut parser: lexopt::Parser) -> anyhow::Result<Command> {
    let (with_value, flags): (&[&'static str], &[&'static str]) = match verb {
        "create" => (&["bundle", "pid-file", "console-socket"], &[]),
        "exec" => (
            &[
                "process",
                "pid-file",
                "console-socket",
                "cwd",
                "env",
                "user",
            ],
            &["detach", "tty"],
        ),
        "delete" => (&[], &["force"]),
        "update" => (&["resources"], &[]),
        "start" | "state" | "pause" | "resume" | "kill" => (&[], &[]),
        other => bail!("unknown command {other:?}: one of {COMMANDS}"),
    };
    let mut given = Given::default();
    while let Some(argument) = parser.next()? {
        match argument {
            Short(letter) if verb == "exec" => {
                let name = exec::short_option(letter)
                    .with_context(|| format!("unknown option -{letter}"))?;
                if flags.contains(&name) {
                    given.flags.push(name);
                } else {
                    given.values.push((name, parser.value()?));
                }
            }
            Long(name) => {
                if let Some(known) = with_value.iter().find(|known| **known == name) {
                    let value = parser.value()?;
                    given.values.push((known, value));
                } else if let Some(known) = flags.iter().find(|known| **known == name) {
                    given.flags.push(known);
                } else {
                    return Err(argument.unexpected().into());
                }
            }
            Value(word) => {
                given.words.push(word.string()?);
                if verb == "exec" {
                    for word in parser.raw_args()? {
                        given.words.push(word.string()?);
                    }
                }
            }
            Short(_) => return Err(argument.unexpected().into()),
        }
    }
    given.into_command(verb)
}

impl Given {
    fn into_command(mut self, verb: &str) -> anyhow::Result<Command> {
        if self.words.is_empty() {
            bail!("no container named");
        }
        let id = self.words.remove(0);
        check_id(&id)?;
        let command = match verb {
            "create" => Command::Create(CreateOptions {
                id,
                bundle: self.path("bundle").unwrap_or_else(|| PathBuf::from(".")),
                pid_file: self.path("pid-file"),
                console_socket: self.path("console-socket"),
            }),
            "exec" => Command::Exec(self.exec_options(id)?),
            "kill" => {
                let signal = if self.words.is_empty() {
                    "TERM".to_owned()
                } else {
                    self.words.remove(0)
                };
                Command::Kill {
                    id,
                    signal: parse_signal(&signal)?,
                }
            }
            "delete" => Command::Delete {
                id,
                force: self.flags.contains(&"force"),
            },
            "pause" => Command::Pause { id },
            "resume" => Command::Resume { id },
            "update" => Command::Update(UpdateOptions {
                id,
                resources: self
                    .path("resources")
                    .context("give --resources FILE, or - for standard input")?,
            }),
            "start" => Command::Start { id },
            _ => Command::State { id },
        };
        match self.words.first() {
            Some(word) => bail!("unexpected argument {word:?}"),
            None => Ok(command),
        }
    }

    fn path(&self, name: &str) -> Option<PathBuf> {
        self.all(name).last().map(PathBuf::from)
    }

    fn texts(&self, name: &str) -> anyhow::Result<Vec<String>> {
        self.all(name)
            .map(|value| value.clone().string().with_context(|| format!("--{name}")))
            .collect()
    }

    fn all(&self, name: &str) -> impl Iterator<Item = &OsString> {
        self.values
            .iter()
            .filter(move |(given, _)| *given == name)
            .map(|(_, value)| value)
    }
}

/// A container's name becomes a file name: letters, digits and `_+-.`, starting with a letter or digit.
fn check_id(id: &str) -> anyhow::Result<()> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_+-.".contains(c);
    if id.len() > 255
        || !id.starts_with(|c: char| c.is_ascii_alphanumeric())
        || !id.chars().all(plain)
    {
        bail!(
            "invalid container name {id:?}: letters, digits and _+-. starting with a letter or digit"
        );
    }
    Ok(())
}

/// A signal by number or by name, with or without `SIG`.
fn parse_signal(text: &str) -> anyhow::Result<Signal> {
    let known = [
        ("HUP", Signal::HUP),
        ("INT", Signal::INT),
        ("QUIT", Signal::QUIT),
        ("ABRT", Signal::ABORT),
        ("KILL", Signal::KILL),
        ("USR1", Signal::USR1),
        ("USR2", Signal::USR2),
        ("ALRM", Signal::ALARM),
        ("TERM", Signal::TERM),
        ("CONT", Signal::CONT),
        ("STOP", Signal::STOP),
        ("TSTP", Signal::TSTP),
        ("WINCH", Signal::WINCH),
        ("PWR", Signal::POWER),
    ];
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let by_name = known
        .iter()
        .find(|(known, _)| *known == name)
        .map(|(_, signal)| *signal);
    by_name
        .or_else(|| text.parse().ok().and_then(Signal::from_named_raw))
        .with_context(|| format!("unknown signal {text:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Invocation, String> {
        Invocation::parse(line.split_whitespace().map(str::to_owned))
            .map_err(|error| format!("{error:#}"))
    }

    #[test]
    fn create_takes_its_options_in_any_order() {
        let parsed = parse("r --root /r create web --pid-file /p --bundle /b").unwrap();
        assert_eq!(parsed.root, PathBuf::from("/r"));
        let Command::Create(options) = parsed.command else {
            panic!("not create")
        };
        assert_eq!(options.id, "web");
        assert_eq!(options.bundle, PathBuf::from("/b"));
        assert_eq!(options.pid_file, Some(PathBuf::from("/p")));
    }

    #[test]
    fn signals_are_known_by_name_and_number() {
        for text in ["TERM", "SIGTERM", "15", "sigterm"] {
            assert_eq!(parse_signal(text).unwrap(), Signal::TERM, "{text}");
        }
        assert!(parse_signal("99").is_err());
    }

    #[test]
    fn update_takes_a_file_or_standard_input() {
        for (line, file) in [
            ("r update --resources /f web", "/f"),
            ("r update web --resources -", "-"),
        ] {
            let Command::Update(options) = parse(line).unwrap().command else {
                panic!("not update")
            };
            assert_eq!(options.id, "web");
            assert_eq!(options.resources, PathBuf::from(file));
        }
    }

    #[test]
    fn pause_and_resume_take_a_container() {
        let command = |line| parse(line).unwrap().command;
        assert!(matches!(command("r pause web"), Command::Pause { id } if id == "web"));
        assert!(matches!(command("r resume web"), Command::Resume { id } if id == "web"));
    }

    #[test]
    fn what_is_unknown_is_named() {
        for (line, expected) in [
            ("r", "no command"),
            ("r launch web", "unknown command \"launch\""),
            ("r start --bundle /b web", "--bundle"),
            ("r --rooot /x state web", "--rooot"),
            ("r start", "no container named"),
            ("r start web now", "unexpected argument \"now\""),
            ("r start ../web", "invalid container name \"../web\""),
            ("r pause web now", "unexpected argument \"now\""),
            ("r update web", "--resources FILE"),
            ("r kill web SIGNONE", "unknown signal \"SIGNONE\""),
        ] {
            let error = parse(line).unwrap_err();
            assert!(error.contains(expected), "{line}: {error}");
        }
    }
}
