//! Power keys: `/dev/input/event*` devices that have one, now or later.
//!
//! The kernel is asked to pass on that key only, so what is typed on a keyboard never reaches this process.

use keelson_sys::evdev::{
    EV_KEY, EVENT_BYTES, Event, KEY_POWER, events, has_key, listen_to_key_only,
};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use nix::unistd::read;
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fs::{self, OpenOptions};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::rc::Rc;
use tokio::io::unix::AsyncFd;

const EVENTS_AT_ONCE: usize = 64;
const PRESSED: i32 = 1;

/// Calls `pressed` at each press of a power key, for ever.
///
/// # Errors
/// The directory cannot be watched.
pub async fn run(directory: &Path, pressed: Rc<dyn Fn()>) -> io::Result<()> {
    let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
    // A new node may get its rights only after it was made.
    let flags = AddWatchFlags::IN_CREATE | AddWatchFlags::IN_ATTRIB | AddWatchFlags::IN_MOVED_TO;
    inotify.add_watch(directory, flags)?;
    let changes = watch(inotify.as_fd().try_clone_to_owned()?)?;
    // Devices that are listened to, and those without a power key.
    let known = Rc::new(RefCell::new(BTreeSet::new()));
    loop {
        for name in event_devices(directory)? {
            if known.borrow().contains(&name) {
                continue;
            }
            match open(&directory.join(&name)) {
                Ok(device) => {
                    known.borrow_mut().insert(name.clone());
                    let (known, pressed) = (Rc::clone(&known), Rc::clone(&pressed));
                    tokio::task::spawn_local(async move {
                        if let Some(device) = device {
                            listen(device, &name, &*pressed).await;
                            known.borrow_mut().remove(&name);
                        }
                    });
                }
                // It went away again, or its rights are still to come.
                Err(error) => eprintln!("<4>cannot listen to {name}: {error}"),
            }
        }
        wait(&inotify, &changes, &known).await?;
    }
}

/// Until something has changed in the directory; devices that were made anew are no longer known.
async fn wait(
    inotify: &Inotify,
    changes: &AsyncFd<OwnedFd>,
    known: &RefCell<BTreeSet<String>>,
) -> io::Result<()> {
    loop {
        let mut guard = changes.readable().await?;
        match inotify.read_events() {
            Ok(events) => {
                let made = events
                    .into_iter()
                    .filter(|event| event.mask.contains(AddWatchFlags::IN_CREATE));
                for name in made.filter_map(|event| event.name) {
                    if let Some(name) = name.to_str() {
                        known.borrow_mut().remove(name);
                    }
                }
                return Ok(());
            }
            Err(Errno::EAGAIN) => guard.clear_ready(),
            Err(error) => return Err(error.into()),
        }
    }
}

fn event_devices(directory: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(directory)? {
        let name = entry?.file_name();
        names.extend(
            name.to_str()
                .filter(|name| is_event_device(name))
                .map(str::to_owned),
        );
    }
    Ok(names)
}

fn is_event_device(name: &str) -> bool {
    let number = name.strip_prefix("event");
    number.is_some_and(|number| {
        !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())
    })
}

/// Opens the device; `None` when it has no power key.
fn open(path: &Path) -> io::Result<Option<OwnedFd>> {
    let flags = OFlag::O_NONBLOCK.bits();
    let device = OpenOptions::new()
        .read(true)
        .custom_flags(flags)
        .open(path)?;
    if !has_key(device.as_fd(), KEY_POWER)? {
        return Ok(None);
    }
    listen_to_key_only(device.as_fd(), KEY_POWER)?;
    Ok(Some(device.into()))
}

/// Reads until the device goes away.
async fn listen(device: OwnedFd, name: &str, pressed: &dyn Fn()) {
    if let Err(error) = read_presses(device, pressed).await {
        // ENODEV is how the kernel says that it was unplugged.
        if error.raw_os_error() != Some(Errno::ENODEV as i32) {
            eprintln!("<4>no longer listening to {name}: {error}");
        }
    }
}

async fn read_presses(device: OwnedFd, pressed: &dyn Fn()) -> io::Result<()> {
    let device = watch(device)?;
    loop {
        let mut guard = device.readable().await?;
        let mut buffer = [0; EVENT_BYTES * EVENTS_AT_ONCE];
        match read(device.get_ref(), &mut buffer) {
            Ok(0) => return Ok(()),
            Ok(length) => events(&buffer[..length])
                .filter(is_press)
                .for_each(|_| pressed()),
            Err(Errno::EAGAIN) => guard.clear_ready(),
            Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

fn is_press(event: &Event) -> bool {
    event.event_type == EV_KEY && event.code == KEY_POWER && event.value == PRESSED
}

/// tokio deprecates `AsyncFd::new` for types whose descriptor may change behind its back; an [`OwnedFd`] is one and
/// the same until it is closed.
#[allow(deprecated)]
fn watch(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::new(fd)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_event_devices_are_opened() {
        for name in ["event0", "event31"] {
            assert!(is_event_device(name), "{name}");
        }
        for name in ["event", "eventful", "mouse0", "mice", "by-path", "event0x"] {
            assert!(!is_event_device(name), "{name}");
        }
    }

    #[test]
    fn a_press_counts_and_a_release_or_another_key_does_not() {
        let event = |code, value| Event {
            event_type: EV_KEY,
            code,
            value,
        };
        assert!(is_press(&event(KEY_POWER, 1)));
        assert!(!is_press(&event(KEY_POWER, 0)));
        assert!(!is_press(&event(KEY_POWER, 2)));
        assert!(!is_press(&event(30, 1)));
    }
}
