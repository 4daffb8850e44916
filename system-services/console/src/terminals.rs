//! The consoles that the kernel has.

use std::fs;
use std::path::Path;

/// Where people may log in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Terminal {
    /// Name below `/dev`.
    pub(crate) name: String,
    /// What `TERM` is there.
    pub(crate) kind: &'static str,
    /// A serial line, whose speed is to be kept.
    pub(crate) serial: bool,
}

/// The active consoles, and the first virtual one if there are any. `sys` and `dev` are `/sys` and `/dev`.
pub(crate) fn find(sys: &Path, dev: &Path) -> Vec<Terminal> {
    let active = fs::read_to_string(sys.join("class/tty/console/active")).unwrap_or_default();
    // `tty0` is whichever virtual console is in front: people log in on the first.
    let names = active
        .split_whitespace()
        .map(|name| if name == "tty0" { "tty1" } else { name })
        .chain(["tty1"]);
    let mut terminals: Vec<Terminal> = Vec::new();
    for name in names {
        if terminals.iter().any(|known| known.name == name) || !dev.join(name).exists() {
            continue;
        }
        let is_virtual = name
            .strip_prefix("tty")
            .is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
        let kind = if is_virtual { "linux" } else { "vt220" };
        terminals.push(Terminal {
            name: name.to_owned(),
            kind,
            serial: !is_virtual,
        });
    }
    terminals
}

/// The command line of a getty on `terminal`. It runs in a session of its own, as login needs it.
pub(crate) fn getty(terminal: &Terminal) -> Vec<String> {
    let mut command = vec!["/usr/bin/setsid", "/usr/sbin/agetty", "--noclear"];
    if terminal.serial {
        command.extend(["--keep-baud", "115200,57600,38400,9600"]);
    }
    command.extend([terminal.name.as_str(), terminal.kind]);
    command.into_iter().map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(active: &str, nodes: &[&str]) -> Vec<String> {
        let directory = tempfile::tempdir().unwrap();
        let console = directory.path().join("class/tty/console");
        fs::create_dir_all(&console).unwrap();
        fs::write(console.join("active"), active).unwrap();
        for node in nodes {
            fs::write(directory.path().join(node), "").unwrap();
        }
        find(directory.path(), directory.path())
            .iter()
            .map(|terminal| format!("{} {}", terminal.name, terminal.kind))
            .collect()
    }

    #[test]
    fn there_is_a_login_on_each_console_and_on_the_first_virtual_one() {
        assert_eq!(
            names("tty0 ttyS0\n", &["tty1", "ttyS0"]),
            ["tty1 linux", "ttyS0 vt220"]
        );
        assert_eq!(
            names("ttyS0\n", &["tty1", "ttyS0"]),
            ["ttyS0 vt220", "tty1 linux"]
        );
        assert_eq!(names("hvc0 ttyS1\n", &["hvc0"]), ["hvc0 vt220"]);
        assert_eq!(names("", &[]), Vec::<String>::new());
        assert_eq!(
            find(Path::new("/nonexistent"), Path::new("/nonexistent")),
            []
        );
    }

    #[test]
    fn a_serial_line_keeps_its_speed() {
        let terminal = Terminal {
            name: "ttyS0".into(),
            kind: "vt220",
            serial: true,
        };
        assert_eq!(
            getty(&terminal).join(" "),
            "/usr/bin/setsid /usr/sbin/agetty --noclear --keep-baud 115200,57600,38400,9600 ttyS0 vt220"
        );
    }
}
