//! A network namespace of its own, and commands in it.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use serde_json::Value;

/// The Ethernet address of the service's first interface.
pub(crate) const HARDWARE_ADDRESS: &str = "02:00:5e:10:00:01";

/// Lives as long as its first process, which ends when this is dropped.
pub(crate) struct Namespace {
    holder: Child,
}

impl Namespace {
    /// # Panics
    /// Without the privilege to make one.
    pub(crate) fn new() -> Self {
        let mut holder = Command::new("unshare")
            .args([
                "--net",
                "--uts",
                "sh",
                "-ec",
                "hostname keelson; ip link set lo up; echo made; exec cat",
            ])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("unshare(1) cannot be run");
        let mut line = String::new();
        BufReader::new(holder.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        assert_eq!(
            line, "made\n",
            "no network namespace could be made: these tests need root (./mkimage.sh tools)"
        );
        Self { holder }
    }

    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--target={}", self.holder.id()))
            .args(["--net", "--uts", "--", program]);
        command
    }

    pub(crate) fn output(&self, program: &str, arguments: &[&str]) -> String {
        let output = self.command(program).args(arguments).output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{program} {arguments:?}: {error}");
        String::from_utf8(output.stdout).unwrap()
    }

    pub(crate) fn ip(&self, arguments: &str) -> String {
        self.output("ip", &arguments.split(' ').collect::<Vec<_>>())
    }

    pub(crate) fn json(&self, arguments: &str) -> Value {
        serde_json::from_str(&self.ip(&format!("-j {arguments}"))).unwrap()
    }

    /// Lays a cable to another namespace.
    pub(crate) fn join(&self, other: &Namespace, here: &str, there: &str) {
        let (ours, theirs) = (self.holder.id(), other.holder.id());
        let address = if here == "e0" {
            format!(" address {HARDWARE_ADDRESS}")
        } else {
            String::new()
        };
        self.ip(&format!(
            "link add {here} netns {ours}{address} type veth peer name {there} netns {theirs}"
        ));
    }

    /// Calls `work` in this namespace, on a thread that ends with it.
    pub(crate) fn inside<R: Send>(&self, work: impl FnOnce() -> R + Send) -> R {
        let path = format!("/proc/{}/ns/net", self.holder.id());
        std::thread::scope(|scope| {
            let thread = scope.spawn(move || {
                let namespace = std::fs::File::open(path).unwrap();
                nix::sched::setns(namespace, nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
                work()
            });
            thread.join().expect("the work in the namespace failed")
        })
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        drop(self.holder.stdin.take()); // cat(1) ends
        let _ = self.holder.wait();
    }
}
