//! Gives a position-independent program a fixed address, as `prelink --reloc-only` did.
//!
//! Of dockerd's 94 MB, 31 MB are tables with pointers (`.data.rel.ro`). In a position-independent program the dynamic
//! loader writes every one of them at each start, and each page that it writes is copied and kept in memory. With the
//! address fixed the pointers stand in the file, and the pages stay shared with the page cache.
//! What is given up is the random address of the program's own image; Debian links containerd and runc that way itself.
//!
//! Formats: System V ABI, "Object Files" and "Dynamic Linking"; its AMD64 supplement, table 4.9 (relocation types).

use anyhow::{Context, Result, anyhow, bail, ensure};
use object::LittleEndian as LE;
use object::elf::{
    self, DynamicTag, FileHeader64, ProgramHeader64, ProgramType, Rela64, SectionHeader64, Sym64,
};
use object::pod::{self, Pod};

/// Where linkers put programs for x86-64 that are not position-independent.
const BASE: u64 = 0x40_0000;

/// Entries of the dynamic section whose value is an address.
const ADDRESSES: [DynamicTag; 14] = [
    elf::DT_PLTGOT,
    elf::DT_HASH,
    elf::DT_STRTAB,
    elf::DT_SYMTAB,
    elf::DT_RELA,
    elf::DT_INIT,
    elf::DT_FINI,
    elf::DT_JMPREL,
    elf::DT_INIT_ARRAY,
    elf::DT_FINI_ARRAY,
    elf::DT_GNU_HASH,
    elf::DT_VERSYM,
    elf::DT_VERDEF,
    elf::DT_VERNEED,
];

/// Moves the program to its fixed address; its size stays as it is.
///
/// # Errors
/// When it is no position-independent ELF program for x86-64, or uses what is not known here.
pub(super) fn prelink(program: &mut [u8]) -> Result<()> {
    let header: &mut FileHeader64<LE> = at(program, 0)?;
    ensure!(
        header.e_ident.magic == elf::ELFMAG
            && header.e_ident.class == elf::ELFCLASS64
            && header.e_machine.get(LE) == elf::EM_X86_64,
        "not an ELF program for x86-64"
    );
    ensure!(
        header.e_type.get(LE) == elf::ET_DYN,
        "its address is fixed already"
    );
    header.e_type.set(LE, elf::ET_EXEC);
    move_up(&mut header.e_entry);
    let segments = (header.e_phoff.get(LE), header.e_phnum.get(LE));
    let sections = (header.e_shoff.get(LE), header.e_shnum.get(LE));

    let segments: &mut [ProgramHeader64<LE>] = many(program, segments.0, segments.1.into())?;
    let map = Map::of(segments);
    let dynamic = segments
        .iter()
        .find(|segment| segment.p_type.get(LE) == elf::PT_DYNAMIC)
        .context("it has no dynamic section")?;
    let dynamic = (dynamic.p_offset.get(LE), dynamic.p_filesz.get(LE));
    for segment in segments.iter_mut() {
        if segment.p_type.get(LE) != elf::PT_GNU_STACK {
            move_up(&mut segment.p_vaddr);
            move_up(&mut segment.p_paddr);
        }
    }
    let mut symbols = None;
    for section in many::<SectionHeader64<LE>>(program, sections.0, sections.1.into())? {
        if section.sh_type.get(LE) == elf::SHT_DYNSYM {
            symbols = Some((section.sh_offset.get(LE), section.sh_size.get(LE)));
        }
        if section.sh_flags.get(LE).contains(elf::SHF_ALLOC) {
            move_up(&mut section.sh_addr);
        }
    }
    let (offset, size) = symbols.context("it has no section of dynamic symbols")?;
    for symbol in many::<Sym64<LE>>(program, offset, entries::<Sym64<LE>>(size))? {
        let section = symbol.st_shndx.get(LE);
        let has_address = section != elf::SHN_UNDEF
            && section != elf::SHN_ABS
            && symbol.st_type() != elf::STT_TLS;
        if has_address {
            move_up(&mut symbol.st_value);
        }
    }
    relocate(program, &map, dynamic)
}

