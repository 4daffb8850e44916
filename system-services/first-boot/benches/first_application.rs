//! What it costs to apply a user-data of 64 KB: processor time of the whole program, at the first boot and at a later one.
//!
//! The program runs as it is shipped, in a root of its own (chroot), with the user-data as what its data source said last. Needs
//! root, as in `./mkimage.sh tools`.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use keelson_config::sources::Source;
use keelson_first_boot::stored;
use keelson_sys::durable::Tree;
use nix::sys::resource::{UsageWho, getrusage};

const ROUNDS: usize = 11;
const BYTES: usize = 64 * 1024;

/// Many small files, users and commands.
fn many_entries() -> String {
    let mut text = String::from("#cloud-config\nhostname: bench\nusers:\n- default\n");
    for number in 0..20 {
        text.push_str(&format!("- {{name: user{number}, groups: [sudo], ssh_authorized_keys: [ssh-ed25519 AAAA{number} key]}}\n"));
    }
    text.push_str("runcmd:\n");
    for number in 0..100 {
        text.push_str(&format!("- [sh, -c, 'echo {number} >>/opt/numbers']\n"));
    }
    text.push_str("write_files:\n");
    let mut number = 0;
    while text.len() < BYTES {
        text.push_str(&format!(
            "- {{path: /etc/bench/{number}.conf, permissions: '0640', content: \"{}\"}}\n",
            "a line of text\\n".repeat(10)
        ));
        number += 1;
    }
    println!(
        "{} bytes: 20 users, 100 commands, {number} files",
        text.len()
    );
    text
}

/// One large file.
fn one_file() -> String {
    let mut text = String::from("#cloud-config\nwrite_files:\n- path: /etc/large\n  content: |\n");
    while text.len() < BYTES {
        text.push_str("    a line of text\n");
    }
    println!("{} bytes: one file", text.len());
    text
}

fn machine(root: &Path, user_data: &str) {
    for directory in [
        "state/config",
        "state/home",
        "state/opt",
        "proc",
        "sys",
        "dev",
        "usr/share/keelson/console/etc",
    ] {
        fs::create_dir_all(root.join(directory)).unwrap();
    }
    let accounts = [
        (
            "passwd",
            "root:x:0:0:root:/root:/bin/bash\nkeelson:x:1000:1000::/home/keelson:/bin/bash\n",
        ),
        ("shadow", "root:*:20000::::::\nkeelson:!:20000::::::\n"),
        ("group", "root:x:0:\nsudo:x:27:keelson\nkeelson:x:1000:\n"),
        ("gshadow", "root:*::\nsudo:!::keelson\nkeelson:!::\n"),
    ];
    for (name, content) in accounts {
        fs::write(
            root.join("usr/share/keelson/console/etc").join(name),
            content,
        )
        .unwrap();
    }
    fs::copy(
        env!("CARGO_BIN_EXE_keelson-first-boot"),
        root.join("first-boot"),
    )
    .unwrap();
    let source = Source {
        instance_id: "i-1".into(),
        user_data: Some(user_data.as_bytes().to_vec()),
        ..Source::default()
    };
    stored::keep(&Tree::open(&root.join("state/config")).unwrap(), &source).unwrap();
}

/// Processor time and time of one run.
fn run(root: &Path) -> (Duration, Duration) {
    let used = || {
        let usage = getrusage(UsageWho::RUSAGE_CHILDREN).unwrap();
        let times = [usage.user_time(), usage.system_time()];
        times
            .into_iter()
            .map(|time| {
                Duration::from_micros(
                    u64::try_from(time.tv_sec() * 1_000_000 + time.tv_usec()).unwrap(),
                )
            })
            .sum::<Duration>()
    };
    let (before, started) = (used(), Instant::now());
    let output = Command::new("chroot")
        .arg(root)
        .arg("/first-boot")
        .output()
        .unwrap();
    let spent = (used() - before, started.elapsed());
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    spent
}

fn show(what: &str, mut times: Vec<(Duration, Duration)>) {
    times.sort();
    let (processor, clock) = times[times.len() / 2];
    println!(
        "  {what}: {processor:.1?} of processor time, {clock:.1?} by the clock (medians of {ROUNDS})"
    );
}

fn main() {
    for user_data in [many_entries(), one_file()] {
        let (mut first, mut later) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            let root = tempfile::Builder::new()
                .prefix("first-boot")
                .tempdir_in(".")
                .unwrap();
            machine(root.path(), &user_data);
            // What it reads of the kernel, in a namespace that ends with it.
            fs::create_dir_all(root.path().join("proc/sys/kernel/random")).unwrap();
            fs::copy(
                "/proc/sys/kernel/random/boot_id",
                root.path().join("proc/sys/kernel/random/boot_id"),
            )
            .unwrap();
            first.push(run(root.path()));
            later.push(run(root.path()));
        }
        show("first boot", first);
        show("later boots", later);
    }
}
