//! What cloud-configs mean, and what is said about those that mean nothing.

use keelson_config::cloud_config::{Group, Secret, UserEntry, UserPassword};
use keelson_config::shell::{Command, script};
use keelson_config::user_data::When;
use keelson_config::{
    CloudConfig, Diagnostics, MetaData, Severity, UserData, meta_data, user_data,
};

/// What `bytes` hold, with nothing to be fetched and nothing known of the instance.
fn parse(bytes: &[u8], diagnostics: &mut Diagnostics) -> UserData {
    let mut context = user_data::Context {
        fetch: &mut |_| {
            Err(user_data::Missing::Refused(
                "there is no network".to_owned(),
            ))
        },
        instance: &serde_json::Value::Null,
    };
    user_data::read(bytes, "user-data", &mut context, diagnostics)
}

/// The settings in `text` and the messages about it.
fn read(text: &str) -> (CloudConfig, Vec<String>) {
    let mut diagnostics = Diagnostics::new("user-data");
    let data = parse(text.as_bytes(), &mut diagnostics);
    let Some(root) = data.config else {
        panic!("no cloud-config: {:?}", diagnostics.into_sorted());
    };
    let config = CloudConfig::from_node(&root, &mut diagnostics).unwrap();
    (
        config,
        diagnostics
            .into_sorted()
            .iter()
            .map(ToString::to_string)
            .collect(),
    )
}

/// The settings in `text`, about which there is nothing to say.
fn clean(text: &str) -> CloudConfig {
    let (config, messages) = read(text);
    assert_eq!(messages, Vec::<String>::new());
    config
}

/// The one message about user-data that is not understood at all.
fn broken(bytes: &[u8]) -> String {
    let mut diagnostics = Diagnostics::new("user-data");
    assert!(!parse(bytes, &mut diagnostics).understood);
    let messages = diagnostics.into_sorted();
    assert_eq!(messages.len(), 1, "{messages:?}");
    assert_eq!(messages[0].severity, Severity::Error);
    messages[0].to_string()
}

fn named(config: &CloudConfig, name: &str) -> keelson_config::cloud_config::User {
    let users = config.users.as_ref().unwrap();
    let found = users.iter().find_map(|entry| match entry {
        UserEntry::Named(user) if user.name == name => Some((**user).clone()),
        _ => None,
    });
    found.unwrap_or_else(|| panic!("no user {name}"))
}

#[test]
fn an_ordinary_cloud_config_is_read_without_a_word() {
    let config = clean(
        "#cloud-config\n\
         hostname: node-1\n\
         fqdn: node-1.example.org\n\
         ssh_pwauth: no\n\
         ssh_authorized_keys:\n  - ssh-ed25519 AAAA me@here\n\
         users:\n\
         \x20 - default\n\
         \x20 - name: ann\n\
         \x20   gecos: Ann Example\n\
         \x20   groups: sudo, docker\n\
         \x20   shell: /bin/bash\n\
         \x20   lock_passwd: false\n\
         \x20   passwd: $6$salt$hash\n\
         \x20   sudo: ['ALL=(ALL) NOPASSWD:ALL']\n\
         \x20   ssh-authorized-keys: [ssh-ed25519 BBBB ann]\n\
         chpasswd: {expire: off, list: 'root:secret'}\n\
         runcmd:\n  - echo hello\n  - [touch, /tmp/a b]\n",
    );
    assert_eq!(config.hostname.as_deref(), Some("node-1"));
    assert_eq!(config.fqdn.as_deref(), Some("node-1.example.org"));
    assert_eq!(config.ssh_password_login, Some(false));
    assert_eq!(config.ssh_authorized_keys, ["ssh-ed25519 AAAA me@here"]);
    assert_eq!(config.users.as_ref().unwrap()[0], UserEntry::Default);
    let ann = named(&config, "ann");
    assert_eq!(ann.gecos.as_deref(), Some("Ann Example"));
    assert_eq!(ann.groups.as_deref().unwrap(), ["sudo", "docker"]);
    assert_eq!(
        ann.password,
        Some(UserPassword::Initial("$6$salt$hash".into()))
    );
    assert_eq!(ann.sudo.as_deref().unwrap(), ["ALL=(ALL) NOPASSWD:ALL"]);
    assert_eq!(ann.ssh_authorized_keys, ["ssh-ed25519 BBBB ann"]);
    assert!(!config.expire_passwords);
    assert_eq!(
        config.password_changes[0].secret,
        Secret::Plain("secret".into())
    );
    assert_eq!(
        script(&config.commands),
        "#!/bin/sh\necho hello\n'touch' '/tmp/a b'\n"
    );
}

