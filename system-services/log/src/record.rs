//! One log record, and how it stands on disk.
//!
//! A frame is `length: u32, checksum: u32, payload`, little-endian. Its payload is one record, or whole lines of one pipe
//! as they came, which are cut into records when they are read. The checksum (CRC-32C) covers the segment's salt,
//! the length and the payload, so that neither a torn write nor what an earlier use of the same space has left
//! there is ever taken for a record.

use crate::lines::{next_line, split_priority};
use crc::{CRC_32_ISCSI, Crc, Table};

static CHECKSUM: Crc<u32, Table<16>> = Crc::<u32, Table<16>>::new(&CRC_32_ISCSI);

/// Longest message in bytes; longer lines become several records.
pub const MESSAGE_MAX_BYTES: usize = 16 * 1024;
/// Length and checksum before each payload.
pub const FRAME_HEADER_BYTES: usize = 8;
/// Longest frame in bytes: a checkpoint of many sources is longer than any message.
pub const FRAME_MAX_BYTES: usize = 64 * 1024;

const FIXED_PAYLOAD_BYTES: usize = 44;
const NO_PRIORITY: u8 = 0xff;
const PARTIAL: u8 = 1;
const LINES: u8 = 2;

/// Where a record came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stream {
    /// A container's standard output.
    Stdout,
    /// A container's standard error.
    Stderr,
    /// `/dev/kmsg`
    Kernel,
    /// The syslog socket.
    Syslog,
    /// No message: what has been read so far, for the start after a crash.
    Checkpoint,
}

impl Stream {
    /// The word in queries and answers.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
            Self::Kernel => "kernel",
            Self::Syslog => "syslog",
            Self::Checkpoint => "checkpoint",
        }
    }

    fn from_byte(byte: u8) -> Option<Self> {
        [
            Self::Stdout,
            Self::Stderr,
            Self::Kernel,
            Self::Syslog,
            Self::Checkpoint,
        ]
        .into_iter()
        .find(|stream| *stream as u8 == byte)
    }
}

/// One record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Rises by one with each record, over restarts too.
    pub id: u64,
    /// Realtime, microseconds since 1970.
    pub time_us: u64,
    /// `CLOCK_BOOTTIME`, microseconds.
    pub boot_us: u64,
    /// Which source's `position` this is (a pipe's inode, [`crate::positions::KERNEL`]); 0 for none.
    pub source: u64,
    /// How far the source has been read when this record is stored: where to go on after a crash.
    pub position: u64,
    /// Where it came from.
    pub stream: Stream,
    /// syslog(3) priority, 0 emergency to 7 debug; `None` when the source has none.
    pub priority: Option<u8>,
    /// Not a whole line: it goes on in the source's next record, or it ended without a line feed.
    pub partial: bool,
    /// Whose it is; at most 255 bytes.
    pub service: String,
    /// The text without its line feed, as it came: any bytes.
    pub message: Vec<u8>,
}

/// What one pipe has given, stored as one. It is at most [`crate::lines::RUN_MAX_BYTES`] of whole lines, or one that has
/// no end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lines<'b> {
    /// The first record's; the others follow.
    pub first_id: u64,
    /// As of [`Record`].
    pub time_us: u64,
    /// As of [`Record`].
    pub boot_us: u64,
    /// As of [`Record`].
    pub source: u64,
    /// How far the source has been read when all of them are stored.
    pub position: u64,
    /// As of [`Record`].
    pub stream: Stream,
    /// As of [`Record`].
    pub service: &'b str,
    /// As they came.
    pub bytes: &'b [u8],
}

/// What becomes one frame.
#[derive(Debug, Clone, Copy)]
pub enum Entry<'b> {
    /// A record.
    Record(&'b Record),
    /// Lines of one pipe.
    Lines(&'b Lines<'b>),
}

impl<'b> From<&'b Record> for Entry<'b> {
    fn from(record: &'b Record) -> Self {
        Self::Record(record)
    }
}

impl<'b> From<&'b Lines<'b>> for Entry<'b> {
    fn from(lines: &'b Lines<'b>) -> Self {
        Self::Lines(lines)
    }
}

/// What stands at a place in a segment.
#[derive(Debug, PartialEq, Eq)]
pub enum Frame {
    /// Records, and the frame's length in bytes.
    Records(Vec<Record>, usize),
    /// The bytes end before the frame does.
    Incomplete,
    /// No frame: the end of what was written, or a torn one.
    None,
}

