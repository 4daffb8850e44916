//! Keys below `rancher` that are applied by other means than RancherOS had, and those that want a word for each setting below them.

use crate::diagnostic::Diagnostics;
use crate::shell::Command;
use crate::yaml::{self, Fields, Node, Shape, Table, Value};

/// Names of RancherOS' consoles, which were images of a catalogue.
const CONSOLES: [&str; 5] = ["alpine", "centos", "debian", "fedora", "ubuntu"];
const BY_NAME: &str = "the state partition is found by its name (`keelson.state=` on the kernel command line names another), and no start waits for it";
const OTHER_DISKS: &str =
    "RAID, LVM and encrypted disks are not put together; name other disks under `fs_setup`";
pub(super) static STATE: Table = Table::new("rancher.state", &[]).unsupported(&[
    ("dev", BY_NAME),
    ("wait", BY_NAME),
    ("required", BY_NAME),
    ("fstype", BY_NAME),
    ("boot_dev", BY_NAME),
    ("boot_fstype", BY_NAME),
    ("oem_dev", BY_NAME),
    ("oem_fstype", BY_NAME),
    ("directory", BY_NAME),
    (
        "autoformat",
        "the image has a state partition; name other disks under `fs_setup`",
    ),
    (
        "formatzero",
        "the image has a state partition; name other disks under `fs_setup`",
    ),
    ("mdadm_scan", OTHER_DISKS),
    ("lvm_scan", OTHER_DISKS),
    ("cryptsetup", OTHER_DISKS),
    ("rngd", "the kernel's generator is seeded by itself"),
    ("script", "write commands for each boot under `bootcmd`"),
]);
const ENGINE: &str = "the system engine is not a Docker";
pub(super) static SYSTEM_DOCKER: Table = Table::new("rancher.system_docker", &[]).unsupported(&[
    ("registry_mirror", "write `keelson.registries`"),
    ("insecure_registry", "write `keelson.registries`"),
    ("environment", "set a proxy with `keelson.proxy`"),
    (
        "bip",
        "the system engine's bridge keeps out of the way of the machine's networks by itself",
    ),
    (
        "log_opts",
        "all output goes to the log, which has a size of its own",
    ),
    (
        "log_driver",
        "all output goes to the log: `keelson service logs`",
    ),
    ("args", ENGINE),
    ("bridge", ENGINE),
    ("config_file", ENGINE),
    ("containerd", ENGINE),
    ("debug", ENGINE),
    ("exec", ENGINE),
    ("exec_root", ENGINE),
    ("extra_args", ENGINE),
    ("graph", ENGINE),
    ("group", ENGINE),
    ("host", ENGINE),
    ("live_restore", ENGINE),
    ("pid_file", ENGINE),
    ("restart", ENGINE),
    ("selinux_enabled", ENGINE),
    ("storage_context", ENGINE),
    ("storage_driver", ENGINE),
    ("userland_proxy", ENGINE),
]);
pub(super) static DEFAULTS: Table = Table::new("rancher.defaults", &[]).unsupported(&[
    ("hostname", "it stands at the top level: `hostname`"),
    ("network", "it stands above: `rancher.network`"),
    ("docker", "it stands above: `rancher.docker`"),
    ("system_docker_logs", "all output goes to the log"),
]);
pub(super) static CLOUD_INIT: Table = Table::new(
    "rancher.cloud_init",
    &[(
        "datasources",
        Shape::TEXTS,
        "Data sources that may be asked",
    )],
);
/// `rancher.services_include`
pub(super) const SERVICES_INCLUDE: Shape = Shape::Map(&Shape::Hint(&Shape::Boolean));

/// What they come to.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Rancher {
    /// Has the engine take another image for the console.
    pub(super) console: Option<Command>,
}

/// Reads them, and says of each that has no effect what has one. What is switched off needs no word.
pub(super) fn read(rancher: &Fields<'_>, diagnostics: &mut Diagnostics) -> Rancher {
    for (key, table) in [
        ("state", &STATE),
        ("system_docker", &SYSTEM_DOCKER),
        ("defaults", &DEFAULTS),
        ("cloud_init", &CLOUD_INIT),
    ] {
        let within = format!("rancher.{key}");
        if let Some(fields) = rancher
            .get(key)
            .and_then(|node| yaml::mapping(&within, node, diagnostics))
        {
            fields.check_unless(is_off, &format!(" of {within}"), table, diagnostics);
        }
    }
    if let Some(node) = rancher.get("disable") {
        disable(node, diagnostics);
    }
    if let Some(node) = rancher.get("services_include") {
        services_include(node, diagnostics);
    }
    Rancher {
        console: rancher
            .get("console")
            .and_then(|node| console(node, diagnostics)),
    }
}

