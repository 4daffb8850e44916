//! An unmodified client library at both engines.

use anyhow::{Context, Result};

use crate::api::compare::Differences;
use crate::api::tour;
use crate::harness::docker;
use crate::harness::lab::{Lab, SETTLE_DEADLINE};

pub(super) fn a_client_library_hears_the_same_from_both_engines(lab: &mut Lab) -> Result<()> {
    let (_vm, ssh, _observer) = lab.observed()?;
    docker::import(&ssh)?;
    ssh.check_within(
        &format!("docker save {} | system-docker load", docker::IMAGE),
        SETTLE_DEADLINE,
    )?;
    let directory = tempfile::tempdir().context("making a directory for sockets")?;
    let mut answers = Vec::new();
    for there in ["/run/docker.sock", "/run/keelson/system.sock"] {
        let here = directory.path().join(there.replace('/', "-"));
        let _forwarded = ssh.forward_socket(&here, there)?;
        // A machine that goes on from a snapshot is behind.
        let now = || Ok(ssh.check("date +%s")?.parse()?);
        answers.push(tour::run(&here, now).with_context(|| format!("the tour of {there}"))?);
    }
    Differences::load()?.check(&answers[0], &answers[1])
}
