//! The system engine beside dockerd, in one machine and one run: containers that come and go, many of them, an idle engine,
//! the way of a log line, a pull.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::harness::docker::{self, IMAGE};
use crate::harness::lab::Lab;
use crate::harness::observer::Observer;
use crate::harness::process;
use crate::harness::registry::Registry;
use crate::harness::ssh::Ssh;

const DEADLINE: Duration = Duration::from_secs(600);
/// Named, so that the flags for it are not for what runs while it is built.
const TARGET: &str = "x86_64-unknown-linux-gnu";
const OURS: &str = "/run/keelson/system.sock";
const THEIRS: &str = "/run/docker.sock";
/// Programs whose work a container's life and its output are, on each side.
const OUR_PROGRAMS: &str = "keelson-engine keelson-log";
const THEIR_PROGRAMS: &str = "dockerd containerd containerd-shim-runc-v2";
const CYCLES: usize = 20;
const MANY: usize = 200;
const LISTS: usize = 20;
const IDLE: Duration = Duration::from_secs(20);
/// So much processor time in a second is none.
const IDLE_CPU_S: f64 = 0.03;
/// Lines are printed so long after a container's start, when the engines are idle again.
const LINES_AFTER: Duration = Duration::from_secs(15);
const LINES: usize = 200_000;
/// Bytes of the image that is pulled, in four layers that do not compress well.
const PULL_MB: usize = 200;

/// A machine with both engines and what is asked of them.
struct Bench {
    ssh: Ssh,
    observer: Observer,
}

/// What can be measured by itself.
const PARTS: [(&str, Part); 5] = [
    ("idle", Bench::idle),
    ("cycles", Bench::cycles),
    ("log", Bench::log_path),
    ("many", Bench::many),
    ("pull", Bench::pull),
];

type Part = fn(&mut Bench) -> Result<()>;

/// Measures these parts, or everything, and prints it.
///
/// # Errors
/// When something does not work at all.
pub fn run(out: &Path, parts: &[String]) -> Result<()> {
    let unknown = parts
        .iter()
        .find(|part| !PARTS.iter().any(|(name, _)| part == name));
    if let Some(unknown) = unknown {
        let names = PARTS.map(|(name, _)| name).join(", ");
        bail!("the engine's benchmark has no part {unknown:?}: {names}");
    }
    let client = build_client()?;
    let mut lab = Lab::new(out, false, 0)?;
    lab.begin("bench_engine")?;
    let (_vm, ssh, observer) = lab.observed()?;
    docker::import(&ssh)?;
    ssh.check_within(
        &format!("docker save {IMAGE} | system-docker load"),
        DEADLINE,
    )?;
    let program = std::fs::read(&client).context("reading the client")?;
    let copied = ssh.run_with(
        "cat >/tmp/client && chmod +x /tmp/client",
        &program,
        DEADLINE,
    )?;
    ensure!(copied.status.success(), "the client cannot be copied");
    let mut bench = Bench { ssh, observer };
    for (name, part) in PARTS {
        if parts.is_empty() || parts.iter().any(|asked| asked == name) {
            part(&mut bench)?;
        }
    }
    Ok(())
}

fn build_client() -> Result<PathBuf> {
    let target = "out/bench/target";
    let mut cargo = Command::new("cargo");
    cargo
        .args([
            "build",
            "--quiet",
            "--locked",
            "--profile",
            "tool",
            "-p",
            "keelson-qemu-tests",
        ])
        .args([
            "--example",
            "engine-client",
            "--target-dir",
            target,
            "--target",
            TARGET,
        ])
        .env("RUSTFLAGS", "-C target-feature=+crt-static");
    process::check(&mut cargo, DEADLINE)?;
    Ok(Path::new(target)
        .join(TARGET)
        .join("tool/examples/engine-client"))
}

fn row(what: &str, value: &str, beside: &str, promised: &str) {
    println!("{what:44} {value:>16} {beside:>16}   {promised}");
}

impl Bench {
    fn client(&self, socket: &str, words: &str) -> Result<String> {
        self.ssh
            .check_within(&format!("sudo /tmp/client {socket} {words}"), DEADLINE)
    }

