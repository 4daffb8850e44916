//! The files that a cloud-config writes into the console's root, laid over it at each start, and `/etc/hosts`.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use keelson_sys::durable::{Access, Tree};

use crate::log;

const MAX_BYTES: u64 = 256 * 1024 * 1024;
const MAX_DEPTH: usize = 64;
const HOSTS: &str = "etc/hosts";
/// Marks the line of `/etc/hosts` that is ours.
const HOSTS_MARK: &str = "# this host";
/// Directories that Debian has as links, and where these lead.
const LINKED: [(&str, &str); 6] = [
    ("bin", "usr/bin"),
    ("sbin", "usr/sbin"),
    ("lib", "usr/lib"),
    ("lib64", "usr/lib64"),
    ("var/run", "run"),
    ("var/lock", "run/lock"),
];

#[derive(Clone, Copy)]
enum How {
    Replace,
    Append,
}

/// Lays the files below `files` over `root`, and adds those below `append` to the ones there. Doing it again changes nothing.
pub(crate) fn lay(root: &Tree, files: &Path, append: &Path) {
    for (source, how) in [(files, How::Replace), (append, How::Append)] {
        if let Err(error) = lay_directory(root, source, Path::new(""), how, 0) {
            log::error(&format!(
                "lay the files of {} over the root: {error:#}",
                source.display()
            ));
        }
    }
}

fn lay_directory(root: &Tree, source: &Path, below: &Path, how: How, depth: usize) -> Result<()> {
    let entries = match fs::read_dir(source.join(below)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other.with_context(|| format!("list {}", source.join(below).display()))?,
    };
    for entry in entries {
        let entry = entry.context("list a directory")?;
        let path = below.join(entry.file_name());
        let metadata = entry
            .metadata()
            .with_context(|| format!("look at {}", entry.path().display()))?;
        let access = Access {
            mode: metadata.mode() & 0o7777,
            uid: metadata.uid(),
            gid: metadata.gid(),
        };
        let target = target(&path);
        let laid = if metadata.is_dir() && depth < MAX_DEPTH {
            root.make_directory(&target, access)
                .map_err(anyhow::Error::from)
                .and_then(|()| lay_directory(root, source, &path, how, depth + 1))
        } else if metadata.is_file() {
            lay_file(root, &entry.path(), &target, access, how)
        } else {
            Ok(())
        };
        // One file that cannot be laid does not keep the others away.
        if let Err(error) = laid {
            log::error(&format!("lay /{} over the root: {error:#}", path.display()));
        }
    }
    Ok(())
}

fn target(path: &Path) -> PathBuf {
    let linked = LINKED
        .iter()
        .find_map(|(link, to)| Some(Path::new(to).join(path.strip_prefix(link).ok()?)));
    linked.unwrap_or_else(|| path.to_owned())
}

fn lay_file(root: &Tree, source: &Path, target: &Path, access: Access, how: How) -> Result<()> {
    let content = fs::read(source).with_context(|| format!("read {}", source.display()))?;
    let found = root.read(target, MAX_BYTES).context("read what is there")?;
    match (how, found) {
        (How::Replace, _) | (How::Append, None) => {
            root.write(target, &content, access).context("write it")
        }
        (How::Append, Some(mut found)) => {
            if found
                .windows(content.len().max(1))
                .any(|part| part == content)
            {
                return Ok(());
            }
            let there = fs::metadata(root.path().join(target)).context("read its owner")?;
            found.extend_from_slice(&content);
            let access = Access {
                mode: there.mode() & 0o7777,
                uid: there.uid(),
                gid: there.gid(),
            };
            root.write(target, &found, access).context("add to it")
        }
    }
}

