//! The pseudo terminal of a process: the process has the terminal's end, whoever listens at `--console-socket` gets
//! the master, as runc sends it: one message that carries the descriptor.

use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;

use anyhow::{Context as _, bail};
use libcontainer::container::builder::ContainerBuilder;
use rustix::fs::{
    FileType, Mode, OFlags, ResolveFlags, fchown, fstat, fstatfs, major, minor, open, openat2,
};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use rustix::process::Uid;
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use serde_json::Value;

/// File system type of devpts (`DEVPTS_SUPER_MAGIC` of linux/magic.h).
const DEVPTS: i64 = 0x1cd1;
/// Inode and device number of every devpts's `ptmx` (fs/devpts/inode.c).
const PTMX_INODE: u64 = 2;
const PTMX_DEVICE: (u32, u32) = (5, 2);
/// The message's text: the name of what is sent.
const SENT_NAME: &[u8] = b"/dev/ptmx";

/// What a `process` object says about its terminal.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Wanted {
    /// Whom the terminal belongs to.
    pub(crate) uid: u32,
    pub(crate) size: Option<Size>,
}

/// Size of a terminal in characters.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Size {
    pub(crate) rows: u16,
    pub(crate) columns: u16,
}

impl Wanted {
    /// Reads `terminal`, `consoleSize` and `user` of a `process` object; `None` when it wants no terminal.
    ///
    /// # Errors
    /// When a terminal is wanted and has nowhere to go, or a console socket is given without need.
    pub(crate) fn read(
        process: &Value,
        console_socket: Option<&Path>,
    ) -> anyhow::Result<Option<Self>> {
        let wanted = match &process["terminal"] {
            Value::Null => false,
            Value::Bool(wanted) => *wanted,
            _ => bail!("process.terminal is neither true nor false"),
        };
        match (wanted, console_socket) {
            (true, None) => bail!("a terminal needs --console-socket"),
            (false, Some(_)) => bail!("--console-socket needs a process with a terminal"),
            (false, None) => return Ok(None),
            (true, Some(_)) => {}
        }
        let uid = process["user"]["uid"].as_u64().unwrap_or(0);
        Ok(Some(Self {
            uid: u32::try_from(uid).context("process.user.uid")?,
            size: size(&process["consoleSize"])?,
        }))
    }

    /// Gives the terminal its size and its owner.
    ///
    /// # Errors
    /// When the kernel refuses either.
    pub(crate) fn apply(&self, terminal: impl AsFd) -> anyhow::Result<()> {
        if let Some(size) = self.size {
            let size = Winsize {
                ws_row: size.rows,
                ws_col: size.columns,
                ws_xpixel: 0,
                ws_ypixel: 0,
            };
            tcsetwinsize(&terminal, size).context("set the terminal's size")?;
        }
        // Else a user could not open its own /dev/stdout.
        fchown(&terminal, Some(Uid::from_raw(self.uid)), None).context("give the terminal away")
    }
}

fn size(size: &Value) -> anyhow::Result<Option<Size>> {
    if size.is_null() {
        return Ok(None);
    }
    let number = |key: &str| {
        let number = size[key]
            .as_u64()
            .and_then(|number| u16::try_from(number).ok());
        number.with_context(|| {
            format!(
                "process.consoleSize.{key} is not a number up to {}",
                u16::MAX
            )
        })
    };
    Ok(Some(Size {
        rows: number("height")?,
        columns: number("width")?,
    }))
}

/// Opens a terminal of the devpts at `pts` in the directory `dev` and sends its master away. Returns the other end.
///
/// # Errors
/// When there is no devpts, or nobody listens at the socket.
pub(crate) fn open_and_send(
    dev: impl AsFd,
    wanted: &Wanted,
    console_socket: &Path,
) -> anyhow::Result<OwnedFd> {
    let receiver = UnixStream::connect(console_socket)
        .with_context(|| format!("connect to {}", console_socket.display()))?;
    let master = open_master(dev)?;
    unlockpt(&master).context("unlock the terminal")?;
    // By its master, not by its name: what lies at that name is the container's affair.
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let terminal = ioctl_tiocgptpeer(&master, flags).context("open the terminal")?;
    wanted.apply(&terminal)?;
    send(&receiver, &master)
        .with_context(|| format!("send the terminal to {}", console_socket.display()))?;
    Ok(terminal)
}

/// Makes the terminal standard input, output and error of the process that is built.
///
/// # Errors
/// When there are too many open files.
pub(crate) fn connect(
    builder: ContainerBuilder,
    terminal: &OwnedFd,
) -> anyhow::Result<ContainerBuilder> {
    let copy = || {
        terminal
            .try_clone()
            .context("copy the terminal's descriptor")
    };
    Ok(builder
        .with_stdin(copy()?)
        .with_stdout(copy()?)
        .with_stderr(copy()?))
}

