//! Choosing modules by pattern or name, with everything that they depend on.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::Kernel;
use crate::command;
use crate::files;
use crate::glob;
use crate::image::Tree;

/// Files of depmod that only the kernel package's own selection of modules can give.
const LISTS: [&str; 3] = [
    "modules.builtin",
    "modules.builtin.modinfo",
    "modules.order",
];

/// The modules of a kernel: `modules.dep` and `modules.builtin` in a form to ask.
#[derive(Debug, Default)]
pub(crate) struct ModuleIndex {
    /// Path of each module file (`kernel/fs/ext4/ext4.ko`), with the paths that it depends on, directly or not.
    dependencies: BTreeMap<String, Vec<String>>,
    /// Names of modules that are part of the kernel image.
    built_in: BTreeSet<String>,
    /// Names of modules that each module wants loaded before or after it, where they exist.
    wishes: BTreeMap<String, Vec<String>>,
}

impl ModuleIndex {
    /// Reads the index of `kernel`.
    ///
    /// # Errors
    /// When depmod's files are missing.
    pub(crate) fn load(kernel: &Kernel) -> Result<Self> {
        let folder = kernel.modules();
        let dependencies = files::read_text(&folder.join("modules.dep"))?;
        let built_in = files::read_text(&folder.join("modules.builtin"))?;
        let wishes = files::read_text(&folder.join("modules.softdep"))?;
        Ok(Self::parse(&dependencies, &built_in, &wishes))
    }

    /// Reads the texts of `modules.dep` (`file: dependency dependency`), `modules.builtin` (one path a line) and
    /// `modules.softdep` (`softdep name pre: other other post: other`).
    pub(crate) fn parse(dependencies: &str, built_in: &str, wishes: &str) -> Self {
        let line = |line: &str| {
            let (file, needs) = line.split_once(':')?;
            Some((
                file.to_owned(),
                needs.split_whitespace().map(str::to_owned).collect(),
            ))
        };
        Self {
            dependencies: dependencies.lines().filter_map(line).collect(),
            built_in: built_in.lines().map(module_name).collect(),
            wishes: all_wishes(wishes),
        }
    }

    /// The files that match one of `patterns` (below `kernel/`) and none of `without`, and all that they need.
    ///
    /// # Errors
    /// When a pattern matches nothing.
    pub(crate) fn by_pattern(
        &self,
        patterns: &[String],
        without: &[String],
    ) -> Result<BTreeSet<String>> {
        let mut chosen = BTreeSet::new();
        for pattern in patterns {
            let mut matched = false;
            for file in self.dependencies.keys() {
                let path = file.trim_start_matches("kernel/");
                if glob::matches(pattern, path) {
                    matched = true;
                    if !glob::any_matches(without, path) {
                        chosen.insert(file.clone());
                    }
                }
            }
            if !matched {
                bail!("no module of the kernel matches the pattern {pattern}");
            }
        }
        Ok(self.with_dependencies(chosen))
    }

    /// The files of the modules `names` and all that they need; built-in ones need none.
    ///
    /// # Errors
    /// When a name is neither a module nor built in.
    pub(crate) fn by_name(&self, names: &[String]) -> Result<BTreeSet<String>> {
        let by_name = self.files_by_name();
        let mut chosen = BTreeSet::new();
        for name in names {
            let wanted = name.replace('-', "_");
            match by_name.get(&wanted) {
                Some(&file) => {
                    chosen.insert(file.clone());
                }
                None if self.built_in.contains(&wanted) => {}
                None => bail!("the kernel has no module {name}"),
            }
        }
        Ok(self.with_dependencies(chosen))
    }

    fn files_by_name(&self) -> BTreeMap<String, &String> {
        self.dependencies
            .keys()
            .map(|file| (module_name(file), file))
            .collect()
    }

    /// `chosen` and everything that it needs or wishes for, and so on.
    fn with_dependencies(&self, chosen: BTreeSet<String>) -> BTreeSet<String> {
        let by_name = self.files_by_name();
        let mut all = BTreeSet::new();
        let mut pending: Vec<String> = chosen.into_iter().collect();
        while let Some(file) = pending.pop() {
            let needs = self.dependencies.get(&file).into_iter().flatten();
            let wishes = self.wishes.get(&module_name(&file)).into_iter().flatten();
            let wished = wishes.filter_map(|name| by_name.get(name).copied());
            pending.extend(
                needs
                    .chain(wished)
                    .filter(|next| !all.contains(*next))
                    .cloned(),
            );
            all.insert(file);
        }
        all
    }
}

