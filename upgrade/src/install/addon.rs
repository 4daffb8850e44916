//! Further words of the kernel's command line, as an add-on of systemd-stub (systemd-stub(7), "Companion files"): a program for UEFI
//! that does nothing and has a section `.cmdline`. What is in `loader/addons/` counts for every version.
//!
//! Nobody has signed it: with Secure Boot the stub leaves it alone.

use anyhow::{Result, ensure};

/// Where it stands on the EFI system partition.
pub const PATH: &str = "loader/addons/install.addon.efi";
/// The kernel takes 2048 in all (x86), and our own words need some.
const WORDS_MAX: usize = 1024;

const FILE_ALIGNMENT: u32 = 512;
const SECTION_ALIGNMENT: u32 = 4096;
const OPTIONAL_HEADER_BYTES: u16 = 240;
/// `return EFI_UNSUPPORTED`: mov rax, 0x8000000000000003; ret.
const CODE: [u8; 11] = [0x48, 0xb8, 3, 0, 0, 0, 0, 0, 0, 0x80, 0xc3];

/// Whether the kernel can be given these words.
///
/// # Errors
/// There are too many, or what stands there is no line of text.
pub fn check(words: &str) -> Result<()> {
    let is_text = words.bytes().all(|byte| (b' '..=b'~').contains(&byte));
    ensure!(
        is_text && !words.trim().is_empty(),
        "kernel arguments are one line of printable ASCII characters"
    );
    ensure!(
        words.len() <= WORDS_MAX,
        "the kernel arguments have {} characters, at most {WORDS_MAX} may be appended",
        words.len()
    );
    let ours = words.split_ascii_whitespace().find(|word| {
        ["keelson.slot=", "keelson.roothash=", "keelson.hashoffset="]
            .iter()
            .any(|start| word.starts_with(start))
    });
    ensure!(
        ours.is_none(),
        "{} says which root is started, and the image alone may say that",
        ours.unwrap_or_default()
    );
    Ok(())
}

/// The add-on (PE/COFF specification, sections 3 and 4: PE32+ for x86-64).
pub fn make(words: &str) -> Vec<u8> {
    let sections: [(&[u8; 8], &[u8], u32); 2] = [
        // Code that may be run and read; initialised data that may be read.
        (b".text\0\0\0", &CODE, 0x6000_0020),
        (b".cmdline", words.as_bytes(), 0x4000_0040),
    ];
    let mut image = vec![0; 64];
    put(&mut image, 0, b"MZ");
    put(&mut image, 60, &64u32.to_le_bytes());
    image.extend(b"PE\0\0");
    image.extend(0x8664u16.to_le_bytes());
    image.extend((sections.len() as u16).to_le_bytes());
    image.extend([0; 12]);
    image.extend(OPTIONAL_HEADER_BYTES.to_le_bytes());
    // A program that is no DLL, without debug information, for more than 2 GiB of addresses.
    image.extend(0x0226u16.to_le_bytes());
    let optional = image.len();
    image.resize(optional + usize::from(OPTIONAL_HEADER_BYTES), 0);
    let (mut at_file, mut at_memory) = (FILE_ALIGNMENT, SECTION_ALIGNMENT);
    let mut content = Vec::new();
    for (name, bytes, flags) in sections {
        let length = bytes.len() as u32;
        let padded = length.next_multiple_of(FILE_ALIGNMENT);
        image.extend(name);
        for field in [length, at_memory, padded, at_file, 0, 0, 0, flags] {
            image.extend(field.to_le_bytes());
        }
        content.extend(bytes);
        content.resize((at_file + padded - FILE_ALIGNMENT) as usize, 0);
        at_file += padded;
        at_memory += length.next_multiple_of(SECTION_ALIGNMENT);
    }
    for (offset, bytes) in [
        (0, &0x020bu16.to_le_bytes()[..]),
        (4, &FILE_ALIGNMENT.to_le_bytes()),
        (8, &FILE_ALIGNMENT.to_le_bytes()),
        (16, &SECTION_ALIGNMENT.to_le_bytes()),
        (20, &SECTION_ALIGNMENT.to_le_bytes()),
        (32, &SECTION_ALIGNMENT.to_le_bytes()),
        (36, &FILE_ALIGNMENT.to_le_bytes()),
        (56, &at_memory.to_le_bytes()),
        (60, &FILE_ALIGNMENT.to_le_bytes()),
        // An application for EFI, that may be loaded anywhere.
        (68, &10u16.to_le_bytes()),
        (70, &0x0140u16.to_le_bytes()),
        (108, &16u32.to_le_bytes()),
    ] {
        put(&mut image, optional + offset, bytes);
    }
    image.resize(FILE_ALIGNMENT as usize, 0);
    image.extend(content);
    image
}

fn put(image: &mut [u8], at: usize, bytes: &[u8]) {
    if let Some(place) = image.get_mut(at..at + bytes.len()) {
        place.copy_from_slice(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_are_found_where_the_stub_looks_for_them() {
        let image = make("console=ttyS1 quiet");
        assert_eq!(image.len() % 512, 0);
        let line = crate::uki::command_line(&mut std::io::Cursor::new(&image)).unwrap();
        assert_eq!(line, "console=ttyS1 quiet");
        assert!(!crate::uki::is_signed(&mut std::io::Cursor::new(image)).unwrap());
    }

    /// Where binutils are, they read it.
    #[test]
    fn objdump_finds_a_program_for_efi() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.efi");
        std::fs::write(&path, make(&"a".repeat(WORDS_MAX))).unwrap();
        let mut command = std::process::Command::new("objdump");
        let Ok(output) = command.arg("-fh").arg(&path).output() else {
            return;
        };
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "{text}");
        for part in [
            "pei-x86-64",
            ".text",
            ".cmdline",
            "start address 0x0000000000001000",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }

    #[test]
    fn words_that_make_no_sense_are_refused() {
        for (words, part) in [
            ("", "one line"),
            ("a\nb", "one line"),
            ("ä", "one line"),
            (
                "quiet keelson.slot=/dev/vdb2",
                "keelson.slot=/dev/vdb2 says which root",
            ),
            (&"x".repeat(WORDS_MAX + 1), "1025 characters"),
        ] {
            let error = check(words).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
        check("console=ttyS0 keelson.hostname=boat").unwrap();
    }
}
