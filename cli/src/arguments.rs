//! The commands.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;

use crate::power::Action;

const STATUSES: &str = "\
Exit status:
  0  done
  1  what was asked for could not be done
  2  the command line makes no sense
  3  the system does not answer (not running, or you are not allowed to ask)
  4  there is no service of that name";

/// Looks after this Keelson system.
#[derive(Debug, Parser)]
#[command(name = "keelson", version, about, after_help = STATUSES, disable_help_subcommand = true)]
pub(crate) struct Arguments {
    /// Answers in JSON.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Top,
}

/// The commands as they are typed.
#[derive(Debug, Subcommand)]
pub(crate) enum Top {
    /// The system's services: each is a container.
    #[command(subcommand)]
    Service(Service),
    /// The console: what people log in to.
    #[command(subcommand)]
    Console(OtherImage),
    /// The user engine: the Docker that applications run in.
    #[command(subcommand)]
    Engine(OtherImage),
    /// The machine's configuration.
    #[command(subcommand)]
    Config(Config),
    /// The machine's network.
    #[command(subcommand)]
    Network(Network),
    /// The operating system: its versions on the disk, and those that there are.
    #[command(subcommand)]
    Os(Os),
    /// Puts the running system onto another disk; without --disk it shows the disks.
    Install(Install),
    /// What runs, what failed and why, how long each service took to start.
    Status,
    /// Where the time of this boot went.
    Boot {
        /// Draws an SVG picture, to FILE or to standard output.
        #[arg(long, value_name = "FILE", num_args = 0..=1, default_missing_value = "-", conflicts_with = "json")]
        svg: Option<PathBuf>,
    },
    /// Stops everything in order and starts the machine again.
    Reboot {
        /// Without the firmware: the kernel starts the next one itself.
        #[arg(long)]
        kexec: bool,
    },
    /// Stops everything in order and switches the machine off.
    Poweroff,
    /// Stops everything in order and leaves the machine on.
    Halt,
    /// Prints the completion script of a shell.
    Completion {
        /// The shell.
        shell: Shell,
    },
}

/// `keelson config ...`.
#[derive(Debug, Subcommand)]
pub(crate) enum Config {
    /// What holds, of all layers: built in, `config.d`, vendor-data, user-data, `set`, kernel command line.
    Get {
        /// The key, `a.b.c`; all when there is none.
        key: Option<String>,
    },
    /// Sets a key. It counts more than user-data.
    Set {
        /// The key, `a.b.c`; a part with dots in quotes.
        key: String,
        /// The value, YAML.
        value: String,
        /// Applies it at once.
        #[arg(long)]
        apply: bool,
    },
    /// Takes back what `set` and `merge` said of a key.
    Unset {
        /// The key.
        key: String,
        /// Applies it at once.
        #[arg(long)]
        apply: bool,
    },
    /// Sets all keys of a document.
    Merge {
        /// A file; `-` is standard input.
        #[arg(default_value = "-")]
        file: PathBuf,
        /// Applies it at once.
        #[arg(long)]
        apply: bool,
    },
    /// Prints the user's configuration, as a cloud-config.
    Export {
        /// All layers, not the user's alone.
        #[arg(long)]
        full: bool,
        /// Passwords and private keys as well.
        #[arg(long)]
        secrets: bool,
    },
    /// Says what is wrong with user-data, a cloud-config or a network-config, on any machine.
    Validate {
        /// A file; `-` is standard input.
        #[arg(default_value = "-")]
        file: PathBuf,
        /// It is a network-config.
        #[arg(long)]
        network: bool,
    },
    /// Prints the JSON Schema of a cloud-config, for editors: they propose keys and say what is wrong while one writes.
    Schema {
        /// That of a network-config.
        #[arg(long)]
        network: bool,
    },
    /// Applies the configuration at once: all but what runs once an instance.
    Apply,
}

/// How long something may be tried out.
fn trial_time(text: &str) -> Result<Duration, String> {
    let time = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    let limits = Duration::from_secs(1)..=Duration::from_secs(24 * 3600);
    match limits.contains(&time) {
        true => Ok(time),
        false => Err("from one second to one day".to_owned()),
    }
}

/// `keelson network ...`.
#[derive(Debug, Subcommand)]
pub(crate) enum Network {
    /// Links, their addresses and where each came from, leases and how long they last, name servers.
    Status,
    /// Makes the network what a network-config says, as `keelson config set keelson.network` does.
    Apply {
        /// A file; `-` is standard input.
        #[arg(default_value = "-")]
        file: PathBuf,
        /// Goes back by itself after so long, unless `keelson network confirm` comes first.
        #[arg(long, value_name = "TIME", value_parser = trial_time)]
        confirm: Option<Duration>,
    },
    /// Keeps what `apply --confirm` tries out.
    Confirm,
}

