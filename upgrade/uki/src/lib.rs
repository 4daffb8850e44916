//! Unified kernel images (UAPI.5): programs for UEFI (PE/COFF) whose sections hold kernel, initial RAM disk and command line; and how GRUB starts one
//! on machines without UEFI.
//!
//! Shared by the builder, which makes the first entry of a disk, and the upgrade service, which makes all others.

pub mod grub;

use std::io::{Read, Seek, SeekFrom, Take};

use anyhow::{Context as _, Result, ensure};

/// So many sections are looked at; ours have ten.
const SECTIONS_MAX: u16 = 96;
const COMMAND_LINE_MAX: u32 = 64 * 1024;
const SECTION_BYTES: usize = 40;
/// What GRUB counts in.
const SECTOR_BYTES: u32 = 512;

/// A section that GRUB reads as a file: whole sectors of the image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sectors {
    /// The first sector of the image file.
    pub first: u32,
    /// How many there are; what is behind the section's end in the last one is filled up with zeros.
    pub count: u32,
}

/// The content of the section `name`, whose length is the limit; one that is cut off ends early.
///
/// # Errors
/// The file is no such program, or has no section of that name.
pub fn section<'f, F: Read + Seek>(file: &'f mut F, name: &str) -> Result<Take<&'f mut F>> {
    let sections = sections(file)?;
    let (length, at) =
        find(&sections, name.as_bytes()).with_context(|| format!("it has no section {name}"))?;
    file.seek(SeekFrom::Start(at.into()))?;
    Ok(file.take(length.into()))
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

/// The text of the section `.cmdline`.
///
/// # Errors
/// The file is no such program, or has no command line.
pub fn command_line(file: &mut (impl Read + Seek)) -> Result<String> {
    let sections = sections(file)?;
    let (length, at) = find(&sections, b".cmdline").context("it has no command line")?;
    ensure!(
        length <= COMMAND_LINE_MAX,
        "its command line has {length} bytes"
    );
    file.seek(SeekFrom::Start(at.into()))?;
    let mut text = vec![0; usize::try_from(length)?];
    file.read_exact(&mut text).context("it is cut off")?;
    let text = String::from_utf8(text).context("its command line is no text")?;
    Ok(text.trim_end_matches(['\0', '\n']).to_owned())
}

/// Where kernel and initial RAM disk are.
///
/// # Errors
/// The file is no such program, lacks one of them, or has one that does not begin with a sector.
pub fn kernel_and_initrd(file: &mut (impl Read + Seek)) -> Result<(Sectors, Sectors)> {
    let sections = sections(file)?;
    let sectors = |name: &[u8]| {
        let shown = String::from_utf8_lossy(name).into_owned();
        let (length, at) = find(&sections, name).with_context(|| format!("it has no {shown}"))?;
        ensure!(
            at % SECTOR_BYTES == 0 && length > 0,
            "its section {shown} does not begin with a sector"
        );
        Ok(Sectors {
            first: at / SECTOR_BYTES,
            count: length.div_ceil(SECTOR_BYTES),
        })
    };
    Ok((sectors(b".linux")?, sectors(b".initrd")?))
}

/// The section headers.
fn sections(file: &mut (impl Read + Seek)) -> Result<Vec<u8>> {
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
    Ok(sections)
}

/// Length and place, in bytes, of a section.
fn find(sections: &[u8], name: &[u8]) -> Option<(u32, u32)> {
    let mut padded = [0; 8];
    padded.get_mut(..name.len())?.copy_from_slice(name);
    let section = sections
        .chunks_exact(SECTION_BYTES)
        .find(|section| section.starts_with(&padded))?;
    Some((u32_at(section, 8)?, u32_at(section, 20)?))
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    let field = bytes.get(at..)?.first_chunk()?;
    Some(u16::from_le_bytes(*field))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let field = bytes.get(at..)?.first_chunk()?;
    Some(u32::from_le_bytes(*field))
}

/// The smallest file that has a kernel, an initial RAM disk and a command line, for tests.
#[doc(hidden)]
pub fn sample(command_line: &str) -> Vec<u8> {
    let mut bytes = vec![0; 64];
    bytes.splice(..2, *b"MZ");
    bytes.splice(60..61, [64]);
    bytes.extend(b"PE\0\0\x64\x86\x03\0");
    bytes.extend([0; 12]);
    bytes.extend([8, 0, 0, 0]);
    bytes.extend([0; 8]);
    let length = u32::try_from(command_line.len()).unwrap_or_default();
    for (name, length, at) in [
        (b".linux\0\0", 513, 512),
        (b".initrd\0", 512, 1536),
        (b".cmdline", length, 2048),
    ] {
        let mut section = name.to_vec();
        section.extend(u32::to_le_bytes(length));
        section.extend([0; 8]);
        section.extend(u32::to_le_bytes(at));
        section.resize(SECTION_BYTES, 0);
        bytes.extend(section);
    }
    bytes.resize(2048, 0);
    bytes.extend(command_line.as_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::Cursor;

    #[test]
    fn the_command_line_is_read() {
        let mut file = Cursor::new(sample("quiet keelson.slot=PARTUUID=AB\n\0"));
        assert_eq!(
            command_line(&mut file).unwrap(),
            "quiet keelson.slot=PARTUUID=AB"
        );
    }

    #[test]
    fn a_section_is_found_by_its_whole_name() {
        let mut file = Cursor::new(sample("quiet"));
        let mut initrd = Vec::new();
        section(&mut file, ".initrd")
            .unwrap()
            .read_to_end(&mut initrd)
            .unwrap();
        assert_eq!(initrd.len(), 512);
        let error = section(&mut file, ".init").err().unwrap();
        assert_eq!(error.to_string(), "it has no section .init");
    }

    #[test]
    fn kernel_and_initrd_are_whole_sectors() {
        let sectors = |first, count| Sectors { first, count };
        let found = kernel_and_initrd(&mut Cursor::new(sample(""))).unwrap();
        assert_eq!(found, (sectors(1, 2), sectors(3, 1)));
        let mut odd = sample("");
        odd[96 + 20] = 1;
        let error = kernel_and_initrd(&mut Cursor::new(odd)).unwrap_err();
        assert!(error.to_string().contains("begin with a sector"), "{error}");
    }

    #[test]
    fn what_is_cut_off_or_no_image_is_an_error() {
        let whole = sample("quiet");
        for length in [0, 1, 63, 70, 100, 150, whole.len() - 1] {
            let mut file = Cursor::new(whole[..length].to_vec());
            assert!(command_line(&mut file).is_err(), "{length}");
        }
        let mut huge = whole;
        huge[96 + 2 * SECTION_BYTES + 11] = 0xff;
        assert!(command_line(&mut Cursor::new(huge)).is_err());
    }

    proptest! {
        #[test]
        fn no_file_panics(bytes: Vec<u8>, at in 0..240usize, flip: u8) {
            let _ = command_line(&mut Cursor::new(bytes));
            let mut image = sample("quiet");
            let at = at % image.len();
            image[at] ^= flip;
            let _ = command_line(&mut Cursor::new(&image));
            let _ = kernel_and_initrd(&mut Cursor::new(&image));
        }
    }
}