/// Nothing that a container may have put at `pts/ptmx` is opened unless it is the real one.
fn open_master(dev: impl AsFd) -> anyhow::Result<OwnedFd> {
    let found = openat2(
        dev,
        "pts/ptmx",
        OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC,
        Mode::empty(),
        ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS,
    )
    .context("open pts/ptmx in the container's /dev")?;
    let status = fstat(&found).context("look at /dev/pts/ptmx")?;
    let device = (major(status.st_rdev), minor(status.st_rdev));
    let file_system = fstatfs(&found).context("look at /dev/pts/ptmx")?.f_type;
    if file_system != DEVPTS
        || status.st_ino != PTMX_INODE
        || FileType::from_raw_mode(status.st_mode) != FileType::CharacterDevice
        || device != PTMX_DEVICE
    {
        bail!("the container's /dev/pts/ptmx is not that of a devpts");
    }
    open(
        format!("/proc/self/fd/{}", found.as_raw_fd()),
        OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .context("open the container's /dev/pts/ptmx")
}

fn send(receiver: &UnixStream, master: &OwnedFd) -> anyhow::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let descriptors = [master.as_fd()];
    if !control.push(SendAncillaryMessage::ScmRights(&descriptors)) {
        bail!("no space for the descriptor");
    }
    sendmsg(
        receiver,
        &[IoSlice::new(SENT_NAME)],
        &mut control,
        SendFlags::NOSIGNAL,
    )?;
    Ok(())
}

/// The directory `/dev` of a process, as the process sees it.
///
/// # Errors
/// When there is no such process, or no such directory.
pub(crate) fn dev_of(pid: i32) -> anyhow::Result<OwnedFd> {
    let root = directory(Path::new(&format!("/proc/{pid}/root")))?;
    openat2(
        root,
        "dev",
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
        ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS,
    )
    .context("open the container's /dev")
}

/// Holds a directory open.
///
/// # Errors
/// When there is no such directory.
pub(crate) fn directory(path: &Path) -> anyhow::Result<OwnedFd> {
    open(
        path,
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .with_context(|| format!("open {}", path.display()))
}

/// The terminal that is standard input of a process.
///
/// # Errors
/// When there is no such process.
pub(crate) fn input_of(pid: i32) -> anyhow::Result<OwnedFd> {
    let path = format!("/proc/{pid}/fd/0");
    open(
        path.as_str(),
        OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .with_context(|| format!("open {path}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_terminal_is_wanted_with_its_size_and_its_owner() {
        let process = json!({ "terminal": true, "consoleSize": { "height": 24, "width": 80 }, "user": { "uid": 7 } });
        let size = Some(Size {
            rows: 24,
            columns: 80,
        });
        assert_eq!(
            Wanted::read(&process, Some(Path::new("/s"))).unwrap(),
            Some(Wanted { uid: 7, size })
        );
        assert_eq!(Wanted::read(&json!({}), None).unwrap(), None);
        assert_eq!(
            Wanted::read(&json!({ "terminal": false }), None).unwrap(),
            None
        );
    }

    #[test]
    fn a_terminal_and_a_console_socket_go_together() {
        let socket = Some(Path::new("/s"));
        for (process, socket, expected) in [
            (json!({ "terminal": true }), None, "needs --console-socket"),
            (
                json!({ "terminal": false }),
                socket,
                "needs a process with a terminal",
            ),
            (json!({}), socket, "needs a process with a terminal"),
            (
                json!({ "terminal": "yes" }),
                socket,
                "neither true nor false",
            ),
            (
                json!({ "terminal": true, "consoleSize": { "height": 24 } }),
                socket,
                "consoleSize.width",
            ),
            (
                json!({ "terminal": true, "consoleSize": { "height": 70000, "width": 80 } }),
                socket,
                "consoleSize.height",
            ),
        ] {
            let error = Wanted::read(&process, socket).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn what_is_not_a_devpts_is_not_opened() {
        let directory = tempfile::tempdir().unwrap();
        let dev = super::directory(directory.path()).unwrap();
        let error = open_master(&dev).unwrap_err().to_string();
        assert!(error.contains("open pts/ptmx"), "{error}");
        std::fs::create_dir_all(directory.path().join("pts")).unwrap();
        std::os::unix::fs::symlink("/dev/null", directory.path().join("pts/ptmx")).unwrap();
        let error = open_master(&dev).unwrap_err().to_string();
        assert!(error.contains("not that of a devpts"), "{error}");
    }
}