/// Whether a setting is off, as most of RancherOS' are unless they are asked for: then nothing is to be said of it.
pub(super) fn is_off(node: &Node) -> bool {
    match &node.value {
        Value::Scalar(scalar) => scalar.is_null() || scalar.as_bool() == Some(false),
        Value::Sequence(items) => items.is_empty(),
        Value::Mapping(entries) => entries.is_empty(),
    }
}

/// `rancher.console`: an image. RancherOS' own names stand for images that are nowhere any more.
fn console(node: &Node, diagnostics: &mut Diagnostics) -> Option<Command> {
    let image = yaml::string("rancher.console", node, diagnostics)?;
    if image == "default" || image.is_empty() {
        return None;
    }
    if CONSOLES.contains(&image.as_str()) {
        let message = format!(
            "rancher.console: there is no catalogue with a console `{image}`; the default one is used: name an image of your own (docs/services.md makes one of Debian), here or to `keelson console switch`"
        );
        diagnostics.warning(node.position, message);
        return None;
    }
    if image.starts_with('-') || image.contains(|letter: char| !letter.is_ascii_graphic()) {
        let message =
            format!("rancher.console: `{image}` is no name of an image; the default one is used");
        diagnostics.error(node.position, message);
        return None;
    }
    let words = ["keelson", "console", "enable", &image];
    Some(Command::Arguments(words.map(str::to_owned).to_vec()))
}

/// `rancher.disable`: `password` and `autologin`, which nobody has here unless it is asked for.
fn disable(node: &Node, diagnostics: &mut Diagnostics) {
    for what in yaml::strings("rancher.disable", node, diagnostics) {
        if !["password", "autologin"].contains(&what.as_str()) {
            let message = format!(
                "rancher.disable: `{what}` cannot be switched off here (passwords and logins without one are off); a service is with `keelson service disable NAME`"
            );
            diagnostics.warning(node.position, message);
        }
    }
}

/// `rancher.services_include`: what is switched off is not here either.
fn services_include(node: &Node, diagnostics: &mut Diagnostics) {
    let Some(fields) = yaml::mapping("rancher.services_include", node, diagnostics) else {
        return;
    };
    for (key, wanted) in fields.iter().filter(|(_, wanted)| !is_off(wanted)) {
        let name = &key.text;
        let place = match name.contains('/') {
            true => name.as_str(),
            false => "URL",
        };
        let message = format!(
            "rancher.services_include: there is no catalogue, so `{name}` is not started: write it under `keelson.services`, or use `keelson service enable {place}`"
        );
        diagnostics.warning(wanted.position, message);
    }
}

#[cfg(test)]
mod tests {
    use crate::CloudConfig;
    use crate::diagnostic::Diagnostics;
    use crate::shell::Command;

    fn read(text: &str) -> (Vec<Command>, Vec<String>) {
        let mut diagnostics = Diagnostics::new("user-data");
        let config = CloudConfig::parse(&format!("rancher: {text}\n"), &mut diagnostics).unwrap();
        let messages = diagnostics.into_sorted();
        let messages = messages.iter().map(ToString::to_string).collect();
        (config.commands, messages)
    }

    #[test]
    fn a_console_is_an_image_and_taken_once_an_instance() {
        let enable = "keelson console enable registry.example/debian:1";
        let words = enable.split(' ').map(str::to_owned).collect();
        assert_eq!(
            read("{console: 'registry.example/debian:1'}"),
            (vec![Command::Arguments(words)], Vec::new())
        );
        assert_eq!(read("{console: default}"), (Vec::new(), Vec::new()));
        let (commands, messages) = read("{console: ubuntu}");
        assert_eq!(commands, []);
        assert_eq!(
            messages,
            [
                "user-data:1:20: rancher.console: there is no catalogue with a console `ubuntu`; the default one is used: name an image of your own (docs/services.md makes one of Debian), here or to `keelson console switch`"
            ]
        );
        assert_eq!(read("{console: '--force x'}").1.len(), 1);
    }

