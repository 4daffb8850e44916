//! ELF programs as bytes that are changed in place.
//!
//! Formats: System V ABI, "Object Files" and "Dynamic Linking".

use anyhow::{Context, Result, anyhow, ensure};
use object::LittleEndian as LE;
use object::elf::{self, Dyn64, DynamicTag, FileHeader64, ProgramHeader64, ProgramType};
use object::pod::{self, Pod};

/// A 64-bit number in the file.
pub(super) type Word = object::U64<LE>;

/// The header of a program for x86-64.
///
/// # Errors
/// When it is none.
pub(super) fn header(program: &mut [u8]) -> Result<&mut FileHeader64<LE>> {
    let header: &mut FileHeader64<LE> = at(program, 0)?;
    ensure!(
        header.e_ident.magic == elf::ELFMAG
            && header.e_ident.class == elf::ELFCLASS64
            && header.e_machine.get(LE) == elf::EM_X86_64,
        "not an ELF program for x86-64"
    );
    Ok(header)
}

/// The dynamic section: what the dynamic loader reads first.
#[derive(Clone, Copy)]
pub(super) struct Dynamic {
    offset: u64,
    count: u64,
}

impl Dynamic {
    /// Where it is.
    ///
    /// # Errors
    /// When there is none: the program is static.
    pub(super) fn of(segments: &[ProgramHeader64<LE>]) -> Result<Self> {
        let mut segments = segments.iter();
        let segment = segments
            .find(|segment| segment.p_type.get(LE) == elf::PT_DYNAMIC)
            .context("it has no dynamic section")?;
        Ok(Self {
            offset: segment.p_offset.get(LE),
            count: entries::<Dyn64<LE>>(segment.p_filesz.get(LE)),
        })
    }

    /// Its entries; the last that counts is `DT_NULL`.
    ///
    /// # Errors
    /// When the file ends before.
    pub(super) fn entries(self, program: &mut [u8]) -> Result<&mut [Dyn64<LE>]> {
        many(program, self.offset, self.count)
    }

    /// The value of the first entry with this tag.
    ///
    /// # Errors
    /// When the file ends before.
    pub(super) fn value(self, program: &mut [u8], tag: DynamicTag) -> Result<Option<u64>> {
        let mut all = self.entries(program)?.iter();
        let found = all.find(|entry| entry.d_tag.get(LE) == tag);
        Ok(found.map(|entry| entry.d_val.get(LE)))
    }

    /// The same, of an entry that has to be there.
    ///
    /// # Errors
    /// When it is missing.
    pub(super) fn needed(self, program: &mut [u8], tag: DynamicTag) -> Result<u64> {
        let value = self.value(program, tag)?;
        value.with_context(|| format!("its dynamic section has no {tag:?}"))
    }
}

/// Where addresses stand in the file.
pub(super) struct Map(Vec<(u64, u64, u64)>);

impl Map {
    pub(super) fn of(segments: &[ProgramHeader64<LE>]) -> Self {
        let loaded = |kind: ProgramType| kind == elf::PT_LOAD;
        let segments = segments.iter().filter(|s| loaded(s.p_type.get(LE)));
        Self(
            segments
                .map(|s| (s.p_vaddr.get(LE), s.p_filesz.get(LE), s.p_offset.get(LE)))
                .collect(),
        )
    }

    /// Offset in the file of an address as it was before the move.
    pub(super) fn offset(&self, address: u64) -> Result<u64> {
        let mut segments = self.0.iter();
        segments
            .find_map(|(start, size, offset)| {
                let within = address.checked_sub(*start)?;
                (within < *size).then(|| offset + within)
            })
            .with_context(|| format!("address {address:#x} is not in the file"))
    }
}

pub(super) fn entries<T>(size: u64) -> u64 {
    size / size_of::<T>() as u64
}

pub(super) fn at<T: Pod>(program: &mut [u8], offset: u64) -> Result<&mut T> {
    many(program, offset, 1)?.first_mut().context("no entry")
}

pub(super) fn many<T: Pod>(program: &mut [u8], offset: u64, count: u64) -> Result<&mut [T]> {
    let (offset, count) = (usize::try_from(offset)?, usize::try_from(count)?);
    let rest = program.get_mut(offset..).unwrap_or_default();
    pod::slice_from_bytes_mut(rest, count)
        .map(|(all, _)| all)
        .map_err(|()| anyhow!("it ends before offset {offset:#x} + {count} entries"))
}

pub(super) fn bytes(program: &mut [u8], offset: u64, size: usize) -> Result<&mut [u8]> {
    many::<u8>(program, offset, size as u64)
}

/// Programs to test with.
#[cfg(test)]
pub(super) mod samples {
    use std::fs;
    use std::path::{Path, PathBuf};
    use std::process::Command;

    /// A program made by gcc.
    pub(in super::super) fn compile(
        source: &str,
        options: &[&str],
    ) -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let (file, program) = (
            directory.path().join("a.c"),
            directory.path().join("program"),
        );
        fs::write(&file, source).unwrap();
        let status = Command::new("gcc")
            .args(options)
            .arg("-o")
            .args([&program, &file])
            .status();
        assert!(status.unwrap().success());
        (directory, program)
    }

    /// What the program prints. A copy is run that another process has made: what a test of another thread has just
    /// started may still hold what this process had open for writing, and such a file cannot be run.
    pub(in super::super) fn run(program: &Path) -> String {
        let copy = program.with_extension("copy");
        let copied = Command::new("cp").args([program, &copy]).status();
        assert!(copied.unwrap().success());
        let output = Command::new(&copy).output().unwrap();
        assert!(output.status.success(), "{:?}", output.status);
        String::from_utf8(output.stdout).unwrap()
    }
}
