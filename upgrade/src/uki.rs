//! Unified kernel images (UAPI.5): programs for UEFI (PE/COFF) whose sections hold kernel, initial RAM disk and command line.

use std::io::{Read, Seek, SeekFrom, Take};

use anyhow::{Context as _, Result, ensure};

/// So many sections are looked at; ours have ten.
const SECTIONS_MAX: u16 = 96;
const COMMAND_LINE_MAX: u64 = 64 * 1024;
const SECTION_BYTES: usize = 40;

/// The text of the section `.cmdline`.
///
/// # Errors
/// The file is no such program, or has no command line.
pub fn command_line(file: &mut (impl Read + Seek)) -> Result<String> {
    let mut section = section(file, ".cmdline")?;
    let length = section.limit();
    ensure!(
        length <= COMMAND_LINE_MAX,
        "its command line has {length} bytes"
    );
    let mut text = vec![0; usize::try_from(length)?];
    section.read_exact(&mut text).context("it is cut off")?;
    let text = String::from_utf8(text).context("its command line is no text")?;
    Ok(text.trim_end_matches(['\0', '\n']).to_owned())
}

/// The content of the section `name`, whose length is the limit; one that is cut off ends early.
///
/// # Errors
/// The file is no such program, or has no section of that name.
pub fn section<'f, F: Read + Seek>(file: &'f mut F, name: &str) -> Result<Take<&'f mut F>> {
    let mut dos = [0; 64];
    file.seek(SeekFrom::Start(0))?;
    file.read_exact(&mut dos).context("it is too short")?;
    ensure!(dos.starts_with(b"MZ"), "it is no program for UEFI");
    let place = u32_at(&dos, 60).unwrap_or_default();
    file.seek(SeekFrom::Start(place.into()))?;
    let mut coff = [0; 24];
    file.read_exact(&mut coff).context("it is cut off")?;
    ensure!(coff.starts_with(b"PE\0\0"), "it is no program for UEFI");
    let count = u16_at(&coff, 6).unwrap_or_default();
    let optional = u16_at(&coff, 20).unwrap_or_default();
    ensure!(count <= SECTIONS_MAX, "it has {count} sections");
    file.seek(SeekFrom::Current(optional.into()))?;
    let mut sections = vec![0; usize::from(count) * SECTION_BYTES];
    file.read_exact(&mut sections).context("it is cut off")?;
    let section = sections
        .chunks_exact(SECTION_BYTES)
        .find(|section| name_of(section) == name.as_bytes())
        .with_context(|| format!("it has no section {name}"))?;
    let (length, at) = (u32_at(section, 8), u32_at(section, 20));
    let (length, at) = (length.unwrap_or_default(), at.unwrap_or_default());
    file.seek(SeekFrom::Start(at.into()))?;
    Ok(file.take(length.into()))
}

/// The name in a section's header, padded with zeros.
fn name_of(section: &[u8]) -> &[u8] {
    let name = section.get(..8).unwrap_or_default();
    let end = name.iter().rposition(|byte| *byte != 0);
    name.get(..end.map_or(0, |last| last + 1))
        .unwrap_or_default()
}

/// Whether the program has a signature (PE/COFF specification, section 3.4.3: the certificate table of the data directories).
///
/// # Errors
/// The file is no such program.
pub fn is_signed(file: &mut (impl Read + Seek)) -> Result<bool> {
    /// Where the table's size stands behind the file header, in PE32+.
    const CERTIFICATES: u64 = 24 + 112 + 4 * 8 + 4;
    let mut dos = [0; 64];
    file.seek(SeekFrom::Start(0))?;
    file.read_exact(&mut dos).context("it is too short")?;
    ensure!(dos.starts_with(b"MZ"), "it is no program for UEFI");
    let place = u32_at(&dos, 60).unwrap_or_default();
    file.seek(SeekFrom::Start(u64::from(place) + CERTIFICATES))?;
    let mut size = [0; 4];
    file.read_exact(&mut size).context("it is cut off")?;
    Ok(u32::from_le_bytes(size) > 0)
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    let field = bytes.get(at..)?.first_chunk()?;
    Some(u16::from_le_bytes(*field))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let field = bytes.get(at..)?.first_chunk()?;
    Some(u32::from_le_bytes(*field))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::Cursor;

    /// The smallest file that has a command line.
    pub(crate) fn image(command_line: &str) -> Vec<u8> {
        let mut bytes = vec![0; 64];
        bytes[..2].copy_from_slice(b"MZ");
        bytes[60] = 64;
        bytes.extend(b"PE\0\0\x64\x86\x03\0");
        bytes.extend([0; 12]);
        bytes.extend([8, 0, 0, 0]);
        bytes.extend([0; 8]);
        for (name, length, at) in [
            (b".linux\0\0", 4, 64),
            (b".initrd\0", 4, 68),
            (b".cmdline", command_line.len(), 216),
        ] {
            let mut section = [0; SECTION_BYTES];
            section[..8].copy_from_slice(name);
            section[8..12].copy_from_slice(&(length as u32).to_le_bytes());
            section[20..24].copy_from_slice(&(at as u32).to_le_bytes());
            bytes.extend(section);
        }
        bytes.extend(command_line.as_bytes());
        bytes
    }

    #[test]
    fn the_command_line_is_read() {
        let mut file = Cursor::new(image("quiet keelson.slot=PARTUUID=AB\n\0"));
        assert_eq!(
            command_line(&mut file).unwrap(),
            "quiet keelson.slot=PARTUUID=AB"
        );
    }

    #[test]
    fn a_section_is_found_by_its_whole_name() {
        let mut file = Cursor::new(image("quiet"));
        let mut kernel = Vec::new();
        section(&mut file, ".linux")
            .unwrap()
            .read_to_end(&mut kernel)
            .unwrap();
        assert_eq!(kernel, b"PE\0\0");
        let error = section(&mut file, ".lin").unwrap_err();
        assert_eq!(error.to_string(), "it has no section .lin");
    }

    #[test]
    fn what_is_cut_off_or_no_image_is_an_error() {
        let whole = image("quiet");
        for length in [0, 1, 63, 70, 100, 190, whole.len() - 1] {
            let mut file = Cursor::new(whole[..length].to_vec());
            assert!(command_line(&mut file).is_err(), "{length}");
        }
        let mut huge = whole;
        huge[64 + 24 + 8 + 80 + 11] = 0xff;
        assert!(command_line(&mut Cursor::new(huge)).is_err());
    }

    proptest! {
        #[test]
        fn no_file_panics(bytes: Vec<u8>, at in 0..220usize, flip: u8) {
            let _ = command_line(&mut Cursor::new(bytes));
            let mut image = image("quiet");
            let at = at % image.len();
            image[at] ^= flip;
            let _ = command_line(&mut Cursor::new(image));
        }
    }
}
