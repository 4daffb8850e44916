//! Processes added to a running container.

use std::fs;

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

fn running<'a>(place: &'a Workplace, edit: impl Fn(&mut Value)) -> anyhow::Result<Container<'a>> {
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