/// Applies the relocations that only add the base, moves the others, and mends the dynamic section.
fn relocate(program: &mut [u8], map: &Map, dynamic: (u64, u64)) -> Result<()> {
    let count = entries::<elf::Dyn64<LE>>(dynamic.1);
    let value = |program: &mut [u8], tag| -> Result<Option<u64>> {
        let all = many::<elf::Dyn64<LE>>(program, dynamic.0, count)?;
        let mut found = all.iter().filter(|entry| entry.d_tag.get(LE) == tag);
        Ok(found.next().map(|entry| entry.d_val.get(LE)))
    };
    ensure!(
        value(program, elf::DT_RELR)?.is_none(),
        "it has packed relocations (DT_RELR)"
    );
    let table = value(program, elf::DT_RELA)?.context("it has no relocations")?;
    let size = value(program, elf::DT_RELASZ)?.context("DT_RELASZ is missing")?;
    let plt = value(program, elf::DT_JMPREL)?.zip(value(program, elf::DT_PLTRELSZ)?);
    let got = value(program, elf::DT_PLTGOT)?;

    let kept = apply(program, map, map.offset(table)?, size)?;
    if let Some((table, size)) = plt {
        move_plt(program, map, map.offset(table)?, size)?;
    }
    if let Some(got) = got {
        // Its first word is the address of the dynamic section.
        move_up(at::<Word>(program, map.offset(got)?)?);
    }
    for entry in many::<elf::Dyn64<LE>>(program, dynamic.0, count)? {
        match entry.d_tag.get(LE) {
            elf::DT_NULL => break,
            elf::DT_RELASZ => entry.d_val.set(LE, kept),
            elf::DT_RELACOUNT => entry.d_val.set(LE, 0),
            elf::DT_FLAGS_1 => {
                let flags = entry.d_val.get(LE) & !elf::DF_1_PIE.0;
                entry.d_val.set(LE, flags);
            }
            tag if ADDRESSES.contains(&tag) => move_up(&mut entry.d_val),
            _ => {}
        }
    }
    Ok(())
}

/// Goes through the relocation table at `offset`, of `size` bytes; returns the bytes of it that are still needed.
fn apply(program: &mut [u8], map: &Map, offset: u64, size: u64) -> Result<u64> {
    let table: &mut [Rela64<LE>] = many(program, offset, entries::<Rela64<LE>>(size))?;
    let all = table.to_vec();
    pod::bytes_of_slice_mut(table).fill(0);
    let mut kept = Vec::new();
    for mut relocation in all {
        let addend = relocation.r_addend.get(LE);
        match relocation.r_type(LE, false) {
            elf::R_X86_64_RELATIVE => {
                let place = map.offset(relocation.r_offset.get(LE))?;
                let value = BASE.wrapping_add_signed(addend);
                at::<Word>(program, place)?.set(LE, value);
                continue;
            }
            elf::R_X86_64_GLOB_DAT
            | elf::R_X86_64_64
            | elf::R_X86_64_COPY
            | elf::R_X86_64_TPOFF64
            | elf::R_X86_64_DTPMOD64
            | elf::R_X86_64_DTPOFF64 => {}
            other => bail!("it has a relocation of unknown type {other:?}"),
        }
        move_up(&mut relocation.r_offset);
        kept.push(relocation);
    }
    let needed = pod::bytes_of_slice(&kept);
    bytes(program, offset, needed.len())?.copy_from_slice(needed);
    Ok(needed.len() as u64)
}

/// Moves the table of functions in libraries, and the addresses in the program that stand in for them until the first call.
fn move_plt(program: &mut [u8], map: &Map, offset: u64, size: u64) -> Result<()> {
    let count = entries::<Rela64<LE>>(size);
    let mut places = Vec::new();
    for relocation in many::<Rela64<LE>>(program, offset, count)? {
        ensure!(
            relocation.r_type(LE, false) == elf::R_X86_64_JUMP_SLOT,
            "its table of functions has a relocation of another kind"
        );
        places.push(map.offset(relocation.r_offset.get(LE))?);
        move_up(&mut relocation.r_offset);
    }
    for place in places {
        move_up(at::<Word>(program, place)?);
    }
    Ok(())
}

type Word = object::U64<LE>;

fn move_up(address: &mut Word) {
    address.set(LE, address.get(LE).wrapping_add(BASE));
}

/// Where addresses stand in the file.
struct Map(Vec<(u64, u64, u64)>);

