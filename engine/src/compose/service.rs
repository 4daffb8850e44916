//! One service: every key that is understood. Others are errors.

use super::block_io::BlockIo;
use super::env_file::EnvironmentFile;
use super::lists::{CommandLine, OneOrMany, Ordered, Pairs, Variables};
use super::names::{ExtraHosts, NameServer, Names};
use super::network::{NetworkMode, Networks, file_mode};
use super::port::Ports;
use super::socket::{Socket, Start};
use super::values::{
    ByteSize, Capability, Cpus, Mode, Restart, Span, StopSignal, SwapLimit, Text, scalars, words,
};
use super::volume::{Device, DeviceRule, Tmpfs, Volume};
use crate::network::{Attachment, Publish};
use serde::Deserialize;
use serde::de::{self, Deserializer, MapAccess, SeqAccess, Visitor};
use std::fmt;
use std::str::FromStr;

words! {
    /// Whether a service has a namespace of its own.
    Namespace {
        /// It has.
        Private = "private",
        /// It shares the host's.
        Host = "host",
    }
}

words! {
    /// The half of the cgroup tree that a service lives in.
    #[derive(serde::Serialize)]
    Slice {
        /// System services, with memory and processor set aside.
        System = "system",
        /// Applications, within limits.
        User = "user",
    }
}

words! {
    /// When a service counts as ready.
    Ready {
        /// When it says `READY=1` (sd_notify).
        Notify = "notify",
        /// When its health check succeeds.
        Health = "health",
        /// When it has ended with exit status 0: a one-shot.
        Exit = "exit",
        /// As soon as its process runs.
        Started = "started",
    }
}

words! {
    /// What a service may ask of the engine with sd_notify.
    Request {
        /// `X_KEELSON_HOSTNAME=NAME`.
        Hostname = "hostname",
        /// `X_KEELSON_POWER=reboot`, and `kexec`.
        Reboot = "reboot",
        /// `X_KEELSON_POWER=poweroff`, and `halt`.
        Poweroff = "poweroff",
        /// `X_KEELSON_CONFIGURE=1`: services with the label `io.rancher.os.reloadconfig` start anew.
        Configure = "configure",
        /// `X_KEELSON_HEALTHY=1`: this boot is good.
        Healthy = "healthy",
    }
}

words! {
    /// What must be true of a service before one that needs it starts.
    Condition {
        /// Its process runs.
        Started = "service_started",
        /// It is ready, by its own word.
        Healthy = "service_healthy",
        /// It has ended with exit status 0.
        Completed = "service_completed_successfully",
    }
}

/// One entry of `security_opt`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SecurityOption {
    /// Whether setuid programs and file capabilities gain nothing.
    NoNewPrivileges(bool),
    /// No seccomp filter.
    SeccompUnconfined,
    /// `/proc` and `/sys` as they are, nothing masked.
    SystemPathsUnconfined,
}

impl FromStr for SecurityOption {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (key, value) = text.split_once(['=', ':']).unwrap_or((text, ""));
        match (key, value) {
            ("no-new-privileges", "" | "true") => Ok(Self::NoNewPrivileges(true)),
            ("no-new-privileges", "false") => Ok(Self::NoNewPrivileges(false)),
            ("seccomp", "unconfined") => Ok(Self::SeccompUnconfined),
            ("systempaths", "unconfined") => Ok(Self::SystemPathsUnconfined),
            _ => Err(format!(
                "`{text}` is not one of: no-new-privileges:true, no-new-privileges:false, seccomp=unconfined, systempaths=unconfined"
            )),
        }
    }
}

scalars!(SecurityOption);

/// One limit of `ulimits`; -1 is no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ulimit {
    /// What applies.
    pub soft: i64,
    /// What it can be raised to.
    pub hard: i64,
}

