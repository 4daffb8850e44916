//! Seeds applied to a state partition in a temporary directory.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::PathBuf;

use keelson_config::instance::{APPEND_DIRECTORY, FILES_DIRECTORY};

use super::*;

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
        for directory in ["config", "home", "opt"] {
            std::fs::create_dir_all(root.path().join("state").join(directory)).unwrap();
        }
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
        let context = Context {
            state: &self.state,
            image_accounts: &self.image,
            today: Day(20_000),
        };
        let seed = Seed {
            device: "vdb".into(),
            user_data: Some(user_data.as_bytes().to_vec()),
            meta_data: Some(
                format!("instance-id: {instance_id}\nlocal-hostname: from-meta\n").into_bytes(),
            ),
            others: Vec::new(),
        };
        let mut report = Report::quiet();
        prepare(&context, &mut report);
        let outcome = apply(&context, &seed, &mut report);
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
    assert_eq!(
        outcome,
        Outcome::Applied {
            hostname: Some("node".into())
        }
    );
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

    std::fs::write(machine.path("config/hostname"), "changed\n").unwrap();
    assert_eq!(machine.boot("i-1", SEED).0, Outcome::Known);
    assert_eq!(
        machine.boot("i-1", "#cloud-config\nhostname: other\n").0,
        Outcome::Known
    );
    assert_eq!(machine.text("config/hostname"), "changed\n");
}

#[test]
fn an_interrupted_first_boot_is_repeated_with_the_same_result() {
    let machine = Machine::new();
    machine.boot("i-1", SEED);
    let shadow = machine.text("config/users/shadow");
    std::fs::remove_file(machine.path("config/instance.json")).unwrap();
    machine.boot("i-1", SEED);
    assert_eq!(
        machine.text(&format!("config/{APPEND_DIRECTORY}/etc/hosts")),
        "10.0.0.1 a\n"
    );
    assert_eq!(
        machine.text("home/keelson/.ssh/authorized_keys"),
        "ssh-ed25519 AAAA me\n"
    );
    assert_eq!(
        machine.text("config/users/shadow").lines().count(),
        shadow.lines().count()
    );
}

#[test]
fn another_instance_starts_without_the_first_ones_files_and_host_keys() {
    let machine = Machine::new();
    machine.boot("i-1", SEED);
    std::fs::write(machine.path("config/ssh/ssh_host_ed25519_key"), "secret").unwrap();
    let (outcome, errors) = machine.boot("i-2", "#cloud-config\n{}\n");
    assert_eq!(
        (outcome, errors),
        (
            Outcome::Applied {
                hostname: Some("from-meta".into())
            },
            Vec::new()
        )
    );
    assert!(!machine.path("config/ssh/ssh_host_ed25519_key").exists());
    assert!(!machine.path("config/files").exists());
    assert!(!machine.path("config/fqdn").exists());
    assert!(
        machine.text("config/users/passwd").contains("ann:"),
        "people stay"
    );
    assert_eq!(machine.text("config/users/sudoers"), "");
}

#[test]
fn broken_user_data_is_named_and_read_again_at_the_next_boot() {
    let machine = Machine::new();
    let (outcome, errors) = machine.boot("i-1", "#cloud-config\nhostname: a\n\tusers: []\n");
    assert_eq!(
        outcome,
        Outcome::Applied {
            hostname: Some("from-meta".into())
        }
    );
    assert!(
        errors[0].starts_with("user-data:3:1: not valid YAML"),
        "{errors:?}"
    );
    assert!(!machine.path("config/instance.json").exists());
    assert_eq!(
        machine.boot("i-1", "#cloud-config\nhostname: a\n").0,
        Outcome::Applied {
            hostname: Some("a".into())
        }
    );
}

#[test]
fn a_script_is_kept_to_be_run() {
    let machine = Machine::new();
    machine.boot("../../x", "#!/bin/bash\necho\n");
    let instance = Instance::from_json(machine.text("config/instance.json").as_bytes()).unwrap();
    let scripts = instance.scripts.unwrap();
    assert_eq!(
        machine.text(&format!("config/scripts/{scripts}/part-001")),
        "#!/bin/bash\necho\n"
    );
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

#[test]
fn a_users_link_does_not_redirect_what_root_writes() {
    let machine = Machine::new();
    machine.boot("i-1", "#cloud-config\n{}\n");
    std::os::unix::fs::symlink(machine.path("config"), machine.path("home/keelson/.ssh")).unwrap();
    let (_, errors) = machine.boot("i-2", "#cloud-config\nssh_authorized_keys: [ssh-rsa A b]\n");
    assert!(
        errors[0].starts_with("write the keys of `keelson`"),
        "{errors:?}"
    );
    assert!(!machine.path("config/authorized_keys").exists());
}