#[test]
fn unknown_keys_are_named_with_their_place_and_the_nearest_known_one() {
    let (config, messages) = read(
        "#cloud-config\nhostnme: a\nusers:\n  - name: ann\n    shel: /bin/sh\nfrobnicate: 1\nhostname: b\n",
    );
    assert_eq!(
        messages,
        [
            "user-data:2:1: unknown key `hostnme` is ignored; did you mean `hostname`?",
            "user-data:5:5: unknown key `shel` of user `ann` is ignored; did you mean `shell`?",
            "user-data:6:1: unknown key `frobnicate` is ignored",
        ]
    );
    assert_eq!(config.hostname.as_deref(), Some("b"));
}

#[test]
fn keys_that_are_not_applied_say_why() {
    let (_, messages) =
        read("#cloud-config\npackages: [nginx, curl]\nnetwork: {version: 2}\npuppet: {}\n");
    assert!(messages[0].contains("no package manager"), "{messages:?}");
    assert_eq!(
        messages[1],
        "user-data:2:11: packages that will be missing: nginx, curl"
    );
    assert!(messages[2].contains("network-config"), "{messages:?}");
    assert_eq!(messages.len(), 4);
}

#[test]
fn a_wrong_type_costs_its_key_alone() {
    let (config, messages) = read(
        "#cloud-config\nhostname: [a]\nssh_pwauth: maybe\nwrite_files: text\nruncmd: 5\nssh_authorized_keys: ssh-rsa AAAA\n",
    );
    assert_eq!(
        messages,
        [
            "user-data:2:11: hostname: expected text, found a list; it is not applied",
            "user-data:3:13: ssh_pwauth: expected true or false, found text; it is not applied",
            "user-data:4:14: write_files: expected a list, found text; it is not applied",
            "user-data:5:9: runcmd: expected a list, found a number; it is not applied",
        ]
    );
    assert_eq!(config.ssh_authorized_keys, ["ssh-rsa AAAA"]);
}

#[test]
fn what_is_not_yaml_is_an_error_with_its_place() {
    let message = broken(b"#cloud-config\nhostname: a\nusers: [ann\nruncmd: x\n");
    assert!(
        message.starts_with("user-data:4:") || message.starts_with("user-data:3:"),
        "{message}"
    );
    assert!(
        message.contains("not valid YAML, nothing of it is applied"),
        "{message}"
    );
    let message = broken(b"#cloud-config\n- a\n- b\n");
    assert_eq!(
        message,
        "user-data:2:1: expected keys and values, found a list; nothing is applied"
    );
}

#[test]
fn what_is_no_cloud_config_says_what_it_might_be() {
    for (text, part) in [
        (
            "# cloud-config\nhostname: a\n",
            "must be `#cloud-config`, not `# cloud-config`",
        ),
        (
            "# by hand\n#cloud-config\nhostname: a\n",
            "must be the first line",
        ),
        ("hostname: a\n", "must be `#cloud-config`, or `#!`"),
        ("variant: fcos\nversion: 1.4.0\n", "Butane"),
        ("{\"ignition\": {\"version\": \"3.0.0\"}}", "Ignition"),
        ("Content-Type: multipart/mixed\nMIME-Version: 1.0\n", "MIME"),
        ("#include\nhttp://example.org\n", "there is no network"),
        ("#cloud-config-archive\n- a\n", "expected keys and values"),
    ] {
        let message = broken(text.as_bytes());
        assert!(message.contains(part), "{message}");
    }
    assert_eq!(
        broken(b"#cloud-config\nhostname: \xff\n"),
        "user-data:2:11: not UTF-8 text here; nothing of it is applied"
    );
    assert!(broken(&vec![b' '; 2 * 1024 * 1024]).contains("larger than"));
    assert!(broken(b"\x1f\x8bnonsense").contains("gzip"));
}

