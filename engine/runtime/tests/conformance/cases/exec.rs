//! Processes added to a running container.

use std::fs;
use std::io::Write as _;
use std::process::Stdio;

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::waitpid;
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::container::{Container, Workplace, contains, field, same};
use crate::suite::{Case, Need};

pub(super) const CASES: &[Case] = &[
    Case {
        name: "exec-prints-and-ends-as-its-command-does",
        needs: &[],
        run: result,
    },
    Case {
        name: "exec-runs-in-the-containers-namespaces-root-and-cgroup",
        needs: &[],
        run: inside,
    },
    Case {
        name: "exec-goes-where-init-is-when-the-cgroup-takes-no-processes",
        needs: &[Need::Controller("pids"), Need::Controller("memory")],
        run: handed_down,
    },
    Case {
        name: "exec-is-confined-as-the-container-is",
        needs: &[Need::Keelson], // crun's exec takes no_new_privs from an option of its own only
        run: confined,
    },
    Case {
        name: "exec-is-confined-without-no-new-privs-too",
        needs: &[],
        run: confined_without_nnp,
    },
    Case {
        name: "exec-takes-a-process-from-a-file",
        needs: &[],
        run: from_file,
    },
    Case {
        name: "exec-honours-all-of-a-process-from-a-file",
        needs: &[],
        run: whole_process,
    },
    Case {
        name: "exec-has-the-oom-score-of-the-container-or-its-own",
        needs: &[Need::Keelson], // crun leaves its caller's
        run: oom_score,
    },
    Case {
        name: "exec-confines-a-user-without-no-new-privs-too",
        needs: &[],
        run: confined_user,
    },
    Case {
        name: "exec-takes-directory-environment-and-user-of-a-command",
        needs: &[],
        run: options,
    },
    Case {
        name: "exec-has-the-standard-input-of-its-caller",
        needs: &[],
        run: input,
    },
    Case {
        name: "a-detached-exec-returns-while-its-process-runs",
        needs: &[],
        run: detached,
    },
    Case {
        name: "what-exec-cannot-honour-is-refused-by-name",
        needs: &[Need::Keelson],
        run: refused,
    },
    Case {
        name: "exec-writes-its-pid-file",
        needs: &[],
        run: pid_file,
    },
    Case {
        name: "exec-names-a-missing-program",
        needs: &[],
        run: missing,
    },
    Case {
        name: "exec-leaves-no-records",
        needs: &[Need::Keelson],
        run: no_records,
    },
];

/// A container that runs until it is killed.
pub(super) fn running<'a>(
    place: &'a Workplace,
    edit: impl Fn(&mut Value),
) -> anyhow::Result<Container<'a>> {
    let mut config = place.config("echo up; sleep 1000");
    edit(&mut config);
    let container = place.create("c", &config)?;
    container.start()?;
    container.wait_for("up")?;
    Ok(container)
}

fn result(place: &Workplace) -> anyhow::Result<()> {
    let container = running(place, |_| {})?;
    let answer = container.exec(&["sh", "-c", "echo to-out; echo to-err >&2; exit 7"])?;
    same("exit status", answer.code, 7)?;
    same("stdout", answer.stdout.as_str(), "to-out")?;
    same("stderr", answer.stderr.as_str(), "to-err")?;
    same(
        "exit status after a signal",
        container.exec(&["sh", "-c", "kill -9 $$"])?.code,
        128 + 9,
    )
}

fn inside(place: &Workplace) -> anyhow::Result<()> {
    let container = running(place, |_| {})?;
    for kind in ["mnt", "pid", "ipc", "uts", "net", "cgroup"] {
        let expected = fs::read_link(format!("/proc/{}/ns/{kind}", container.pid))?;
        let found = container.exec(&["readlink", &format!("/proc/self/ns/{kind}")])?;
        same(
            kind,
            found.stdout.as_str(),
            expected.to_string_lossy().as_ref(),
        )?;
    }
    contains(
        "the cgroup",
        &container.exec(&["cat", "/proc/self/cgroup"])?.stdout,
        "0::/",
    )?;
    // The parent of a process that has left the container's cgroup namespace would be seen as /..
    same(
        "the cgroup is elsewhere",
        container
            .exec(&["cat", "/proc/self/cgroup"])?
            .stdout
            .contains(".."),
        false,
    )?;
    contains(
        "the root",
        &container.exec(&["ls", "/bin"])?.stdout,
        "busybox",
    )
}

