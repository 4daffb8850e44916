//! Processes with a terminal.

use std::fs;
use std::process::Stdio;

use anyhow::Context as _;
use nix::sys::wait::waitpid;
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::cases::exec::running;
use crate::console::{ConsoleSocket, Terminal};
use crate::container::{Container, Workplace, contains, same};
use crate::suite::{Case, Need};

pub(super) const CASES: &[Case] = &[
    Case {
        name: "a-container-with-a-terminal-has-it-as-its-own-in-the-size-asked-for",
        needs: &[],
        run: terminal,
    },
    Case {
        name: "the-terminal-belongs-to-the-containers-user",
        needs: &[],
        run: owner,
    },
    Case {
        name: "interrupting-on-the-terminal-reaches-the-container",
        needs: &[],
        run: interrupt,
    },
    Case {
        name: "a-container-with-the-hosts-devices-has-a-terminal-too",
        needs: &[],
        run: host_devices,
    },
    Case {
        name: "a-container-with-the-hosts-devices-and-terminals-of-its-own-has-one-too",
        needs: &[],
        run: own_terminals,
    },
    Case {
        name: "exec-with-a-terminal-has-it-as-its-own-in-the-size-asked-for",
        needs: &[],
        run: exec_terminal,
    },
    Case {
        name: "exec-of-a-command-with-a-terminal",
        needs: &[],
        run: exec_tty,
    },
    Case {
        name: "the-terminal-belongs-to-the-user-of-exec",
        needs: &[],
        run: exec_owner,
    },
    Case {
        name: "interrupting-on-the-terminal-reaches-the-program-of-exec",
        needs: &[],
        run: exec_interrupt,
    },
    Case {
        name: "a-detached-exec-keeps-its-terminal",
        needs: &[],
        run: exec_detached,
    },
    Case {
        name: "exec-with-the-hosts-devices-has-a-terminal-too",
        needs: &[],
        run: exec_host_devices,
    },
    Case {
        name: "a-terminal-and-a-console-socket-go-together",
        needs: &[Need::Keelson],
        run: refusals,
    },
];

/// Shows what the terminal is; needs a controlling one for `/dev/tty`.
const SHOW: &str =
    "tty; stty size; echo to-tty >/dev/tty; echo to-err >&2; readlink /proc/self/fd/2";

/// Creates and starts a container whose script has a terminal.
fn with_terminal<'a>(
    place: &'a Workplace,
    script: &str,
    edit: impl Fn(&mut Value),
) -> anyhow::Result<(Container<'a>, Terminal)> {
    let mut config = place.config(script);
    config["process"]["terminal"] = true.into();
    config["process"]["consoleSize"] = json!({ "height": 33, "width": 111 });
    edit(&mut config);
    let socket = ConsoleSocket::listen(place)?;
    let options = ["--console-socket", &socket.argument()];
    let container = place.create_with("c", &config, &options, Stdio::null())?;
    let terminal = socket.receive()?;
    container.start()?;
    Ok((container, terminal))
}

fn terminal(place: &Workplace) -> anyhow::Result<()> {
    let script = format!("{SHOW}; echo to-console >/dev/console; exit 7");
    let (container, mut terminal) = with_terminal(place, &script, |_| {})?;
    let printed = terminal.read_to_end()?;
    let expected = "/dev/pts/0\n33 111\nto-tty\nto-err\n/dev/pts/0\nto-console\n";
    same("what was printed", printed.as_str(), expected)?;
    same("exit status", container.wait()?.code, 7)
}

fn owner(place: &Workplace) -> anyhow::Result<()> {
    let script = "stat -c %u $(tty); echo again >$(tty)";
    let (container, mut terminal) = with_terminal(place, script, |config| {
        config["process"]["user"] = json!({ "uid": 12, "gid": 34 });
    })?;
    let printed = terminal.read_to_end()?;
    same("what was printed", printed.as_str(), "12\nagain\n")?;
    same("exit status", container.wait()?.code, 0)
}

/// PID 1 gets only signals that it asked for.
fn interrupt(place: &Workplace) -> anyhow::Result<()> {
    let script = "trap 'echo got-int; exit 5' INT; echo ready; while :; do sleep 0.05; done";
    let (container, mut terminal) = with_terminal(place, script, |_| {})?;
    terminal.wait_for("ready\r\n")?;
    terminal.write("\x03")?;
    contains("what was printed", &terminal.read_to_end()?, "got-int")?;
    same("exit status", container.wait()?.code, 5)
}