#[test]
fn scripts_and_nothing_are_recognised() {
    let mut diagnostics = Diagnostics::new("user-data");
    let nothing = parse(b" \n", &mut diagnostics);
    assert!(nothing.understood && nothing.config.is_none() && nothing.scripts.is_empty());
    for text in ["#!/bin/sh\necho\n", "#!/bin/sh\r\necho\r\n"] {
        let script = parse(text.as_bytes(), &mut diagnostics).scripts.remove(0);
        assert_eq!(script.content, b"#!/bin/sh\necho\n");
        assert_eq!(
            (script.name.as_str(), script.when),
            ("part-001", When::Instance)
        );
    }
}

#[test]
fn files_are_decoded_and_their_modes_are_those_of_yaml_1_1() {
    let config = clean(
        "#cloud-config\nwrite_files:\n\
         - {path: /a, content: hello, permissions: 0600}\n\
         - {path: /b, content: aGVsbG8=, encoding: b64, permissions: '0755', owner: 'ann:users'}\n\
         - {path: /c, content: H4sIAGNqA2sC/0vLz0+qKgIAD9TANwYAAAA=, encoding: gz+b64, append: yes, defer: true}\n\
         - {path: /d, content: !!binary aGVsbG8=, permissions: 0o640}\n\
         - path: /e\n",
    );
    let shown: Vec<_> = config
        .write_files
        .iter()
        .map(|file| (file.path.as_str(), file.content.as_slice(), file.mode))
        .collect();
    assert_eq!(
        shown,
        [
            ("/a", b"hello".as_slice(), 0o600),
            ("/b", b"hello", 0o755),
            ("/c", b"foobzr", 0o644),
            ("/d", b"hello", 0o640),
            ("/e", b"", 0o644),
        ]
    );
    assert_eq!(config.write_files[1].owner.group, "users");
    assert!(config.write_files[2].append && config.write_files[2].defer);
}

#[test]
fn files_that_cannot_be_meant_are_errors_of_their_own() {
    let (config, messages) = read(
        "#cloud-config\nwrite_files:\n\
         - {path: /etc/../x}\n\
         - {content: x}\n\
         - {path: /a, content: '%%', encoding: b64}\n\
         - {path: /b, permissions: 644}\n\
         - {path: /c, permissions: rwx}\n\
         - {path: /d, owner: 'a b:c'}\n",
    );
    assert_eq!(
        config
            .write_files
            .iter()
            .map(|file| file.path.as_str())
            .collect::<Vec<_>>(),
        ["/b", "/c", "/d"]
    );
    assert_eq!(messages.len(), 6, "{messages:?}");
    assert!(
        messages[3].contains("decimal number, mode 1204; write \"0644\""),
        "{messages:?}"
    );
    assert_eq!(config.write_files[0].mode, 0o1204);
}

#[test]
fn one_command_that_is_not_understood_stops_the_list() {
    let (config, messages) = read("#cloud-config\nruncmd:\n  - echo a\n  - echo b: c\n");
    assert!(config.commands.is_empty());
    assert!(
        messages[0].starts_with(
            "user-data:4:5: runcmd: expected a line or a list of arguments, found a mapping"
        ),
        "{messages:?}"
    );
    assert_eq!(
        clean("#cloud-config\nruncmd: [~, 'true']\n").commands,
        [Command::Line("true".into())]
    );
}

#[test]
fn what_could_break_out_of_account_files_is_refused() {
    let (config, messages) = read(
        "#cloud-config\nusers:\n\
         - {name: 'a:b'}\n\
         - {name: ann, gecos: 'x:y', shell: bin/sh, groups: 'sudo,a b', passwd: \"x\\ny\", sudo: \"ALL\\nroot ALL\"}\n",
    );
    assert_eq!(messages.len(), 6, "{messages:?}");
    let ann = named(&config, "ann");
    assert_eq!((ann.gecos, ann.shell, ann.password), (None, None, None));
    assert_eq!(ann.groups.as_deref().unwrap(), ["sudo"]);
    assert!(ann.sudo.iter().flatten().next().is_none());
}

