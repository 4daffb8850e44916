//! Terminals: of a container, and of a process added to one.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::thread::JoinHandle;

use anyhow::{Context as _, anyhow};
use serde_json::json;

use crate::container::{Workplace, contains, same};
use crate::suite::Case;

pub(super) const CASES: &[Case] = &[
    Case {
        name: "a-container-has-the-terminal-that-it-asks-for",
        needs: &[],
        run: container,
    },
    Case {
        name: "an-added-process-has-a-terminal-of-its-own",
        needs: &[],
        run: added,
    },
    Case {
        name: "ctrl-c-reaches-an-added-process",
        needs: &[],
        run: interrupted,
    },
];

/// What is typed once the terminal is there, and what comes out of it until nobody has it open any more.
struct Console {
    path: PathBuf,
    reading: JoinHandle<anyhow::Result<String>>,
}

impl Console {
    fn listen(
        place: &Workplace,
        typed: &'static [u8],
        after: &'static str,
    ) -> anyhow::Result<Self> {
        let path = place.directory.join("console.sock");
        let _ = fs::remove_file(&path);
        let listener = UnixListener::bind(&path)?;
        let reading = std::thread::spawn(move || {
            let (stream, _) = listener.accept()?;
            let packet = keelson_sys::control::recv(stream.as_fd())?;
            let master = packet
                .and_then(|packet| packet.fd)
                .context("no terminal came")?;
            let mut master = File::from(master);
            let (mut text, mut buffer, mut told) = (String::new(), [0; 4096], false);
            loop {
                if !told && text.contains(after) {
                    master.write_all(typed)?;
                    told = true;
                }
                // An error says that nobody has it open any more.
                match master.read(&mut buffer) {
                    Ok(0) | Err(_) => return Ok(text),
                    Ok(length) => text.push_str(&String::from_utf8_lossy(&buffer[..length])),
                }
            }
        });
        Ok(Self { path, reading })
    }

    fn text(self) -> anyhow::Result<String> {
        self.reading
            .join()
            .map_err(|_| anyhow!("the reader panicked"))?
    }
}

fn container(place: &Workplace) -> anyhow::Result<()> {
    let console = Console::listen(place, b"typed\n", "ready")?;
    let mut config = place
        .config("tty; echo ready; read line; echo got $line; test -c /dev/console && echo console");
    config["process"]["terminal"] = true.into();
    let container = place.create_with_terminal(&config, &console.path)?;
    container.start()?;
    same("exit status", container.wait()?.code, 0)?;
    let text = console.text()?;
    for part in ["/dev/", "ready\r\n", "got typed\r\n", "console\r\n"] {
        contains("the terminal", &text, part)?;
    }
    Ok(())
}

fn exec(place: &Workplace, console: &Console, script: &str) -> anyhow::Result<i32> {
    let file = place.directory.join("process.json");
    let process = json!({
        "args": ["sh", "-c", script], "cwd": "/", "env": ["PATH=/bin"], "terminal": true,
        "user": { "uid": 0, "gid": 0 }, "noNewPrivileges": true,
    });
    fs::write(&file, process.to_string())?;
    let socket = console.path.to_string_lossy();
    let file = file.to_string_lossy();
    let answer = place.call(&["exec", "--console-socket", &socket, "--process", &file, "c"])?;
    same("the answer", answer.stderr.as_str(), "")?;
    Ok(answer.code)
}

fn added(place: &Workplace) -> anyhow::Result<()> {
    let container = place.create("c", &place.config("echo up; sleep 1000"))?;
    container.start()?;
    container.wait_for("up")?;
    let console = Console::listen(place, b"typed\n", "ready")?;
    let code = exec(
        place,
        &console,
        "tty; echo ready; read line; echo got $line; exit 7",
    )?;
    same("exit status", code, 7)?;
    let text = console.text()?;
    for part in ["/dev/pts/", "ready\r\n", "got typed\r\n"] {
        contains("the terminal", &text, part)?;
    }
    Ok(())
}

fn interrupted(place: &Workplace) -> anyhow::Result<()> {
    let container = place.create("c", &place.config("echo up; sleep 1000"))?;
    container.start()?;
    container.wait_for("up")?;
    let console = Console::listen(place, b"\x03", "ready")?;
    // Whoever of the two it meets has no answer to it but to end.
    let code = exec(place, &console, "echo ready; exec cat")?;
    same("exit status", code, 128 + 2)?;
    contains("the terminal", &console.text()?, "^C")
}
