//! The command line.

use anyhow::{Context, bail};
use lexopt::prelude::*;
use std::ffi::OsString;
use std::path::PathBuf;

/// What `--help` prints.
const USAGE: &str = "\
keelson-image: fetches, unpacks and packs images for the system engine

Usage: keelson-image [--store DIR] [--registries FILE].. [--certificates FILE|DIR].. COMMAND

  pull REFERENCE [--platform OS/ARCH[/VARIANT]] [--auth]   --auth: Docker's AuthConfig, JSON, on standard input
  load                            an archive of images on standard input
  save REFERENCE...               an archive of images on standard output
  import [--reference REFERENCE] [--change LINE]... [--message TEXT]    a root file system on standard input
  commit --root DIR PARENT [--reference REFERENCE] [--change LINE]... [--message TEXT] [--author TEXT]
                                  DIR is what was written; the container's configuration, JSON, on standard input
  login REGISTRY                  Docker's AuthConfig, JSON, on standard input
  tag SOURCE TARGET
  remove REFERENCE [--force]
  prune [--all]
  copy-in --root DIR PATH [--no-overwrite-dir-non-dir]     a tar archive on standard input, into PATH below DIR
  copy-out --root DIR PATH        a tar archive of it on standard output
  stat --root DIR PATH
  export --root DIR               a tar archive of all of it
  exchange                        questions to services that speak HTTP, JSON lines, on standard input
  read SOURCE [--user UID]        documents and content of SOURCE (HOST/REPOSITORY, URL or directory of an image layout); questions,
                                  JSON lines, on standard input; as user UID once it knows whom to ask

What is printed are JSON lines as Docker's API has them.";

/// A command line.
#[derive(Debug)]
pub(crate) struct Request {
    /// The directory of images.
    pub(crate) store: PathBuf,
    /// What is said of registries; of two files the later one counts.
    pub(crate) registries: Vec<PathBuf>,
    /// Certificates of authorities, PEM.
    pub(crate) certificates: Vec<PathBuf>,
    pub(crate) command: Command,
}

/// What is to be done.
#[derive(Debug)]
pub(crate) enum Command {
    Pull(Pull),
    Load,
    Save {
        names: Vec<String>,
    },
    Import(Import),
    Commit(Snapshot),
    Login {
        registry: String,
    },
    Tag {
        source: String,
        target: String,
    },
    Remove {
        name: String,
        force: bool,
    },
    Prune {
        all: bool,
    },
    CopyIn(CopyIn),
    CopyOut {
        root: PathBuf,
        path: PathBuf,
    },
    Stat {
        root: PathBuf,
        path: PathBuf,
    },
    Export {
        root: PathBuf,
    },
    /// Questions over HTTP.
    Exchange,
    Read(Read),
    /// Not for people: a layer on standard input is unpacked into a directory that the process is shut into.
    Unpack {
        directory: PathBuf,
    },
}

#[derive(Debug)]
pub(crate) struct Pull {
    pub(crate) reference: String,
    pub(crate) platform: Option<String>,
    /// Credentials come on standard input.
    pub(crate) auth: bool,
}

#[derive(Debug)]
pub(crate) struct Read {
    /// A repository or an image layout.
    pub(crate) source: String,
    /// Who asks the network.
    pub(crate) user: Option<u32>,
}

#[derive(Debug, Default)]
pub(crate) struct Import {
    pub(crate) reference: Option<String>,
    pub(crate) changes: Vec<String>,
    pub(crate) message: String,
}

#[derive(Debug)]
pub(crate) struct Snapshot {
    /// What the container has written.
    pub(crate) root: PathBuf,
    /// The image that it was made from.
    pub(crate) parent: String,
    pub(crate) reference: Option<String>,
    pub(crate) changes: Vec<String>,
    pub(crate) message: Option<String>,
    pub(crate) author: Option<String>,
}

#[derive(Debug)]
pub(crate) struct CopyIn {
    pub(crate) root: PathBuf,
    pub(crate) path: PathBuf,
    /// A directory does not take the place of something else, nor the other way round.
    pub(crate) keep_kinds: bool,
}

/// Options and words of all commands; each takes what it knows.
#[derive(Debug, Default)]
struct Given {
    words: Vec<String>,
    root: Option<PathBuf>,
    reference: Option<String>,
    platform: Option<String>,
    message: Option<String>,
    author: Option<String>,
    user: Option<u32>,
    changes: Vec<String>,
    flags: Vec<String>,
}

impl Request {
    /// Reads a command line without the program's name.
    ///
    /// # Errors
    /// Names what is unknown, missing or left over.
    pub(crate) fn parse(arguments: impl IntoIterator<Item = OsString>) -> anyhow::Result<Self> {
        let mut parser = lexopt::Parser::from_args(arguments);
        let mut store = PathBuf::from("/state/engine/images");
        let (mut registries, mut certificates) = (Vec::new(), Vec::new());
        let verb = loop {
            match parser.next()? {
                Some(Long("store")) => store = parser.value()?.into(),
                Some(Long("registries")) => registries.push(parser.value()?.into()),
                Some(Long("certificates")) => certificates.push(parser.value()?.into()),
                Some(Long("help")) => bail!("{USAGE}"),
                Some(Value(verb)) => break verb.string()?,
                Some(other) => return Err(other.unexpected().into()),
                None => bail!("no command (see --help)"),
            }
        };
        let mut given = Given::default();
        while let Some(argument) = parser.next()? {
            match argument {
                Long("root") => given.root = Some(parser.value()?.into()),
                Long("reference") => given.reference = Some(parser.value()?.string()?),
                Long("platform") => given.platform = Some(parser.value()?.string()?),
                Long("message") => given.message = Some(parser.value()?.string()?),
                Long("author") => given.author = Some(parser.value()?.string()?),
                Long("user") => given.user = Some(parser.value()?.parse()?),
                Long("change") => given.changes.push(parser.value()?.string()?),
                Long(flag @ ("auth" | "force" | "all" | "no-overwrite-dir-non-dir")) => {
                    given.flags.push(flag.to_owned());
                }
                Value(word) => given.words.push(word.string()?),
                other => return Err(other.unexpected().into()),
            }
        }
        let command = given.command(&verb).with_context(|| verb.clone())?;
        given.nothing_is_left().with_context(|| verb)?;
        Ok(Self {
            store,
            registries,
            certificates,
            command,
        })
    }
}

