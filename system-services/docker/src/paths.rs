//! Where everything is.

use std::env;
use std::path::PathBuf;

/// Paths in the container. Each can be set, for tests.
#[derive(Debug, Clone)]
pub struct Paths {
    /// `KEELSON_DOCKER_CONTAINERD`; looked for in `PATH`: an engine of another image has it elsewhere.
    pub containerd: PathBuf,
    /// `KEELSON_DOCKER_DOCKERD`; the same.
    pub dockerd: PathBuf,
    /// `KEELSON_DOCKER_RUN_DIRECTORY`: dockerd's own, in memory.
    pub run_directory: PathBuf,
    /// `KEELSON_DOCKER_CONTAINERD_SOCKET`
    pub containerd_socket: PathBuf,
    /// `KEELSON_DOCKER_SOCKET`: the API.
    pub docker_socket: PathBuf,
    /// `KEELSON_DOCKER_USER_SETTINGS`: the user's `daemon.json`.
    pub user_settings: PathBuf,
    /// `KEELSON_DOCKER_BRIDGE`: where docker0 went, when it had to.
    pub bridge: PathBuf,
    /// `KEELSON_DOCKER_ROUTES`: the kernel's routing table.
    pub routes: PathBuf,
    /// `KEELSON_DOCKER_NETWORK`: what the network service says; its file `addresses` is another one when the machine's networks are.
    pub network: PathBuf,
    /// `KEELSON_DOCKER_CGROUP`: the root of this container's control groups.
    pub cgroup: PathBuf,
}

impl Paths {
    /// The defaults, and what the environment says instead.
    #[must_use]
    pub fn from_environment() -> Self {
        let path = |name: &str, default: &str| {
            env::var_os(name).map_or_else(|| default.into(), PathBuf::from)
        };
        Self {
            containerd: path("KEELSON_DOCKER_CONTAINERD", "containerd"),
            dockerd: path("KEELSON_DOCKER_DOCKERD", "dockerd"),
            run_directory: path("KEELSON_DOCKER_RUN_DIRECTORY", "/run/docker"),
            containerd_socket: path(
                "KEELSON_DOCKER_CONTAINERD_SOCKET",
                "/run/containerd/containerd.sock",
            ),
            docker_socket: path("KEELSON_DOCKER_SOCKET", "/run/keelson/docker/docker.sock"),
            user_settings: path(
                "KEELSON_DOCKER_USER_SETTINGS",
                "/state/config/docker/daemon.json",
            ),
            bridge: path("KEELSON_DOCKER_BRIDGE", "/var/lib/docker/keelson-bridge"),
            routes: path("KEELSON_DOCKER_ROUTES", "/proc/net/route"),
            network: path("KEELSON_DOCKER_NETWORK", "/run/keelson/network"),
            cgroup: path("KEELSON_DOCKER_CGROUP", "/sys/fs/cgroup"),
        }
    }

    /// dockerd's configuration file.
    #[must_use]
    pub fn settings(&self) -> PathBuf {
        self.run_directory.join("daemon.json")
    }

    /// Where dockerd says that it is ready.
    #[must_use]
    pub fn notify_socket(&self) -> PathBuf {
        self.run_directory.join("notify.sock")
    }
}
