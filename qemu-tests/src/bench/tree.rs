//! File systems out of Debian packages.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::harness::process;

const BUILD_DEADLINE: Duration = Duration::from_secs(1200);
/// The disk's driver, its bus and its file system.
const DISK_MODULES: &[&str] = &["virtio_blk", "virtio_pci", "ext4"];
const INITRD_SCRIPT: &str = include_str!("floor-initrd.sh");

/// A file system tree.
pub struct Tree {
    /// Its root.
    pub root: PathBuf,
}

impl Tree {
    /// Unpacks packages with all they depend on, and Debian's cloud kernel, without running any of their scripts.
    ///
    /// # Errors
    /// When packages cannot be had.
    pub fn unpack(dir: &Path, packages: &[&str]) -> Result<Self> {
        let mut list = packages.to_vec();
        list.push("linux-image-cloud-amd64");
        let tree = Self::make(dir, "extract", &list)?;
        let release = tree.release()?;
        if !tree.modules(&release).join("modules.dep").exists() {
            let mut depmod = Command::new("depmod");
            process::check(
                depmod.arg("-b").arg(tree.root.join("usr")).arg(&release),
                BUILD_DEADLINE,
            )?;
            process::check(
                Command::new("ldconfig").arg("-r").arg(&tree.root),
                BUILD_DEADLINE,
            )?;
        }
        Ok(tree)
    }

    /// Installs packages as Debian does, recommendations left out.
    ///
    /// # Errors
    /// When mmdebstrap fails.
    pub fn install(dir: &Path, packages: &[&str]) -> Result<Self> {
        Self::make(dir, "minbase", packages)
    }

    fn make(dir: &Path, variant: &str, packages: &[&str]) -> Result<Self> {
        let root = dir.join("root");
        if root.exists() {
            return Ok(Tree { root });
        }
        fs::create_dir_all(dir).with_context(|| format!("making {}", dir.display()))?;
        println!("bench: making {} from Debian packages", dir.display());
        let unfinished = dir.join("root.new");
        if unfinished.exists() {
            fs::remove_dir_all(&unfinished).context("removing an unfinished tree")?;
        }
        let mut command = Command::new("mmdebstrap");
        command.args([
            "--quiet",
            &format!("--variant={variant}"),
            &format!("--include={}", packages.join(",")),
        ]);
        command.arg("trixie").arg(&unfinished);
        process::check(&mut command, BUILD_DEADLINE)?;
        fs::rename(&unfinished, &root).context("naming the finished tree")?;
        Ok(Tree { root })
    }

    /// The kernel image.
    ///
    /// # Errors
    /// When there is none.
    pub fn kernel(&self) -> Result<PathBuf> {
        self.in_boot("vmlinuz-")
    }

    /// The initrd that Debian made.
    ///
    /// # Errors
    /// When there is none.
    pub fn own_initrd(&self) -> Result<PathBuf> {
        self.in_boot("initrd.img-")
    }

    fn in_boot(&self, prefix: &str) -> Result<PathBuf> {
        let boot = self.root.join("boot");
        for entry in fs::read_dir(&boot).with_context(|| format!("reading {}", boot.display()))? {
            let entry = entry?;
            if entry.file_name().to_string_lossy().starts_with(prefix) {
                return Ok(entry.path());
            }
        }
        bail!("no {prefix}* in {}", boot.display())
    }

    fn release(&self) -> Result<String> {
        let kernel = self.kernel()?;
        let name = kernel
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        Ok(name.trim_start_matches("vmlinuz-").to_owned())
    }

    fn modules(&self, release: &str) -> PathBuf {
        self.root.join("usr/lib/modules").join(release)
    }