/// As Docker in a container does it: controllers are handed down only from a cgroup without processes.
fn handed_down(place: &Workplace) -> anyhow::Result<()> {
    let script = "cd /sys/fs/cgroup && mkdir inner && echo 1 >inner/cgroup.procs && \
        echo +memory >cgroup.subtree_control && echo up; sleep 1000";
    let mut config = place.config(script);
    if let Some(mounts) = config["mounts"].as_array_mut() {
        mounts.push(
            json!({ "destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["ro"] }),
        );
        mounts.push(json!({ "destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["nosuid"] }));
    }
    let container = place.create("c", &config)?;
    container.start()?;
    container.wait_for("up")?;
    let answer = container.exec(&["cat", "/proc/self/cgroup"])?;
    same("exec's message", answer.stderr.as_str(), "")?;
    same("the cgroup", answer.stdout.as_str(), "0::/inner")
}

fn status_of(container: &Container<'_>) -> anyhow::Result<String> {
    let answer = container.exec(&[
        "sh",
        "-c",
        "cat /proc/self/status; mkdir /tmp/new 2>&1; true",
    ])?;
    same("exec's message", answer.stderr.as_str(), "")?;
    Ok(answer.stdout)
}

fn confined(place: &Workplace) -> anyhow::Result<()> {
    let container = running(place, |config| config["linux"]["seccomp"] = forbid_mkdir())?;
    let text = status_of(&container)?;
    same("NoNewPrivs", field(&text, "NoNewPrivs")?, "1")?;
    same("Seccomp", field(&text, "Seccomp")?, "2")?;
    contains("mkdir's answer", &text, "File too large")?;
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        same(set, field(&text, set)?, "0000000000000000")?;
    }
    Ok(())
}

fn confined_without_nnp(place: &Workplace) -> anyhow::Result<()> {
    let container = running(place, |config| {
        config["linux"]["seccomp"] = forbid_mkdir();
        config["process"]["noNewPrivileges"] = false.into();
        let some = ["CAP_KILL"];
        config["process"]["capabilities"] =
            json!({ "bounding": some, "effective": some, "permitted": some });
    })?;
    let text = status_of(&container)?;
    same("NoNewPrivs", field(&text, "NoNewPrivs")?, "0")?;
    contains("mkdir's answer", &text, "File too large")?;
    for (set, expected) in [
        ("CapPrm", "20"),
        ("CapEff", "20"),
        ("CapBnd", "20"),
        ("CapInh", "0"),
        ("CapAmb", "0"),
    ] {
        same(
            set,
            field(&text, set)?.trim_start_matches('0'),
            expected.trim_start_matches('0'),
        )?;
    }
    Ok(())
}

fn from_file(place: &Workplace) -> anyhow::Result<()> {
    let _container = running(place, |config| config["linux"]["seccomp"] = forbid_mkdir())?;
    let file = place.directory.join("process.json");
    let process = json!({ "args": ["sh", "-c", "id -u; id -g; echo $COLOUR; readlink /proc/self/cwd; mkdir /tmp/x 2>&1"],
        "cwd": "/tmp", "env": ["PATH=/bin", "COLOUR=grey"], "user": { "uid": 12, "gid": 34 }, "noNewPrivileges": true });
    fs::write(&file, process.to_string())?;
    let answer = place.call(&["exec", "--process", &file.to_string_lossy(), "c"])?;
    contains("output", &answer.stdout, "12\n34\ngrey\n/tmp")?;
    contains("mkdir's answer", &answer.stdout, "File too large")
}

fn whole_process(place: &Workplace) -> anyhow::Result<()> {
    let _container = running(place, |_| {})?;
    let file = place.directory.join("process.json");
    let sets = json!({ "bounding": ["CAP_KILL", "CAP_CHOWN"], "effective": ["CAP_KILL"],
        "permitted": ["CAP_KILL"], "inheritable": ["CAP_KILL"], "ambient": ["CAP_KILL"] });
    let process = json!({ "args": ["sh", "-c", "cat /proc/self/status /proc/self/limits"],
        "cwd": "/", "env": ["PATH=/bin"], "capabilities": sets, "noNewPrivileges": true,
        "user": { "uid": 12, "gid": 34, "additionalGids": [7, 9], "umask": 23 },
        "rlimits": [{ "type": "RLIMIT_NOFILE", "soft": 100, "hard": 200 }] });
    fs::write(&file, process.to_string())?;
    let answer = place.call(&["exec", "--process", &file.to_string_lossy(), "c"])?;
    let text = answer.stdout;
    same("Uid", field(&text, "Uid")?, "12\t12\t12\t12")?;
    same("Gid", field(&text, "Gid")?, "34\t34\t34\t34")?;
    same("Groups", field(&text, "Groups")?, "7 9")?;
    same("Umask", field(&text, "Umask")?, "0027")?;
    same("NoNewPrivs", field(&text, "NoNewPrivs")?, "1")?;
    for (set, expected) in [
        ("CapInh", "20"),
        ("CapPrm", "20"),
        ("CapEff", "20"),
        ("CapBnd", "21"),
        ("CapAmb", "20"),
    ] {
        same(set, field(&text, set)?.trim_start_matches('0'), expected)?;
    }
    let limits: Vec<&str> = field(&text, "Max open files")?
        .split_whitespace()
        .take(2)
        .collect();
    same("open files", limits, vec!["100", "200"])
}

fn oom_score(place: &Workplace) -> anyhow::Result<()> {
    let container = running(place, |config| {
        config["process"]["oomScoreAdj"] = 321.into()
    })?;
    let command = ["cat", "/proc/self/oom_score_adj"];
    same(
        "oom_score_adj",
        container.exec(&command)?.stdout.as_str(),
        "321",
    )?;
    let file = place.directory.join("process.json");
    let mut process = json!({ "args": command, "cwd": "/", "env": ["PATH=/bin"], "user": { "uid": 0, "gid": 0 } });
    for (own, expected) in [(json!(null), "321"), (json!(77), "77")] {
        process["oomScoreAdj"] = own;
        fs::write(&file, process.to_string())?;
        let answer = place.call(&["exec", "--process", &file.to_string_lossy(), "c"])?;
        same("oom_score_adj", answer.stdout.as_str(), expected)?;
    }
    Ok(())
}

/// As Docker's `exec --user` has it.
fn confined_user(place: &Workplace) -> anyhow::Result<()> {
    let _container = running(place, |config| config["linux"]["seccomp"] = forbid_mkdir())?;
    let file = place.directory.join("process.json");
    let process = json!({ "args": ["sh", "-c", "cat /proc/self/status; mkdir /tmp/new 2>&1; true"], "cwd": "/",
        "env": ["PATH=/bin"], "user": { "uid": 12, "gid": 34 }, "capabilities": { "bounding": ["CAP_KILL"] } });
    fs::write(&file, process.to_string())?;
    let answer = place.call(&["exec", "--process", &file.to_string_lossy(), "c"])?;
    same("exec's message", answer.stderr.as_str(), "")?;
    let text = answer.stdout;
    same("NoNewPrivs", field(&text, "NoNewPrivs")?, "0")?;
    same("Seccomp", field(&text, "Seccomp")?, "2")?;
    contains("mkdir's answer", &text, "File too large")?;
    same("CapEff", field(&text, "CapEff")?, "0000000000000000")?;
    same("CapPrm", field(&text, "CapPrm")?, "0000000000000000")?;
    same("CapBnd", field(&text, "CapBnd")?, "0000000000000020")
}

fn options(place: &Workplace) -> anyhow::Result<()> {
    let _container = running(place, |_| {})?;
    let script = "readlink /proc/self/cwd; id -u; id -g; echo $COLOUR; echo $HOME";
    let line = "exec --cwd /tmp --env COLOUR=grey -e HOME=/here -e PATH=/bin --user 12:34 c sh -c";
    let mut arguments: Vec<&str> = line.split(' ').collect();
    arguments.push(script);
    let answer = place.call(&arguments)?;
    same("exec's message", answer.stderr.as_str(), "")?;
    same(
        "output",
        answer.stdout.as_str(),
        "/tmp\n12\n34\ngrey\n/here",
    )
}

fn input(place: &Workplace) -> anyhow::Result<()> {
    let container = running(place, |_| {})?;
    let mut call = place.spawn("exec", &["exec", &container.id, "cat"], Stdio::piped())?;
    let mut pipe = call.stdin()?;
    pipe.write_all(b"through the pipe")?;
    drop(pipe);
    let answer = call.finish()?;
    same("output", answer.stdout.as_str(), "through the pipe")?;
    same("exit status", answer.code, 0)
}

fn detached(place: &Workplace) -> anyhow::Result<()> {
    let container = running(place, |_| {})?;
    let file = place.directory.join("exec.pid");
    let arguments = [
        "exec",
        "--detach",
        "--pid-file",
        &file.to_string_lossy(),
        "c",
        "sleep",
        "1001",
    ];
    let answer = place.call(&arguments)?;
    same("exec's message", answer.stderr.as_str(), "")?;
    same("exit status", answer.code, 0)?;
    let pid: i32 = fs::read_to_string(&file)?.trim().parse()?;
    let members = place.cgroup_file("c", "cgroup.procs")?;
    same(
        "it is in the cgroup",
        members.lines().any(|member| member == pid.to_string()),
        true,
    )?;
    same(
        "status",
        container.state()?["status"].as_str(),
        Some("running"),
    )?;
    kill(Pid::from_raw(pid), Signal::SIGKILL)?;
    // An orphan by now, and so this process's child.
    waitpid(Pid::from_raw(pid), None)?;
    Ok(())
}

fn refused(place: &Workplace) -> anyhow::Result<()> {
    let _container = running(place, |_| {})?;
    let file = place.directory.join("process.json");
    for (key, value, reason) in [
        ("cwd", json!("tmp"), "process.cwd"),
        ("args", json!([]), "process.args"),
        ("selinuxLabel", json!("label"), "SELinux"),
        (
            "user",
            json!({ "uid": "root", "gid": 0 }),
            "process: invalid type: string \"root\"",
        ),
        (
            "rlimits",
            json!([{ "type": "RLIMIT_WISHES", "soft": 1, "hard": 1 }]),
            "RLIMIT_WISHES",
        ),
        (
            "capabilities",
            json!({ "bounding": ["CAP_FLY"] }),
            "CAP_FLY",
        ),
    ] {
        let mut process = json!({ "args": ["true"], "cwd": "/", "env": ["PATH=/bin"], "user": { "uid": 0, "gid": 0 } });
        process[key] = value;
        fs::write(&file, process.to_string())?;
        let answer = place.call(&["exec", "--process", &file.to_string_lossy(), "c"])?;
        same(&format!("exec's success with {process}"), answer.ok, false)?;
        contains("the reason", &answer.stderr, reason)?;
    }
    Ok(())
}

fn pid_file(place: &Workplace) -> anyhow::Result<()> {
    let _container = running(place, |_| {})?;
    let file = place.directory.join("exec.pid");
    let answer = place.call(&["exec", "--pid-file", &file.to_string_lossy(), "c", "true"])?;
    same("exec's message", answer.stderr.as_str(), "")?;
    let pid: i32 = fs::read_to_string(&file)?.trim().parse()?;
    same("a number", pid > 1, true)
}

fn missing(place: &Workplace) -> anyhow::Result<()> {
    let container = running(place, |_| {})?;
    let answer = container.exec(&["no-such-program"])?;
    same("exec's success", answer.ok, false)?;
    contains("the reason", &answer.stderr, "no-such-program")?;
    fs::write(place.rootfs().join("etc/text"), "text")?;
    let answer = container.exec(&["/etc/text"])?;
    same("success with a file that is no program", answer.ok, false)?;
    contains("the reason", &answer.stderr, "/etc/text")
}

fn no_records(place: &Workplace) -> anyhow::Result<()> {
    let container = running(place, |_| {})?;
    let files = || -> anyhow::Result<usize> {
        Ok(fs::read_dir(place.directory.join("records/c"))?.count())
    };
    let before = files()?;
    container.exec(&["true"])?;
    container.exec(&["no-such-program"])?;
    same("number of files", files()?, before)
}

fn forbid_mkdir() -> Value {
    json!({ "defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64"],
        "syscalls": [{ "names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 27 }] })
}