impl Entry<'_> {
    /// Appends the frame for a segment with this salt.
    ///
    /// # Errors
    /// Gives `false`, and appends nothing, when the service's name or the message is too long for a frame.
    #[must_use]
    pub fn encode(self, salt: u64, out: &mut Vec<u8>) -> bool {
        let (numbers, kind, service, message) = match self {
            Self::Record(record) => {
                let priority = record.priority.unwrap_or(NO_PRIORITY);
                let flags = if record.partial { PARTIAL } else { 0 };
                (
                    [
                        record.id,
                        record.time_us,
                        record.boot_us,
                        record.source,
                        record.position,
                    ],
                    [record.stream as u8, priority, flags],
                    record.service.as_str(),
                    record.message.as_slice(),
                )
            }
            Self::Lines(lines) => (
                [
                    lines.first_id,
                    lines.time_us,
                    lines.boot_us,
                    lines.source,
                    lines.position,
                ],
                [lines.stream as u8, NO_PRIORITY, LINES],
                lines.service,
                lines.bytes,
            ),
        };
        let length = FIXED_PAYLOAD_BYTES + service.len() + message.len();
        let (Ok(service_length), true) = (
            u8::try_from(service.len()),
            length + FRAME_HEADER_BYTES <= FRAME_MAX_BYTES,
        ) else {
            return false;
        };
        let length = length as u32;
        let start = out.len();
        out.extend(length.to_le_bytes());
        out.extend([0; 4]);
        for number in numbers {
            out.extend(number.to_le_bytes());
        }
        out.extend(kind);
        out.push(service_length);
        out.extend(service.as_bytes());
        out.extend(message);
        let sum = checksum(salt, length, &out[start + FRAME_HEADER_BYTES..]);
        out[start + 4..start + 8].copy_from_slice(&sum.to_le_bytes());
        true
    }
}

/// Reads the frame at the start of `bytes`.
#[must_use]
pub fn decode(bytes: &[u8], salt: u64) -> Frame {
    let Some((header, rest)) = bytes.split_at_checked(FRAME_HEADER_BYTES) else {
        return Frame::Incomplete;
    };
    let length = u32::from_le_bytes([header[0], header[1], header[2], header[3]]);
    let stored_sum = u32::from_le_bytes([header[4], header[5], header[6], header[7]]);
    let payload_bytes = length as usize;
    if !(FIXED_PAYLOAD_BYTES..=FRAME_MAX_BYTES - FRAME_HEADER_BYTES).contains(&payload_bytes) {
        return Frame::None;
    }
    let Some(payload) = rest.get(..payload_bytes) else {
        return Frame::Incomplete;
    };
    if checksum(salt, length, payload) != stored_sum {
        return Frame::None;
    }
    match parse(payload) {
        Some(records) => Frame::Records(records, FRAME_HEADER_BYTES + payload_bytes),
        None => Frame::None,
    }
}

/// CRC-32C of the salt and these parts.
fn checksum(salt: u64, length: u32, payload: &[u8]) -> u32 {
    let mut digest = CHECKSUM.digest();
    digest.update(&salt.to_le_bytes());
    digest.update(&length.to_le_bytes());
    digest.update(payload);
    digest.finalize()
}

/// CRC-32C of a segment's header.
#[must_use]
pub fn header_checksum(bytes: &[u8]) -> u32 {
    CHECKSUM.checksum(bytes)
}

fn parse(payload: &[u8]) -> Option<Vec<Record>> {
    let mut rest = payload;
    let mut numbers = [0; 5];
    for number in &mut numbers {
        *number = u64::from_le_bytes(*rest.split_first_chunk::<8>()?.0);
        rest = rest.get(8..)?;
    }
    let [id, time_us, boot_us, source, position] = numbers;
    let (&[stream, priority, flags, service_length], rest) = rest.split_first_chunk::<4>()?;
    let (service, message) = rest.split_at_checked(usize::from(service_length))?;
    let first = Record {
        id,
        time_us,
        boot_us,
        source,
        position,
        stream: Stream::from_byte(stream)?,
        priority: (priority != NO_PRIORITY).then_some(priority),
        partial: flags & PARTIAL != 0,
        service: std::str::from_utf8(service).ok()?.to_owned(),
        message: Vec::new(),
    };
    if flags & LINES != 0 {
        return Some(cut(&first, message));
    }
    let message = message.to_vec();
    Some(vec![Record { message, ..first }])
}

