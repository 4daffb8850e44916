//! Instances that come and go.

use keelson_config::sources::NO_INSTANCE;
use keelson_first_boot::stored;

use super::*;

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
    assert_eq!((outcome, errors), (named(true, "from-meta"), Vec::new()));
    assert!(!machine.path("config/ssh/ssh_host_ed25519_key").exists());
    assert!(!machine.path("config/files/etc").exists());
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
    assert_eq!(outcome, named(true, "from-meta"));
    assert!(
        errors[0].starts_with("user-data:3:1: not valid YAML"),
        "{errors:?}"
    );
    assert!(!machine.path("config/instance.json").exists());
    assert_eq!(
        machine.boot("i-1", "#cloud-config\nhostname: a\n").0,
        named(true, "a")
    );
}

#[test]
fn an_earlier_instance_that_comes_back_finds_its_files_again() {
    let machine = Machine::new();
    machine.boot("i-1", SEED);
    let motd = format!("config/{FILES_DIRECTORY}/etc/motd");
    machine.boot("i-2", "#cloud-config\nhostname: a\n\tusers: []\n");
    assert_eq!(
        machine.text(&motd),
        "hello",
        "a seed that cannot be read takes nothing"
    );
    machine.boot("i-2", "#cloud-config\n{}\n");
    assert!(!machine.path(&motd).exists());
    machine.boot("i-1", SEED);
    assert_eq!(machine.text(&motd), "hello");
}

#[test]
fn what_was_made_while_nobody_knew_the_instance_is_its_own_in_that_boot_alone() {
    let machine = Machine::new();
    let key = "config/ssh/ssh_host_ed25519_key";
    let nobody = || {
        machine.boot(NO_INSTANCE, "");
        std::fs::create_dir_all(machine.path("config/ssh")).unwrap();
        std::fs::write(machine.path(key), "secret").unwrap();
    };
    nobody();
    machine.boot("i-1", "#cloud-config\n{}\n");
    assert_eq!(machine.text(key), "secret");
    // A copy of a machine that never was anybody.
    nobody();
    let record = machine
        .text("config/instance.json")
        .replace("boot-1", "boot-0");
    std::fs::write(machine.path("config/instance.json"), record).unwrap();
    machine.boot(NO_INSTANCE, "");
    machine.boot("i-1", "#cloud-config\n{}\n");
    assert!(!machine.path(key).exists());
}

#[test]
fn an_instance_is_applied_as_a_whole_when_all_that_it_includes_is_there() {
    let machine = Machine::new();
    let seed = "#include\nhttp://h/part\n";
    let (outcome, errors) = machine.boot("i-1", seed);
    assert_eq!((outcome, errors), (named(true, "from-meta"), Vec::new()));
    assert!(!machine.path("config/instance.json").exists());
    let service = machine.text("config/services/user-data-metadata.yml");
    assert!(service.contains("keelson-first-boot, fetch"), "{service}");
    let part = b"#cloud-config\nhostname: part\nruncmd: [a]\n";
    stored::keep_included(&machine.state.config, "http://h/part", Ok(part)).unwrap();
    assert_eq!(machine.boot("i-1", seed).0, named(true, "part"));
    assert!(machine.path("config/instance.json").exists());
    assert_eq!(machine.boot("i-1", seed).0, named(false, "part"));
    // With nothing to fetch nobody fetches.
    machine.boot("i-1", "#cloud-config\n{}\n");
    assert!(
        !machine
            .path("config/services/user-data-metadata.yml")
            .exists()
    );
}

#[test]
fn a_layer_of_the_command_line_that_is_still_to_be_fetched_is_a_part_of_the_whole() {
    let machine = Machine::new();
    let files = || nocloud::Files {
        meta_data: Some(b"instance-id: i-1\n".to_vec()),
        ..nocloud::Files::default()
    };
    let line = "ro cloud-config-url=http://h/layer";
    machine.boot_from(files(), line);
    assert!(!machine.path("config/instance.json").exists());
    let layer = b"#cloud-config\nruncmd: [a]\n";
    stored::keep_included(&machine.state.config, "http://h/layer", Ok(layer)).unwrap();
    machine.boot_from(files(), line);
    assert!(machine.text("config/instance.json").contains("scripts"));
}

#[test]
fn what_an_instance_runs_at_each_boot_is_not_run_by_the_next_one_that_waits_for_its_own() {
    let machine = Machine::new();
    machine.boot("i-1", "#cloud-config\nbootcmd: [a]\n");
    let bootcmd = machine.path("config/scripts/boot/01-bootcmd");
    assert!(bootcmd.exists());
    machine.boot("i-2", "#include\nhttp://h/later\n");
    assert!(!bootcmd.exists());
}
