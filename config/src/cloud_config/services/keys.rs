//! What may stand below `keelson` and `rancher`.

use super::rancher;
use crate::cloud_config::{
    install, proxy, rancher_docker, registries, rsyslog, ssh, storage, upgrade,
};
use crate::yaml::{Shape, Table};

/// `keelson`
pub(in crate::cloud_config) static KEELSON: Table = Table::new(
    "keelson",
    &[
        (
            "services",
            SERVICES,
            "Services of the machine's own, as in a Compose file",
        ),
        (
            "environment",
            Shape::Map(&Shape::Text),
            "Variables for services",
        ),
        (
            "sysctl",
            Shape::Map(&Shape::Text),
            "Kernel parameters, as vm.swappiness",
        ),
        (
            "modules",
            Shape::TEXTS,
            "Kernel modules, with their parameters",
        ),
        (
            "docker",
            Shape::Map(&Shape::Any),
            "Keys of Docker's daemon.json",
        ),
        (
            "firewall",
            crate::network::firewall::FIREWALL,
            "What may come in; true: nothing",
        ),
        (
            "network",
            crate::network::NETWORK,
            "A network-config, version 1 or 2",
        ),
        (
            "proxy",
            Shape::Table(&proxy::PROXY),
            "A proxy on the way to the world",
        ),
        (
            "registries",
            registries::REGISTRIES,
            "Registries of images, by host",
        ),
        ("ssh", Shape::Table(&ssh::SERVER), "sshd"),
        (
            "datasources",
            Shape::TEXTS,
            "Data sources that may be asked",
        ),
        ("log", Shape::Table(&rsyslog::LOG), "The log"),
        (
            "upgrade",
            Shape::Table(&upgrade::UPGRADE),
            "Where releases of the operating system come from",
        ),
        (
            "install",
            Shape::Table(&install::INSTALL),
            "Installs the system on a disk, without asking",
        ),
    ],
);
/// `rancher`
pub(in crate::cloud_config) static RANCHER: Table = Table::new(
    "rancher",
    &[
        (
            "services",
            SERVICES,
            "Services and applications, as in a Compose file",
        ),
        (
            "environment",
            Shape::Map(&Shape::Text),
            "Variables for services",
        ),
        (
            "sysctl",
            Shape::Map(&Shape::Text),
            "Kernel parameters, as vm.swappiness",
        ),
        (
            "modules",
            Shape::TEXTS,
            "Kernel modules, with their parameters",
        ),
        (
            "docker",
            Shape::Table(&rancher_docker::DOCKER),
            "Settings of Docker",
        ),
        (
            "network",
            Shape::Table(&crate::network::RANCHER),
            "The network",
        ),
        ("ssh", Shape::Table(&ssh::SERVER), "sshd"),
        ("mounts", storage::MOUNTS, "As `mounts` at the top level"),
        (
            "registry_auths",
            registries::AUTHENTICATIONS,
            "Who may have images, by registry",
        ),
        (
            "cloud_init",
            Shape::Table(&rancher::CLOUD_INIT),
            "Where the configuration comes from",
        ),
        ("console", Shape::Text, "Image of the console"),
        (
            "password",
            Shape::Text,
            "Password of the default user, in the clear or hashed",
        ),
        (
            "disable",
            Shape::TEXTS,
            "`password`: the password above is not set",
        ),
        (
            "services_include",
            rancher::SERVICES_INCLUDE,
            "Says nothing here: there is no catalogue of services",
        ),
        (
            "state",
            Shape::Table(&rancher::STATE),
            "Says nothing here: the state partition is found by its name",
        ),
        (
            "system_docker",
            Shape::Table(&rancher::SYSTEM_DOCKER),
            "Says nothing here: the system engine is not a Docker",
        ),
        (
            "defaults",
            Shape::Table(&rancher::DEFAULTS),
            "Says nothing here: each stands elsewhere",
        ),
    ],
)
.unsupported(RANCHER_UNSUPPORTED);
/// What a service may have is for the system engine to say.
const SERVICES: Shape = Shape::Map(&Shape::Map(&Shape::Any));

/// Keys of RancherOS 1.5 below `rancher` that are not applied.
const RANCHER_UNSUPPORTED: &[(&str, &str)] = &[
    (
        "autoformat",
        "the image has a state partition; name other disks under `fs_setup`",
    ),
    (
        "autologin",
        "nobody is logged in without a password or a key: set `password`",
    ),
    (
        "bootstrap",
        "the system starts without services of a user's before it",
    ),
    (
        "bootstrap_docker",
        "there is no second Docker to start with",
    ),
    (
        "debug",
        "each service says what it does in the log: `keelson service logs NAME`; the kernel's messages are `dmesg`",
    ),
    (
        "cloud_init_services",
        "the system starts without services of a user's before it",
    ),
    (
        "datasources",
        "it is `cloud_init.datasources` here, or `keelson.datasources`",
    ),
    ("firewall", "it stands under `keelson`"),
    ("force_console_rebuild", "the console is fresh at each boot"),
    (
        "formatzero",
        "the image has a state partition; name other disks under `fs_setup`",
    ),
    (
        "http_load_retries",
        "what is fetched is tried until it is there",
    ),
    (
        "hypervisor_service",
        "programs of hypervisors are run as services: `keelson.services`",
    ),
    ("log", "all output goes to the log: `keelson service logs`"),
    (
        "no_sharedroot",
        "below /mnt, /media, /srv and /data, mounts are shared always, and nowhere else",
    ),
    (
        "preload_wait",
        "load images with `docker load`: nothing waits for it",
    ),
    ("proxy", "it stands under `keelson`"),
    ("registries", "it stands under `keelson`"),
    (
        "recovery",
        "write `keelson.rescue` on the kernel command line",
    ),
    (
        "repositories",
        "there is no catalogue: use `keelson service enable URL`",
    ),
    ("resize_device", "the state partition grows by itself"),
    (
        "restart_services",
        "services hear of changed files by themselves",
    ),
    ("rm_usr", "the system is one read-only image"),
    ("runcmd", "it stands at the top level: `runcmd`"),
    (
        "shutdown_timeout",
        "each service says its own: `stop_grace_period`",
    ),
    (
        "upgrade",
        "the system is upgraded from a signed image, not from a list of addresses",
    ),
];
