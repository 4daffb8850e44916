//! One log record, and how it stands on disk.
//!
//! A frame is `length: u32, checksum: u32, payload`, little-endian. The checksum (CRC-32C) covers the segment's salt,
//! the length and the payload, so that neither a torn write nor what an earlier use of the same space has left
//! there is ever taken for a record.

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

/// What stands at a place in a segment.
#[derive(Debug, PartialEq, Eq)]
pub enum Frame {
    /// A record, and the frame's length in bytes.
    Record(Box<Record>, usize),
    /// The bytes end before the frame does.
    Incomplete,
    /// No frame: the end of what was written, or a torn one.
    None,
}

/// Appends the record's frame for a segment with this salt.
///
/// # Errors
/// Gives `false`, and appends nothing, when the service's name or the message is too long for a frame.
#[must_use]
pub fn encode(record: &Record, salt: u64, out: &mut Vec<u8>) -> bool {
    let length = FIXED_PAYLOAD_BYTES + record.service.len() + record.message.len();
    let (Ok(service_length), true) = (
        u8::try_from(record.service.len()),
        length + FRAME_HEADER_BYTES <= FRAME_MAX_BYTES,
    ) else {
        return false;
    };
    let length = length as u32;
    let start = out.len();
    out.extend(length.to_le_bytes());
    out.extend([0; 4]);
    for number in [
        record.id,
        record.time_us,
        record.boot_us,
        record.source,
        record.position,
    ] {
        out.extend(number.to_le_bytes());
    }
    out.push(record.stream as u8);
    out.push(record.priority.unwrap_or(NO_PRIORITY));
    out.push(if record.partial { PARTIAL } else { 0 });
    out.push(service_length);
    out.extend(record.service.as_bytes());
    out.extend(&record.message);
    let sum = checksum(salt, length, &out[start + FRAME_HEADER_BYTES..]);
    out[start + 4..start + 8].copy_from_slice(&sum.to_le_bytes());
    true
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
        Some(record) => Frame::Record(Box::new(record), FRAME_HEADER_BYTES + payload_bytes),
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

fn parse(payload: &[u8]) -> Option<Record> {
    let mut rest = payload;
    let mut numbers = [0; 5];
    for number in &mut numbers {
        *number = u64::from_le_bytes(*rest.split_first_chunk::<8>()?.0);
        rest = rest.get(8..)?;
    }
    let [id, time_us, boot_us, source, position] = numbers;
    let (&[stream, priority, flags, service_length], rest) = rest.split_first_chunk::<4>()?;
    let (service, message) = rest.split_at_checked(usize::from(service_length))?;
    Some(Record {
        id,
        time_us,
        boot_us,
        source,
        position,
        stream: Stream::from_byte(stream)?,
        priority: (priority != NO_PRIORITY).then_some(priority),
        partial: flags & PARTIAL != 0,
        service: std::str::from_utf8(service).ok()?.to_owned(),
        message: message.to_vec(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
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
            prop_assert!(encode(&record, salt, &mut bytes));
            let length = bytes.len();
            bytes.extend(behind);
            prop_assert_eq!(decode(&bytes, salt), Frame::Record(Box::new(record), length));
        }

        #[test]
        fn a_torn_frame_is_no_record(record in any_record(), salt: u64, cut: prop::sample::Index) {
            let mut bytes = Vec::new();
            prop_assert!(encode(&record, salt, &mut bytes));
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
            prop_assert!(encode(&record, salt, &mut bytes));
            prop_assert_eq!(decode(&bytes, !salt), Frame::None);
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            prop_assert!(!matches!(decode(&bytes, salt), Frame::Record(..)));
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
        assert!(!encode(&record, 0, &mut out));
        record.message.clear();
        record.service = "s".repeat(256);
        assert!(!encode(&record, 0, &mut out));
        assert!(out.is_empty());
    }
}