/// Makes the host's own name resolve without a network, unless `/etc/hosts` does so already.
pub(crate) fn name_host(root: &Tree, hostname: &str, fqdn: Option<&str>) -> Result<()> {
    let path = Path::new(HOSTS);
    let found = root
        .read(path, MAX_BYTES)
        .context("read /etc/hosts")?
        .unwrap_or_default();
    let found = String::from_utf8_lossy(&found);
    let mut text: String = found
        .lines()
        .filter(|line| !line.ends_with(HOSTS_MARK))
        .flat_map(|line| [line, "\n"])
        .collect();
    let known = text
        .lines()
        .map(|line| line.split('#').next().unwrap_or_default());
    if hostname.is_empty()
        || known
            .flat_map(|line| line.split_whitespace().skip(1))
            .any(|name| name == hostname)
    {
        return if text == found {
            Ok(())
        } else {
            root.write(path, text.as_bytes(), Access::root(0o644))
                .context("write /etc/hosts")
        };
    }
    let full = fqdn
        .filter(|fqdn| *fqdn != hostname)
        .map(|fqdn| format!("{fqdn} "))
        .unwrap_or_default();
    text.push_str(&format!("127.0.1.1 {full}{hostname} {HOSTS_MARK}\n"));
    if text != found {
        root.write(path, text.as_bytes(), Access::root(0o644))
            .context("write /etc/hosts")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    struct Root {
        directory: tempfile::TempDir,
        tree: Tree,
    }

    impl Root {
        fn new() -> Self {
            let directory = tempfile::tempdir().unwrap();
            for path in ["root/etc", "files/etc/new", "files/bin", "append/etc"] {
                fs::create_dir_all(directory.path().join(path)).unwrap();
            }
            let tree = Tree::open(&directory.path().join("root")).unwrap();
            Root { directory, tree }
        }

        fn write(&self, path: &str, text: &str) {
            fs::write(self.directory.path().join(path), text).unwrap();
        }

        fn read(&self, path: &str) -> String {
            fs::read_to_string(self.directory.path().join(path)).unwrap_or_default()
        }

        fn lay(&self) {
            lay(
                &self.tree,
                &self.directory.path().join("files"),
                &self.directory.path().join("append"),
            );
        }
    }

    #[test]
    fn files_are_laid_over_and_added_to_once() {
        let root = Root::new();
        root.write("root/etc/hosts", "base\n");
        root.write("root/etc/motd", "old\n");
        root.write("files/etc/motd", "new\n");
        root.write("files/etc/new/x", "x");
        root.write("files/bin/tool", "tool");
        root.write("append/etc/hosts", "more\n");
        root.write("append/etc/absent", "alone\n");
        let mode = fs::Permissions::from_mode(0o4755);
        fs::set_permissions(root.directory.path().join("files/bin/tool"), mode).unwrap();
        for _ in 0..2 {
            root.lay();
            assert_eq!(root.read("root/etc/motd"), "new\n");
            assert_eq!(root.read("root/etc/new/x"), "x");
            assert_eq!(root.read("root/etc/hosts"), "base\nmore\n");
            assert_eq!(root.read("root/etc/absent"), "alone\n");
            let tool = fs::metadata(root.directory.path().join("root/usr/bin/tool")).unwrap();
            assert_eq!(tool.mode() & 0o7777, 0o4755);
        }
    }

    #[test]
    fn one_file_that_cannot_be_laid_does_not_keep_the_others_away() {
        let root = Root::new();
        std::os::unix::fs::symlink("/etc", root.directory.path().join("root/link")).unwrap();
        fs::create_dir_all(root.directory.path().join("files/link")).unwrap();
        root.write("files/link/x", "x");
        root.write("files/etc/y", "y");
        root.lay();
        assert_eq!(root.read("root/etc/y"), "y");
    }

    #[test]
    fn nothing_to_lay_is_fine() {
        let root = Root::new();
        lay(
            &root.tree,
            Path::new("/nonexistent"),
            Path::new("/nonexistent"),
        );
    }

    #[test]
    fn the_hosts_name_resolves_and_follows_changes() {
        let root = Root::new();
        root.write("root/etc/hosts", "127.0.0.1 localhost\n");
        name_host(&root.tree, "one", None).unwrap();
        assert_eq!(
            root.read("root/etc/hosts"),
            "127.0.0.1 localhost\n127.0.1.1 one # this host\n"
        );
        name_host(&root.tree, "two", Some("two.example.org")).unwrap();
        assert_eq!(
            root.read("root/etc/hosts"),
            "127.0.0.1 localhost\n127.0.1.1 two.example.org two # this host\n"
        );
        name_host(&root.tree, "localhost", None).unwrap();
        assert_eq!(root.read("root/etc/hosts"), "127.0.0.1 localhost\n");
    }
}
