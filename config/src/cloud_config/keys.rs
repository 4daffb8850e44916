//! The top-level keys of a cloud-config: those that are applied, and why the others are not.

/// Keys that are applied.
pub(super) const APPLIED: &[&str] = &[
    "hostname",
    "fqdn",
    "prefer_fqdn_over_hostname",
    "users",
    "user",
    "groups",
    "ssh_authorized_keys",
    "ssh_import_id",
    "disable_root",
    "password",
    "chpasswd",
    "ssh_pwauth",
    "write_files",
    "runcmd",
    "keelson",
    "rancher",
    "bootcmd",
    "timezone",
    "locale",
    "ntp",
    "ca_certs",
    "resolv_conf",
    "manage_resolv_conf",
    "random_seed",
    "ssh_keys",
    "ssh_deletekeys",
    "final_message",
    "phone_home",
    "power_state",
    "vendor_data",
    "manage_etc_hosts",
    "preserve_hostname",
    "launch-index",
    "datasource",
    "datasource_list",
    "device_aliases",
    "disk_setup",
    "fs_setup",
    "mount_default_fields",
    "mounts",
    "swap",
];

const NO_PACKAGES: &str = "there is no package manager; run it in a container instead";
const NO_AGENT: &str =
    "the program it configures is not part of this system; run it in a container instead";
const OTHER_DISTRIBUTION: &str = "it is for another distribution";
const NO_MODULES: &str =
    "what is asked for is applied, in cloud-init's order; there are no modules to choose";
const NO_FINGERPRINTS: &str = "fingerprints of host keys are not printed at boot";
const ALREADY: &str = "the system does this by itself";

/// Keys of cloud-init that are not applied, and why. (Its schema names 99; these are the ones that are not in [`APPLIED`].)
pub(super) const UNSUPPORTED: &[(&str, &str)] = &[
    ("allow_public_ssh_keys", ALREADY),
    ("ansible", NO_AGENT),
    ("apk_repos", NO_PACKAGES),
    ("apt", NO_PACKAGES),
    ("apt_pipelining", NO_PACKAGES),
    ("apt_reboot_if_required", NO_PACKAGES),
    ("apt_update", NO_PACKAGES),
    ("apt_upgrade", NO_PACKAGES),
    ("authkey_hash", "fingerprints of keys are not printed"),
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
    ("no_ssh_fingerprints", NO_FINGERPRINTS),
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
    (
        "reporting",
        "use `phone_home`, or a service that sends the log",
    ),
    ("resize_rootfs", ALREADY),
    ("rh_subscription", NO_PACKAGES),
    ("rpi", OTHER_DISTRIBUTION),
    (
        "rsyslog",
        "the log is the system's own (`keelson service logs`); a service of yours can read /run/keelson/log and send it on",
    ),
    ("salt_minion", NO_AGENT),
    ("snap", NO_PACKAGES),
    ("spacewalk", NO_AGENT),
    ("ssh", NO_FINGERPRINTS),
    ("ssh_fp_console_blacklist", NO_FINGERPRINTS),
    (
        "ssh_genkeytypes",
        "ed25519 and ecdsa keys are made; give others under `ssh_keys`",
    ),
    ("ssh_key_console_blacklist", NO_FINGERPRINTS),
    (
        "ssh_publish_hostkeys",
        "host keys are told to nobody; `phone_home` can",
    ),
    ("ssh_quiet_keygen", ALREADY),
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