fn all_wishes(text: &str) -> BTreeMap<String, Vec<String>> {
    let mut all: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, names) in text.lines().filter_map(wishes_of) {
        all.entry(name).or_default().extend(names);
    }
    all
}

/// One line of `modules.softdep`: the module, and all those it names.
fn wishes_of(line: &str) -> Option<(String, Vec<String>)> {
    let (name, lists) = line.strip_prefix("softdep ")?.split_once(' ')?;
    let names = lists.split_whitespace().filter(|word| !word.ends_with(':'));
    Some((module_name(name), names.map(module_name).collect()))
}

/// Puts the module files `chosen` of `kernel` into `tree` as hard links, and indexes them with depmod.
///
/// # Errors
/// When a file cannot be linked or depmod fails.
pub(crate) fn install(kernel: &Kernel, chosen: &BTreeSet<String>, tree: &Tree) -> Result<()> {
    let folder = format!("usr/lib/modules/{}", kernel.version);
    for file in chosen.iter().map(String::as_str).chain(LISTS) {
        let to = tree.place(&format!("{folder}/{file}"))?;
        let from = kernel.modules().join(file);
        fs::hard_link(&from, &to)
            .with_context(|| format!("linking {} to {}", from.display(), to.display()))?;
    }
    depmod(tree.root(), &kernel.version)
}

/// Makes `modules.dep`, `modules.alias` and the like for the modules below `root`.
///
/// # Errors
/// When depmod fails.
pub(crate) fn depmod(root: &Path, version: &str) -> Result<()> {
    command::run(
        Command::new("depmod")
            .arg("--basedir")
            .arg(root)
            .arg(version),
    )
    .context("indexing kernel modules")?;
    Ok(())
}

/// `kernel/fs/nls/nls_utf8.ko.xz` is the module `nls_utf8`; the kernel takes `-` for `_`.
fn module_name(path: &str) -> String {
    let file = path.rsplit('/').next().unwrap_or(path);
    file.split('.').next().unwrap_or(file).replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index() -> ModuleIndex {
        ModuleIndex::parse(
            "kernel/fs/ext4/ext4.ko: kernel/fs/jbd2/jbd2.ko kernel/lib/crc16.ko\n\
             kernel/fs/jbd2/jbd2.ko:\n\
             kernel/lib/crc16.ko:\n\
             kernel/drivers/block/virtio-blk.ko:\n\
             kernel/arch/x86/crypto/crc32c-intel.ko:\n",
            "kernel/drivers/nvme/host/nvme-core.ko\n",
            "# remark\nsoftdep crc16 pre: no_such_module\nsoftdep crc16 pre: crc32c_intel\n",
        )
    }

    fn chosen(set: Result<BTreeSet<String>>) -> Vec<String> {
        set.unwrap().into_iter().collect()
    }

    #[test]
    fn a_module_brings_what_it_needs_and_what_that_wishes_for() {
        assert_eq!(
            chosen(index().by_name(&["ext4".into()])),
            [
                "kernel/arch/x86/crypto/crc32c-intel.ko",
                "kernel/fs/ext4/ext4.ko",
                "kernel/fs/jbd2/jbd2.ko",
                "kernel/lib/crc16.ko"
            ]
        );
    }

    #[test]
    fn dashes_and_underscores_are_the_same_and_built_in_modules_need_no_file() {
        assert_eq!(
            chosen(index().by_name(&["virtio_blk".into()])),
            ["kernel/drivers/block/virtio-blk.ko"]
        );
        assert!(chosen(index().by_name(&["nvme_core".into()])).is_empty());
    }

    #[test]
    fn what_does_not_exist_is_an_error() {
        assert!(index().by_name(&["ext5".into()]).is_err());
        assert!(index().by_pattern(&["sound/**".into()], &[]).is_err());
    }

    #[test]
    fn a_module_left_out_comes_back_when_another_needs_it() {
        let set = index().by_pattern(&["fs/**".into()], &["fs/jbd2/**".into()]);
        assert!(chosen(set).contains(&"kernel/fs/jbd2/jbd2.ko".to_owned()));
    }
}
