//! What Debian's maintainer scripts would have made: the library cache and the bundle of certificates.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result};

use super::Tree;
use crate::command;
use crate::files;

/// Makes `/etc/ld.so.cache` when the tree has shared libraries.
///
/// # Errors
/// When ldconfig fails.
pub(crate) fn library_cache(tree: &Tree) -> Result<()> {
    if !tree.has("usr/lib64/ld-linux-x86-64.so.2")?
        && !tree.has("usr/lib/x86_64-linux-gnu/libc.so.6")?
    {
        return Ok(());
    }
    if !tree.has("etc/ld.so.conf")? {
        tree.file(
            "etc/ld.so.conf",
            &mut &b"include /etc/ld.so.conf.d/*.conf\n"[..],
            0o644,
            0,
            0,
        )?;
    }
    let mut ldconfig = Command::new("ldconfig");
    ldconfig.args(["-X", "-r"]).arg(tree.root());
    command::run(&mut ldconfig).context("making the cache of shared libraries")?;
    // Holds inode numbers and times of this machine.
    tree.remove("var/cache/ldconfig")
}

/// Makes `/etc/ssl/certs/ca-certificates.crt` when the tree has Debian's certificates.
///
/// # Errors
/// When a certificate cannot be read or the bundle not be written.
pub(crate) fn certificate_bundle(tree: &Tree) -> Result<()> {
    const SOURCE: &str = "usr/share/ca-certificates";
    if !tree.has(SOURCE)? {
        return Ok(());
    }
    let folder = tree.place(SOURCE)?;
    let mut bundle = Vec::new();
    for entry in files::walk(&folder)? {
        if entry.metadata.is_file() && entry.path.ends_with(".crt") {
            let path = folder.join(&entry.path);
            bundle.extend(fs::read(&path).with_context(|| format!("reading {}", path.display()))?);
            if bundle.last() != Some(&b'\n') {
                bundle.push(b'\n');
            }
        }
    }
    tree.file(
        "etc/ssl/certs/ca-certificates.crt",
        &mut &bundle[..],
        0o644,
        0,
        0,
    )?;
    // The single files are only there to make the bundle from.
    tree.remove(SOURCE)
}
