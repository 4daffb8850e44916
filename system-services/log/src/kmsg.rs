//! `/dev/kmsg`: what the kernel says, and what PID 1 and the engine say there
//! (Documentation/ABI/testing/dev-kmsg).

use crate::clock::Time;
use crate::positions;
use crate::record::{Record, Stream};
use crate::store::SharedStore;
use crate::watch::watch;
use nix::errno::Errno;
use nix::unistd::read;
use std::fs::OpenOptions;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// The kernel gives one record a read, and none is longer.
const READ_BYTES: usize = 8192;
const RECORDS_AT_ONCE: usize = 128;

/// One record of the kernel's buffer.
#[derive(Debug, PartialEq, Eq)]
pub struct KernelMessage {
    /// Its number in this boot.
    pub sequence: u64,
    /// Microseconds since boot.
    pub boot_us: u64,
    /// 0 emergency to 7 debug.
    pub priority: u8,
    /// `kernel`, or the program that wrote it.
    pub service: String,
    /// The text, without the program's name.
    pub message: Vec<u8>,
}

/// Reads one record: `6,339,5140900,-;text`, then lines of `KEY=value` that begin with a blank.
#[must_use]
pub fn parse(record: &[u8]) -> Option<KernelMessage> {
    let semicolon = record.iter().position(|byte| *byte == b';')?;
    let header = std::str::from_utf8(&record[..semicolon]).ok()?;
    let mut fields = header.split(',');
    let facility_and_priority: u32 = fields.next()?.parse().ok()?;
    let sequence = fields.next()?.parse().ok()?;
    let boot_us = fields.next()?.parse().ok()?;
    let text = record[semicolon + 1..]
        .split(|byte| *byte == b'\n')
        .next()?;
    let text = unescape(text);
    let from_kernel = facility_and_priority >> 3 == 0;
    let (service, message) = match split_tag(&text).filter(|_| !from_kernel) {
        Some((tag, rest)) => (
            tag.strip_prefix("keelson-").unwrap_or(tag).to_owned(),
            rest.to_vec(),
        ),
        None => ("kernel".to_owned(), text),
    };
    Some(KernelMessage {
        sequence,
        boot_us,
        priority: (facility_and_priority & 7) as u8,
        service,
        message,
    })
}

/// Splits `name: text` and `name[123]: text`.
fn split_tag(text: &[u8]) -> Option<(&str, &[u8])> {
    let end = text.windows(2).position(|pair| pair == b": ")?;
    let tag = std::str::from_utf8(&text[..end]).ok()?;
    let name = tag.split('[').next()?;
    let is_name = |character: char| character.is_ascii_alphanumeric() || "-_.".contains(character);
    (!name.is_empty() && name.len() <= 64 && name.chars().all(is_name))
        .then_some((name, &text[end + 2..]))
}

/// The kernel writes bytes that are not printable as `\x0a`.
fn unescape(text: &[u8]) -> Vec<u8> {
    let hex = |digit: u8| char::from(digit).to_digit(16).map(|value| value as u8);
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&first, behind)) = rest.split_first() {
        rest = behind;
        if let [b'x', high, low, behind @ ..] = behind
            && let (b'\\', Some(high), Some(low)) = (first, hex(*high), hex(*low))
        {
            out.push((high << 4) | low);
            rest = behind;
            continue;
        }
        out.push(first);
    }
    out
}

/// Opens the kernel's log for reading. Where `kernel.dmesg_restrict` is set, as Debian's kernel does, that needs
/// `CAP_SYSLOG`.
///
/// # Errors
/// What open(2) reports.
pub fn open(path: &Path) -> io::Result<OwnedFd> {
    let flags = nix::fcntl::OFlag::O_NONBLOCK.bits();
    Ok(OpenOptions::new()
        .read(true)
        .custom_flags(flags)
        .open(path)?
        .into())
}

/// Stores all kernel messages from the first one on that is not stored yet, for ever.
///
/// # Errors
/// What read(2) reports, or the store takes nothing.
pub async fn run(kmsg: OwnedFd, store: SharedStore) -> io::Result<()> {
    let kmsg = watch(kmsg)?;
    let mut next_sequence = store.borrow().position(positions::KERNEL);
    loop {
        let mut guard = kmsg.readable().await?;
        let mut messages = Vec::new();
        while messages.len() < RECORDS_AT_ONCE {
            let mut buffer = [0; READ_BYTES];
            match read(kmsg.get_ref(), &mut buffer) {
                Ok(0) => return Ok(()),
                Ok(length) => messages.extend(parse(&buffer[..length])),
                Err(Errno::EAGAIN) => {
                    guard.clear_ready();
                    break;
                }
                // The next record was overwritten; the sequence numbers tell how many were.
                Err(Errno::EPIPE | Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        store_messages(messages, &mut next_sequence, &store)?;
        tokio::task::yield_now().await;
    }
}

fn store_messages(
    messages: Vec<KernelMessage>,
    next: &mut Option<u64>,
    store: &SharedStore,
) -> io::Result<()> {
    let now = Time::now();
    let mut records = Vec::new();
    for message in messages {
        let expected = next.unwrap_or(message.sequence);
        if message.sequence < expected {
            continue;
        }
        let missing = message.sequence - expected;
        if missing > 0 {
            let text =
                format!("{missing} kernel messages were overwritten before they could be read");
            store.borrow_mut().append(std::mem::take(&mut records))?;
            store.borrow_mut().note(4, &text)?;
        }
        *next = Some(message.sequence + 1);
        let time = now.at_boot_us(message.boot_us);
        records.push(Record {
            id: 0,
            time_us: time.real_us,
            boot_us: time.boot_us,
            source: positions::KERNEL,
            position: message.sequence + 1,
            stream: Stream::Kernel,
            priority: Some(message.priority),
            partial: false,
            service: message.service,
            message: message.message,
        });
    }
    store.borrow_mut().append(records)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_kernel_record_is_read_without_its_dictionary() {
        let record =
            b"6,339,5140900,-;NET: Registered PF_INET6\\x0afamily\n SUBSYSTEM=net\n DEVICE=n1\n";
        let expected = KernelMessage {
            sequence: 339,
            boot_us: 5_140_900,
            priority: 6,
            service: "kernel".to_owned(),
            message: b"NET: Registered PF_INET6\nfamily".to_vec(),
        };
        assert_eq!(parse(record), Some(expected));
    }

    #[test]
    fn what_programs_write_there_is_theirs() {
        let service =
            |record: &[u8]| parse(record).map(|message| (message.service, message.message));
        let expected = Some(("engine".to_owned(), b"cannot start x: no image".to_vec()));
        assert_eq!(
            service(b"11,1,2,-;keelson-engine: cannot start x: no image\n"),
            expected
        );
        let expected = Some(("systemd-udevd".to_owned(), b"hello".to_vec()));
        assert_eq!(
            service(b"30,1,2,-,more=1;systemd-udevd[77]: hello\n"),
            expected
        );
        let expected = Some(("kernel".to_owned(), b"no tag here".to_vec()));
        assert_eq!(service(b"12,1,2,-;no tag here\n"), expected);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(bytes: Vec<u8>) {
            let _ = parse(&bytes);
            let _ = parse(&[b"3,1,2,-;".as_slice(), &bytes].concat());
        }
    }
}
