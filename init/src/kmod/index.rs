//! What depmod writes: modules.dep, modules.alias, modules.softdep, modules.builtin. Pure.

/// The texts of a module directory's index files.
#[derive(Debug, Default)]
pub(crate) struct Index {
    /// modules.dep: `path: path path ...`, what a module needs, the first to be loaded last
    pub(crate) dependencies: String,
    /// modules.alias: `alias PATTERN NAME`
    pub(crate) aliases: String,
    /// modules.softdep: `softdep NAME pre: NAME ... post: NAME ...`
    pub(crate) soft_dependencies: String,
    /// modules.builtin: one path a line
    pub(crate) builtin: String,
}

impl Index {
    /// The names of the modules that a request means: a module of that name, or every module with an alias that
    /// matches. `-` and `_` are the same in names.
    pub(crate) fn resolve(&self, request: &str) -> Vec<String> {
        let wanted = normalize(request);
        // Devices' aliases have colons, names have not.
        let is_name = !wanted.contains(':');
        if is_name && (self.dependency_line(&wanted).is_some() || self.is_builtin(&wanted)) {
            return vec![wanted];
        }
        let first = wanted.as_bytes().first().copied().unwrap_or_default();
        let mut names = Vec::new();
        for line in self
            .aliases
            .lines()
            .filter_map(|line| line.strip_prefix("alias "))
        {
            // Most lines are done with here.
            if !line.starts_with([char::from(first), '*', '?', '[']) {
                continue;
            }
            let Some((pattern, name)) = line.rsplit_once(' ') else {
                continue;
            };
            if glob_matches(pattern.as_bytes(), wanted.as_bytes()) {
                let name = normalize(name);
                if !names.contains(&name) {
                    names.push(name);
                }
            }
        }
        names
    }

    /// The files to load for the module of that name, relative to the module directory, in loading order; the
    /// module itself is the last. Empty for a module that is built in or unknown.
    pub(crate) fn files(&self, name: &str) -> Vec<&str> {
        let mut files = Vec::new();
        self.collect(&normalize(name), &mut files, 0);
        files
    }

    /// Whether the module is part of the kernel.
    pub(crate) fn is_builtin(&self, name: &str) -> bool {
        let name = normalize(name);
        self.builtin.lines().any(|path| is_module(path, &name))
    }

    fn collect<'a>(&'a self, name: &str, files: &mut Vec<&'a str>, depth: usize) {
        let Some((module, needed)) = self.dependency_line(name) else {
            return;
        };
        // A soft dependency that leads back here, however deep.
        if depth > 8 || files.contains(&module) {
            return;
        }
        let chain: Vec<&str> = needed
            .split_ascii_whitespace()
            .rev()
            .chain([module])
            .collect();
        for file in chain {
            for before in self.soft_before(&module_name(file)) {
                self.collect(&normalize(before), files, depth.saturating_add(1));
            }
            if !files.contains(&file) {
                files.push(file);
            }
        }
    }

    fn dependency_line(&self, name: &str) -> Option<(&str, &str)> {
        self.dependencies
            .lines()
            .filter_map(|line| line.split_once(':'))
            .find(|(path, _)| is_module(path, name))
    }

    fn soft_before<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a str> {
        let line = self.soft_dependencies.lines().find_map(|line| {
            let (module, lists) = line.strip_prefix("softdep ")?.split_once(' ')?;
            (normalize(module) == name).then_some(lists)
        });
        let mut before = false;
        line.unwrap_or_default()
            .split_ascii_whitespace()
            .filter(move |word| {
                match *word {
                    "pre:" => before = true,
                    "post:" => before = false,
                    _ => return before,
                }
                false
            })
    }
}

/// `kernel/drivers/md/dm-verity.ko.xz` is the module `dm_verity`.
pub(crate) fn module_name(path: &str) -> String {
    let file = path.rsplit('/').next().unwrap_or(path);
    normalize(file.split('.').next().unwrap_or(file))
}

/// Whether a path is that of the module with this normalized name: [`module_name`] without making one, for the
/// thousands of lines that are looked through.
fn is_module(path: &str, name: &str) -> bool {
    let file = path.rsplit('/').next().unwrap_or(path);
    let stem = file.split('.').next().unwrap_or(file);
    let same = |(a, b): (u8, u8)| a == b || (a == b'-' && b == b'_');
    stem.len() == name.len() && stem.bytes().zip(name.bytes()).all(same)
}

/// `-` becomes `_`, except within brackets.
fn normalize(name: &str) -> String {
    let mut bracket = false;
    name.chars()
        .map(|character| {
            match character {
                '[' => bracket = true,
                ']' => bracket = false,
                '-' if !bracket => return '_',
                _ => {}
            }
            character
        })
        .collect()
}

/// fnmatch(3) without flags: `*`, `?`, `[a-z]`, `[!a]`. Linear but for one place to go back to, so no pattern
/// takes long.
fn glob_matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut pattern, mut text) = (pattern, text);
    let mut retry: Option<(&[u8], &[u8])> = None;
    loop {
        match (pattern.split_first(), text.split_first()) {
            (Some((b'*', rest)), _) => {
                retry = Some((rest, text));
                pattern = rest;
                continue;
            }
            (None, None) => return true,
            (Some((wanted, rest)), Some((byte, text_rest))) => {
                if let Some(rest) = matches_one(*wanted, rest, *byte) {
                    (pattern, text) = (rest, text_rest);
                    continue;
                }
            }
            _ => {}
        }
        // No match here: let the last star take one byte more.
        match retry
            .take()
            .and_then(|(rest, from)| from.split_first().map(|(_, from)| (rest, from)))
        {
            Some((rest, from)) => {
                retry = Some((rest, from));
                (pattern, text) = (rest, from);
            }
            None => return false,
        }
    }
}

