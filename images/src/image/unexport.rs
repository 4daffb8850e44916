//! Takes the list of exported symbols out of a program.
//!
//! Debian links dockerd, containerd and its shim so that Go plug-ins could be loaded into them: each exports every symbol
//! that it has, by name, 424000 in all, about 10 MB once compressed. No such plug-in exists, and none could be added. What
//! the dynamic loader itself needs stays: imported symbols, and those of the program's own that relocations name.
//! Nothing moves: what is taken out becomes zeros, which take no room once compressed.
//!
//! Formats: System V ABI, "Object Files" and "Dynamic Linking"; Linux Standard Base, "Symbol Versioning"; the layout of
//! `.gnu.hash` as binutils writes it.

use std::collections::{BTreeSet, HashMap};

use anyhow::{Context, Result, bail, ensure};
use object::LittleEndian as LE;
use object::elf::{self, GnuHashHeader, Rela64, SectionHeader64, SectionType, Sym64};
use object::pod::{self, Pod};
use object::{U16, U32};

use super::elf::{Dynamic, at, bytes, entries, header, many};

/// Leaves of the program's exported symbols only those that its own relocations refer to; its size stays as it is.
///
/// # Errors
/// When it is no dynamic ELF program for x86-64, or uses what is not known here.
pub(super) fn unexport(program: &mut [u8]) -> Result<()> {
    let sections = Sections::of(program)?;
    let table = sections.one(elf::SHT_DYNSYM)?;
    let hash = sections.one(elf::SHT_GNU_HASH)?;
    let first = at::<GnuHashHeader<LE>>(program, hash.offset)?
        .symbol_base
        .get(LE);

    let order = keep(program, &sections, table.index, first)?;
    let symbols: Vec<Sym64<LE>> = pick(program, table, &order)?;
    shrink(program, table, &symbols)?;
    if let Some(versions) = sections.some(elf::SHT_GNU_VERSYM)? {
        let kept: Vec<U16<LE>> = pick(program, versions, &order)?;
        shrink(program, versions, &kept)?;
    }
    let names = sections
        .0
        .get(table.link as usize)
        .context("its symbols have no names")?;
    let names = names.clone();
    let mut used: BTreeSet<u64> = symbols.iter().map(|s| s.st_name.get(LE).into()).collect();
    used.extend(other_names(program, &sections)?);
    erase_names(program, &names, &used)?;
    let exported: Vec<u32> = symbols[first as usize..]
        .iter()
        .map(|symbol| {
            Ok(elf::gnu_hash(name(
                program,
                &names,
                symbol.st_name.get(LE).into(),
            )?))
        })
        .collect::<Result<_>>()?;
    write_hash(program, hash, first, &exported)
}

/// A section: its number, and what its header says.
#[derive(Clone)]
struct Section {
    index: usize,
    kind: SectionType,
    address: u64,
    offset: u64,
    size: u64,
    link: u32,
    info: u32,
    header: u64,
}

struct Sections(Vec<Section>);

impl Sections {
    fn of(program: &mut [u8]) -> Result<Self> {
        let header = header(program)?;
        let (start, count) = (header.e_shoff.get(LE), header.e_shnum.get(LE));
        let segments = (header.e_phoff.get(LE), header.e_phnum.get(LE));
        let all: &[SectionHeader64<LE>] = many(program, start, count.into())?;
        let sections = all.iter().enumerate().map(|(index, section)| Section {
            index,
            kind: section.sh_type.get(LE),
            address: section.sh_addr.get(LE),
            offset: section.sh_offset.get(LE),
            size: section.sh_size.get(LE),
            link: section.sh_link.get(LE),
            info: section.sh_info.get(LE),
            header: start + (index * size_of::<SectionHeader64<LE>>()) as u64,
        });
        let sections = Self(sections.collect());

        // The dynamic loader goes by the dynamic section: both have to mean the same tables.
        let dynamic = Dynamic::of(many(program, segments.0, segments.1.into())?)?;
        for (tag, kind) in [
            (elf::DT_SYMTAB, elf::SHT_DYNSYM),
            (elf::DT_GNU_HASH, elf::SHT_GNU_HASH),
        ] {
            ensure!(
                dynamic.needed(program, tag)? == sections.one(kind)?.address,
                "its section headers and its dynamic section differ ({tag:?})"
            );
        }
        for (tag, what) in [
            (elf::DT_HASH, "a second hash table"),
            (elf::DT_VERDEF, "versions of its own symbols"),
        ] {
            ensure!(
                dynamic.value(program, tag)?.is_none(),
                "it has {what} ({tag:?})"
            );
        }
        Ok(sections)
    }

