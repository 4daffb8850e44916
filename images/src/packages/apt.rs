//! apt in a world of its own: the tool root's sources and keys, but own lists, an empty system and own archives.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use super::Package;
use crate::command;
use crate::files;
use crate::workspace::Workspace;

/// How many packages one `apt-get download` is asked for.
const DOWNLOAD_BATCH: usize = 40;

/// Fetches the lists of packages anew.
///
/// # Errors
/// When apt cannot fetch or verify them; the old lists stay in use then.
pub(crate) fn update(workspace: &Workspace) -> Result<()> {
    for directory in [
        "lists/partial",
        "archives/partial",
        "no-archives/partial",
        "state",
    ] {
        files::make_directory(&workspace.apt.join(directory))?;
    }
    let status = workspace.apt.join("status");
    fs::write(&status, "").with_context(|| format!("writing {}", status.display()))?;
    let running = workspace.progress.begin("package lists");
    command::run(apt(workspace).args(["--error-on=any", "update"]))
        .context("fetching Debian's package lists (is there a network?)")?;
    files::write_durably(&workspace.apt.join("lists.complete"), b"")?;
    running.done("");
    Ok(())
}

/// `names` with everything that they depend on, recommendations aside, minus `without`.
///
/// The answer is kept as long as the lists stay the same.
///
/// # Errors
/// When apt finds no solution, or a name is unknown.
pub(crate) fn closure(
    workspace: &Workspace,
    names: &[String],
    without: &[String],
) -> Result<Vec<Package>> {
    if names.is_empty() {
        return Ok(Vec::new());
    }
    let mut packages = resolve(workspace, "closure", names, |command| {
        command.args(["install", "-y", "--print-uris", "--no-install-recommends"]);
    })?;
    packages.retain(|package| !without.contains(&package.name));
    Ok(packages)
}

/// Exactly the packages `names`, without what they depend on.
///
/// # Errors
/// When a name is unknown.
pub(crate) fn exact(workspace: &Workspace, names: &[String]) -> Result<Vec<Package>> {
    if names.is_empty() {
        return Ok(Vec::new());
    }
    resolve(workspace, "exact", names, |command| {
        command.args(["download", "--print-uris"]);
    })
}

/// Downloads those of `packages` that are not in the archives folder yet. apt checks them against its signed lists.
///
/// # Errors
/// When one cannot be fetched, or what was fetched is not what the lists name.
pub(crate) fn fetch(workspace: &Workspace, packages: &[Package]) -> Result<()> {
    let missing: Vec<&Package> = packages
        .iter()
        .filter(|package| !archive_path(workspace, package).is_file())
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let running = workspace.progress.begin("download packages");
    let partial = workspace.apt.join("archives/partial");
    for batch in missing.chunks(DOWNLOAD_BATCH) {
        running.busy_with(
            &batch
                .iter()
                .map(|package| package.name.as_str())
                .collect::<Vec<_>>()
                .join(" "),
        );
        let mut download = apt(workspace);
        download.current_dir(&partial).arg("download");
        download.args(batch.iter().map(|package| {
            format!(
                "{}:{}={}",
                package.name,
                native(&package.architecture),
                package.version
            )
        }));
        command::run(&mut download).context(
            "downloading Debian packages (when the mirror no longer has a version, `./mkimage.sh build --update` takes the current one)",
        )?;
        for package in batch {
            let fetched = partial.join(&package.file);
            let digest = files::sha256(&fetched)?;
            ensure!(
                digest == package.sha256,
                "{} has SHA-256 {digest}, the package lists say {}: remove it and try again",
                workspace.shown(&fetched),
                package.sha256
            );
            let archive = archive_path(workspace, package);
            fs::rename(&fetched, &archive)
                .with_context(|| format!("renaming {}", fetched.display()))?;
        }
    }
    let bytes: u64 = missing.iter().map(|package| package.size_bytes).sum();
    running.done(&format!(
        "{} packages, {}",
        missing.len(),
        crate::progress::megabytes(bytes)
    ));
    Ok(())
}

/// Where the .deb of `package` lies once fetched.
pub(crate) fn archive_path(workspace: &Workspace, package: &Package) -> PathBuf {
    workspace.apt.join("archives").join(&package.file)
}

