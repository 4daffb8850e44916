//! Files and scripts.

use super::*;

#[test]
fn of_two_files_at_one_path_the_later_stays_and_additions_follow_what_they_add_to() {
    let machine = Machine::new();
    let seed = |first: &str| {
        format!(
            "#cloud-config\npassword: one\nchpasswd: {{expire: false, list: \"keelson:two\"}}\nwrite_files:\n\
             - {{path: /etc/x, content: {first}}}\n- {{path: /etc/x, content: last, defer: true}}\n\
             - {{path: /opt/y, content: {first}}}\n- {{path: /opt/y, content: +1, append: true}}\n- {{path: /opt/y, content: +2, append: true}}\n"
        )
    };
    for first in ["a", "a", "b", "b"] {
        let shadow = std::fs::read(machine.path("config/users/shadow")).ok();
        assert_eq!(machine.boot("i-1", &seed(first)).1, Vec::<String>::new());
        assert_eq!(
            machine.text(&format!("config/{FILES_DIRECTORY}/etc/x")),
            "last"
        );
        assert_eq!(machine.text("opt/y"), format!("{first}+1+2"));
        let now = std::fs::read(machine.path("config/users/shadow")).ok();
        assert!(
            shadow.is_none() || shadow == now,
            "the password is set once"
        );
    }
}

#[test]
fn what_cannot_be_written_costs_that_alone() {
    let machine = Machine::new();
    std::fs::create_dir_all(machine.path("opt/there")).unwrap();
    let seed = "#cloud-config\nwrite_files:\n- {path: /opt/there, content: a}\n- {path: /etc/default/locale, content: own}\nruncmd: [x]\n";
    let (_, errors) = machine.boot("i-1", seed);
    assert_eq!(errors.len(), 1, "{errors:?}");
    assert_eq!(
        machine.text(&format!("config/{FILES_DIRECTORY}/etc/default/locale")),
        "own"
    );
    assert_eq!(
        machine.access(&format!("config/{FILES_DIRECTORY}")),
        (0o700, 0, 0)
    );
    std::fs::remove_dir(machine.path("opt/there")).unwrap();
    let (outcome, errors) = machine.boot("i-1", seed);
    assert_eq!((outcome.is_new, errors), (false, Vec::new()));
    assert_eq!(machine.text("opt/there"), "a");
}

#[test]
fn a_script_that_fetches_is_one_whatever_the_address() {
    let machine = Machine::new();
    let seed = "#cloud-config\nwrite_files:\n- {path: \"/etc/it's\", content: a, source: {uri: \"http://h/$(reboot)'\\\"x\"}}\n";
    machine.boot("i-1", seed);
    let instance = Instance::from_json(machine.text("config/instance.json").as_bytes()).unwrap();
    let path = format!(
        "config/scripts/{}/00-write_files",
        instance.scripts.unwrap()
    );
    let script = machine.text(&path);
    let checked = std::process::Command::new("sh")
        .args(["-n", "-c", &script])
        .status();
    assert!(checked.unwrap().success(), "{script}");
    // wget and what follows it replaced: only words are left to be told.
    let told = script.replace("new=$(mktemp", "false $(echo");
    let told = std::process::Command::new("sh")
        .args(["-c", &told])
        .output();
    let told = String::from_utf8_lossy(&told.unwrap().stderr).into_owned();
    assert!(
        told.contains("http://h/$(reboot)'\"x was not fetched; /etc/it's has"),
        "{told}"
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
