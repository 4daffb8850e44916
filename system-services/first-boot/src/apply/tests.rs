//! Seeds applied to a state partition in a temporary directory.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::PathBuf;

use keelson_config::Diagnostics;
use keelson_config::instance::{APPEND_DIRECTORY, FILES_DIRECTORY, LAYERS_DIRECTORY, SET_FILE};
use keelson_config::sources::{machine, nocloud};

use super::*;
use crate::layers;

mod files;
mod imported;
mod instances;
mod settings;

const PASSWD: &str =
    "root:x:0:0:root:/root:/bin/bash\nkeelson:x:1000:1000::/home/keelson:/bin/bash\n";
const SHADOW: &str = "root:*:20000:0:99999:7:::\nkeelson:*:20000:0:99999:7:::\n";
const GROUP: &str = "root:x:0:\nsudo:x:27:keelson\nshadow:x:42:\nsystem-docker:x:997:keelson\ndocker:x:998:keelson\nkeelson:x:1000:\n";
const GSHADOW: &str = "root:*::\nsudo:!::keelson\nshadow:!::\nkeelson:!::\n";

/// A machine with nothing but its image. Needs root: files change hands.
struct Machine {
    root: tempfile::TempDir,
    state: State,
    image: Accounts,
}

impl Machine {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        for directory in [
            "state/config",
            "state/home",
            "state/opt",
            "image/usr/share/zoneinfo/Europe",
            "image/etc/ssl/certs",
        ] {
            std::fs::create_dir_all(root.path().join(directory)).unwrap();
        }
        std::fs::write(
            root.path().join("image/usr/share/zoneinfo/Europe/Berlin"),
            "TZif",
        )
        .unwrap();
        std::fs::write(
            root.path().join("image/etc/ssl/certs/ca-certificates.crt"),
            "everybody\n",
        )
        .unwrap();
        let state = State::open(root.path()).unwrap();
        let image = Accounts::read(|name| {
            let text = match name {
                "passwd" => PASSWD,
                "shadow" => SHADOW,
                "group" => GROUP,
                _ => GSHADOW,
            };
            Ok::<_, ()>(Some(text.to_owned()))
        });
        Machine {
            root,
            state,
            image: image.unwrap(),
        }
    }

    fn boot(&self, instance_id: &str, user_data: &str) -> (Outcome, Vec<String>) {
        let files = nocloud::Files {
            user_data: Some(user_data.as_bytes().to_vec()),
            meta_data: Some(
                format!("instance-id: {instance_id}\nlocal-hostname: from-meta\n").into_bytes(),
            ),
            ..nocloud::Files::default()
        };
        self.boot_from(files, "")
    }

    fn boot_from(&self, files: nocloud::Files, command_line: &str) -> (Outcome, Vec<String>) {
        let image = self.root.path().join("image");
        let context = Context {
            state: &self.state,
            image_accounts: &self.image,
            image: &image,
            today: Day(20_000),
            boot_id: "boot-1",
        };
        let mut report = Report::quiet();
        let mut diagnostics = Diagnostics::new("");
        let source = nocloud::read(files, "the seed on vdb", &mut diagnostics).unwrap();
        let wanted = layers::assemble(
            &self.state,
            source,
            &machine::Machine {
                command_line: command_line.to_owned(),
                ..machine::Machine::default()
            },
            None,
            &mut diagnostics,
            &mut report,
        );
        report.diagnostics(diagnostics);
        let outcome = apply(&context, &wanted, &mut report);
        (outcome, report.errors().to_vec())
    }

    fn path(&self, path: &str) -> PathBuf {
        self.root.path().join("state").join(path)
    }

    fn text(&self, path: &str) -> String {
        std::fs::read_to_string(self.path(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    fn access(&self, path: &str) -> (u32, u32, u32) {
        let metadata = std::fs::metadata(self.path(path)).unwrap();
        (
            metadata.permissions().mode() & 0o7777,
            metadata.uid(),
            metadata.gid(),
        )
    }
}

const SEED: &str = "#cloud-config
hostname: node.example.org
ssh_authorized_keys: [ssh-ed25519 AAAA me]
ssh_pwauth: true
users:
  - default
  - name: ann
    groups: [sudo, ops]
    sudo: ALL=(ALL) NOPASSWD:ALL
    lock_passwd: false
    plain_text_passwd: secret
    ssh_authorized_keys: [ssh-ed25519 BBBB ann]
write_files:
  - {path: /etc/motd, content: hello, permissions: '0600'}
  - {path: /home/ann/.config/x, content: x, owner: 'ann:ann'}
  - {path: /opt/tool/run, content: '#!/bin/sh', permissions: '0755'}
  - {path: /etc/hosts, content: \"10.0.0.1 a\\n\", append: true}
  - {path: /etc/docker/daemon.json, content: '{}'}
  - {path: /srv/a, content: a, owner: nobody-there}
  - {path: /proc/x, content: a}
runcmd: [echo hello]
";

#[test]
fn a_seed_is_applied_whole_and_once() {
    let machine = Machine::new();
    let (outcome, errors) = machine.boot("i-1", SEED);
    assert_eq!(outcome, named(true, "node"));
    assert_eq!(errors.len(), 2, "{errors:?}");
    assert!(
        errors[0].starts_with("user-data:19:5: write_files: /srv/a shall be `nobody-there`'s"),
        "{errors:?}"
    );
    assert!(
        errors[1].contains("no file can be kept at /proc/x"),
        "{errors:?}"
    );

    assert_eq!(machine.text("config/hostname"), "node\n");
    assert_eq!(machine.text("config/fqdn"), "node.example.org\n");
    assert!(
        machine
            .text("config/users/passwd")
            .contains("ann:x:1001:1001::/home/ann:/bin/bash\n")
    );
    assert!(machine.text("config/users/shadow").contains("ann:$6$"));
    assert!(machine.text("config/users/shadow").contains("keelson:*:"));
    assert_eq!(machine.access("config/users/shadow"), (0o640, 0, 42));
    assert_eq!(
        machine.text("config/users/sudoers"),
        "ann ALL=(ALL) NOPASSWD:ALL\n"
    );
    assert_eq!(
        machine.text("config/ssh/sshd_config.d/50-cloud-config.conf"),
        "PasswordAuthentication yes\n"
    );
    assert_eq!(
        machine.text("home/keelson/.ssh/authorized_keys"),
        "ssh-ed25519 AAAA me\n"
    );
    assert_eq!(
        machine.access("home/keelson/.ssh/authorized_keys"),
        (0o600, 1000, 1000)
    );
    assert_eq!(machine.access("home/ann/.ssh"), (0o700, 1001, 1001));
    assert_eq!(machine.access("home/ann/.config"), (0o755, 1001, 1001));
    assert_eq!(machine.access("home/ann"), (0o700, 1001, 1001));
    assert_eq!(
        machine.access(&format!("config/{FILES_DIRECTORY}/etc/motd")),
        (0o600, 0, 0)
    );
    assert_eq!(machine.access("opt/tool/run"), (0o755, 0, 0));
    assert_eq!(
        machine.text(&format!("config/{APPEND_DIRECTORY}/etc/hosts")),
        "10.0.0.1 a\n"
    );
    assert_eq!(machine.text("config/docker/daemon.json"), "{}");
    let instance = Instance::from_json(machine.text("config/instance.json").as_bytes()).unwrap();
    let scripts = instance.scripts.unwrap();
    assert_eq!(
        machine.text(&format!("config/scripts/{scripts}/runcmd")),
        "#!/bin/sh\necho hello\n"
    );
    assert_eq!(
        machine.access(&format!("config/scripts/{scripts}/runcmd")),
        (0o700, 0, 0)
    );

    // Again: what people changed since stays, and nothing is done twice.
    let record = machine.text("config/instance.json");
    std::fs::write(
        machine.path(&format!("config/{FILES_DIRECTORY}/etc/motd")),
        "mine\n",
    )
    .unwrap();
    let before = machine.text("config/users/shadow");
    let (outcome, errors) = machine.boot("i-1", SEED);
    assert_eq!(outcome, named(false, "node"));
    assert_eq!(
        errors.len(),
        2,
        "what was not done is said again: {errors:?}"
    );
    assert_eq!(
        machine.text(&format!("config/{FILES_DIRECTORY}/etc/motd")),
        "mine\n"
    );
    assert_eq!(machine.text("config/users/shadow"), before);
    assert_eq!(machine.text("config/instance.json"), record);
}

/// The host's name after a boot, and whether the instance was new.
fn named(is_new: bool, name: &str) -> Outcome {
    Outcome {
        is_new,
        hostname: Some(name.to_owned()),
    }
}

#[test]
fn settings_follow_the_configuration_and_scripts_do_not() {
    let machine = Machine::new();
    let first = "#cloud-config\nhostname: one\nssh_authorized_keys: [ssh-rsa A a, ssh-rsa B b]\nruncmd: [first]\nbootcmd: [early]\ntimezone: Europe/Berlin\n\
        ntp: {servers: [ntp.example]}\nkeelson: {sysctl: {vm.swappiness: 5}, docker: {debug: true}, services: {web: {image: i}}}\n";
    machine.boot("i-1", first);
    let keys = "home/keelson/.ssh/authorized_keys";
    std::fs::write(machine.path(keys), machine.text(keys) + "ssh-rsa M mine\n").unwrap();
    assert_eq!(machine.text("config/files/etc/localtime"), "TZif");
    assert_eq!(
        machine.text("config/time/default.sources"),
        "server ntp.example iburst\n"
    );
    assert!(
        machine
            .text("config/services/user-data-kernel.yml")
            .contains("vm.swappiness=5")
    );
    assert!(
        machine
            .text("config/docker/daemon.json")
            .contains("\"debug\": true")
    );
    assert!(
        machine
            .path("config/services/user-data-keelson.yml")
            .exists()
    );
    assert_eq!(
        machine.text("config/scripts/boot/01-bootcmd"),
        "#!/bin/sh\nearly\n"
    );
    assert_eq!(machine.text("config/configured"), "boot-1\n");

    let second =
        "#cloud-config\nhostname: two\nssh_authorized_keys: [ssh-rsa B b]\nruncmd: [second]\n";
    let (outcome, errors) = machine.boot("i-1", second);
    assert_eq!((outcome, errors), (named(false, "two"), Vec::new()));
    assert_eq!(machine.text(keys), "ssh-rsa B b\nssh-rsa M mine\n");
    for gone in [
        "files/etc/localtime",
        "docker/daemon.json",
        "services/user-data-keelson.yml",
        "services/user-data-kernel.yml",
        "time/default.sources",
        "scripts/boot/01-bootcmd",
    ] {
        assert!(!machine.path("config").join(gone).exists(), "{gone}");
    }
    let instance = Instance::from_json(machine.text("config/instance.json").as_bytes()).unwrap();
    let runcmd = format!("config/scripts/{}/runcmd", instance.scripts.unwrap());
    assert_eq!(machine.text(&runcmd), "#!/bin/sh\nfirst\n");
}

#[test]
fn all_layers_are_applied_in_their_order() {
    let machine = Machine::new();
    std::fs::create_dir_all(machine.path("config").join(LAYERS_DIRECTORY)).unwrap();
    std::fs::write(
        machine
            .path("config")
            .join(LAYERS_DIRECTORY)
            .join("10-own.yml"),
        "hostname: own\ntimezone: Europe/Berlin\n",
    )
    .unwrap();
    std::fs::write(machine.path("config").join(SET_FILE), "hostname: set\n").unwrap();
    let files = || nocloud::Files {
        user_data: Some(b"#cloud-config\nhostname: user\n".to_vec()),
        vendor_data: Some(b"#cloud-config\nhostname: vendor\nbootcmd: [v]\n".to_vec()),
        network_config: Some(b"version: 2\nethernets: {e: {addresses: [192.0.2.5/24]}}\n".to_vec()),
        ..nocloud::Files::default()
    };
    assert_eq!(machine.boot_from(files(), "").0, named(true, "set"));
    assert_eq!(machine.text("config/files/etc/timezone"), "Europe/Berlin\n");
    assert!(machine.path("config/scripts/boot/01-bootcmd").exists());
    assert!(
        machine
            .text("config/network/config.json")
            .contains("192.0.2.5/24")
    );
    let line = "ro cc.hostname=line keelson.network={version: 2, ethernets: {f: {dhcp4: true}}}";
    assert_eq!(machine.boot_from(files(), line).0, named(false, "line"));
    assert!(
        !machine
            .text("config/network/config.json")
            .contains("192.0.2.5/24")
    );
}

#[test]
fn variables_of_services_stand_beside_peoples_own_and_go_again() {
    let machine = Machine::new();
    std::fs::create_dir_all(machine.path("config/services")).unwrap();
    std::fs::write(machine.path("config/services/.env"), "MINE=1\n").unwrap();
    machine.boot("i-1", "#cloud-config\nkeelson: {environment: {TAG: v1}}\n");
    let text = machine.text("config/services/.env");
    assert!(
        text.starts_with("MINE=1\n") && text.contains("TAG=\"v1\"\n"),
        "{text}"
    );
    machine.boot("i-1", "#cloud-config\n{}\n");
    assert_eq!(machine.text("config/services/.env"), "MINE=1\n");
}

#[test]
fn nobody_is_given_more_than_the_configuration_says() {
    let machine = Machine::new();
    let seed = "#cloud-config\nuser: {name: bob, sudo: false, groups: []}\n";
    assert_eq!(machine.boot("i-1", seed).1, Vec::<String>::new());
    assert_eq!(machine.text("config/users/sudoers"), "");
    assert!(!machine.text("config/users/group").contains(",bob"));
}

#[test]
fn a_default_user_of_another_name_has_what_the_default_user_has() {
    let machine = Machine::new();
    let seed = "#cloud-config\nuser: bob\npassword: secret\nchpasswd: {expire: false}\nssh_authorized_keys: [ssh-rsa A b]\nusers: [default]\n";
    let (_, errors) = machine.boot("i-1", seed);
    assert_eq!(errors, Vec::<String>::new());
    assert!(
        machine
            .text("config/users/group")
            .contains("sudo:x:27:keelson,bob\n")
    );
    assert!(machine.text("config/users/shadow").contains("bob:$6$"));
    assert_eq!(
        machine.text("config/users/sudoers"),
        "bob ALL=(ALL:ALL) NOPASSWD: ALL\n"
    );
    assert_eq!(
        machine.text("home/bob/.ssh/authorized_keys"),
        "ssh-rsa A b\n"
    );
}
