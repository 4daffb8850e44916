//! The command line, and the paths that follow from it.

use anyhow::bail;
use lexopt::prelude::*;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What `--help` prints.
pub const USAGE: &str = "\
keelson-engine: runs the operating system's own services as containers

Usage: keelson-engine [OPTION]...

PID 1 starts it without options. Started by hand it is its own reaper and keeps the services' output itself; SIGTERM
stops the services and ends it.

Options:
  --services DIR   the OS image's definitions   [/usr/lib/keelson/services]
  --own-services DIR  the machine's own         [/state/config/services]
  --images DIR     root directories of images   [/usr/lib/keelson/images]
  --run DIR        sockets, bundles, records    [/run/keelson]
  --state DIR      containers, volumes, images  [/state/engine]
  --seccomp FILE   profile in Docker's format   [/usr/lib/keelson/seccomp.json]
  --without-limits for development: no cgroup limits, no device rules, no OOM score
  --help, --version

Environment:
  KEELSON_RUNTIME  OCI runtime to drive         [/usr/lib/keelson/keelson-runtime]
  KEELSON_IMAGE_TOOL  fetches, unpacks and packs images  [/usr/lib/keelson/keelson-image]
  KEELSON_INIT_FD  number of the control socket that PID 1 left open";

/// Where everything is.
#[derive(Clone, Debug)]
pub struct Options {
    /// Definitions of the OS image's services.
    pub services: PathBuf,
    /// Definitions of the machine's own.
    pub own_services: PathBuf,
    /// Root directories of images, by the last part of their name.
    pub images: PathBuf,
    /// Everything that lasts until the machine goes down.
    pub run: PathBuf,
    /// What outlives the machine's going down.
    pub state: PathBuf,
    /// The configuration's directory.
    pub configuration: PathBuf,
    /// The seccomp profile.
    pub seccomp: PathBuf,
    /// The OCI runtime.
    pub runtime: PathBuf,
    /// The program that fetches, unpacks and packs images.
    pub image_tool: PathBuf,
    /// Certificates of authorities that registries are believed by.
    pub certificates: Vec<PathBuf>,
    /// How long one call of the runtime may take.
    pub runtime_timeout: Duration,
    /// Root of the cgroup tree.
    pub cgroups: PathBuf,
    /// Services are not limited, for machines that do not allow it.
    pub without_limits: bool,
}

/// What the command line asks for.
#[derive(Debug)]
pub enum Request {
    /// Run.
    Run(Box<Options>),
    /// Print this and end.
    Print(String),
}

impl Options {
    /// Reads the command line (without the program's name) and `KEELSON_RUNTIME`.
    ///
    /// # Errors
    /// Names the option that is unknown or lacks its value.
    pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> anyhow::Result<Request> {
        let mut options = Self {
            services: "/usr/lib/keelson/services".into(),
            own_services: "/state/config/services".into(),
            images: "/usr/lib/keelson/images".into(),
            run: "/run/keelson".into(),
            state: "/state/engine".into(),
            configuration: "/state/config".into(),
            seccomp: "/usr/lib/keelson/seccomp.json".into(),
            runtime: std::env::var_os("KEELSON_RUNTIME")
                .map_or_else(|| "/usr/lib/keelson/keelson-runtime".into(), PathBuf::from),
            image_tool: std::env::var_os("KEELSON_IMAGE_TOOL")
                .map_or_else(|| "/usr/lib/keelson/keelson-image".into(), PathBuf::from),
            certificates: vec![
                "/usr/lib/keelson/images/docker/etc/ssl/certs/ca-certificates.crt".into(),
                "/state/config/ca-certificates".into(),
            ],
            runtime_timeout: Duration::from_secs(60),
            cgroups: "/sys/fs/cgroup".into(),
            without_limits: false,
        };
        let mut parser = lexopt::Parser::from_args(arguments);
        while let Some(argument) = parser.next()? {
            match argument {
                Long("services") => options.services = parser.value()?.into(),
                Long("own-services") => options.own_services = parser.value()?.into(),
                Long("images") => options.images = parser.value()?.into(),
                Long("run") => options.run = parser.value()?.into(),
                Long("state") => options.state = parser.value()?.into(),
                Long("seccomp") => options.seccomp = parser.value()?.into(),
                Long("without-limits") => options.without_limits = true,
                Short('h') | Long("help") => return Ok(Request::Print(USAGE.to_owned())),
                Long("version") => {
                    return Ok(Request::Print(format!(
                        "keelson-engine {}",
                        env!("CARGO_PKG_VERSION")
                    )));
                }
                Value(extra) => bail!("unexpected argument `{}`", extra.to_string_lossy()),
                other => bail!("{} (see --help)", other.unexpected()),
            }
        }
        Ok(Request::Run(Box::new(options)))
    }