/// Asks apt for files by `ask`, or takes the answer it gave for the same lists.
fn resolve(
    workspace: &Workspace,
    kind: &str,
    names: &[String],
    ask: impl FnOnce(&mut Command),
) -> Result<Vec<Package>> {
    let mut names = names.to_vec();
    names.sort();
    names.dedup();
    let answer = workspace
        .step("resolve")
        .code(super::CODE)
        .input("kind", kind)
        .input("names", names.join(" "))
        .input("lists", lists_digest(workspace)?)
        .run(|path, _| {
            let mut command = apt(workspace);
            ask(&mut command);
            let printed = command::run(command.args(&names))
                .with_context(|| format!("resolving the packages {}", names.join(" ")))?;
            let packages = parse_uris(&printed)?;
            let json =
                serde_json::to_vec_pretty(&packages).context("writing the answer as JSON")?;
            fs::write(path, json).with_context(|| format!("writing {}", path.display()))
        })?;
    let text = files::read_text(&answer)?;
    serde_json::from_str(&text).with_context(|| format!("reading {}", answer.display()))
}

/// Digest of the signed lists: it changes when the archive does and the lists are fetched anew.
fn lists_digest(workspace: &Workspace) -> Result<String> {
    let lists = workspace.apt.join("lists");
    let mut digests = String::new();
    for entry in files::walk(&lists)? {
        if entry.path.ends_with("InRelease") {
            digests.push_str(&files::sha256(&lists.join(&entry.path))?);
        }
    }
    ensure!(
        !digests.is_empty(),
        "{} holds no signed package lists: run `./mkimage.sh build --update`",
        workspace.shown(&lists)
    );
    Ok(digests)
}

fn apt(workspace: &Workspace) -> Command {
    let apt = workspace.apt.display();
    let mut command = Command::new("apt-get");
    command.env("LC_ALL", "C.UTF-8").arg("-qq");
    for option in [
        format!("Dir::State={apt}/state"),
        format!("Dir::State::lists={apt}/lists"),
        format!("Dir::State::status={apt}/status"),
        format!("Dir::Cache={apt}"),
        // Empty on purpose: --print-uris leaves out what the archives folder already holds.
        format!("Dir::Cache::archives={apt}/no-archives"),
        "Acquire::ForceHash=SHA256".to_owned(),
        "Acquire::Languages=none".to_owned(),
        "Acquire::Retries=3".to_owned(),
        "APT::Install-Recommends=false".to_owned(),
        "APT::Sandbox::User=root".to_owned(),
    ] {
        command.args(["-o", &option]);
    }
    command
}

fn native(architecture: &str) -> &str {
    if architecture == "all" {
        "amd64"
    } else {
        architecture
    }
}

/// Parses the lines `'URI' FILE SIZE SHA256:DIGEST` that apt prints; sorted by name.
fn parse_uris(printed: &str) -> Result<Vec<Package>> {
    let mut packages = Vec::new();
    for line in printed.lines().filter(|line| line.starts_with('\'')) {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [_, file, size, digest] = fields[..] else {
            bail!("apt printed a line of an unknown form: {line}");
        };
        let parts: Vec<&str> = file.trim_end_matches(".deb").split('_').collect();
        let ([name, version, architecture], Some(sha256)) =
            (&parts[..], digest.strip_prefix("SHA256:"))
        else {
            bail!("apt printed a line of an unknown form: {line}");
        };
        packages.push(Package {
            name: (*name).to_owned(),
            version: version.replace("%3a", ":"),
            architecture: (*architecture).to_owned(),
            file: file.to_owned(),
            size_bytes: size
                .parse()
                .with_context(|| format!("size in apt's line {line}"))?,
            sha256: sha256.to_owned(),
        });
    }
    packages.sort();
    Ok(packages)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn apts_lines_become_packages_with_their_epochs() {
        let printed = "Reading lists...\n\
            'http://mirror/z/zlib1g_1.3%2b1_amd64.deb' zlib1g_1%3a1.3+1_amd64.deb 88720 SHA256:aa\n\
            'http://mirror/b/base_13_all.deb' base_13_all.deb 12 SHA256:bb\n";
        let packages = parse_uris(printed).unwrap();
        assert_eq!(
            packages
                .iter()
                .map(|package| package.name.as_str())
                .collect::<Vec<_>>(),
            ["base", "zlib1g"]
        );
        assert_eq!(packages[1].version, "1:1.3+1");
        assert_eq!(packages[1].sha256, "aa");
        assert_eq!(packages[0].architecture, "all");
    }

    #[test]
    fn a_package_without_a_strong_digest_is_refused() {
        assert!(parse_uris("'http://mirror/a_1_all.deb' a_1_all.deb 1 MD5Sum:00\n").is_err());
    }
}
