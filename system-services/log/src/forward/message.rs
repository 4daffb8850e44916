//! Records as syslog messages (RFC 5424, section 6), and messages on a wire (RFC 6587, section 3.4).

use std::time::{Duration, UNIX_EPOCH};

use serde::Deserialize;

use super::remote::Framing;

/// Receivers take so much, and many no more.
const MESSAGE_MAX_BYTES: usize = 8192;
/// Limits of the fields (section 6).
const HOST_MAX: usize = 255;
const APPLICATION_MAX: usize = 48;
/// Facilities (section 6.2.1): the kernel's and system daemons'.
const KERNEL: u8 = 0;
const DAEMON: u8 = 3;
/// What a program just prints is informational (section 6.2.1).
const INFORMATIONAL: u8 = 6;

/// A record as the log service answers, as far as it is forwarded.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Record {
    /// Its place in the log; `None` for what the log service says of the log itself.
    pub(super) id: Option<u64>,
    /// When it was written, in microseconds of Unix time.
    pub(super) time_us: u64,
    /// Who wrote it.
    pub(super) service: String,
    /// Its urgency, as syslog(3) counts.
    pub(super) priority: Option<u8>,
    /// The text.
    pub(super) message: String,
}

impl Record {
    /// Its urgency, 0 to 7.
    pub(super) fn severity(&self) -> u8 {
        self.priority.unwrap_or(INFORMATIONAL).min(7)
    }

    /// The message, as it goes over the wire.
    pub(super) fn framed(&self, host: &str, framing: Framing) -> Vec<u8> {
        let facility = match self.service.as_str() {
            "kernel" => KERNEL,
            _ => DAEMON,
        };
        let priority = facility * 8 + self.severity();
        let time = UNIX_EPOCH + Duration::from_micros(self.time_us);
        let mut text = format!(
            "<{priority}>1 {} {} {} - - - ",
            humantime::format_rfc3339_micros(time),
            field(host, HOST_MAX),
            field(&self.service, APPLICATION_MAX)
        );
        // A line's end would end the message.
        let line = |letter: char| match letter {
            '\n' | '\r' | '\0' => ' ',
            other => other,
        };
        text.extend(self.message.chars().map(line));
        let end = text.floor_char_boundary(MESSAGE_MAX_BYTES);
        text.truncate(end);
        match framing {
            Framing::Datagram => text.into_bytes(),
            Framing::Line => (text + "\n").into_bytes(),
            Framing::Counted => format!("{} {text}", text.len()).into_bytes(),
        }
    }
}

/// A field of visible ASCII; `-` for nothing.
fn field(text: &str, max: usize) -> String {
    let visible = |letter: char| match letter.is_ascii_graphic() {
        true => letter,
        false => '_',
    };
    match text.is_empty() {
        true => "-".to_owned(),
        false => text.chars().map(visible).take(max).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn record(service: &str, priority: Option<u8>, message: &str) -> Record {
        Record {
            id: Some(1),
            time_us: 1_065_910_455_003_000,
            service: service.to_owned(),
            priority,
            message: message.to_owned(),
        }
    }

    #[test]
    fn a_record_is_a_message_of_rfc_5424() {
        let text =
            |record: Record, framing| String::from_utf8(record.framed("my host", framing)).unwrap();
        assert_eq!(
            text(record("network", Some(3), "no lease"), Framing::Datagram),
            "<27>1 2003-10-11T22:14:15.003000Z my_host network - - - no lease"
        );
        assert_eq!(
            text(record("kernel", None, "a\nb"), Framing::Line),
            "<6>1 2003-10-11T22:14:15.003000Z my_host kernel - - - a b\n"
        );
        let counted = text(record("", Some(200), "ä"), Framing::Counted);
        assert_eq!(
            counted,
            "52 <31>1 2003-10-11T22:14:15.003000Z my_host - - - - ä"
        );
    }

    proptest! {
        #[test]
        fn whatever_is_said_is_one_message(
            service in ".{0,80}", message in "(?s).{0,200}", repeat in 1_usize..200, priority in any::<Option<u8>>()
        ) {
            let record = record(&service, priority, &message.repeat(repeat));
            let line = record.framed("h", Framing::Line);
            prop_assert!(line.len() <= MESSAGE_MAX_BYTES + 1);
            prop_assert_eq!(line.iter().filter(|byte| **byte == b'\n').count(), 1);
            let counted = String::from_utf8(record.framed("h", Framing::Counted)).unwrap();
            let (length, text) = counted.split_once(' ').unwrap();
            prop_assert_eq!(length.parse::<usize>().unwrap(), text.len());
            prop_assert_eq!(text.splitn(8, ' ').count(), 8);
        }
    }
}