/// `keelson os ...`.
#[derive(Debug, Subcommand)]
pub(crate) enum Os {
    /// Which version runs, which is started next, and how each stands.
    Status,
    /// The versions that a source has.
    List(Source),
    /// Whether a source recommends a newer version.
    Check(Source),
    /// Fetches another version into the other slot; it is started next, and has to show that it is good.
    Upgrade {
        #[command(flatten)]
        source: Source,
        /// This version, also an older one.
        #[arg(long, value_name = "VERSION")]
        version: Option<String>,
        /// Starts it at once.
        #[arg(long, group = "when")]
        reboot: bool,
        /// Starts it in the window of the configuration (keelson.upgrade.window, jitter): the machine restarts by itself then.
        #[arg(long, group = "when")]
        in_window: bool,
        /// Leaves it to the next restart, whoever asks for that (the default).
        #[arg(long, group = "when")]
        later: bool,
        /// Without the firmware, as `keelson reboot --kexec`.
        #[arg(long, requires = "reboot")]
        kexec: bool,
    },
    /// Has the version in the other slot started next.
    Rollback {
        /// Starts it at once.
        #[arg(long)]
        reboot: bool,
        /// Without the firmware, as `keelson reboot --kexec`.
        #[arg(long, requires = "reboot")]
        kexec: bool,
    },
    /// What happened: from what to what, when, and why.
    History,
    /// Back to how the machine was delivered: all that is kept on it is lost at the next start. The operating system stays.
    Reset {
        /// Asks no question.
        #[arg(long)]
        yes: bool,
        /// Takes the wish back.
        #[arg(long, conflicts_with_all = ["yes", "reboot"])]
        cancel: bool,
        /// Starts the machine again at once.
        #[arg(long)]
        reboot: bool,
    },
}

/// `keelson install`.
#[derive(Debug, Args)]
pub(crate) struct Install {
    /// The disk: all that is on it is lost.
    #[arg(long, value_name = "DEVICE")]
    pub(crate) disk: Option<PathBuf>,
    /// The new system's configuration: a cloud-config.
    #[arg(long, value_name = "FILE|URL")]
    pub(crate) config: Option<String>,
    /// Further words for the new system's kernel.
    #[arg(long, value_name = "ARGS", allow_hyphen_values = true)]
    pub(crate) append: Option<String>,
    /// As this machine's configuration says (keelson.install).
    #[arg(long, conflicts_with_all = ["disk", "config", "append"])]
    pub(crate) config_disk: bool,
    /// Asks no question.
    #[arg(long)]
    pub(crate) yes: bool,
}

/// Where releases come from.
#[derive(Debug, Args)]
pub(crate) struct Source {
    /// HOST/REPOSITORY[:TAG|@DIGEST], or an OCI image layout: https://HOST/PATH[#TAG], /mnt/PATH[#TAG]. The configured source
    /// (keelson.upgrade.source) when there is none.
    #[arg(long, value_name = "SOURCE")]
    pub(crate) source: Option<String>,
}

/// `keelson service ...`.
#[derive(Debug, Subcommand)]
pub(crate) enum Service {
    /// Lists the services.
    #[command(visible_alias = "ps")]
    Ls {
        /// Also those that have ended as they should, or were stopped.
        #[arg(long, short)]
        all: bool,
    },
    /// What a service has said.
    Logs(Logs),
    /// Reads the definitions again and starts services, those anew whose definition or image has changed.
    ///
    /// Ends when they are ready. Without names: all that start with the machine and are down, or have changed.
    Up {
        /// The services.
        names: Vec<String>,
    },
    /// Stops services; what they have written to their roots is gone.
    Down {
        /// The services.
        #[arg(required = true)]
        names: Vec<String>,
    },
    /// Starts services; ends when they are ready.
    Start {
        /// The services.
        #[arg(required = true)]
        names: Vec<String>,
    },
    /// Stops services; they start again with the machine, unless they are disabled.
    Stop {
        /// The services.
        #[arg(required = true)]
        names: Vec<String>,
    },
    /// Stops services and starts them again; ends when they are ready.
    Restart {
        /// The services.
        #[arg(required = true)]
        names: Vec<String>,
    },
    /// Takes a Compose file in, or has a service start with the machine again.
    Enable {
        /// A file, a URL, `-` for standard input, or the name of a service.
        what: String,
        /// Starts what it defines at once.
        #[arg(long)]
        now: bool,
    },
    /// Has services not start with the machine any more.
    Disable {
        /// The services.
        #[arg(required = true)]
        names: Vec<String>,
        /// Stops them at once.
        #[arg(long)]
        now: bool,
    },
    /// Removes services that were taken in with `enable`, and their file.
    Rm {
        /// The services: all that the file defines.
        #[arg(required = true)]
        names: Vec<String>,
    },
    /// Fetches the images of services from their registries; `up` starts them from there.
    Pull {
        /// The services.
        #[arg(required = true)]
        names: Vec<String>,
    },
    /// Starts a service from another image, and goes back by itself when that does not come up.
    Upgrade {
        /// The service.
        name: String,
        /// The image; fetched when it is not there. Without it, the service's own is fetched anew. `keelson/NAME` is
        /// that of the OS image.
        #[arg(long, value_name = "IMAGE")]
        image: Option<String>,
    },
    /// What services may do beyond an ordinary process, and why.
    Privileges {
        /// The services; all when there is none.
        names: Vec<String>,
    },
}