    /// Seconds of processor time that all processes of these names have used.
    fn cpu_s(&mut self, programs: &str) -> Result<f64> {
        let script = format!(
            "sum=0; for program in {programs}; do for pid in $(pidof $program); do set -- $(cut -d')' -f2 /proc/$pid/stat); sum=$((sum + ${{12}} + ${{13}})); done; done; echo $sum"
        );
        let ticks: f64 = self.observer.run(&script, DEADLINE)?.trim().parse()?;
        Ok(ticks / 100.0)
    }

    fn idle(&mut self) -> Result<()> {
        let read = "pid=$(pidof keelson-engine); awk '/^VmRSS/ { print $2 } /ctxt/ { sum += $2 } END { print sum }' /proc/$pid/status";
        let numbers = |observer: &mut Observer| -> Result<(f64, f64)> {
            let text = observer.run(read, DEADLINE)?;
            let (memory, switches) = text.split_once('\n').context("no numbers")?;
            Ok((memory.trim().parse()?, switches.trim().parse()?))
        };
        let (_, before) = numbers(&mut self.observer)?;
        std::thread::sleep(IDLE);
        let (kib, after) = numbers(&mut self.observer)?;
        row(
            "idle engine, resident",
            &format!("{:.1} MB", kib * 1.024 / 1000.0),
            "",
            "at most 12 MB",
        );
        let wakeups = format!("{}", after - before);
        row("idle engine, context switches in 20 s", &wakeups, "", "0");
        Ok(())
    }

    fn cycles(&mut self) -> Result<()> {
        let median = |text: String| -> Result<f64> {
            let numbers: Result<Vec<f64>, _> = text.lines().map(str::parse).collect();
            Ok(super::median(numbers?) / 1000.0)
        };
        let words = format!("cycle {IMAGE} {CYCLES}");
        let theirs = median(self.client(THEIRS, &words)?)?;
        let ours = median(self.client(OURS, &words)?)?;
        let runtime = self.runtime()?;
        row(
            "create, start, exit, remove: dockerd",
            &format!("{theirs:.0} ms"),
            "",
            "",
        );
        let ratio = format!("{:.2} x dockerd", ours / theirs);
        row(
            "create, start, exit, remove: engine",
            &format!("{ours:.0} ms"),
            &ratio,
            "at most 0.25",
        );
        let ratio = format!("{:.2} x runtime", ours / runtime);
        row(
            "create, start, delete: runtime alone",
            &format!("{runtime:.0} ms"),
            &ratio,
            "at most 1.5",
        );
        Ok(())
    }

    /// Milliseconds that the OCI runtime takes with the same container, its root mounted already.
    fn runtime(&mut self) -> Result<f64> {
        self.client(OURS, &format!("start {IMAGE} 1"))?;
        let script = format!(
            r#"key=$(ls -t /host/run/keelson/containers | grep -E '^[0-9a-f]{{12}}$' | head -n 1)
mkdir -p /host/run/bench
sed -e 's/"args":\["sleep","100000"\]/"args":["true"]/' -e "s,\(\"cgroupsPath\":\"[^\"]*\)$key,\1bench," /host/run/keelson/containers/$key/config.json >/host/run/bench/config.json
runtime() {{ nsenter -t 1 -m -- /usr/lib/keelson/keelson-runtime --root /run/bench/root "$@" </dev/null >/dev/null; }}
read begun _ </proc/uptime
for _ in $(seq {CYCLES}); do
    runtime create --bundle /run/bench --pid-file /run/bench/pid bench || exit 1
    runtime start bench || exit 1
    while kill -0 $(cat /host/run/bench/pid) 2>/dev/null && ! grep -q 'State.*Z' /proc/$(cat /host/run/bench/pid)/status 2>/dev/null; do :; done
    runtime delete --force bench || exit 1
done
read ended _ </proc/uptime
echo $begun $ended"#
        );
        let text = self.observer.run(&script, DEADLINE)?;
        let last = text.lines().last().unwrap_or_default();
        let (begun, ended) = last.split_once(' ').context("no times")?;
        let seconds: f64 = ended.parse::<f64>()? - begun.parse::<f64>()?;
        self.client(OURS, "remove")?;
        Ok(seconds * 1000.0 / CYCLES as f64)
    }

