//! Signatures for UEFI Secure Boot (UEFI 2.10, section 32.2): Authenticode, by db's key.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::command;
use crate::keys::Keys;
use crate::step::Step;
use crate::workspace::Workspace;

/// Adds what `keys` put into the image to the inputs of a step: nothing of it is private.
///
/// # Errors
/// When a file cannot be read.
pub(super) fn inputs<'build>(mut step: Step<'build>, keys: &Keys) -> Result<Step<'build>> {
    step = step.file(&keys.db_certificate)?;
    for (name, update) in &keys.enrolment {
        step = step.input(name, update);
    }
    Ok(step)
}

/// Signs the EFI program `program` in place.
///
/// A signature holds the time it was made at. faketime has sbsign see the time of all our time stamps, so that the same keys
/// give the same bytes.
///
/// # Errors
/// When sbsign fails, or the signature is not one that `keys` allow.
pub(crate) fn sign(workspace: &Workspace, keys: &Keys, program: &Path) -> Result<()> {
    let signing = || format!("signing {}", program.display());
    let signed = program.with_extension("signed");
    let mut sbsign = Command::new("faketime");
    sbsign
        .env("TZ", "UTC")
        .env("FAKETIME_FMT", "%s")
        .arg("-f")
        .arg(workspace.epoch_seconds.to_string());
    sbsign.arg("sbsign").arg("--key").arg(&keys.db_key);
    sbsign.arg("--cert").arg(&keys.db_certificate);
    sbsign.arg("--output").arg(&signed).arg(program);
    command::run(&mut sbsign).with_context(signing)?;
    fs::rename(&signed, program).with_context(signing)?;
    let mut sbverify = Command::new("sbverify");
    sbverify.arg("--cert").arg(&keys.db_certificate);
    command::run(sbverify.arg(program)).with_context(signing)?;
    Ok(())
}
