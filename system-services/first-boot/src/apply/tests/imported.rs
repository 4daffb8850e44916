//! Keys that services on the network told (`ssh_import_id`).

use keelson_config::Position;
use keelson_config::cloud_config::KeyImport;
use keelson_first_boot::stored::imported::{self, Imported};

use super::*;

fn import(id: &str) -> KeyImport {
    KeyImport::parse(id, Position::default()).unwrap()
}

fn told(machine: &Machine, id: &str, keys: Option<&[&str]>, refused: Option<&str>) {
    let said = Imported {
        keys: keys.map(|keys| keys.iter().map(|key| (*key).to_owned()).collect()),
        refused: refused.map(str::to_owned),
    };
    std::fs::create_dir_all(machine.path("config/source")).unwrap();
    imported::keep(&machine.state.config, &import(id), &said).unwrap();
}

const SEED: &str = "#cloud-config
ssh_import_id: [gh:ann]
users:
- default
- {name: bob, ssh_import_id: [gh:ann, lp:bob], ssh_authorized_keys: [ssh-rsa OWN]}
";

#[test]
fn keys_come_when_they_are_told_and_go_with_the_configuration() {
    let machine = Machine::new();
    let (_, errors) = machine.boot("i-1", SEED);
    assert_eq!(errors, Vec::<String>::new());
    assert!(!machine.path("home/keelson/.ssh/authorized_keys").exists());
    let service = machine.text("config/services/user-data-metadata.yml");
    assert!(
        service.contains("fetch, --documents, \"--keys=gh:ann\", \"--keys=lp:bob\"]"),
        "{service}"
    );

    told(
        &machine,
        "gh:ann",
        Some(&["ssh-rsa ANN", "ssh-rsa TWO"]),
        None,
    );
    told(&machine, "lp:bob", None, Some("it answers with status 404"));
    let (_, errors) = machine.boot("i-1", SEED);
    assert_eq!(
        errors,
        [
            "user-data:5:39: ssh_import_id: lp:bob: it answers with status 404; nobody is let in for it"
        ]
    );
    let of = |user: &str| machine.text(&format!("home/{user}/.ssh/authorized_keys"));
    assert_eq!(of("keelson"), "ssh-rsa ANN\nssh-rsa TWO\n");
    assert_eq!(of("bob"), "ssh-rsa OWN\nssh-rsa ANN\nssh-rsa TWO\n");

    // One is taken back, and what is refused later takes none away.
    told(&machine, "gh:ann", Some(&["ssh-rsa ANN"]), Some("no list"));
    let (_, errors) = machine.boot("i-1", SEED);
    assert!(
        errors[0].ends_with("gh:ann: no list; the keys that it had before hold"),
        "{errors:?}"
    );
    assert_eq!(of("keelson"), "ssh-rsa ANN\n");

    // Another instance asks for the same people.
    machine.boot("i-2", SEED);
    assert_eq!(of("keelson"), "ssh-rsa ANN\n");

    let (_, errors) = machine.boot("i-2", "#cloud-config\nusers: [default, {name: bob}]\n");
    assert_eq!(errors, Vec::<String>::new());
    assert_eq!((of("keelson"), of("bob")), (String::new(), String::new()));
    assert!(
        !machine
            .path("config/services/user-data-metadata.yml")
            .exists()
    );
    let forgotten = imported::read(&machine.state.config, &import("gh:ann")).unwrap();
    assert_eq!(forgotten, Imported::default());
}

#[test]
fn people_are_let_in_as_the_default_user_and_not_as_root() {
    let machine = Machine::new();
    told(&machine, "gh:ann", Some(&["ssh-rsa ANN"]), None);
    let text = "#cloud-config\ndisable_root: false\nssh_authorized_keys: [ssh-rsa OWN]\nssh_import_id: [gh:ann]\n";
    assert_eq!(machine.boot("i-1", text).1, Vec::<String>::new());
    let of = |home: &str| machine.text(&format!("{home}/.ssh/authorized_keys"));
    assert_eq!(of("home/keelson"), "ssh-rsa OWN\nssh-rsa ANN\n");
    assert_eq!(of("config/files/root"), "ssh-rsa OWN\n");
}