    /// The same as [`Bench::cpu_s`] when it has hardly changed for some seconds: what is idle uses some time as well.
    fn settled_cpu_s(&mut self, programs: &str) -> Result<f64> {
        let (mut last, mut same) = (-1.0, 0);
        while same < 2 {
            std::thread::sleep(Duration::from_secs(1));
            let now = self.cpu_s(programs)?;
            same = if now - last < IDLE_CPU_S { same + 1 } else { 0 };
            last = now;
        }
        Ok(last)
    }

    fn log_path(&mut self) -> Result<()> {
        let mut per_cpu_s = Vec::new();
        for (command, programs) in [("docker", THEIR_PROGRAMS), ("system-docker", OUR_PROGRAMS)] {
            // What the container's start costs, and the look at what was kept, is no part of it.
            let wait = LINES_AFTER.as_secs();
            self.ssh.check_within(
                &format!("{command} run -d --name lines --network none {IMAGE} sh -c 'sleep {wait}; seq 1 {LINES}; exec sleep 100000'"),
                DEADLINE,
            )?;
            let started = Instant::now();
            let before = self.settled_cpu_s(programs)?;
            let left = LINES_AFTER.checked_sub(started.elapsed());
            std::thread::sleep(
                left.context("the machine did not become idle")? + Duration::from_secs(3),
            );
            let used = self.settled_cpu_s(programs)? - before;
            let kept = self
                .ssh
                .check_within(&format!("{command} logs lines | wc -l"), DEADLINE)?;
            ensure!(
                kept == LINES.to_string(),
                "{command} has {kept} of {LINES} lines"
            );
            self.ssh.check(&format!("{command} rm -f lines"))?;
            per_cpu_s.push(LINES as f64 / used.max(0.01));
        }
        let value = |lines: f64| format!("{:.0} k/CPU s", lines / 1000.0);
        row(
            "log lines: dockerd, json-file",
            &value(per_cpu_s[0]),
            "",
            "",
        );
        let ratio = format!("{:.1} x dockerd", per_cpu_s[1] / per_cpu_s[0]);
        row(
            "log lines: engine and log service",
            &value(per_cpu_s[1]),
            &ratio,
            "at least 10, none lost",
        );
        Ok(())
    }

    fn many(&mut self) -> Result<()> {
        self.client(OURS, &format!("start {IMAGE} {MANY}"))?;
        let running = self.ssh.check("system-docker ps -q | wc -l")?;
        let before = self.cpu_s("keelson-engine")?;
        self.client(OURS, &format!("list {LISTS}"))?;
        let used = (self.cpu_s("keelson-engine")? - before) * 1000.0 / LISTS as f64;
        let memory = "awk '/^VmRSS/ { print $2 }' /proc/$(pidof keelson-engine)/status";
        let kib: f64 = self.observer.run(memory, DEADLINE)?.trim().parse()?;
        let what = format!("{running} containers run: engine, resident");
        row(
            &what,
            &format!("{:.1} MB", kib * 1.024 / 1000.0),
            "",
            "at most 25 MB",
        );
        row(
            "  one list of them, processor time",
            &format!("{used:.0} ms"),
            "",
            "at most 50 ms",
        );
        self.client(OURS, "remove").map(drop)
    }

    fn pull(&mut self) -> Result<()> {
        let registry = Registry::start()?;
        registry.push_random("bench", "1", PULL_MB, 4)?;
        let _forwarded = self.ssh.reverse(registry.port)?;
        let name = format!("127.0.0.1:{}", registry.port);
        let trust = format!("registries: {{\"{name}\": {{insecure: true}}}}");
        self.observer.run(
            &format!("echo '{trust}' >/host/state/engine/registries.yml"),
            DEADLINE,
        )?;
        let mut times = Vec::new();
        for command in ["docker", "system-docker"] {
            let begun = Instant::now();
            self.ssh
                .check_within(&format!("{command} pull --quiet {name}/bench:1"), DEADLINE)?;
            times.push(begun.elapsed().as_secs_f64());
        }
        row(
            &format!("pull of {PULL_MB} MB: dockerd"),
            &format!("{:.1} s", times[0]),
            "",
            "",
        );
        let ratio = format!("{:.2} x dockerd", times[1] / times[0]);
        row(
            &format!("pull of {PULL_MB} MB: engine"),
            &format!("{:.1} s", times[1]),
            &ratio,
            "at most 1",
        );
        Ok(())
    }
}
