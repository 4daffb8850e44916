//! The syslog socket, and the two forms of message that programs send there: RFC 3164 as the C library writes it
//! (without a host name), and RFC 5424.

use crate::clock::Time;
use crate::positions;
use crate::record::{MESSAGE_MAX_BYTES, Record, Stream};
use crate::store::SharedStore;
use std::io;
use tokio::net::UnixDatagram;

/// Longest datagram that a socket's default send buffer lets through, and more.
const DATAGRAM_MAX_BYTES: usize = 256 * 1024;
/// user.notice, for messages that name none (RFC 3164 section 4.3.3).
const DEFAULT_PRIORITY: u8 = 5;
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Priority (0 to 7), and `program[pid]: text` without the sender's time: when it arrived is known better here.
#[must_use]
pub fn parse(datagram: &[u8]) -> (u8, Vec<u8>) {
    let end = datagram
        .iter()
        .rposition(|byte| !matches!(byte, b'\n' | 0))
        .map_or(0, |last| last + 1);
    let datagram = &datagram[..end];
    let Some((number, text)) = split_number(datagram) else {
        return (DEFAULT_PRIORITY, datagram.to_vec());
    };
    let priority = (number & 7) as u8;
    let text = parse_5424(text).unwrap_or_else(|| without_3164_time(text).to_vec());
    (priority, text)
}

/// Splits `<34>` off.
fn split_number(datagram: &[u8]) -> Option<(u32, &[u8])> {
    let rest = datagram.strip_prefix(b"<")?;
    let end = rest.iter().take(4).position(|byte| *byte == b'>')?;
    let number: u32 = std::str::from_utf8(&rest[..end]).ok()?.parse().ok()?;
    (number < 192).then_some((number, &rest[end + 1..]))
}

/// `Nov 23 01:02:03 ` (RFC 3164 section 4.1.2).
fn without_3164_time(text: &[u8]) -> &[u8] {
    let Some((time, rest)) = text.split_at_checked(16) else {
        return text;
    };
    let is_time = time
        .iter()
        .zip(b"Aaa 00 00:00:00 ")
        .all(|(byte, shape)| match shape {
            b'A' => byte.is_ascii_uppercase(),
            b'a' => byte.is_ascii_lowercase(),
            b'0' => byte.is_ascii_digit() || *byte == b' ',
            exact => byte == exact,
        });
    if is_time { rest } else { text }
}

/// `1 TIME HOST APP PROCID MSGID STRUCTURED-DATA TEXT` (RFC 5424 section 6).
fn parse_5424(text: &[u8]) -> Option<Vec<u8>> {
    let mut rest = text.strip_prefix(b"1 ")?;
    let mut word = || {
        let end = rest.iter().position(|byte| *byte == b' ')?;
        let word = &rest[..end];
        rest = &rest[end + 1..];
        Some(word)
    };
    let (_time, _host, program, process, _message_id) =
        (word()?, word()?, word()?, word()?, word()?);
    let data_end = structured_data_end(rest)?;
    let (data, message) = rest.split_at(data_end);
    let message = message.strip_prefix(b" ").unwrap_or(message);
    let mut out = program.to_vec();
    if process != b"-" {
        out.extend([b"[", process, b"]"].concat());
    }
    out.extend(b": ");
    if data != b"-" {
        out.extend([data, b" "].concat());
    }
    out.extend(message.strip_prefix(BYTE_ORDER_MARK).unwrap_or(message));
    Some(out)
}

/// Where `-` or `[id name="value"][...]` ends.
fn structured_data_end(text: &[u8]) -> Option<usize> {
    if text.first() == Some(&b'-') {
        return Some(1);
    }
    let (mut quoted, mut escaped, mut open) = (false, false, false);
    for (at, byte) in text.iter().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' if open => quoted = !quoted,
            b'[' if !open => open = true,
            b']' if !quoted => open = false,
            b' ' if !open => return Some(at),
            _ if !open => return None,
            _ => {}
        }
    }
    (!open && !text.is_empty()).then_some(text.len())
}

/// Stores what arrives, for ever. All of it counts as `service`'s, whose socket this is.
///
/// # Errors
/// What recv(2) reports, or the store takes nothing.
pub async fn run(socket: UnixDatagram, service: String, store: SharedStore) -> io::Result<()> {
    let mut buffer = vec![0; DATAGRAM_MAX_BYTES];
    loop {
        let length = socket.recv(&mut buffer).await?;
        store
            .borrow_mut()
            .append(records(&buffer[..length], &service))?;
    }
}

fn records(datagram: &[u8], service: &str) -> Vec<Record> {
    let (priority, text) = parse(datagram);
    let now = Time::now();
    let last = text.len().div_ceil(MESSAGE_MAX_BYTES).saturating_sub(1);
    text.chunks(MESSAGE_MAX_BYTES)
        .enumerate()
        .map(|(index, part)| Record {
            id: 0,
            time_us: now.real_us,
            boot_us: now.boot_us,
            source: positions::NONE,
            position: 0,
            stream: Stream::Syslog,
            priority: Some(priority),
            partial: index < last,
            service: service.to_owned(),
            message: part.to_vec(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parsed(datagram: &str) -> (u8, String) {
        let (priority, text) = parse(datagram.as_bytes());
        (priority, String::from_utf8(text).unwrap())
    }

    #[test]
    fn messages_of_both_forms_and_of_neither_are_read() {
        let table = [
            (
                "<86>Nov  3 01:02:03 sshd[12]: Accepted key",
                6,
                "sshd[12]: Accepted key",
            ),
            ("<11>tool: no time here\n\0", 3, "tool: no time here"),
            (
                "<165>1 2025-11-23T01:02:03.4Z host app 77 ID47 - \u{feff}text",
                5,
                "app[77]: text",
            ),
            (
                r#"<34>1 - - su - - [a b="]\" c"][d] failed"#,
                2,
                r#"su: [a b="]\" c"][d] failed"#,
            ),
            ("<34>1 - - su - - -", 2, "su: "),
            ("<34>1 too short", 2, "1 too short"),
            ("<192>no such priority", 5, "<192>no such priority"),
            ("nothing at all", 5, "nothing at all"),
            ("", 5, ""),
        ];
        for (datagram, priority, text) in table {
            assert_eq!(parsed(datagram), (priority, text.to_owned()), "{datagram}");
        }
    }

    #[test]
    fn a_long_message_becomes_several_records() {
        let datagram = [b"<14>".to_vec(), vec![b'x'; 40_000]].concat();
        let records = records(&datagram, "console");
        let shape: Vec<_> = records
            .iter()
            .map(|record| (record.message.len(), record.partial))
            .collect();
        assert_eq!(shape, [(16_384, true), (16_384, true), (7_232, false)]);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(bytes: Vec<u8>) {
            let _ = parse(&bytes);
            let _ = parse(&[b"<34>1 - - a - - ".as_slice(), &bytes].concat());
        }
    }
}