impl Map {
    fn of(segments: &[ProgramHeader64<LE>]) -> Self {
        let loaded = |kind: ProgramType| kind == elf::PT_LOAD;
        let segments = segments.iter().filter(|s| loaded(s.p_type.get(LE)));
        Self(
            segments
                .map(|s| (s.p_vaddr.get(LE), s.p_filesz.get(LE), s.p_offset.get(LE)))
                .collect(),
        )
    }

    /// Offset in the file of an address as it was before the move.
    fn offset(&self, address: u64) -> Result<u64> {
        let mut segments = self.0.iter();
        segments
            .find_map(|(start, size, offset)| {
                let within = address.checked_sub(*start)?;
                (within < *size).then(|| offset + within)
            })
            .with_context(|| format!("address {address:#x} is not in the file"))
    }
}

fn entries<T>(size: u64) -> u64 {
    size / size_of::<T>() as u64
}

fn at<T: Pod>(program: &mut [u8], offset: u64) -> Result<&mut T> {
    many(program, offset, 1)?.first_mut().context("no entry")
}

fn many<T: Pod>(program: &mut [u8], offset: u64, count: u64) -> Result<&mut [T]> {
    let (offset, count) = (usize::try_from(offset)?, usize::try_from(count)?);
    let rest = program.get_mut(offset..).unwrap_or_default();
    pod::slice_from_bytes_mut(rest, count)
        .map(|(all, _)| all)
        .map_err(|()| anyhow!("it ends before offset {offset:#x} + {count} entries"))
}

fn bytes(program: &mut [u8], offset: u64, size: usize) -> Result<&mut [u8]> {
    many::<u8>(program, offset, size as u64)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;
    use std::process::Command;

    use super::*;

    const SOURCE: &str = r#"
        #include <stdio.h>
        static int three(void) { return 3; }
        static __thread int own = 4;
        int exported = 5;
        static int (*const table[])(void) = { three, three };
        static const char *const words[] = { "one", "two" };
        static FILE **const foreign = &stdout;
        __attribute__((constructor)) static void first(void) { own++; }
        int main(void) {
            fprintf(*foreign, "%s %s %d %d %d %p\n", words[0], words[1], table[1](), own, exported, (void *)words);
            return 0;
        }
    "#;

    /// A program made from [`SOURCE`] by gcc.
    fn compile(options: &[&str]) -> (tempfile::TempDir, std::path::PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let (source, program) = (
            directory.path().join("a.c"),
            directory.path().join("program"),
        );
        fs::write(&source, SOURCE).unwrap();
        let status = Command::new("gcc")
            .args(options)
            .arg("-o")
            .args([&program, &source])
            .status();
        assert!(status.unwrap().success());
        (directory, program)
    }

    fn run(program: &std::path::Path) -> String {
        let output = Command::new(program).output().unwrap();
        assert!(output.status.success(), "{:?}", output.status);
        String::from_utf8(output.stdout).unwrap()
    }

    #[test]
    fn a_prelinked_program_does_the_same_at_a_fixed_address() {
        for binding in ["-Wl,-z,lazy", "-Wl,-z,now"] {
            let (_directory, program) = compile(&["-pie", "-fPIE", binding]);
            let before = run(&program);
            assert!(before.starts_with("one two 3 5 5 0x"), "{before}");
            assert_ne!(before, run(&program), "its address was fixed before");

            let mut bytes = fs::read(&program).unwrap();
            prelink(&mut bytes).unwrap();
            fs::write(&program, &bytes).unwrap();
            fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
            let after = run(&program);
            assert!(after.starts_with("one two 3 5 5 0x40"), "{after}");
            assert_eq!(after, run(&program));

            let again = prelink(&mut bytes).unwrap_err().to_string();
            assert!(again.contains("fixed already"), "{again}");
        }
    }

    #[test]
    fn what_is_no_program_or_cut_short_is_an_error() {
        let (_directory, program) = compile(&["-pie", "-fPIE"]);
        let bytes = fs::read(&program).unwrap();
        assert!(prelink(&mut b"#!/bin/sh\n".repeat(20)).is_err());
        for size in [0, 10, 64, 100, 1000, bytes.len() / 2] {
            assert!(prelink(&mut bytes[..size].to_vec()).is_err(), "{size}");
        }
    }
}