#[test]
fn users_and_groups_come_in_all_of_cloud_inits_forms() {
    let config =
        clean("#cloud-config\nusers: ann, default\ngroups: [cloud-users, {ops: [ann, bob]}]\n");
    assert_eq!(config.users.as_ref().unwrap().len(), 2);
    assert_eq!(
        config.groups,
        [
            Group {
                name: "cloud-users".into(),
                members: vec![]
            },
            Group {
                name: "ops".into(),
                members: vec!["ann".into(), "bob".into()]
            },
        ]
    );
    let config = clean(
        "#cloud-config\nusers:\n  ann: {uid: '2000'}\n  bob: {groups: {a: [], b: []}}\nuser: carol\n",
    );
    assert_eq!(named(&config, "ann").uid, Some(2000));
    assert_eq!(named(&config, "bob").groups.as_deref().unwrap(), ["a", "b"]);
    assert_eq!(config.default_user.name.as_deref(), Some("carol"));
}

#[test]
fn a_password_that_stays_locked_is_pointed_out() {
    let (_, messages) = read("#cloud-config\nusers:\n- name: ann\n  plain_text_passwd: x\n");
    assert_eq!(
        messages,
        [
            "user-data:4:22: user `ann` has a password but stays locked; add `lock_passwd: false` to let it log in with it"
        ]
    );
}

#[test]
fn passwords_are_hashes_or_text_as_they_look_and_never_shown() {
    let config = clean(
        "#cloud-config\npassword: $y$j9T$salt$hash\nchpasswd:\n  users:\n  - {name: a, password: x, type: text}\n  - {name: b, type: RANDOM}\n",
    );
    assert_eq!(
        config.password,
        Some(Secret::Hashed("$y$j9T$salt$hash".into()))
    );
    assert_eq!(config.password_changes[1].secret, Secret::Random);
    assert!(config.expire_passwords);
    assert!(!format!("{config:?}").contains("salt"));
}

#[test]
fn host_names_stand_in_for_each_other() {
    for (text, hostname, fqdn) in [
        ("hostname: a.example.org", "a", Some("a.example.org")),
        ("fqdn: b.example.org", "b", Some("b.example.org")),
        ("hostname: 123", "123", None),
        ("{hostname: a, fqdn: a.b.c}", "a", Some("a.b.c")),
        (
            "{hostname: a, fqdn: a.b.c, prefer_fqdn_over_hostname: true}",
            "a.b.c",
            Some("a.b.c"),
        ),
    ] {
        let config = clean(&format!("#cloud-config\n{text}\n"));
        assert_eq!(
            (config.hostname.as_deref(), config.fqdn.as_deref()),
            (Some(hostname), fqdn),
            "{text}"
        );
    }
}

#[test]
fn meta_data_is_read_in_its_forms() {
    let read = |text: &str| {
        let mut diagnostics = Diagnostics::new("meta-data");
        (
            meta_data::parse(text.as_bytes(), &mut diagnostics),
            diagnostics.into_sorted().len(),
        )
    };
    let (meta, messages) =
        read("instance-id: i-1\nlocal-hostname: node\npublic-keys:\n  - ssh-rsa AAAA a\n");
    assert_eq!(messages, 0);
    let meta = meta.unwrap();
    assert_eq!(meta.instance_id, "i-1");
    assert_eq!(meta.local_hostname.as_deref(), Some("node"));
    assert_eq!(meta.public_keys, ["ssh-rsa AAAA a"]);
    let meta = read("{\"instance-id\": \"x\"}").0.unwrap();
    assert_eq!(meta.instance_id, "x");
    assert_eq!(read(""), (Some(MetaData::default()), 0));
    for text in ["a: [", "- a", "a:\n\tb"] {
        assert_eq!(read(text), (None, 1), "{text}");
    }
    assert_eq!(read("local-hostname: a_b").1, 1);
}