    #[test]
    fn each_setting_without_effect_has_one_message_that_says_what_has_one() {
        for (text, message) in [
            (
                "{state: {dev: LABEL=RANCHER_STATE}}",
                "`dev` of rancher.state is not applied: the state partition is found by its name (`keelson.state=` on the kernel command line names another), and no start waits for it",
            ),
            (
                "{state: {cryptsetup: true}}",
                "`cryptsetup` of rancher.state is not applied: RAID, LVM and encrypted disks are not put together; name other disks under `fs_setup`",
            ),
            (
                "{system_docker: {registry_mirror: 'http://m'}}",
                "`registry_mirror` of rancher.system_docker is not applied: write `keelson.registries`",
            ),
            (
                "{defaults: {hostname: a}}",
                "`hostname` of rancher.defaults is not applied: it stands at the top level: `hostname`",
            ),
            (
                "{disable: [password, syslog]}",
                "rancher.disable: `syslog` cannot be switched off here (passwords and logins without one are off); a service is with `keelson service disable NAME`",
            ),
            (
                "{services_include: {open-vm-tools: true, other: false}}",
                "rancher.services_include: there is no catalogue, so `open-vm-tools` is not started: write it under `keelson.services`, or use `keelson service enable URL`",
            ),
            (
                "{debug: true}",
                "`debug` of `rancher` is not applied: each service says what it does in the log: `keelson service logs NAME`; the kernel's messages are `dmesg`",
            ),
            (
                "{no_sharedroot: true}",
                "`no_sharedroot` of `rancher` is not applied: below /mnt, /media, /srv and /data, mounts are shared always, and nowhere else",
            ),
            (
                "{recovery: true}",
                "`recovery` of `rancher` is not applied: write `keelson.rescue` on the kernel command line",
            ),
            (
                "{autologin: tty1}",
                "`autologin` of `rancher` is not applied: nobody is logged in without a password or a key: set `password`",
            ),
            (
                "{upgrade: {url: x}}",
                "`upgrade` of `rancher` is not applied: the system is upgraded from a signed image, not from a list of addresses",
            ),
            (
                "{resize_device: /dev/sda}",
                "`resize_device` of `rancher` is not applied: the state partition grows by itself",
            ),
            (
                "{repositories: {core: {url: x}}}",
                "`repositories` of `rancher` is not applied: there is no catalogue: use `keelson service enable URL`",
            ),
            (
                "{restart_services: [x]}",
                "`restart_services` of `rancher` is not applied: services hear of changed files by themselves",
            ),
            (
                "{force_console_rebuild: true}",
                "`force_console_rebuild` of `rancher` is not applied: the console is fresh at each boot",
            ),
        ] {
            let (_, messages) = read(text);
            assert_eq!(messages.len(), 1, "{text}: {messages:?}");
            assert!(messages[0].ends_with(message), "{text}: {messages:?}");
        }
    }

    #[test]
    fn what_is_off_needs_no_word() {
        let text = "{debug: false, log: false, rm_usr: false, no_sharedroot: false, recovery: false, upgrade: {}, disable: [password, autologin], services_include: {a: false}, force_console_rebuild: no, state: {autoformat: [], wait: false, mdadm_scan: false}, system_docker: {debug: false, environment: [], bip: ~}}";
        assert_eq!(read(text), (Vec::new(), Vec::new()));
        // It is `rancher.cloud_init.datasources`.
        let (_, messages) = read("{datasources: [ec2]}");
        assert!(
            messages[0].contains("it is `cloud_init.datasources` here"),
            "{messages:?}"
        );
    }

    #[test]
    fn a_password_of_the_kernel_command_line_is_the_default_users() {
        let mut diagnostics = Diagnostics::new("");
        let root =
            crate::layers::from_command_line("rancher.password=secret", &mut diagnostics).unwrap();
        let config = CloudConfig::from_node(&root, &mut diagnostics).unwrap();
        let secret = crate::cloud_config::Secret::Plain("secret".into());
        assert_eq!(config.password, Some(secret));
        assert!(!config.expire_passwords);
        assert_eq!(diagnostics.into_sorted(), []);
        let (other, _) = read("{password: a, disable: [password]}");
        assert_eq!(other, []);
        let mut diagnostics = Diagnostics::new("");
        let text = "rancher: {password: a, disable: [password]}";
        let config = CloudConfig::parse(text, &mut diagnostics).unwrap();
        assert_eq!(config.password, None);
    }
}
