//! What is unknown is an error with a position.

use std::fs;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::harness::lab::Lab;
use crate::harness::process;
use crate::harness::status::Status;

/// Enough for the builder to read its recipes; it must refuse before it fetches anything.
const BUILDER_DEADLINE: Duration = Duration::from_secs(120);

pub(super) fn unknown_words_to_the_keelson_command_are_errors_that_name_them(
    lab: &mut Lab,
) -> Result<()> {
    let (_vm, ssh) = lab.booted()?;
    for line in [
        "keelson frobnicate",
        "keelson service frobnicate",
        "keelson status --frobnicate",
        "keelson boot frobnicate",
        "keelson service ps --frobnicate",
        "keelson service logs frobnicate",
        "keelson service restart frobnicate",
    ] {
        let (status, text) = ssh.check_fails(line)?;
        ensure!(
            text.contains("frobnicate"),
            "`{line}` says ({status}): {text}"
        );
        ensure!(!text.contains("panicked"), "`{line}` panics: {text}");
    }
    Ok(())
}

pub(super) fn an_unknown_key_in_a_service_yml_is_reported_with_its_position(
    lab: &mut Lab,
) -> Result<()> {
    let console = lab.observed_boot_console()?;
    let named = console
        .lines()
        .any(|line| line.contains("unknown-key.yml:6:5") && line.contains("netwrok_mode"));
    ensure!(
        named,
        "no line of the console names unknown-key.yml:6:5 and the key"
    );
    let (_vm, ssh, _) = lab.observed()?;
    let status = Status::read(&ssh)?;
    let failure = status
        .failures
        .iter()
        .find(|failure| failure.message.contains("netwrok_mode"));
    let failure = failure
        .with_context(|| format!("`keelson status` names no such key: {:?}", status.failures))?;
    ensure!(
        (failure.line, failure.column) == (Some(6), Some(5)),
        "the position given is {failure:?}"
    );
    ensure!(
        failure
            .file
            .as_deref()
            .is_some_and(|file| file.ends_with("unknown-key.yml")),
        "no file in {failure:?}"
    );
    Ok(())
}

pub(super) fn an_unknown_key_in_a_recipe_is_reported_with_its_position(
    lab: &mut Lab,
) -> Result<()> {
    let services = lab.dir().join("services");
    let folder = services.join("misspelt");
    fs::create_dir_all(&folder).context("making a recipe")?;
    fs::write(
        folder.join("image.yml"),
        "image: misspelt\npackages: [busybox-static]\nfiels: []\n",
    )?;
    fs::write(
        folder.join("service.yml"),
        "services:\n  misspelt:\n    image: keelson/misspelt\n",
    )?;
    let mut command = Command::new("cargo");
    command.args([
        "run",
        "--quiet",
        "--locked",
        "--profile",
        "tool",
        "-p",
        "keelson-images",
        "--",
        "build",
    ]);
    command
        .arg("--services")
        .arg(&services)
        .arg("--output")
        .arg(lab.dir().join("out"));
    let output = process::run(&mut command, &[], BUILDER_DEADLINE)?;
    ensure!(
        !output.status.success(),
        "the builder took a recipe with an unknown key"
    );
    let text = output.text();
    ensure!(
        text.contains("image.yml:3:1") && text.contains("fiels"),
        "the builder says: {text}"
    );
    Ok(())
}
