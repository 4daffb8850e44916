//! gzip, zstd or nothing, told by how the content begins.

use flate2::read::MultiGzDecoder;
use std::io::{self, BufRead, BufReader, Read};

const BUFFER_BYTES: usize = 128 * 1024;
/// RFC 1952, section 2.3.1.
const GZIP: [u8; 2] = [0x1f, 0x8b];
/// RFC 8878, section 3.1.1; frames to be skipped may come first.
const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// Gives the content, not compressed.
///
/// # Errors
/// When it cannot be read.
pub(crate) fn reader<'r>(source: impl Read + 'r) -> io::Result<Box<dyn Read + 'r>> {
    let mut source = BufReader::with_capacity(BUFFER_BYTES, source);
    let begin = source.fill_buf()?;
    if begin.starts_with(&GZIP) {
        return Ok(Box::new(MultiGzDecoder::new(source)));
    }
    let skippable =
        begin.len() >= 4 && (0x50..=0x5f).contains(&begin[0]) && begin[1..4] == [0x2a, 0x4d, 0x18];
    if begin.starts_with(&ZSTD) || skippable {
        return Ok(Box::new(zstd::stream::read::Decoder::with_buffer(source)?));
    }
    Ok(Box::new(source))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn content_is_told_by_its_beginning() {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(b"content").unwrap();
        let zstd = zstd::encode_all(&b"content"[..], 1).unwrap();
        for bytes in [gzip.finish().unwrap(), zstd, b"content".to_vec()] {
            let mut text = String::new();
            reader(&bytes[..])
                .unwrap()
                .read_to_string(&mut text)
                .unwrap();
            assert_eq!(text, "content");
        }
        let mut none = Vec::new();
        reader(&b""[..]).unwrap().read_to_end(&mut none).unwrap();
        assert!(none.is_empty());
    }
}