    /// Writes a file.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, path: &str, content: &str, mode: u32) -> Result<()> {
        let path = self.root.join(path);
        let parent = path.parent().unwrap_or(&self.root);
        fs::create_dir_all(parent)
            .and_then(|()| fs::write(&path, content))
            .and_then(|()| fs::set_permissions(&path, fs::Permissions::from_mode(mode)))
            .with_context(|| format!("writing {}", path.display()))
    }

    /// Makes a symbolic link, in place of what was there.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn link(&self, path: &str, target: &str) -> Result<()> {
        let path = self.root.join(path);
        if fs::symlink_metadata(&path).is_ok() {
            fs::remove_file(&path).with_context(|| format!("removing {}", path.display()))?;
        }
        fs::create_dir_all(path.parent().unwrap_or(&self.root))
            .and_then(|()| symlink(target, &path))
            .with_context(|| format!("linking {}", path.display()))
    }

    /// An initrd with busybox that mounts the first disk and goes on with its `/init.sh`.
    ///
    /// # Errors
    /// When modules are missing or cpio fails.
    pub fn make_initrd(&self, initrd: &Path) -> Result<()> {
        let staging = Tree {
            root: initrd.with_extension("root"),
        };
        for name in ["bin", "modules", "proc", "sys", "dev", "mnt"] {
            fs::create_dir_all(staging.root.join(name)).context("making the initrd's folders")?;
        }
        let busybox = ["usr/bin/busybox", "bin/busybox"]
            .map(|path| self.root.join(path))
            .into_iter()
            .find(|path| path.exists());
        let busybox = busybox.context("the tree has no busybox")?;
        fs::copy(&busybox, staging.root.join("bin/busybox")).context("copying busybox")?;
        staging.write("init", INITRD_SCRIPT, 0o755)?;
        let release = self.release()?;
        let mut order = String::new();
        for path in self.disk_modules(&release)? {
            let name = path
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .trim_end_matches(".xz")
                .to_owned();
            let plain = process::check(
                Command::new("sh")
                    .args(["-c", "xz -dc \"$1\" >\"$2\"", "sh"])
                    .arg(&path)
                    .arg(staging.root.join("modules").join(&name)),
                BUILD_DEADLINE,
            );
            plain.with_context(|| format!("unpacking {}", path.display()))?;
            order.push_str(&name);
            order.push('\n');
        }
        staging.write("modules/order", &order, 0o644)?;
        let pack = "cd \"$1\" && find . | cpio --quiet -o -H newc | zstd -q -f -o \"$2\"";
        let initrd = fs::canonicalize(initrd.parent().unwrap_or(Path::new(".")))
            .context("resolving the initrd's folder")?
            .join(initrd.file_name().unwrap_or_default());
        process::check(
            Command::new("sh")
                .args(["-c", pack, "sh"])
                .arg(&staging.root)
                .arg(&initrd),
            BUILD_DEADLINE,
        )
        .map(drop)
    }

    /// The disk's modules and all they need, each after what it needs.
    fn disk_modules(&self, release: &str) -> Result<Vec<PathBuf>> {
        let modules = self.modules(release);
        let text =
            fs::read_to_string(modules.join("modules.dep")).context("reading modules.dep")?;
        Ok(load_order(&text, DISK_MODULES)
            .into_iter()
            .map(|path| modules.join(path))
            .collect())
    }
}

/// Reads modules.dep (modules.dep(5)): `path: what it needs, the deepest last`. Names that are not there are built in.
fn load_order(text: &str, names: &[&str]) -> Vec<String> {
    let mut order: Vec<String> = Vec::new();
    for name in names {
        let file = |path: &str| {
            path.rsplit('/')
                .next()
                .unwrap_or(path)
                .split('.')
                .next()
                .unwrap_or(path)
                .replace('-', "_")
        };
        let line = text
            .lines()
            .filter_map(|line| line.split_once(':'))
            .find(|(path, _)| file(path) == *name);
        let Some((path, needs)) = line else { continue };
        for module in needs.split_whitespace().rev().chain([path]) {
            if !order.iter().any(|present| present == module) {
                order.push(module.to_owned());
            }
        }
    }
    order
}

/// Makes an ext4 image of 4 GB out of a tree.
///
/// # Errors
/// When mke2fs fails.
pub fn make_ext4(root: &Path, image: &Path) -> Result<()> {
    let unfinished = image.with_extension("new");
    process::check(
        Command::new("truncate").args(["-s", "4G"]).arg(&unfinished),
        BUILD_DEADLINE,
    )?;
    let mut command = Command::new("mke2fs");
    command
        .args(["-q", "-t", "ext4", "-d"])
        .arg(root)
        .arg(&unfinished);
    process::check(&mut command, BUILD_DEADLINE)?;
    fs::rename(&unfinished, image).context("naming the finished image")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_come_after_what_they_need_and_once() {
        let text = "kernel/a/virtio_blk.ko.xz: kernel/b/virtio_ring.ko.xz kernel/b/virtio.ko.xz\n\
                    kernel/b/virtio_ring.ko.xz: kernel/b/virtio.ko.xz\nkernel/b/virtio.ko.xz:\n\
                    kernel/c/virtio_pci.ko.xz: kernel/b/virtio.ko.xz\n";
        let order = load_order(text, &["virtio_blk", "virtio_pci", "built_in"]);
        let names: Vec<&str> = order
            .iter()
            .map(|path| path.rsplit('/').next().unwrap())
            .collect();
        assert_eq!(
            names,
            [
                "virtio.ko.xz",
                "virtio_ring.ko.xz",
                "virtio_blk.ko.xz",
                "virtio_pci.ko.xz"
            ]
        );
    }
}
