//! `keelson.spdx.json`: the bill of materials in SPDX 2.3 (ISO/IEC 5962), JSON form.
//!
//! It lists every Debian package with the SHA-256 of its .deb, every crate of `Cargo.lock` with its checksum, and the
//! output files with theirs.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::{Built, Output};
use crate::files;
use crate::packages::Package;
use crate::workspace::Workspace;

const NAMESPACE: &str = "https://spdx.org/spdxdocs/keelson";

/// A crate of `Cargo.lock` that comes from a registry.
#[derive(Debug, PartialEq, Eq)]
struct Crate {
    name: String,
    version: String,
    sha256: String,
}

/// The document's text.
///
/// # Errors
/// When `Cargo.lock` cannot be read.
pub(crate) fn text(
    workspace: &Workspace,
    built: &Built<'_>,
    outputs: &[Output],
) -> Result<Vec<u8>> {
    let lock = files::read_text(&workspace.top.join("Cargo.lock"))?;
    let mut packages = vec![json!({
        "SPDXID": "SPDXRef-Keelson",
        "name": "keelson",
        "versionInfo": built.version,
        "downloadLocation": "NOASSERTION",
        "filesAnalyzed": false,
        "primaryPackagePurpose": "OPERATING-SYSTEM",
    })];
    packages.extend(debian_packages(built).values().map(debian_entry));
    packages.extend(crates(&lock).iter().map(crate_entry));
    let files: Vec<Value> = outputs.iter().map(file_entry).collect();
    let document = json!({
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": format!("keelson-{}", built.version),
        "documentNamespace": format!("{NAMESPACE}-{}-{}", built.version, digest_of(outputs)),
        "creationInfo": {
            "created": rfc3339(workspace.epoch_seconds),
            "creators": [format!("Tool: keelson-images-{}", env!("CARGO_PKG_VERSION"))],
        },
        "relationships": relationships(&packages, &files),
        "packages": packages,
        "files": files,
    });
    let mut text =
        serde_json::to_vec_pretty(&document).context("writing the bill of materials as JSON")?;
    text.push(b'\n');
    Ok(text)
}

/// Every package of every part, once.
fn debian_packages<'build>(built: &'build Built<'_>) -> BTreeMap<String, &'build Package> {
    let of_images = built.images.iter().flat_map(|image| &image.packages);
    let others = [
        &built.root.packages,
        &built.initrd.packages,
        &built.disk.packages,
    ];
    of_images
        .chain(others.into_iter().flatten())
        .chain([&built.kernel.package])
        .map(|package| (format!("{}={}", package.name, package.version), package))
        .collect()
}

fn debian_entry(package: &&Package) -> Value {
    let Package {
        name,
        version,
        architecture,
        sha256,
        ..
    } = package;
    let locator = format!(
        "pkg:deb/debian/{name}@{}?arch={architecture}",
        version.replace(':', "%3A").replace('+', "%2B")
    );
    package_entry("Debian", name, version, sha256, &locator)
}

fn crate_entry(member: &Crate) -> Value {
    let Crate {
        name,
        version,
        sha256,
    } = member;
    package_entry(
        "Crate",
        name,
        version,
        sha256,
        &format!("pkg:cargo/{name}@{}", version.replace('+', "%2B")),
    )
}

fn package_entry(kind: &str, name: &str, version: &str, sha256: &str, locator: &str) -> Value {
    json!({
        "SPDXID": identifier(kind, &format!("{name}-{version}")),
        "name": name,
        "versionInfo": version,
        "downloadLocation": "NOASSERTION",
        "filesAnalyzed": false,
        "checksums": [{"algorithm": "SHA256", "checksumValue": sha256}],
        "externalRefs": [{
            "referenceCategory": "PACKAGE-MANAGER",
            "referenceType": "purl",
            "referenceLocator": locator,
        }],
    })
}

fn file_entry(output: &Output) -> Value {
    json!({
        "SPDXID": identifier("File", &output.name),
        "fileName": format!("./{}", output.name),
        "checksums": [{"algorithm": "SHA256", "checksumValue": output.sha256}],
    })
}

fn relationships(packages: &[Value], files: &[Value]) -> Vec<Value> {
    let mut all = vec![relationship(
        "SPDXRef-DOCUMENT",
        "DESCRIBES",
        "SPDXRef-Keelson",
    )];
    let parts = packages
        .iter()
        .skip(1)
        .chain(files)
        .filter_map(|part| part["SPDXID"].as_str());
    all.extend(parts.map(|part| relationship("SPDXRef-Keelson", "CONTAINS", part)));
    all
}

fn relationship(from: &str, kind: &str, to: &str) -> Value {
    json!({"spdxElementId": from, "relationshipType": kind, "relatedSpdxElement": to})
}

/// SPDX identifiers have letters, digits, dots and dashes only; others are written as their code.
fn identifier(kind: &str, name: &str) -> String {
    let mut text = format!("SPDXRef-{kind}-");
    for character in name.chars() {
        match character {
            'a'..='z' | 'A'..='Z' | '0'..='9' | '.' | '-' => text.push(character),
            other => text.push_str(&format!("-x{:x}-", u32::from(other))),
        }
    }
    text
}

/// The registry crates of a `Cargo.lock`.
fn crates(lock: &str) -> Vec<Crate> {
    let mut crates = Vec::new();
    for block in lock.split("[[package]]").skip(1) {
        let field = |name: &str| {
            block.lines().find_map(|line| {
                Some(
                    line.strip_prefix(name)?
                        .strip_prefix(" = ")?
                        .trim_matches('"')
                        .to_owned(),
                )
            })
        };
        if let (Some(name), Some(version), Some(sha256)) =
            (field("name"), field("version"), field("checksum"))
        {
            crates.push(Crate {
                name,
                version,
                sha256,
            });
        }
    }
    crates
}

fn digest_of(outputs: &[Output]) -> String {
    let mut digest = Sha256::new();
    for output in outputs {
        digest.update(&output.sha256);
    }
    hex::encode(&digest.finalize()[..16])
}

/// A time in the only form that SPDX allows, `YYYY-MM-DDThh:mm:ssZ`.
fn rfc3339(epoch_seconds: u64) -> String {
    let (days, seconds) = (epoch_seconds / 86_400, epoch_seconds % 86_400);
    // Years that begin in March, so that the leap day is the last of its year.
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_spdx_wants_them() {
        for (epoch, expected) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_767_225_600, "2026-01-01T00:00:00Z"),
            (4_107_542_399, "2100-02-28T23:59:59Z"),
        ] {
            assert_eq!(rfc3339(epoch), expected);
        }
    }

    #[test]
    fn registry_crates_are_found_and_members_are_not() {
        let lock = "version = 4\n\n[[package]]\nname = \"mine\"\nversion = \"0.1.0\"\n\n[[package]]\nname = \"hex\"\n\
            version = \"0.4.3\"\nsource = \"registry+x\"\nchecksum = \"7f24\"\n";
        let expected = Crate {
            name: "hex".into(),
            version: "0.4.3".into(),
            sha256: "7f24".into(),
        };
        assert_eq!(crates(lock), [expected]);
    }

    #[test]
    fn identifiers_have_allowed_characters_only() {
        assert_eq!(
            identifier("Debian", "libstdc++6-1:2"),
            "SPDXRef-Debian-libstdc-x2b--x2b-6-1-x3a-2"
        );
    }
}