impl<'de> Deserialize<'de> for Ulimit {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Both {
            soft: i64,
            hard: i64,
        }
        struct Limit;
        impl<'de> Visitor<'de> for Limit {
            type Value = Ulimit;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a number, or a map with soft and hard")
            }

            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Ulimit, E> {
                if number < -1 {
                    return Err(E::custom(format!(
                        "{number} is not a limit: 0 or more, or -1 for none"
                    )));
                }
                Ok(Ulimit {
                    soft: number,
                    hard: number,
                })
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Ulimit, E> {
                self.visit_i64(i64::try_from(number).map_err(E::custom)?)
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Ulimit, A::Error> {
                let Both { soft, hard } =
                    Both::deserialize(de::value::MapAccessDeserializer::new(map))?;
                if soft < -1 || hard < -1 || (hard != -1 && (soft > hard || soft == -1)) {
                    return Err(de::Error::custom("the soft limit is above the hard one"));
                }
                Ok(Ulimit { soft, hard })
            }
        }
        deserializer.deserialize_any(Limit)
    }
}

/// One entry of `depends_on`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dependency {
    /// The service that is needed.
    pub name: String,
    /// What must be true of it. `None` stands for the short syntax: ready, or ended well for a one-shot.
    pub condition: Option<Condition>,
    /// False: start without it when it fails or does not exist.
    pub required: bool,
}

fn truth() -> bool {
    true
}

/// `depends_on`, from a list or a map.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dependencies(pub Vec<Dependency>);

impl<'de> Deserialize<'de> for Dependencies {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Long {
            condition: Condition,
            #[serde(default = "truth")]
            required: bool,
        }
        struct ListOrMap;
        impl<'de> Visitor<'de> for ListOrMap {
            type Value = Dependencies;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a list of services, or a map with a condition for each")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Dependencies, A::Error> {
                let mut entries = Vec::new();
                while let Some(Text(name)) = seq.next_element()? {
                    entries.push(Dependency {
                        name,
                        condition: None,
                        required: true,
                    });
                }
                Ok(Dependencies(entries))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Dependencies, A::Error> {
                let mut entries = Vec::new();
                while let Some(Text(name)) = map.next_key()? {
                    let Long {
                        condition,
                        required,
                    } = map.next_value()?;
                    entries.push(Dependency {
                        name,
                        condition: Some(condition),
                        required,
                    });
                }
                Ok(Dependencies(entries))
            }
        }
        deserializer.deserialize_any(ListOrMap)
    }
}

/// `healthcheck`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HealthCheck {
    /// `[CMD, PROGRAM, ...]`, `[CMD-SHELL, LINE]`, `[NONE]`, or a line for the shell.
    #[serde(default)]
    pub test: OneOrMany<Text>,
    /// Time between two checks: 30 s unless told.
    pub interval: Option<Span>,
    /// How long one check may take: 30 s unless told.
    pub timeout: Option<Span>,
    /// So many failures in a row make it unhealthy: 3 unless told.
    pub retries: Option<u32>,
    /// Failures do not count for so long after the start: 0 unless told.
    pub start_period: Option<Span>,
    /// Time between two checks until it is healthy: 1 s unless told.
    pub start_interval: Option<Span>,
    /// No check at all.
    #[serde(default)]
    pub disable: bool,
}

/// A directory of the host that is made before the service starts.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Directory {
    /// Its path.
    pub path: String,
    /// Its permissions: 0755 unless told.
    pub mode: Option<Mode>,
}

/// What is run in the container when files of the host change.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OnChange {
    /// A directory of the host.
    pub path: String,
    /// The program and its arguments.
    pub exec: Vec<Text>,
}

/// `x-keelson`: what the Compose specification has no key for.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Extension {
    /// Services that this one waits for, until they are ready or have failed.
    #[serde(default)]
    pub after: OneOrMany<Text>,
    /// When it counts as ready.
    pub ready: Option<Ready>,
    /// What it may ask of the engine.
    #[serde(default)]
    pub requests: OneOrMany<Request>,
    /// How long it may take until it is ready: 90 s unless told, a one-shot as long as it likes.
    pub start_timeout: Option<Span>,
    /// It is killed and started again when it does not say `WATCHDOG=1` for so long.
    pub watchdog: Option<Span>,
    /// Directories of the host that are made first.
    #[serde(default)]
    pub directories: Vec<Directory>,
    /// What is run in the container when the files of a directory of the host change.
    #[serde(default)]
    pub on_change: Vec<OnChange>,
    /// What is listened at for it; its program finds the sockets from descriptor 3 on (sd_listen_fds(3)).
    #[serde(default)]
    pub sockets: Vec<Socket>,
    /// When it is started.
    #[serde(default)]
    pub start: Start,
    /// What it writes to its root is kept over reboots, unless its image is of the OS image.
    #[serde(default)]
    pub keep_root: bool,
    /// Defined otherwise by a configuration that is applied, it is started anew at once: its work is what its definition says.
    #[serde(default)]
    pub follows: bool,
}