/// As privileged containers have it: a bind mount of the host's /dev, its terminals among it.
fn hosts_devices(config: &mut Value) {
    config["mounts"] = json!([
        { "destination": "/proc", "type": "proc", "source": "proc" },
        { "destination": "/dev", "type": "bind", "source": "/dev", "options": ["rbind", "rprivate"] }]);
    config["linux"]["resources"]["devices"] = json!([{ "allow": true, "access": "rwm" }]);
}

const SHOW_HOSTS: &str = "tty; stty size; echo to-tty >/dev/tty; echo to-console >/dev/console";

fn host_devices(place: &Workplace) -> anyhow::Result<()> {
    let (container, mut terminal) = with_terminal(place, SHOW_HOSTS, hosts_devices)?;
    let printed = terminal.read_to_end()?;
    contains("what was printed", &printed, "/dev/pts/")?;
    contains(
        "what was printed",
        &printed,
        "\n33 111\nto-tty\nto-console\n",
    )?;
    same("exit status", container.wait()?.code, 0)
}

fn own_terminals(place: &Workplace) -> anyhow::Result<()> {
    let (container, mut terminal) = with_terminal(place, SHOW_HOSTS, |config| {
        hosts_devices(config);
        if let Some(mounts) = config["mounts"].as_array_mut() {
            mounts.push(
                json!({ "destination": "/dev/pts", "type": "devpts", "source": "devpts",
                "options": ["newinstance", "ptmxmode=0666"] }),
            );
        }
    })?;
    let printed = terminal.read_to_end()?;
    let expected = "/dev/pts/0\n33 111\nto-tty\nto-console\n";
    same("what was printed", printed.as_str(), expected)?;
    same("exit status", container.wait()?.code, 0)
}

/// Writes a `process` object with a terminal that runs a shell script.
fn process_file(
    place: &Workplace,
    script: &str,
    edit: impl Fn(&mut Value),
) -> anyhow::Result<String> {
    let mut process = json!({ "args": ["sh", "-c", script], "cwd": "/", "env": ["PATH=/bin"], "noNewPrivileges": true,
        "user": { "uid": 0, "gid": 0 }, "terminal": true, "consoleSize": { "height": 33, "width": 111 },
        "capabilities": { "bounding": [], "effective": [], "permitted": [], "inheritable": [], "ambient": [] } });
    edit(&mut process);
    let file = place.directory.join("process.json");
    fs::write(&file, process.to_string())?;
    Ok(file.to_string_lossy().into_owned())
}

fn exec_terminal(place: &Workplace) -> anyhow::Result<()> {
    let _container = running(place, |_| {})?;
    let socket = ConsoleSocket::listen(place)?;
    let file = process_file(place, &format!("{SHOW}; exit 7"), |_| {})?;
    let arguments = [
        "exec",
        "--process",
        &file,
        "--console-socket",
        &socket.argument(),
        "c",
    ];
    let call = place.spawn("exec", &arguments, Stdio::null())?;
    let printed = socket.receive()?.read_to_end()?;
    same(
        "what was printed",
        printed.as_str(),
        "/dev/pts/0\n33 111\nto-tty\nto-err\n/dev/pts/0\n",
    )?;
    let answer = call.finish()?;
    same("exec's message", answer.stderr.as_str(), "")?;
    same("exit status", answer.code, 7)
}

fn exec_tty(place: &Workplace) -> anyhow::Result<()> {
    let container = running(place, |_| {})?;
    let socket = ConsoleSocket::listen(place)?;
    let arguments = [
        "exec",
        "-t",
        "--console-socket",
        &socket.argument(),
        &container.id,
        "tty",
    ];
    let call = place.spawn("exec", &arguments, Stdio::null())?;
    same(
        "what was printed",
        socket.receive()?.read_to_end()?.as_str(),
        "/dev/pts/0\n",
    )?;
    same("exit status", call.finish()?.code, 0)
}