    /// Root directory of an image such as `keelson/network`.
    pub fn image(&self, name: &str) -> PathBuf {
        self.images
            .join(name.strip_prefix("keelson/").unwrap_or(name))
    }

    /// A service's bundle.
    pub fn container(&self, service: &str) -> PathBuf {
        self.run.join("containers").join(service)
    }

    /// The directory of a service's notify socket.
    pub fn notify(&self, service: &str) -> PathBuf {
        self.run.join("notify").join(service)
    }

    /// The runtime's own records.
    pub fn runtime_root(&self) -> PathBuf {
        self.run.join("runtime")
    }

    /// The engine's records of services.
    pub fn records(&self) -> PathBuf {
        self.run.join("engine")
    }

    /// The file with the moment when the boot was complete.
    pub fn boot_complete(&self) -> PathBuf {
        self.run.join("boot/complete.json")
    }

    /// PID 1's time line.
    pub fn init_timeline(&self) -> PathBuf {
        self.run.join("boot/init.jsonl")
    }

    /// What PID 1 says about the state partition.
    pub fn storage(&self) -> PathBuf {
        self.run.join("state.json")
    }

    /// What Docker's API reads itself.
    pub fn docker_paths(&self) -> crate::docker::Paths {
        crate::docker::Paths {
            options: self.clone(),
            log_queries: self.run.join(crate::log_query::SOCKET),
        }
    }

    /// What is kept of containers that clients made.
    pub fn containers(&self) -> crate::containers::Store {
        crate::containers::Store::new(self.state.join("containers"))
    }

    /// Networks that clients made.
    pub fn networks(&self) -> crate::network::store::Store {
        crate::network::store::Store::new(self.state.join("networks"))
    }

    /// What a service that keeps its root has written to it.
    pub fn kept_root(&self, service: &str) -> PathBuf {
        self.state.join("roots").join(service)
    }

    /// Named volumes.
    pub fn volumes(&self) -> crate::containers::volumes::Volumes {
        crate::containers::volumes::Volumes::new(self.state.join("volumes"))
    }

    /// Where the log service takes pipes.
    pub fn log_socket(&self) -> PathBuf {
        self.run.join("log/log.sock")
    }

    /// The API's socket.
    pub fn api_socket(&self) -> PathBuf {
        self.run.join("system.sock")
    }

    /// Whether a bind source may be made when it is missing.
    pub fn may_create(&self, path: &Path) -> bool {
        [
            Path::new("/run"),
            Path::new("/state"),
            &self.run,
            &self.state,
        ]
        .iter()
        .any(|place| path.starts_with(place))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_option_is_refused() {
        let error = Options::parse(["--sevices".into()])
            .unwrap_err()
            .to_string();
        assert!(error.contains("--sevices"), "{error}");
        assert!(Options::parse(["x".into()]).is_err());
        assert!(Options::parse(["--run".into()]).is_err());
    }

    #[test]
    fn images_are_found_by_the_last_part_of_their_name() {
        let Request::Run(options) = Options::parse(["--images=/i".into()]).unwrap() else {
            panic!()
        };
        assert_eq!(options.image("keelson/network"), Path::new("/i/network"));
    }
}
