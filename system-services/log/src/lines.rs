//! Bytes into lines.

use crate::record::MESSAGE_MAX_BYTES;
use memchr::memchr;

/// So much is stored together at most.
pub const RUN_MAX_BYTES: usize = 32 * 1024;

/// One message cut from a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line<'b> {
    /// Without its line feed.
    pub text: &'b [u8],
    /// How many bytes of the stream it took, line feed included.
    pub taken_bytes: usize,
    /// It was too long, and goes on in the next one.
    pub partial: bool,
}

/// Cuts the next line off; `None` when what is there is not yet a whole one. A line of more than
/// [`MESSAGE_MAX_BYTES`] is cut at a character's boundary where it is UTF-8.
#[must_use]
pub fn next_line(bytes: &[u8]) -> Option<Line<'_>> {
    let window = bytes.get(..=MESSAGE_MAX_BYTES).unwrap_or(bytes);
    if let Some(end) = memchr(b'\n', window) {
        let text = &bytes[..end];
        return Some(Line {
            text: text.strip_suffix(b"\r").unwrap_or(text),
            taken_bytes: end + 1,
            partial: false,
        });
    }
    (window.len() > MESSAGE_MAX_BYTES).then(|| {
        let end = character_boundary(&window[..MESSAGE_MAX_BYTES]);
        Line {
            text: &bytes[..end],
            taken_bytes: end,
            partial: true,
        }
    })
}

/// Lines that are stored together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// How many bytes of the stream they take.
    pub taken_bytes: usize,
    /// How many records they are.
    pub records: u64,
    /// The lowest priority that stands before any of them.
    pub most_urgent: Option<u8>,
}

/// The lines at the start of the bytes, as many as are stored together; with `all` also what has no end, by itself.
/// A line that is cut ends a run, so that it is cut at the same place when it is read.
#[must_use]
pub fn next_run(bytes: &[u8], all: bool) -> Option<Run> {
    let mut run = Run {
        taken_bytes: 0,
        records: 0,
        most_urgent: None,
    };
    while let Some(line) = next_line(&bytes[run.taken_bytes..]) {
        if run.records > 0 && run.taken_bytes + line.taken_bytes > RUN_MAX_BYTES {
            break;
        }
        run.add(line.text, line.taken_bytes);
        if line.partial {
            break;
        }
    }
    if all && run.records == 0 && !bytes.is_empty() {
        run.add(bytes, bytes.len());
    }
    (run.records > 0).then_some(run)
}

impl Run {
    fn add(&mut self, text: &[u8], taken_bytes: usize) {
        self.taken_bytes += taken_bytes;
        self.records += 1;
        if let (Some(priority), _) = split_priority(text) {
            let lowest = self.most_urgent.unwrap_or(priority);
            self.most_urgent = Some(lowest.min(priority));
        }
    }
}

/// The length without a character that the end cuts through.
fn character_boundary(bytes: &[u8]) -> usize {
    let tail_start = bytes.len().saturating_sub(3);
    let lead = bytes[tail_start..].iter().rposition(|byte| *byte >= 0xc0);
    let Some(lead) = lead.map(|at| tail_start + at) else {
        return bytes.len();
    };
    let needed = match bytes[lead] {
        0xf0.. => 4,
        0xe0.. => 3,
        _ => 2,
    };
    if bytes.len() - lead < needed {
        lead
    } else {
        bytes.len()
    }
}

/// Takes the priority off a line that starts with `<3>` and the like (sd-daemon(3)).
#[must_use]
pub fn split_priority(line: &[u8]) -> (Option<u8>, &[u8]) {
    match line {
        [b'<', digit @ b'0'..=b'7', b'>', text @ ..] => (Some(digit - b'0'), text),
        _ => (None, line),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn all_lines(mut bytes: &[u8]) -> (Vec<Line<'_>>, &[u8]) {
        let mut lines = Vec::new();
        while let Some(line) = next_line(bytes) {
            bytes = &bytes[line.taken_bytes..];
            lines.push(line);
        }
        (lines, bytes)
    }

    #[test]
    fn lines_are_cut_at_line_feeds_and_the_rest_waits() {
        let (lines, rest) = all_lines(b"one\r\n\ntwo\nthr");
        let texts: Vec<&[u8]> = lines.iter().map(|line| line.text).collect();
        assert_eq!(texts, [b"one".as_slice(), b"", b"two"]);
        assert_eq!(rest, b"thr");
    }

    #[test]
    fn a_line_of_exactly_the_longest_length_stays_whole() {
        let mut bytes = vec![b'x'; MESSAGE_MAX_BYTES];
        assert_eq!(next_line(&bytes), None);
        bytes.push(b'\n');
        let line = next_line(&bytes).unwrap();
        assert_eq!((line.text.len(), line.partial), (MESSAGE_MAX_BYTES, false));
    }

    #[test]
    fn a_longer_line_is_cut_between_characters() {
        for padding in 0..4 {
            let text = "x".repeat(padding) + &"€𝄞".repeat(MESSAGE_MAX_BYTES);
            let (lines, rest) = all_lines(text.as_bytes());
            assert!(
                lines
                    .iter()
                    .all(|line| line.partial && std::str::from_utf8(line.text).is_ok())
            );
            assert!(std::str::from_utf8(rest).is_ok());
        }
    }

    #[test]
    fn priorities_are_taken_off_only_where_they_are_ones() {
        assert_eq!(split_priority(b"<3>no"), (Some(3), b"no".as_slice()));
        assert_eq!(split_priority(b"<8>no"), (None, b"<8>no".as_slice()));
        assert_eq!(split_priority(b"<"), (None, b"<".as_slice()));
    }

    proptest! {
        #[test]
        fn nothing_of_any_stream_is_lost(bytes: Vec<u8>, zeros in 0..40_000_usize, behind: Vec<u8>) {
            let stream = [bytes, vec![0xe2; zeros], behind].concat();
            let (lines, rest) = all_lines(&stream);
            let mut joined = Vec::new();
            let mut taken = 0;
            for line in &lines {
                prop_assert!(line.taken_bytes > 0 && line.text.len() <= MESSAGE_MAX_BYTES);
                taken += line.taken_bytes;
                joined.extend(line.text);
                if !line.partial { joined.push(b'\n'); }
            }
            prop_assert_eq!(taken + rest.len(), stream.len());
            joined.extend(rest);
            let without_returns = |bytes: &[u8]| bytes.iter().copied().filter(|byte| *byte != b'\r').collect::<Vec<_>>();
            prop_assert_eq!(without_returns(&joined), without_returns(&stream));
        }
    }
}