    fn some(&self, kind: SectionType) -> Result<Option<&Section>> {
        let mut found = self.0.iter().filter(|section| section.kind == kind);
        let section = found.next();
        ensure!(
            found.next().is_none(),
            "it has two sections of type {kind:?}"
        );
        Ok(section)
    }

    fn one(&self, kind: SectionType) -> Result<&Section> {
        self.some(kind)?
            .with_context(|| format!("it has no section of type {kind:?}"))
    }
}

/// Numbers of the symbols that stay, in their new order, which relocations already go by when this returns: those before
/// `first` are not exported and stay where they are.
fn keep(program: &mut [u8], sections: &Sections, table: usize, first: u32) -> Result<Vec<u32>> {
    let mut order: Vec<u32> = (0..first).collect();
    let mut moved = HashMap::new();
    for section in &sections.0 {
        if section.link as usize != table {
            continue;
        }
        match section.kind {
            elf::SHT_RELA => {}
            elf::SHT_GNU_HASH | elf::SHT_GNU_VERSYM => continue,
            other => bail!("its symbols are used by a section of unknown type {other:?}"),
        }
        let count = entries::<Rela64<LE>>(section.size);
        for relocation in many::<Rela64<LE>>(program, section.offset, count)? {
            let symbol = relocation.r_sym(LE, false);
            if symbol < first {
                continue;
            }
            let place = *moved.entry(symbol).or_insert_with(|| {
                order.push(symbol);
                order.len() as u32 - 1
            });
            relocation.set_r_info(LE, false, place, relocation.r_type(LE, false));
        }
    }
    Ok(order)
}

/// The entries of a table with these numbers.
fn pick<T: Pod>(program: &mut [u8], table: &Section, order: &[u32]) -> Result<Vec<T>> {
    let all: &[T] = many(program, table.offset, entries::<T>(table.size))?;
    let entry = |number: &u32| all.get(*number as usize).copied();
    let picked = order.iter().map(entry).collect::<Option<_>>();
    picked.context("a relocation names a symbol that is not there")
}

/// Writes the table anew; the rest of its room becomes zeros.
fn shrink<T: Pod>(program: &mut [u8], section: &Section, table: &[T]) -> Result<()> {
    let table = pod::bytes_of_slice(table);
    let room = bytes(program, section.offset, usize::try_from(section.size)?)?;
    room.fill(0);
    let start = room.get_mut(..table.len()).context("a table has no room")?;
    start.copy_from_slice(table);
    let header: &mut SectionHeader64<LE> = at(program, section.header)?;
    header.sh_size.set(LE, table.len() as u64);
    Ok(())
}

/// Names in the table of strings that are not symbols': libraries, and versions of their symbols.
fn other_names(program: &mut [u8], sections: &Sections) -> Result<Vec<u64>> {
    let mut names = Vec::new();
    let dynamic = sections.one(elf::SHT_DYNAMIC)?;
    let count = entries::<elf::Dyn64<LE>>(dynamic.size);
    for entry in many::<elf::Dyn64<LE>>(program, dynamic.offset, count)? {
        match entry.d_tag.get(LE) {
            elf::DT_NULL => break,
            elf::DT_NEEDED | elf::DT_SONAME | elf::DT_RPATH | elf::DT_RUNPATH => {
                names.push(entry.d_val.get(LE));
            }
            _ => {}
        }
    }
    let Some(needed) = sections.some(elf::SHT_GNU_VERNEED)? else {
        return Ok(names);
    };
    let mut place = needed.offset;
    for _ in 0..needed.info {
        let library: elf::Verneed<LE> = *at(program, place)?;
        names.push(library.vn_file.get(LE).into());
        let mut version = place + u64::from(library.vn_aux.get(LE));
        for _ in 0..library.vn_cnt.get(LE) {
            let entry: elf::Vernaux<LE> = *at(program, version)?;
            names.push(entry.vna_name.get(LE).into());
            version += u64::from(entry.vna_next.get(LE));
        }
        place += u64::from(library.vn_next.get(LE));
    }
    Ok(names)
}

/// A name in the table of strings, without the zero that ends it.
fn name<'a>(program: &'a mut [u8], names: &Section, offset: u64) -> Result<&'a [u8]> {
    let size = names
        .size
        .checked_sub(offset)
        .context("a name lies outside the table of names")?;
    let rest = bytes(program, names.offset + offset, usize::try_from(size)?)?;
    let end = rest.iter().position(|byte| *byte == 0);
    Ok(&rest[..end.context("a name has no end")?])
}

/// Turns all of the table of strings but these names into zeros.
fn erase_names(program: &mut [u8], names: &Section, used: &BTreeSet<u64>) -> Result<()> {
    let mut kept = Vec::new();
    for offset in used {
        kept.push((*offset, name(program, names, *offset)?.to_vec()));
    }
    bytes(program, names.offset, usize::try_from(names.size)?)?.fill(0);
    for (offset, text) in kept {
        bytes(program, names.offset + offset, text.len())?.copy_from_slice(&text);
    }
    Ok(())
}

