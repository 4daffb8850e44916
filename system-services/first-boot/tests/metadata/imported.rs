//! People's keys (`ssh_import_id`), from services that have the names of the real ones.

use std::net::TcpListener;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use keelson_config::Position;
use keelson_config::cloud_config::KeyImport;
use keelson_first_boot::stored::imported::{self, Imported};

use crate::tls;
use crate::world::{Machine, PATIENCE, Service, is_inside};

const KEYS: [&str; 3] = ["--documents", "--keys=gh:ann", "--keys=lp:bob"];

fn said(machine: &Machine, id: &str) -> Imported {
    let import = KeyImport::parse(id, Position::default()).unwrap();
    imported::read(&machine.config(), &import).unwrap()
}

fn keys(machine: &Machine, id: &str) -> Vec<String> {
    said(machine, id).keys.unwrap_or_default()
}

#[test]
fn keys_of_people_are_those_that_their_service_tells_and_it_is_believed_with_tls_alone() {
    if !is_inside(
        "imported::keys_of_people_are_those_that_their_service_tells_and_it_is_believed_with_tls_alone",
        &[],
    ) {
        return;
    }
    let machine = Machine::new("quiet", &[]);
    let authority = machine
        .root
        .path()
        .join("state/config/ca-certificates/test.crt");
    let answers = tls::serve(&["github.com", "launchpad.net"], &authority);
    tls::say(&answers, "github.com/ann.keys", 200, "ssh-ed25519 AAAA\n");
    tls::say(
        &answers,
        "launchpad.net/~bob/+sshkeys",
        200,
        "ssh-rsa BBBB bob@home\r\n",
    );
    machine.start_with(&KEYS).end();
    assert_eq!(
        keys(&machine, "gh:ann"),
        ["ssh-ed25519 AAAA # ssh-import-id gh:ann"]
    );
    assert_eq!(
        keys(&machine, "lp:bob"),
        ["ssh-rsa BBBB bob@home # ssh-import-id lp:bob"]
    );
    assert_eq!(machine.configured(), 1);
    // The same again is nothing to apply.
    machine.start_with(&KEYS).end();
    assert_eq!(machine.configured(), 0);
    // Somebody whom nobody vouches for.
    std::fs::write(&authority, "").unwrap();
    tls::say(&answers, "github.com/ann.keys", 200, "ssh-ed25519 EVIL\n");
    let mut fetching = machine.start_with(&["--documents", "--keys=gh:ann"]);
    let words = until_it_says(&mut fetching.0, "it goes on trying");
    assert!(
        words.contains("ssh_import_id: https://github.com/ann.keys: "),
        "{words}"
    );
    assert_eq!(
        keys(&machine, "gh:ann"),
        ["ssh-ed25519 AAAA # ssh-import-id gh:ann"]
    );
    assert_eq!(machine.configured(), 0);
}

#[test]
fn what_is_no_list_of_keys_takes_none_away_and_an_empty_list_takes_all() {
    if !is_inside(
        "imported::what_is_no_list_of_keys_takes_none_away_and_an_empty_list_takes_all",
        &[],
    ) {
        return;
    }
    let machine = Machine::new("quiet", &[]);
    let authority = machine
        .root
        .path()
        .join("state/config/ca-certificates/test.crt");
    let answers = tls::serve(&["github.com"], &authority);
    let fetch = || machine.start_with(&["--documents", "--keys=gh:ann"]).end();
    fetch();
    let nobody = said(&machine, "gh:ann");
    assert_eq!(nobody.keys, None);
    assert_eq!(
        nobody.refused.as_deref(),
        Some("https://github.com/ann.keys answers with status 404")
    );
    // It is something to say.
    assert_eq!(machine.configured(), 1);
    let one = ["ssh-ed25519 AAAA # ssh-import-id gh:ann"];
    tls::say(&answers, "github.com/ann.keys", 200, "ssh-ed25519 AAAA\n");
    fetch();
    assert_eq!(keys(&machine, "gh:ann"), one);
    for (status, content) in [
        (200, "<html>Sign in to this network</html>\n"),
        (404, "Not Found"),
    ] {
        tls::say(&answers, "github.com/ann.keys", status, content);
        fetch();
        assert_eq!(keys(&machine, "gh:ann"), one);
        assert!(said(&machine, "gh:ann").refused.is_some());
    }
    tls::say(&answers, "github.com/ann.keys", 200, "");
    fetch();
    assert_eq!(
        said(&machine, "gh:ann"),
        Imported {
            keys: Some(Vec::new()),
            refused: None
        }
    );
}

#[test]
fn people_get_in_although_the_data_source_never_answers() {
    if !is_inside(
        "imported::people_get_in_although_the_data_source_never_answers",
        &[],
    ) {
        return;
    }
    let machine = Machine::new("quiet", &[("sys_vendor", "Hetzner")]);
    let authority = machine
        .root
        .path()
        .join("state/config/ca-certificates/test.crt");
    let answers = tls::serve(&["github.com"], &authority);
    tls::say(&answers, "github.com/ann.keys", 200, "ssh-ed25519 AAAA\n");
    let mut fetching = machine.start_with(&["--keys=gh:ann"]);
    let deadline = Instant::now() + PATIENCE;
    while machine.configured() == 0 {
        assert!(Instant::now() < deadline && fetching.is_going_on());
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(keys(&machine, "gh:ann").len(), 1);
    assert_eq!(machine.kept(), None);
}

#[test]
fn the_data_source_does_not_wait_for_keys_of_people() {
    if !is_inside(
        "imported::the_data_source_does_not_wait_for_keys_of_people",
        &["169.254.169.254/32"],
    ) {
        return;
    }
    let answers = [("/hetzner/v1/metadata", "instance-id: 9\nhostname: node\n")];
    let _service = Service::start("169.254.169.254:80", &answers, None);
    let machine = Machine::new("quiet", &[("sys_vendor", "Hetzner")]);
    let hosts = machine.root.path().join("hosts");
    std::fs::write(&hosts, "127.0.0.1 localhost github.com\n").unwrap();
    let bound = Command::new("mount")
        .args(["--bind", hosts.to_str().unwrap(), "/etc/hosts"])
        .status();
    assert!(bound.unwrap().success());
    let silent = TcpListener::bind("127.0.0.1:443").unwrap();
    let _fetching = machine.start_with(&["--keys=gh:ann"]);
    let (_held, _) = silent.accept().unwrap();
    assert_eq!(
        machine.kept().map(|kept| kept.instance_id),
        Some("9".into())
    );
    assert_eq!(machine.configured(), 1);
}

/// What a program says up to these words; it is ended then.
fn until_it_says(child: &mut Child, words: &str) -> String {
    use std::io::BufRead as _;
    let lines = std::io::BufReader::new(child.stderr.take().unwrap()).lines();
    let mut said = String::new();
    for line in lines {
        said.push_str(&line.unwrap());
        if said.contains(words) {
            break;
        }
    }
    child.kill().unwrap();
    said
}