impl Given {
    fn command(&mut self, verb: &str) -> anyhow::Result<Command> {
        Ok(match verb {
            "pull" => Command::Pull(Pull {
                reference: self.word("REFERENCE")?,
                platform: self.platform.take(),
                auth: self.flag("auth"),
            }),
            "load" => Command::Load,
            "save" => Command::Save {
                names: std::mem::take(&mut self.words),
            },
            "import" => Command::Import(Import {
                reference: self.reference.take(),
                changes: std::mem::take(&mut self.changes),
                message: self.message.take().unwrap_or_default(),
            }),
            "commit" => Command::Commit(Snapshot {
                root: self.root()?,
                parent: self.word("PARENT")?,
                reference: self.reference.take(),
                changes: std::mem::take(&mut self.changes),
                message: self.message.take(),
                author: self.author.take(),
            }),
            "login" => Command::Login {
                registry: self.word("REGISTRY")?,
            },
            "tag" => Command::Tag {
                source: self.word("SOURCE")?,
                target: self.word("TARGET")?,
            },
            "remove" => Command::Remove {
                name: self.word("REFERENCE")?,
                force: self.flag("force"),
            },
            "prune" => Command::Prune {
                all: self.flag("all"),
            },
            "copy-in" => Command::CopyIn(CopyIn {
                root: self.root()?,
                path: self.word("PATH")?.into(),
                keep_kinds: self.flag("no-overwrite-dir-non-dir"),
            }),
            "copy-out" => Command::CopyOut {
                root: self.root()?,
                path: self.word("PATH")?.into(),
            },
            "stat" => Command::Stat {
                root: self.root()?,
                path: self.word("PATH")?.into(),
            },
            "export" => Command::Export { root: self.root()? },
            "exchange" => Command::Exchange,
            "read" => Command::Read(Read {
                source: self.word("SOURCE")?,
                user: self.user.take(),
            }),
            "unpack" => Command::Unpack {
                directory: self.word("DIR")?.into(),
            },
            _ => bail!("unknown command (see --help)"),
        })
    }

    fn word(&mut self, what: &str) -> anyhow::Result<String> {
        if self.words.is_empty() {
            bail!("{what} is missing");
        }
        Ok(self.words.remove(0))
    }

    fn root(&mut self) -> anyhow::Result<PathBuf> {
        self.root.take().context("--root DIR is missing")
    }

    fn flag(&mut self, name: &str) -> bool {
        let before = self.flags.len();
        self.flags.retain(|flag| flag != name);
        self.flags.len() < before
    }

    fn nothing_is_left(&self) -> anyhow::Result<()> {
        if let Some(word) = self.words.first() {
            bail!("unexpected argument `{word}`");
        }
        let options = [
            ("--root", self.root.is_some()),
            ("--reference", self.reference.is_some()),
            ("--platform", self.platform.is_some()),
            ("--message", self.message.is_some()),
            ("--author", self.author.is_some()),
            ("--user", self.user.is_some()),
            ("--change", !self.changes.is_empty()),
        ];
        let flag = self.flags.first().map(|flag| format!("--{flag}"));
        let option = options.iter().find(|(_, given)| *given);
        match flag.or(option.map(|(name, _)| (*name).to_owned())) {
            Some(option) => bail!("it does not take {option}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Request, String> {
        let words = line.split_whitespace().map(OsString::from);
        Request::parse(words).map_err(|error| format!("{error:#}"))
    }

    #[test]
    fn a_command_takes_what_it_knows() {
        let request = parse("--store /s pull --platform linux/arm64 --auth app:1").unwrap();
        let Command::Pull(pull) = request.command else {
            panic!()
        };
        assert_eq!((pull.reference.as_str(), pull.auth), ("app:1", true));
        assert_eq!(request.store, PathBuf::from("/s"));
    }

    #[test]
    fn what_is_unknown_missing_or_left_over_is_named() {
        for (line, words) in [
            ("", "no command"),
            ("fetch x", "unknown command"),
            ("pull", "REFERENCE is missing"),
            ("pull a b", "unexpected argument `b`"),
            ("pull a --force", "does not take --force"),
            ("tag a b --root /x", "does not take --root"),
            ("copy-in /a", "--root DIR is missing"),
            ("--sture /s load", "--sture"),
            ("read", "SOURCE is missing"),
            ("read a --user me", "me"),
            ("pull a --user 1", "does not take --user"),
        ] {
            let error = parse(line).unwrap_err();
            assert!(error.contains(words), "{line}: {error}");
        }
    }
}
