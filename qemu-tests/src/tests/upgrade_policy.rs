//! Versions of the operating system that a machine takes by itself, and the user's own checks on them.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::harness::lab::Lab;
use crate::harness::machine::{Boot, Machine};
use crate::harness::registry::Registry;
use crate::harness::release::{self, FIRST, SECOND};
use crate::harness::seed;
use crate::harness::ssh::Ssh;

/// A boot, a release that is fetched and written, and a restart.
const BY_ITSELF_DEADLINE: Duration = Duration::from_secs(300);
/// What is said of upgrades, beside `source` and `keelson.registries`.
const POLICY: &str = "    deadline: 90s
    policy: auto
    interval: 1m
    window: 00:00-24:00
    jitter: 0
    checks:
      - {name: shell, tcp: '127.0.0.1:22'}
      - {name: hold, exec: [sh, -c, 'test -e /home/keelson/dry || { echo water in the hold; exit 3; }']}
";

pub(super) fn a_machine_upgrades_by_itself_and_goes_back_when_a_check_of_its_owner_fails(
    lab: &mut Lab,
) -> Result<()> {
    let out = lab.out().to_owned();
    let registry = Registry::start()?;
    let host = format!("127.0.0.1:{}", registry.port);
    let (source, layout) = (format!("{host}/keelson"), lab.dir().join("layout"));
    release::push(&out, SECOND, &release::keys(&out), &source, &layout)?;
    let user_data = format!(
        "{}keelson:\n  registries: {{\"{host}\": {{insecure: true}}}}\n  upgrade:\n    source: {source}\n{POLICY}",
        seed::usual(&lab.key.public()?)
    );
    let mut machine = Machine::new(Boot::Uefi)
        .with_disk(&lab.disk(&release::image(&out, FIRST)?)?)
        .with_raw(&seed::fat(lab.dir(), &user_data)?);
    machine.reboots = false;

    // Nobody asks for anything: it takes the release and restarts.
    let (mut vm, ssh) = lab.boot(&machine)?;
    let forwarded = ssh.reverse(registry.port)?;
    vm.wait_off(BY_ITSELF_DEADLINE)
        .context("restarting for a new version")?;
    drop((vm, ssh, forwarded));
    // The new version fails a check, and restarts for the old one.
    let mut vm = lab.start(&machine)?;
    vm.wait_off(BY_ITSELF_DEADLINE)
        .context("giving up a version")?;
    drop(vm);

    let (_vm, ssh) = lab.boot(&machine)?;
    let _forwarded = ssh.reverse(registry.port)?;
    wait(&ssh, "keelson os history | grep -q 'went back'")?;
    let history = json(&ssh.check("keelson os history --json")?)?;
    let last = history
        .as_array()
        .and_then(|list| list.last())
        .context("no history")?;
    ensure!(last["from"] == SECOND && last["to"] == FIRST, "{last}");
    let why = last["why"].as_str().unwrap_or_default();
    ensure!(
        why.contains("check `hold` fails: sh ends with status 3: water in the hold"),
        "{why}"
    );
    ensure!(!why.contains("`shell`"), "{why}");
    // It is not taken again by itself.
    wait(
        &ssh,
        "keelson os status | grep -q 'last check: .* was given up on this machine'",
    )?;
    let status = json(&ssh.check("keelson os status --json")?)?;
    ensure!(
        status["policy"] == "auto" && status["floor"] == FIRST && status["next_restart"].is_null(),
        "{status}"
    );
    ensure!(status["next_check"].is_string(), "{status}");
    Ok(())
}

fn wait(ssh: &Ssh, condition: &str) -> Result<()> {
    ssh.check_within(
        &format!("until {condition}; do sleep 0.5; done"),
        BY_ITSELF_DEADLINE,
    )?;
    Ok(())
}

fn json(text: &str) -> Result<Value> {
    serde_json::from_str(text).with_context(|| format!("reading {text}"))
}
