//! What GRUB reads on machines without UEFI, in `grub/` of the EFI system partition (`images/grub/grub.cfg` is what it does with it).
//!
//! - `entries/VERSION.cfg`: where in the unified kernel image of a version kernel and initial RAM disk are, and the command line. Nothing is taken out
//!   of the image: there is one file of each version, whatever starts it.
//! - `state`: the versions that can be started and their tries, an environment block of GRUB (GRUB manual, "Environment block"). All that is said is in
//!   its first sector, so that it is changed by the write of one sector, by GRUB and by us.

use std::io::{Read, Seek};

use anyhow::{Result, ensure};

use crate::{Sectors, command_line, kernel_and_initrd};

/// GRUB's directory on the EFI system partition.
pub const DIRECTORY: &str = "grub";
/// What GRUB does.
pub const CONFIGURATION: &str = "grub/grub.cfg";
/// The first sector's program of a disk, up to the old partition table.
pub const BOOT: &str = "grub/boot.img";
/// What is in GRUB's partition of a disk, which is where the disk image has it.
pub const CORE: &str = "grub/core.img";
/// Further words for the kernel, `set arguments='...'`.
pub const ARGUMENTS: &str = "grub/medium.cfg";
/// Where the versions that can be started are named.
pub const STATE: &str = "grub/state";
/// The directory of what is said of each.
pub const ENTRIES: &str = "grub/entries";

/// What an environment block begins with.
const HEADER: &str = "# GRUB Environment Block\n";
/// The size that GRUB gives one.
const BLOCK_BYTES: usize = 1024;
/// What is written at once, and holds all that is said.
pub const SECTOR_BYTES: usize = 512;
const NAMES: [&str; 2] = ["higher", "lower"];

/// A version that GRUB can start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// Its version.
    pub version: String,
    /// `LEFT-DONE`, one of `3-0`, `2-1`, `1-2`, `0-3`, and `0-0` or `0-4` for one that was given up otherwise; empty when it is good.
    pub tries: String,
}

/// The path of a version's file.
pub fn path(version: &str) -> String {
    format!("{ENTRIES}/{version}.cfg")
}

/// The text of a version's file; the image is `(uki)` by then.
///
/// # Errors
/// It is no unified kernel image, or its command line has a character that GRUB would change.
pub fn entry(image: &mut (impl Read + Seek)) -> Result<String> {
    let (kernel, initrd) = kernel_and_initrd(image)?;
    let line = command_line(image)?;
    check(&line)?;
    let words: String = line
        .split_ascii_whitespace()
        .map(|word| format!(" '{word}'"))
        .collect();
    Ok(format!(
        "linux {}{words} keelson.tries=$tries $arguments\ninitrd {}\n",
        file(kernel),
        file(initrd)
    ))
}

fn file(Sectors { first, count }: Sectors) -> String {
    format!("(uki){first}+{count}")
}

/// The text of [`ARGUMENTS`] for these words.
///
/// # Errors
/// They have a character that GRUB would change.
pub fn arguments(words: &str) -> Result<String> {
    check(words)?;
    Ok(format!("set arguments='{words}'\n"))
}

fn check(words: &str) -> Result<()> {
    ensure!(
        words
            .chars()
            .all(|letter| letter == ' ' || letter.is_ascii_graphic() && !"'\"\\".contains(letter)),
        "the command line has a character that GRUB does not hand on: {words}"
    );
    Ok(())
}

/// The environment block that names these versions, the higher one first.
///
/// # Errors
/// There are more than two, or they do not fit the first sector.
pub fn state(choices: &[Choice]) -> Result<Vec<u8>> {
    ensure!(choices.len() <= NAMES.len(), "a disk has two slots");
    let mut text = HEADER.to_owned();
    for (name, choice) in NAMES.iter().zip(choices) {
        let Choice { version, tries } = choice;
        text.push_str(&format!("{name}={version}\n{name}_tries={tries}\n"));
    }
    ensure!(
        text.len() <= SECTOR_BYTES,
        "the names of the versions are too long for GRUB's environment block"
    );
    let mut block = text.into_bytes();
    block.resize(BLOCK_BYTES, b'#');
    Ok(block)
}

/// The versions that an environment block names; none when it is damaged.
pub fn choices(block: &[u8]) -> Vec<Choice> {
    let text = String::from_utf8_lossy(block);
    let Some(text) = text.strip_prefix(HEADER) else {
        return Vec::new();
    };
    let value = |name: &str| {
        text.lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix('='))
    };
    let choice = |name: &&str| {
        Some(Choice {
            version: value(name)?.to_owned(),
            tries: value(&format!("{name}_tries"))?.to_owned(),
        })
    };
    NAMES.iter().filter_map(choice).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample;
    use proptest::prelude::*;
    use std::io::Cursor;

    #[test]
    fn an_entry_names_sectors_of_the_image_and_the_whole_command_line() {
        let text = entry(&mut Cursor::new(sample("a=b c,d\n"))).unwrap();
        assert_eq!(
            text,
            "linux (uki)1+2 'a=b' 'c,d' keelson.tries=$tries $arguments\ninitrd (uki)3+1\n"
        );
        for line in ["it's", "a\"b", "a\\b", "a\nb"] {
            let error = entry(&mut Cursor::new(sample(line))).unwrap_err();
            assert!(error.to_string().contains("hand on"), "{error}");
        }
    }

    #[test]
    fn all_that_is_said_is_in_the_first_sector() {
        let choice = |length: usize| Choice {
            version: "1".repeat(length),
            tries: "3-0".into(),
        };
        let block = state(&[choice(64), choice(64)]).unwrap();
        assert_eq!(block.len(), 1024);
        assert!(block[512..].iter().all(|byte| *byte == b'#'));
        assert!(state(&[choice(300), choice(300)]).is_err());
        assert!(state(&[choice(1), choice(1), choice(1)]).is_err());
    }

    proptest! {
        #[test]
        fn a_state_is_read_as_it_was_written(versions in proptest::collection::vec(("[0-9a-z][0-9a-z.~-]{0,20}", "([0-3]-[0-4])?"), 0..3)) {
            let written: Vec<Choice> = versions.into_iter().map(|(version, tries)| Choice { version, tries }).collect();
            prop_assert_eq!(choices(&state(&written).unwrap()), written);
        }

        #[test]
        fn no_block_panics(block: Vec<u8>) {
            let _ = choices(&block);
        }
    }
}
