//! Gives a position-independent program a fixed address, as `prelink --reloc-only` did.
//!
//! Of dockerd's 94 MB, 31 MB are tables with pointers (`.data.rel.ro`). In a position-independent program the dynamic
//! loader writes every one of them at each start, and each page that it writes is copied and kept in memory. With the
//! address fixed the pointers stand in the file, and the pages stay shared with the page cache.
//! What is given up is the random address of the program's own image; Debian links containerd and runc that way itself.
//!
//! Formats: System V ABI, "Object Files" and "Dynamic Linking"; its AMD64 supplement, table 4.9 (relocation types).

use anyhow::{Context, Result, bail, ensure};
use object::LittleEndian as LE;
use object::elf::{
    self, DynamicTag, FileHeader64, ProgramHeader64, Rela64, SectionHeader64, Sym64,
};
use object::pod;

use super::elf::{Dynamic, Map, Word, at, bytes, entries, header, many};

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
    let header: &mut FileHeader64<LE> = header(program)?;
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
    let dynamic = Dynamic::of(segments)?;
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
fn relocate(program: &mut [u8], map: &Map, dynamic: Dynamic) -> Result<()> {
    ensure!(
        dynamic.value(program, elf::DT_RELR)?.is_none(),
        "it has packed relocations (DT_RELR)"
    );
    let table = dynamic.needed(program, elf::DT_RELA)?;
    let size = dynamic.needed(program, elf::DT_RELASZ)?;
    let plt = dynamic.value(program, elf::DT_JMPREL)?;
    let plt = plt.zip(dynamic.value(program, elf::DT_PLTRELSZ)?);
    let got = dynamic.value(program, elf::DT_PLTGOT)?;

    let kept = apply(program, map, map.offset(table)?, size)?;
    if let Some((table, size)) = plt {
        move_plt(program, map, map.offset(table)?, size)?;
    }
    if let Some(got) = got {
        // Its first word is the address of the dynamic section.
        move_up(at::<Word>(program, map.offset(got)?)?);
    }
    for entry in dynamic.entries(program)? {
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

fn move_up(address: &mut Word) {
    address.set(LE, address.get(LE).wrapping_add(BASE));
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::elf::samples::{compile, run};
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

    #[test]
    fn a_prelinked_program_does_the_same_at_a_fixed_address() {
        for binding in ["-Wl,-z,lazy", "-Wl,-z,now"] {
            let (_directory, program) = compile(SOURCE, &["-pie", "-fPIE", binding]);
            let before = run(&program);
            assert!(before.starts_with("one two 3 5 5 0x"), "{before}");
            assert_ne!(before, run(&program), "its address was fixed before");

            let mut bytes = fs::read(&program).unwrap();
            prelink(&mut bytes).unwrap();
            fs::write(&program, &bytes).unwrap();
            let after = run(&program);
            assert!(after.starts_with("one two 3 5 5 0x40"), "{after}");
            assert_eq!(after, run(&program));

            let again = prelink(&mut bytes).unwrap_err().to_string();
            assert!(again.contains("fixed already"), "{again}");
        }
    }

    #[test]
    fn what_is_no_program_or_cut_short_is_an_error() {
        let (_directory, program) = compile(SOURCE, &["-pie", "-fPIE"]);
        let bytes = fs::read(&program).unwrap();
        assert!(prelink(&mut b"#!/bin/sh\n".repeat(20)).is_err());
        for size in [0, 10, 64, 100, 1000, bytes.len() / 2] {
            assert!(prelink(&mut bytes[..size].to_vec()).is_err(), "{size}");
        }
    }
}
