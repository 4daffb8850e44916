//! Runs the conformance suite against keelson-runtime and crun in a virtual machine.
//!
//! Limits and device rules need a machine whose cgroup controllers belong to cgroup v2, and rights that build
//! machines often lack; a kernel of one's own has both. `KEELSON_VM_KERNEL` names a kernel image (Debian's cloud
//! flavour does: nothing but an initrd is used). `KEELSON_VM_ARGUMENTS` goes to the suite: a pattern, or `--time,20`.
//! The suite is an example of this crate and must have been built.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const BOOT_AND_RUN_DEADLINE: Duration = Duration::from_secs(900);

/// A virtual machine that does not outlive the test.
struct Machine(Child);

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
#[ignore = "boots the kernel that KEELSON_VM_KERNEL names"]
fn the_conformance_suite_passes_in_a_virtual_machine() {
    let kernel = std::env::var_os("KEELSON_VM_KERNEL")
        .map(PathBuf::from)
        .expect("KEELSON_VM_KERNEL names the kernel to boot");
    let directory = tempfile::tempdir().unwrap();
    let initrd = directory.path().join("initrd");
    make_initrd(&directory.path().join("root"), &initrd);
    let summary = boot(&kernel, &initrd);
    println!("{summary}");
    assert!(
        summary.contains(" passed, 0 failed") || summary.starts_with("runtime "),
        "{summary}"
    );
}

fn make_initrd(root: &Path, initrd: &Path) {
    let runtime = Path::new(env!("CARGO_BIN_EXE_keelson-runtime"));
    let suite = runtime.with_file_name("examples").join("conformance");
    for (from, to) in [
        (suite.as_path(), "init"),
        (runtime, "usr/bin/keelson-runtime"),
        (Path::new("/usr/bin/crun"), "usr/bin/crun"),
        (Path::new("/bin/busybox"), "bin/busybox"),
    ] {
        copy(from, &root.join(to));
        for library in libraries(from) {
            copy(&library, &root.join(library.strip_prefix("/").unwrap()));
        }
    }
    for name in ["etc", "tmp", "run", "proc", "sys", "dev"] {
        fs::create_dir_all(root.join(name)).unwrap();
    }
    let archive = Command::new("sh")
        .args([
            "-c",
            "cd \"$1\" && find . | cpio --quiet -o -H newc >\"$2\"",
            "sh",
        ])
        .args([root, initrd])
        .status();
    assert!(archive.unwrap().success(), "cpio failed");
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to.parent().unwrap()).unwrap();
    fs::copy(from, to).unwrap_or_else(|error| panic!("copy {}: {error}", from.display()));
}

/// Shared libraries of a program, with its loader; none for a static one.
fn libraries(program: &Path) -> BTreeSet<PathBuf> {
    let output = Command::new("ldd").arg(program).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.split_whitespace()
        .filter(|word| word.starts_with('/') && !word.ends_with(':'))
        .map(PathBuf::from)
        .collect()
}

/// Boots the machine, passes its output on and returns the suite's last line.
fn boot(kernel: &Path, initrd: &Path) -> String {
    let arguments = std::env::var("KEELSON_VM_ARGUMENTS").unwrap_or_default();
    let mut append = "console=ttyS0 quiet panic=-1".to_owned();
    if !arguments.is_empty() {
        append = format!("{append} conformance.arguments={arguments}");
    }
    let child = Command::new("qemu-system-x86_64")
        .args([
            "-accel",
            "tcg,thread=multi",
            "-cpu",
            "max",
            "-smp",
            "2",
            "-m",
            "1024",
        ])
        .args([
            "-nodefaults",
            "-display",
            "none",
            "-serial",
            "stdio",
            "-no-reboot",
            "-append",
            &append,
        ])
        .arg("-kernel")
        .arg(kernel)
        .arg("-initrd")
        .arg(initrd)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .expect("start qemu-system-x86_64");
    let mut machine = Machine(child);
    let output = BufReader::new(machine.0.stdout.take().unwrap());
    let (lines, received) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for line in output.split(b'\n').map_while(Result::ok) {
            if lines
                .send(String::from_utf8_lossy(&line).trim().to_owned())
                .is_err()
            {
                return;
            }
        }
    });
    let deadline = Instant::now() + BOOT_AND_RUN_DEADLINE;
    let mut all = String::new();
    let mut summary = String::new();
    while let Ok(line) = received.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
        println!("{line}");
        if line.contains(" passed, ") || line.starts_with("runtime ") {
            summary = line.clone();
        }
        all.push_str(&line);
        all.push('\n');
    }
    assert!(
        Instant::now() < deadline,
        "no end within {BOOT_AND_RUN_DEADLINE:?}:\n{all}"
    );
    if summary.is_empty() { all } else { summary }
}
