//! Scripts in a temporary directory, run for real.

use nix::sys::wait::{WaitStatus, waitpid};

use super::*;

struct Machine {
    directory: tempfile::TempDir,
}

fn write_script(path: &Path, text: &str, directory: &Path) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let out = directory.join("out");
    fs::write(path, text.replace("OUT", &out.to_string_lossy())).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o700)).unwrap();
}

impl Machine {
    fn new(scripts: &[(&str, &str)]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("scripts/abc");
        fs::create_dir_all(&path).unwrap();
        for (name, text) in scripts {
            write_script(&path.join(name), text, directory.path());
        }
        let instance = Instance {
            since_boot: String::new(),
            instance_id: "i-1".into(),
            user_data_sha256: String::new(),
            scripts: Some("abc".into()),
            done: Default::default(),
            keys: Default::default(),
        };
        fs::write(directory.path().join(INSTANCE_FILE), instance.to_json()).unwrap();
        fs::write(directory.path().join(CONFIGURED_FILE), "boot-1\n").unwrap();
        Machine { directory }
    }

    fn scripts(&self) -> Scripts {
        let wanted = Wanted {
            addresses: self.directory.path().join("addresses"),
            docker: self.directory.path().join("docker.sock"),
        };
        Scripts::new(self.directory.path(), wanted, "boot-1\n").unwrap()
    }

    fn network_comes_up(&self) {
        fs::write(self.directory.path().join("addresses"), "10.0.2.15\n").unwrap();
        fs::write(self.directory.path().join("docker.sock"), "").unwrap();
    }

    fn output(&self) -> String {
        fs::read_to_string(self.directory.path().join("out")).unwrap_or_default()
    }

    fn finished(&self) -> bool {
        self.directory
            .path()
            .join("scripts/abc")
            .join(FINISHED_FILE)
            .exists()
    }
}

fn reap_all(scripts: &mut Scripts) {
    while let State::Running { pid, .. } = scripts.state {
        let status = waitpid(pid, None).unwrap();
        assert!(scripts.ended(pid, "", matches!(status, WaitStatus::Exited(_, 0))));
    }
}

#[test]
fn scripts_run_in_order_and_once_though_one_fails() {
    let machine = Machine::new(&[
        (
            "part-001",
            "#!/bin/sh -e\necho one $INSTANCE_ID >> OUT\nfalse\necho not here >> OUT\n",
        ),
        ("part-002", "no interpreter\n"),
        ("runcmd", "#!/bin/sh\necho two $HOME >> OUT\n"),
    ]);
    machine.network_comes_up();
    let mut scripts = machine.scripts();
    scripts.look(Instant::now());
    reap_all(&mut scripts);
    assert_eq!(machine.output(), "one i-1\ntwo /root\n");
    assert!(machine.finished());
    scripts.look(Instant::now());
    machine.scripts().look(Instant::now());
    assert_eq!(machine.output(), "one i-1\ntwo /root\n");
}

#[test]
fn scripts_wait_for_network_and_docker_but_not_for_ever() {
    let machine = Machine::new(&[("runcmd", "#!/bin/sh\necho ran >> OUT\n")]);
    let mut scripts = machine.scripts();
    let now = Instant::now();
    scripts.look(now);
    assert_eq!(scripts.due(), Some(now + LONGEST_WAIT));
    scripts.go_on(now);
    assert_eq!(machine.output(), "");
    scripts.go_on(now + LONGEST_WAIT);
    reap_all(&mut scripts);
    assert_eq!(machine.output(), "ran\n");
}

#[test]
fn scripts_of_each_boot_come_first_and_those_that_run_once_run_once() {
    let machine = Machine::new(&[("runcmd", "#!/bin/sh\necho instance >> OUT\n")]);
    let directory = machine.directory.path();
    let write = |path: &str, text: &str| {
        write_script(&directory.join("scripts").join(path), text, directory);
    };
    write("boot/01-bootcmd", "#!/bin/sh\necho boot >> OUT\n");
    write("once/setup", "#!/bin/sh\necho once >> OUT\n");
    machine.network_comes_up();
    let mut scripts = machine.scripts();
    scripts.look(Instant::now());
    reap_all(&mut scripts);
    assert_eq!(machine.output(), "boot\nonce\ninstance\n");
    // The console is started again within the same boot, and in another one.
    machine.scripts().look(Instant::now());
    assert_eq!(machine.output(), "boot\nonce\ninstance\n");
    let wanted = Wanted {
        addresses: "/nonexistent".into(),
        docker: "/nonexistent".into(),
    };
    let mut other = Scripts::new(directory, wanted, "boot-2").unwrap();
    other.look(Instant::now());
    assert!(
        matches!(other.state, State::Idle),
        "nothing is configured yet"
    );
    fs::write(directory.join(CONFIGURED_FILE), "boot-2\n").unwrap();
    other.look(Instant::now());
    reap_all(&mut other);
    assert_eq!(machine.output(), "boot\nonce\ninstance\nboot\n");
}

#[test]
fn scripts_that_were_interrupted_are_not_run_again() {
    let machine = Machine::new(&[("runcmd", "#!/bin/sh\necho ran >> OUT\n")]);
    machine.network_comes_up();
    fs::write(
        machine
            .directory
            .path()
            .join("scripts/abc")
            .join(STARTED_FILE),
        "",
    )
    .unwrap();
    let mut scripts = machine.scripts();
    scripts.look(Instant::now());
    assert!(matches!(scripts.state, State::Idle));
    assert_eq!(machine.output(), "");
}

#[test]
fn a_machine_without_an_instance_has_no_scripts() {
    let directory = tempfile::tempdir().unwrap();
    let wanted = Wanted {
        addresses: "/nonexistent".into(),
        docker: "/nonexistent".into(),
    };
    let mut scripts = Scripts::new(directory.path(), wanted, "boot-1").unwrap();
    scripts.look(Instant::now());
    assert_eq!(scripts.due(), None);
}