/// Matches one byte; gives the rest of the pattern when it does.
fn matches_one(wanted: u8, rest: &[u8], byte: u8) -> Option<&[u8]> {
    let same = |a: u8, b: u8| a == b || (matches!(a, b'-' | b'_') && matches!(b, b'-' | b'_'));
    match wanted {
        b'?' => Some(rest),
        b'[' => {
            let end = rest.iter().position(|byte| *byte == b']')?;
            let (set, rest) = (rest.get(..end)?, rest.get(end.checked_add(1)?..)?);
            let (negated, set) = match set.split_first() {
                Some((b'!' | b'^', set)) => (true, set),
                _ => (false, set),
            };
            (in_set(set, byte) != negated).then_some(rest)
        }
        literal => same(literal, byte).then_some(rest),
    }
}

fn in_set(mut set: &[u8], byte: u8) -> bool {
    loop {
        match set {
            [low, b'-', high, rest @ ..] => {
                if (*low..=*high).contains(&byte) {
                    return true;
                }
                set = rest;
            }
            [one, rest @ ..] => {
                if *one == byte {
                    return true;
                }
                set = rest;
            }
            [] => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn index() -> Index {
        Index {
            dependencies: "kernel/drivers/md/dm-verity.ko.xz: kernel/drivers/md/dm-bufio.ko.xz kernel/drivers/md/dm-mod.ko.xz\n\
                           kernel/drivers/md/dm-bufio.ko.xz: kernel/drivers/md/dm-mod.ko.xz\n\
                           kernel/drivers/md/dm-mod.ko.xz:\n\
                           kernel/arch/x86/crypto/sha256-ssse3.ko.xz:\n\
                           kernel/fs/a.ko: kernel/fs/b.ko\nkernel/fs/b.ko:\n\
                           kernel/drivers/block/virtio_blk.ko.xz:\n"
                .into(),
            aliases: "# Aliases extracted from modules themselves.\n\
                      alias virtio:d00000002v* virtio_blk\n\
                      alias fs_thing a\n\
                      alias dm-verity-alias dm-verity\n\
                      alias pci:v0000[12]*d*sv* b\n"
                .into(),
            soft_dependencies: "softdep dm_verity pre: sha256-ssse3 post: a\nsoftdep b pre: a\n".into(),
            builtin: "kernel/drivers/nvme/host/nvme-core.ko\n".into(),
        }
    }

    #[test]
    fn a_module_comes_after_all_that_it_needs() {
        assert_eq!(
            index().files("dm-verity"),
            [
                "kernel/drivers/md/dm-mod.ko.xz",
                "kernel/drivers/md/dm-bufio.ko.xz",
                "kernel/arch/x86/crypto/sha256-ssse3.ko.xz",
                "kernel/drivers/md/dm-verity.ko.xz",
            ]
        );
    }

    #[test]
    fn soft_dependencies_in_a_circle_end() {
        assert_eq!(index().files("a").last(), Some(&"kernel/fs/a.ko"));
        assert!(index().files("b").contains(&"kernel/fs/b.ko"));
    }

    #[test]
    fn a_request_is_a_name_or_an_alias() {
        for (request, names) in [
            ("dm-verity", vec!["dm_verity"]),
            ("dm_verity", vec!["dm_verity"]),
            ("fs-thing", vec!["a"]),
            ("virtio:d00000002v00001AF4", vec!["virtio_blk"]),
            ("pci:v00001AF4d00001000sv00", vec!["b"]),
            ("dm_verity_alias", vec!["dm_verity"]),
            ("nvme_core", vec!["nvme_core"]),
            ("unheard-of", vec![]),
        ] {
            assert_eq!(index().resolve(request), names, "{request}");
        }
        assert_eq!(index().files("nvme-core"), Vec::<&str>::new());
    }

    #[test]
    fn globs_match_as_fnmatch_does() {
        for (pattern, text, wanted) in [
            ("*", "", true),
            ("a*c", "abbc", true),
            ("a*b*c", "aXbYbZc", true),
            ("a*b*c", "aXbYbZ", false),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("[a-c]x", "bx", true),
            ("[!a-c]x", "bx", false),
            ("[abc", "a", false),
            ("", "a", false),
            (
                "pci:v*d*bc01sc08i02*",
                "pci:v00001B36d00000010sv00001AF4sd00001100bc01sc08i02",
                true,
            ),
        ] {
            assert_eq!(
                glob_matches(pattern.as_bytes(), text.as_bytes()),
                wanted,
                "{pattern} {text}"
            );
        }
    }

    proptest! {
        #[test]
        fn a_text_matches_itself_with_stars_anywhere(parts in proptest::collection::vec("[a-z]{0,4}", 1..6), filling in "[a-z]{0,5}") {
            let pattern = parts.join("*");
            let text = parts.join(&filling);
            prop_assert!(glob_matches(pattern.as_bytes(), text.as_bytes()));
        }

        #[test]
        fn no_index_panics(text in "[ -~\n]{0,200}", request in "[ -~]{0,20}") {
            let index = Index { dependencies: text.clone(), aliases: text.clone(), soft_dependencies: text.clone(), builtin: text };
            for name in index.resolve(&request) {
                let _ = index.files(&name);
            }
        }
    }
}