/// Writes a hash table with one bucket for the symbols from number `first` on, which have these hashes.
fn write_hash(program: &mut [u8], section: &Section, first: u32, hashes: &[u32]) -> Result<()> {
    const SHIFT: u32 = 6;
    let bit = |hash: u32| 1u64 << (hash % 64);
    let bloom = hashes
        .iter()
        .fold(0, |bloom, hash| bloom | bit(*hash) | bit(hash >> SHIFT));
    let mut table = [1, first, 1, SHIFT].map(|word| U32::new(LE, word)).to_vec();
    table.extend([bloom as u32, (bloom >> 32) as u32].map(|half| U32::new(LE, half)));
    table.push(U32::new(LE, if hashes.is_empty() { 0 } else { first }));
    for (place, hash) in hashes.iter().enumerate() {
        // The lowest bit marks the end of a bucket's chain.
        let last = u32::from(place + 1 == hashes.len());
        table.push(U32::new(LE, hash & !1 | last));
    }
    shrink(program, section, &table)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::elf::samples::{compile, run};
    use super::super::prelink::prelink;
    use super::*;

    /// Says whether its own symbols can be found by name, and uses some in ways that leave relocations.
    const SOURCE: &str = r#"
        #define _GNU_SOURCE
        #include <dlfcn.h>
        #include <stdio.h>
        __thread int exported_own = 4;
        int exported = 5;
        int exported_too = 6;
        int *const table[] = { &exported, &exported_too };
        static FILE **const foreign = &stdout;
        int exported_function(void) { return exported_own; }
        int main(void) {
            int found = !!dlsym(RTLD_DEFAULT, "exported_function") + !!dlsym(RTLD_DEFAULT, "table");
            fprintf(*foreign, "%d %d %d, %d found\n", *table[0], *table[1], exported_function(), found);
            return 0;
        }
    "#;

    #[test]
    fn a_program_without_exports_does_the_same_and_is_not_found_by_name() {
        for options in [
            &["-rdynamic", "-pie", "-fPIC", "-ftls-model=initial-exec"][..],
            &["-rdynamic", "-pie", "-fPIC", "-Wl,-z,now"],
            &["-rdynamic", "-no-pie"],
        ] {
            let (_directory, program) =
                compile(SOURCE, &[&["-Wl,--hash-style=gnu"], options].concat());
            assert_eq!(run(&program), "5 6 4, 2 found\n", "{options:?}");
            let original = fs::read(&program).unwrap();
            let mut bytes = original.clone();
            unexport(&mut bytes).unwrap();
            fs::write(&program, &bytes).unwrap();
            assert_eq!(run(&program), "5 6 4, 0 found\n", "{options:?}");
            assert_eq!(bytes.len(), original.len());
            if options.contains(&"-pie") {
                prelink(&mut bytes).unwrap();
                fs::write(&program, &bytes).unwrap();
                assert_eq!(run(&program), "5 6 4, 0 found\n", "{options:?}");
            }
        }
    }

    #[test]
    fn prelinked_programs_can_lose_their_exports() {
        let (_directory, program) = compile(SOURCE, &["-rdynamic", "-Wl,--hash-style=gnu"]);
        let mut bytes = fs::read(&program).unwrap();
        prelink(&mut bytes).unwrap();
        unexport(&mut bytes).unwrap();
        fs::write(&program, &bytes).unwrap();
        assert_eq!(run(&program), "5 6 4, 0 found\n");
    }

    #[test]
    fn what_is_not_understood_is_an_error() {
        let (_directory, program) = compile(SOURCE, &["-rdynamic", "-Wl,--hash-style=both"]);
        let mut bytes = fs::read(&program).unwrap();
        let error = unexport(&mut bytes).unwrap_err().to_string();
        assert!(
            error.contains("DT_HASH") || error.contains("second hash"),
            "{error}"
        );

        let (_directory, program) = compile(SOURCE, &["-static"]);
        assert!(unexport(&mut fs::read(&program).unwrap()).is_err());
        assert!(unexport(&mut b"#!/bin/sh\n".repeat(20)).is_err());
    }

    #[test]
    fn a_program_cut_short_is_an_error() {
        let (_directory, program) = compile(SOURCE, &["-rdynamic", "-Wl,--hash-style=gnu"]);
        let bytes = fs::read(&program).unwrap();
        for size in [0, 10, 64, 100, 1000, bytes.len() / 2] {
            assert!(unexport(&mut bytes[..size].to_vec()).is_err(), "{size}");
        }
    }
}
