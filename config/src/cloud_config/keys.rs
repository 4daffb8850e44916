//! The top-level keys of a cloud-config: those that are applied, and why the others are not.

use super::{
    commands, files, finish, groups, passwords, random_seed, rsyslog, services, ssh, storage,
    system, users,
};
use crate::sources::choice;
use crate::yaml::{Setting, Shape, Table};

/// All of them.
pub(crate) static TOP: Table = Table::new("cloud-config", APPLIED).unsupported(UNSUPPORTED);

const APPLIED: &[Setting] = &[
    ("hostname", Shape::Text, "Name of the machine"),
    ("fqdn", Shape::Text, "Name of the machine with its domain"),
    (
        "prefer_fqdn_over_hostname",
        Shape::Boolean,
        "The machine's own name is the one with the domain",
    ),
    (
        "users",
        users::USERS,
        "Users to make; `default` is the system's own",
    ),
    (
        "user",
        users::USER,
        "The default user: another name, or settings",
    ),
    (
        "groups",
        groups::GROUPS,
        "Groups to make, with their members",
    ),
    (
        "ssh_authorized_keys",
        super::authorized_keys::KEYS,
        "SSH keys of the default user",
    ),
    (
        "ssh_import_id",
        Shape::TEXTS,
        "Whose SSH keys the default user gets as well, as gh:NAME",
    ),
    (
        "disable_root",
        Shape::Boolean,
        "False gives root the default user's SSH keys",
    ),
    (
        "password",
        Shape::Text,
        "Password of the default user, in the clear or hashed",
    ),
    (
        "chpasswd",
        Shape::Table(&passwords::CHPASSWD),
        "Passwords of users",
    ),
    (
        "ssh_pwauth",
        passwords::SSH_PWAUTH,
        "Whether sshd takes passwords",
    ),
    (
        "write_files",
        Shape::List(&Shape::Table(&files::FILE)),
        "Files to write",
    ),
    (
        "runcmd",
        commands::COMMANDS,
        "Commands that run once, in the console",
    ),
    (
        "keelson",
        Shape::Table(&services::KEELSON),
        "Settings of Keelson's own",
    ),
    (
        "rancher",
        Shape::Table(&services::RANCHER),
        "Settings as RancherOS has them",
    ),
    (
        "bootcmd",
        commands::COMMANDS,
        "Commands that run at each boot, in the console",
    ),
    ("timezone", Shape::Text, "Time zone, as Europe/Berlin"),
    ("locale", Shape::Text, "Language of programs, as C.UTF-8"),
    (
        "ntp",
        Shape::Table(&system::NTP),
        "Time servers instead of the public pool",
    ),
    (
        "ca_certs",
        Shape::Table(&system::CA_CERTS),
        "Certificates of authorities",
    ),
    (
        "resolv_conf",
        Shape::Table(&system::RESOLV_CONF),
        "Name servers before those of the network",
    ),
    (
        "rsyslog",
        rsyslog::RSYSLOG,
        "Syslog servers that the log is sent to",
    ),
    (
        "manage_resolv_conf",
        Shape::Boolean,
        "False: `resolv_conf` is not applied",
    ),
    (
        "random_seed",
        Shape::Table(&random_seed::RANDOM_SEED),
        "For the kernel's random number generator",
    ),
    (
        "authkey_hash",
        Shape::Text,
        "Hash of fingerprints: sha256, and no other",
    ),
    (
        "no_ssh_fingerprints",
        Shape::Boolean,
        "True: no fingerprints of host keys at the console",
    ),
    (
        "ssh",
        Shape::Table(&ssh::CONSOLE),
        "What is told at the console of host keys",
    ),
    (
        "ssh_fp_console_blacklist",
        Shape::TEXTS,
        "Kinds of host keys without fingerprints at the console, as ssh-rsa",
    ),
    (
        "ssh_genkeytypes",
        ssh::KEY_KINDS,
        "Kinds of host keys that are made",
    ),
    (
        "ssh_key_console_blacklist",
        Shape::TEXTS,
        "Says nothing here: host keys themselves are not told",
    ),
    (
        "ssh_quiet_keygen",
        Shape::Boolean,
        "Says nothing here: making host keys is quiet",
    ),
    (
        "ssh_keys",
        Shape::Schema(ssh::host_keys),
        "Host keys of the machine",
    ),
    (
        "ssh_deletekeys",
        Shape::Boolean,
        "False: a new instance keeps its host keys",
    ),
    (
        "final_message",
        Shape::Text,
        "Said on the console when all is done",
    ),
    (
        "phone_home",
        Shape::Table(&finish::PHONE_HOME),
        "Tells an address that the machine is there",
    ),
    (
        "power_state",
        Shape::Table(&finish::POWER_STATE),
        "Ends with a reboot or with the power off",
    ),
    (
        "vendor_data",
        Shape::Table(&VENDOR_DATA),
        "Whether what the provider says counts",
    ),
    (
        "manage_etc_hosts",
        MANAGE_ETC_HOSTS,
        "/etc/hosts names this machine anyway",
    ),
    (
        "preserve_hostname",
        Shape::Boolean,
        "The machine's name is left as it is",
    ),
    (
        "launch-index",
        Shape::Any,
        "For which machine of several the document is",
    ),
    (
        "datasource",
        choice::DATASOURCE,
        "Where the data source NoCloud has its seed",
    ),
    (
        "datasource_list",
        Shape::TEXTS,
        "Data sources that may be asked",
    ),
    (
        "device_aliases",
        Shape::Map(&Shape::Text),
        "Names for devices, for the keys about disks",
    ),
    (
        "disk_setup",
        storage::DISK_SETUP,
        "Partition tables, by disk",
    ),
    ("fs_setup", storage::FS_SETUP, "File systems to make"),
    (
        "mount_default_fields",
        Shape::TEXTS,
        "Fields of fstab(5) for entries that lack them",
    ),
    (
        "mounts",
        storage::MOUNTS,
        "What is mounted: fields of fstab(5), as [/dev/vdb1, /mnt/data]",
    ),
    ("swap", Shape::Table(&storage::SWAP), "A file to swap to"),
];