/// The records that lines are. What has no end at the end of them is one as well.
fn cut(first: &Record, mut bytes: &[u8]) -> Vec<Record> {
    let mut records = Vec::new();
    while !bytes.is_empty() {
        let (text, taken, partial) = match next_line(bytes) {
            Some(line) => (line.text, line.taken_bytes, line.partial),
            None => (bytes, bytes.len(), true),
        };
        let (priority, text) = split_priority(text);
        records.push(Record {
            id: first.id + records.len() as u64,
            priority,
            partial,
            message: text.to_vec(),
            ..first.clone()
        });
        bytes = &bytes[taken..];
    }
    records
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lines::next_run;
    use proptest::prelude::*;
    use proptest::strategy::ValueTree;

    fn any_record() -> impl Strategy<Value = Record> {
        let numbers = any::<(u64, u64, u64, u64, u64)>();
        let message = proptest::collection::vec(any::<u8>(), 0..400);
        let rest = (0..5_u8, proptest::option::of(0..8_u8), any::<bool>());
        (numbers, "[a-z0-9-]{0,40}", message, rest).prop_map(|(n, service, message, rest)| Record {
            id: n.0,
            time_us: n.1,
            boot_us: n.2,
            source: n.3,
            position: n.4,
            stream: Stream::from_byte(rest.0).unwrap(),
            priority: rest.1,
            partial: rest.2,
            service,
            message,
        })
    }

    proptest! {
        #[test]
        fn what_was_encoded_is_read_back(record in any_record(), salt: u64, behind: Vec<u8>) {
            let mut bytes = Vec::new();
            prop_assert!(Entry::from(&record).encode(salt, &mut bytes));
            let length = bytes.len();
            bytes.extend(behind);
            prop_assert_eq!(decode(&bytes, salt), Frame::Records(vec![record], length));
        }

        #[test]
        fn a_torn_frame_is_no_record(record in any_record(), salt: u64, cut: prop::sample::Index) {
            let mut bytes = Vec::new();
            prop_assert!(Entry::from(&record).encode(salt, &mut bytes));
            let kept = cut.index(bytes.len());
            prop_assert_eq!(decode(&bytes[..kept], salt), Frame::Incomplete);
            // On disk the space behind the tear is there, with zeros in it or something else.
            let whole = bytes.clone();
            bytes[kept..].fill(0);
            if bytes != whole {
                prop_assert_eq!(decode(&bytes, salt), Frame::None);
            }
        }

        #[test]
        fn one_wrong_bit_or_another_salt_is_noticed(record in any_record(), salt: u64, at: prop::sample::Index, bit in 0..8_u8) {
            let mut bytes = Vec::new();
            prop_assert!(Entry::from(&record).encode(salt, &mut bytes));
            prop_assert_eq!(decode(&bytes, !salt), Frame::None);
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            prop_assert!(!matches!(decode(&bytes, salt), Frame::Records(..)));
        }

        /// However a pipe's bytes come, what is read are the lines that were written, in order.
        #[test]
        fn lines_that_were_stored_together_are_read_one_by_one(
            texts in proptest::collection::vec("(<[0-9]>)?[a-zé]{0,9}\r?", 1..40),
            long in 0..3 * MESSAGE_MAX_BYTES,
            ended: bool,
            salt: u64,
        ) {
            let mut bytes = texts.join("\n").into_bytes();
            bytes.extend(vec![b'x'; long]);
            if ended { bytes.push(b'\n'); }
            let (mut rest, mut id, mut found) = (bytes.as_slice(), 7, Vec::new());
            while let Some(run) = next_run(rest, true) {
                let lines = Lines {
                    first_id: id, time_us: 1, boot_us: 2, source: 3, position: 4,
                    stream: Stream::Stdout, service: "web", bytes: &rest[..run.taken_bytes],
                };
                let mut frame = Vec::new();
                prop_assert!(Entry::from(&lines).encode(salt, &mut frame));
                let Frame::Records(records, length) = decode(&frame, salt) else {
                    return Err(TestCaseError::fail("no records"));
                };
                prop_assert_eq!((length, records.len() as u64), (frame.len(), run.records));
                let urgent = records.iter().filter_map(|record| record.priority).min();
                prop_assert_eq!(urgent, run.most_urgent);
                id += run.records;
                found.extend(records);
                rest = &rest[run.taken_bytes..];
            }
            prop_assert!(rest.is_empty());
            for (at, record) in found.iter().enumerate() {
                prop_assert_eq!(record.id, 7 + at as u64);
            }
            let mut expected = Vec::new();
            let mut rest = bytes.as_slice();
            while let Some(line) = next_line(rest) {
                expected.push((split_priority(line.text).1.to_vec(), line.partial));
                rest = &rest[line.taken_bytes..];
            }
            if !rest.is_empty() {
                expected.push((split_priority(rest).1.to_vec(), true));
            }
            let read: Vec<_> = found.into_iter().map(|record| (record.message, record.partial)).collect();
            prop_assert_eq!(read, expected);
        }

        #[test]
        fn any_bytes_are_read_without_a_panic(bytes: Vec<u8>, salt: u64) {
            let _ = decode(&bytes, salt);
        }
    }

    #[test]
    fn what_does_not_fit_is_refused_and_leaves_nothing_behind() {
        let mut record = any_record()
            .new_tree(&mut proptest::test_runner::TestRunner::deterministic())
            .unwrap()
            .current();
        record.message = vec![0; FRAME_MAX_BYTES];
        let mut out = Vec::new();
        assert!(!Entry::from(&record).encode(0, &mut out));
        record.message.clear();
        record.service = "s".repeat(256);
        assert!(!Entry::from(&record).encode(0, &mut out));
        assert!(out.is_empty());
    }
}