fn exec_owner(place: &Workplace) -> anyhow::Result<()> {
    let _container = running(place, |_| {})?;
    let socket = ConsoleSocket::listen(place)?;
    let script = "stat -c %u $(tty); echo again >$(tty)";
    let file = process_file(place, script, |process| {
        process["user"] = json!({ "uid": 12, "gid": 34 })
    })?;
    let arguments = [
        "exec",
        "--process",
        &file,
        "--console-socket",
        &socket.argument(),
        "c",
    ];
    let call = place.spawn("exec", &arguments, Stdio::null())?;
    same(
        "what was printed",
        socket.receive()?.read_to_end()?.as_str(),
        "12\nagain\n",
    )?;
    same("exit status", call.finish()?.code, 0)
}

fn exec_interrupt(place: &Workplace) -> anyhow::Result<()> {
    let _container = running(place, |_| {})?;
    let socket = ConsoleSocket::listen(place)?;
    let script = "cat; echo went-on";
    let file = process_file(place, script, |_| {})?;
    let arguments = [
        "exec",
        "--process",
        &file,
        "--console-socket",
        &socket.argument(),
        "c",
    ];
    let call = place.spawn("exec", &arguments, Stdio::null())?;
    let mut terminal = socket.receive()?;
    // Once cat has repeated something, it is cat that runs, and the shell waits.
    terminal.write("line\n")?;
    terminal.wait_for("line\r\nline\r\n")?;
    terminal.write("\x03")?;
    let printed = terminal.read_to_end()?;
    same("it went on", printed.contains("went-on"), false)?;
    same("exit status", call.finish()?.code, 128 + 2)
}

fn exec_detached(place: &Workplace) -> anyhow::Result<()> {
    let _container = running(place, |_| {})?;
    let socket = ConsoleSocket::listen(place)?;
    let file = process_file(place, "echo up; read line; echo got-$line", |_| {})?;
    let pid_file = place.directory.join("exec.pid");
    let pid_text = pid_file.to_string_lossy();
    let arguments = [
        "exec",
        "--detach",
        "--pid-file",
        &pid_text,
        "--process",
        &file,
        "--console-socket",
        &socket.argument(),
        "c",
    ];
    let answer = place.call(&arguments)?;
    same("exec's message", answer.stderr.as_str(), "")?;
    same("exit status of exec", answer.code, 0)?;
    let pid: i32 = fs::read_to_string(&pid_file)?.trim().parse()?;
    let mut terminal = socket.receive()?;
    terminal.wait_for("up")?;
    let members = place.cgroup_file("c", "cgroup.procs")?;
    same(
        "it is in the cgroup",
        members.lines().any(|member| member == pid.to_string()),
        true,
    )?;
    terminal.write("line\n")?;
    contains("what was printed", &terminal.read_to_end()?, "got-line")?;
    // An orphan by now, and so this process's child.
    waitpid(Pid::from_raw(pid), None).context("wait for the detached process")?;
    Ok(())
}

/// The host's ptmx is not a devpts's.
fn exec_host_devices(place: &Workplace) -> anyhow::Result<()> {
    let _container = running(place, hosts_devices)?;
    let socket = ConsoleSocket::listen(place)?;
    let file = process_file(place, "tty; echo to-tty >/dev/tty", |_| {})?;
    let arguments = [
        "exec",
        "--process",
        &file,
        "--console-socket",
        &socket.argument(),
        "c",
    ];
    let call = place.spawn("exec", &arguments, Stdio::null())?;
    let printed = socket.receive()?.read_to_end()?;
    contains("what was printed", &printed, "/dev/pts/")?;
    contains("what was printed", &printed, "to-tty")?;
    same("exit status", call.finish()?.code, 0)
}

fn refusals(place: &Workplace) -> anyhow::Result<()> {
    let mut config = place.config("true");
    config["process"]["terminal"] = true.into();
    contains(
        "the reason",
        &place.refusal(&config)?,
        "a terminal needs --console-socket",
    )?;
    let _container = running(place, |_| {})?;
    let answer = place.call(&["exec", "-t", "c", "true"])?;
    contains(
        "the reason",
        &answer.stderr,
        "a terminal needs --console-socket",
    )?;
    let socket = ConsoleSocket::listen(place)?;
    let socket = socket.argument();
    let answer = place.call(&["exec", "--console-socket", &socket, "c", "true"])?;
    contains(
        "the reason",
        &answer.stderr,
        "needs a process with a terminal",
    )?;
    let answer = place.call(&["exec", "-t", "--console-socket", "/nowhere", "c", "true"])?;
    contains("the reason", &answer.stderr, "connect to /nowhere")
}