/// One service, as it stands in the file, with the values of variables in it.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)] // The Compose specification documents them under the same names.
pub struct Service {
    pub image: String,
    #[serde(default)]
    pub command: CommandLine,
    #[serde(default)]
    pub entrypoint: CommandLine,
    #[serde(default)]
    pub env_file: OneOrMany<EnvironmentFile>,
    #[serde(default, rename = "environment")]
    pub given_environment: Variables,
    /// `given_environment` with the values of variables that are only named there, and what stands in `env_file`.
    #[serde(skip)]
    pub environment: Pairs,
    #[serde(default, deserialize_with = "file_mode")]
    pub network_mode: Option<NetworkMode>,
    pub pid: Option<Namespace>,
    pub ipc: Option<Namespace>,
    pub uts: Option<Namespace>,
    pub cgroup: Option<Namespace>,
    pub cgroup_parent: Option<Slice>,
    #[serde(default)]
    pub cap_add: Vec<Capability>,
    #[serde(default)]
    pub cap_drop: Vec<Capability>,
    #[serde(default)]
    pub security_opt: Vec<SecurityOption>,
    #[serde(default)]
    pub privileged: bool,
    #[serde(default)]
    pub devices: Vec<Device>,
    #[serde(default)]
    pub device_cgroup_rules: Vec<DeviceRule>,
    #[serde(default)]
    pub volumes: Vec<Volume>,
    #[serde(default)]
    pub tmpfs: OneOrMany<Tmpfs>,
    #[serde(default)]
    pub read_only: bool,
    #[serde(default)]
    pub tty: bool,
    #[serde(default)]
    pub stdin_open: bool,
    pub user: Option<Text>,
    #[serde(default)]
    pub group_add: Vec<Text>,
    pub working_dir: Option<String>,
    pub hostname: Option<String>,
    #[serde(default)]
    pub restart: Restart,
    pub stop_signal: Option<StopSignal>,
    pub stop_grace_period: Option<Span>,
    pub mem_limit: Option<ByteSize>,
    pub mem_reservation: Option<ByteSize>,
    pub memswap_limit: Option<SwapLimit>,
    pub pids_limit: Option<i64>,
    pub cpus: Option<Cpus>,
    pub cpu_shares: Option<u64>,
    pub cpuset: Option<String>,
    #[serde(default)]
    pub blkio_config: BlockIo,
    pub shm_size: Option<ByteSize>,
    #[serde(default)]
    pub ulimits: Ordered<Ulimit>,
    #[serde(default)]
    pub sysctls: Pairs,
    pub oom_score_adj: Option<i32>,
    #[serde(default)]
    pub depends_on: Dependencies,
    pub healthcheck: Option<HealthCheck>,
    #[serde(default)]
    pub labels: Pairs,
    /// Only `false`: the service's own program is the container's first process.
    #[serde(default)]
    pub init: bool,
    #[serde(default, rename = "extra_hosts")]
    pub given_hosts: ExtraHosts,
    #[serde(default, rename = "dns")]
    pub given_servers: OneOrMany<NameServer>,
    #[serde(default, rename = "dns_search")]
    pub given_search: OneOrMany<Text>,
    #[serde(default, rename = "dns_opt")]
    pub given_options: OneOrMany<Text>,
    /// The four above.
    #[serde(skip)]
    pub names: Names,
    #[serde(default, rename = "networks")]
    pub given_networks: Networks,
    #[serde(default, rename = "ports")]
    pub given_ports: Ports,
    /// The networks of [`NetworkMode::Network`].
    #[serde(skip)]
    pub networks: Vec<Attachment>,
    /// Ports that are published.
    #[serde(skip)]
    pub ports: Vec<Publish>,
    #[serde(default, rename = "x-keelson")]
    pub keelson: Extension,
}
