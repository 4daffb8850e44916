//! `manifest.json`: what a build consists of, for programs to read.

use anyhow::{Context, Result};
use serde::Serialize;

use super::{Built, Output};
use crate::packages::Package;
use crate::workspace::Workspace;

#[derive(Serialize)]
struct Manifest<'build> {
    name: &'static str,
    version: &'build str,
    flavour: &'build str,
    source_date_epoch: u64,
    kernel: KernelEntry<'build>,
    root: RootEntry<'build>,
    command_line: &'build str,
    #[serde(skip_serializing_if = "Option::is_none")]
    signed: Option<SignedEntry<'build>>,
    outputs: &'build [Output],
    images: Vec<ImageEntry<'build>>,
}

#[derive(Serialize)]
struct KernelEntry<'build> {
    version: &'build str,
    package: PackageEntry<'build>,
}

#[derive(Serialize)]
struct RootEntry<'build> {
    root_hash: &'build str,
    hash_offset_bytes: u64,
    size_bytes: u64,
    slot_uuid: String,
}

/// What a build is signed with; one that is not signed has no such entry.
#[derive(Serialize)]
struct SignedEntry<'build> {
    /// SHA-256 of db's certificate, as the firmware lists it.
    certificate_sha256: &'build str,
    /// SHA-256 of the release key's SubjectPublicKeyInfo.
    release_key_sha256: &'build str,
}

#[derive(Serialize)]
struct ImageEntry<'build> {
    name: &'build str,
    packages: Vec<PackageEntry<'build>>,
}

#[derive(Serialize)]
struct PackageEntry<'build> {
    name: &'build str,
    version: &'build str,
    architecture: &'build str,
    sha256: &'build str,
}

fn entry(package: &Package) -> PackageEntry<'_> {
    PackageEntry {
        name: &package.name,
        version: &package.version,
        architecture: &package.architecture,
        sha256: &package.sha256,
    }
}

/// The manifest's text.
///
/// # Errors
/// When it cannot be written as JSON.
pub(crate) fn text(
    workspace: &Workspace,
    built: &Built<'_>,
    outputs: &[Output],
) -> Result<Vec<u8>> {
    let mut images: Vec<ImageEntry<'_>> = built
        .images
        .iter()
        .map(|image| ImageEntry {
            name: &image.name,
            packages: image.packages.iter().map(entry).collect(),
        })
        .collect();
    for (name, packages) in [
        ("root", &built.root.packages),
        ("initrd", &built.initrd.packages),
        ("boot", &built.disk.packages),
    ] {
        images.push(ImageEntry {
            name,
            packages: packages.iter().map(entry).collect(),
        });
    }
    let manifest = Manifest {
        name: "keelson",
        version: built.version,
        flavour: built.flavour,
        source_date_epoch: workspace.epoch_seconds,
        kernel: KernelEntry {
            version: &built.kernel.version,
            package: entry(&built.kernel.package),
        },
        root: RootEntry {
            root_hash: &built.root.verity.root_hash,
            hash_offset_bytes: built.root.verity.hash_offset_bytes,
            size_bytes: built.root.verity.size_bytes,
            slot_uuid: built.disk.slot.to_string(),
        },
        command_line: &built.disk.command_line,
        signed: built.keys.map(|keys| SignedEntry {
            certificate_sha256: &keys.db_sha256,
            release_key_sha256: &keys.release_sha256,
        }),
        outputs,
        images,
    };
    let mut text = serde_json::to_vec_pretty(&manifest).context("writing the manifest as JSON")?;
    text.push(b'\n');
    Ok(text)
}