/// `keelson console ...` and `keelson engine ...`: the images that two of the services run from.
#[derive(Debug, Subcommand)]
pub(crate) enum OtherImage {
    /// The images that are there.
    #[command(visible_alias = "ls")]
    List,
    /// Goes over to another image at once: logins end, or containers are started again as their restart policies say.
    Switch {
        /// The image; `default` is that of the OS image.
        image: String,
    },
    /// Goes over to another image at the machine's next start.
    Enable {
        /// The image; `default` is that of the OS image.
        image: String,
    },
}

/// `keelson service logs ...`.
#[derive(Debug, Args)]
pub(crate) struct Logs {
    /// The service, or `kernel`; everything when there is none.
    pub(crate) name: Option<String>,
    /// Goes on with what is said from now on.
    #[arg(long, short)]
    pub(crate) follow: bool,
    /// Only the last so many lines.
    #[arg(long, short = 'n', visible_alias = "lines", value_name = "LINES")]
    pub(crate) tail: Option<usize>,
    /// Only what was said since then: how long ago (`90s`, `10m`, `2h`, `1day`) or a time (`2026-11-23T01:02:03Z`).
    #[arg(long, value_name = "TIME")]
    pub(crate) since: Option<String>,
}

/// The commands as they are run.
#[derive(Debug)]
pub(crate) enum Command {
    /// About services.
    Service(Service),
    /// About the configuration.
    Config(Config),
    /// About the network.
    Network(Network),
    /// About the operating system.
    Os(Os),
    /// About another disk.
    Install(Install),
    /// About the image of a service: its name, and what is done.
    Image(&'static str, OtherImage),
    /// `status`
    Status,
    /// `boot`
    Boot {
        /// Where to draw; `-` is standard output.
        svg: Option<PathBuf>,
    },
    /// `reboot`, `poweroff`, `halt`
    Power(Action),
    /// `completion`
    Completion(Shell),
}

impl From<Top> for Command {
    fn from(top: Top) -> Self {
        match top {
            Top::Service(command) => Command::Service(command),
            Top::Console(command) => Command::Image("console", command),
            Top::Engine(command) => Command::Image("docker", command),
            Top::Config(command) => Command::Config(command),
            Top::Network(command) => Command::Network(command),
            Top::Os(command) => Command::Os(command),
            Top::Install(command) => Command::Install(command),
            Top::Status => Command::Status,
            Top::Boot { svg } => Command::Boot { svg },
            Top::Reboot { kexec: false } => Command::Power(Action::Reboot),
            Top::Reboot { kexec: true } => Command::Power(Action::Kexec),
            Top::Poweroff => Command::Power(Action::Poweroff),
            Top::Halt => Command::Power(Action::Halt),
            Top::Completion { shell } => Command::Completion(shell),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_commands_are_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn unknown_words_are_named_with_the_nearest_known_one() {
        for (line, part) in [
            ("keelson statsu", "'status'"),
            ("keelson service lgs", "'logs'"),
            ("keelson status --jsn", "'--json'"),
            ("keelson frobnicate", "'frobnicate'"),
            ("keelson boot frobnicate", "'frobnicate'"),
        ] {
            let error = Arguments::try_parse_from(line.split(' ')).unwrap_err();
            assert_eq!(error.exit_code(), 2);
            assert!(error.to_string().contains(part), "{line}: {error}");
        }
    }

    #[test]
    fn json_may_stand_anywhere_and_svg_may_have_a_file() {
        for line in [
            "keelson --json status",
            "keelson status --json",
            "keelson service ps --json",
        ] {
            assert!(
                Arguments::try_parse_from(line.split(' ')).unwrap().json,
                "{line}"
            );
        }
        for (line, expected) in [
            ("keelson boot", None),
            ("keelson boot --svg", Some("-")),
            ("keelson boot --svg x.svg", Some("x.svg")),
        ] {
            let Top::Boot { svg } = Arguments::try_parse_from(line.split(' ')).unwrap().command
            else {
                panic!()
            };
            assert_eq!(svg, expected.map(PathBuf::from), "{line}");
        }
    }
}