pub(super) static VENDOR_DATA: Table = Table::new(
    "vendor_data",
    &[(
        "enabled",
        Shape::Boolean,
        "False: vendor-data is not applied",
    )],
)
.unsupported(&[("prefix", "scripts of vendor-data are run as they are")]);

const MANAGE_ETC_HOSTS: Shape =
    Shape::AnyOf(&[Shape::Boolean, Shape::Words(&["localhost", "template"])]);

const NO_PACKAGES: &str = "there is no package manager; run it in a container instead";
const NO_AGENT: &str =
    "the program it configures is not part of this system; run it in a container instead";
const OTHER_DISTRIBUTION: &str = "it is for another distribution";
const NO_MODULES: &str =
    "what is asked for is applied, in cloud-init's order; there are no modules to choose";
const ALREADY: &str = "the system does this by itself";

/// Keys of cloud-init that are not applied, and why. (Its schema names 99; these are the ones that are not in [`APPLIED`].)
const UNSUPPORTED: &[(&str, &str)] = &[
    ("allow_public_ssh_keys", ALREADY),
    ("ansible", NO_AGENT),
    ("apk_repos", NO_PACKAGES),
    ("apt", NO_PACKAGES),
    ("apt_pipelining", NO_PACKAGES),
    ("apt_reboot_if_required", NO_PACKAGES),
    ("apt_update", NO_PACKAGES),
    ("apt_upgrade", NO_PACKAGES),
    ("autoinstall", OTHER_DISTRIBUTION),
    ("byobu_by_default", OTHER_DISTRIBUTION),
    ("chef", NO_AGENT),
    ("cloud_config_modules", NO_MODULES),
    ("cloud_final_modules", NO_MODULES),
    ("cloud_init_modules", NO_MODULES),
    ("create_hostname_file", ALREADY),
    (
        "disable_ec2_metadata",
        "use `keelson.firewall`, or a rule of your own in Docker's chain DOCKER-USER",
    ),
    (
        "disable_root_opts",
        "root has no keys, unless `disable_root: false` gives it the same as the default user",
    ),
    ("drivers", NO_PACKAGES),
    ("fan", NO_AGENT),
    ("growpart", ALREADY),
    ("grub_dpkg", OTHER_DISTRIBUTION),
    (
        "keyboard",
        "the console has the kernel's own keyboard layout, and no other is in the system",
    ),
    ("landscape", NO_AGENT),
    ("locale_configfile", "the locale is in /etc/default/locale"),
    ("lxd", NO_AGENT),
    ("mcollective", NO_AGENT),
    (
        "merge_how",
        "it stands at the top of the document that it is about",
    ),
    (
        "merge_type",
        "it stands at the top of the document that it is about",
    ),
    ("migrate", OTHER_DISTRIBUTION),
    (
        "network",
        "network settings belong in the file network-config beside user-data",
    ),
    (
        "output",
        "all output goes to the log: `keelson service logs`",
    ),
    ("package_reboot_if_required", NO_PACKAGES),
    ("package_update", NO_PACKAGES),
    (
        "package_upgrade",
        "the system is upgraded as a whole, not by package",
    ),
    ("packages", NO_PACKAGES),
    ("puppet", NO_AGENT),
    ("reporting", "use `phone_home`, or `keelson.log.remotes`"),
    ("resize_rootfs", ALREADY),
    ("rh_subscription", NO_PACKAGES),
    ("rpi", OTHER_DISTRIBUTION),
    ("salt_minion", NO_AGENT),
    ("snap", NO_PACKAGES),
    ("spacewalk", NO_AGENT),
    (
        "ssh_publish_hostkeys",
        "host keys are told to nobody; `phone_home` can",
    ),
    ("system_info", OTHER_DISTRIBUTION),
    ("ubuntu_advantage", OTHER_DISTRIBUTION),
    ("ubuntu_pro", OTHER_DISTRIBUTION),
    (
        "updates",
        "the configuration is applied at each boot, and at once with `keelson config apply`",
    ),
    ("version", ALREADY),
    (
        "wireguard",
        "tunnels belong under `keelson.network` or in network-config: `tunnels`, mode wireguard",
    ),
    ("yum_repo_dir", NO_PACKAGES),
    ("yum_repos", NO_PACKAGES),
    ("zypper", NO_PACKAGES),
    ("coreos", OTHER_DISTRIBUTION),
    ("stages", OTHER_DISTRIBUTION),
];
