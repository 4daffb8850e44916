//! UEFI Secure Boot: a signed image enrols its keys, and nothing but what was signed is started after that.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::harness::docker;
use crate::harness::esp::{self, Esp};
use crate::harness::lab::{BOOT_DEADLINE, Lab, SETTLE_DEADLINE};
use crate::harness::machine::{Boot, Machine, Network};
use crate::harness::status::Status;
use crate::harness::{disk, process};

const TOOL_DEADLINE: Duration = Duration::from_secs(120);
/// What the firmware says of a program that it refuses, and of one that has come back because it could not start another.
const NOT_LOADED: &str = "BdsDxe: failed to load";
const NOT_STARTED: &str = "BdsDxe: failed to start";
/// What systemd-boot says before it comes back.
const REFUSED_BY_LOADER: &str = "Error loading";
/// `SecureBoot` of the firmware's variables: four bytes of attributes, then 1.
const SECURE_BOOT_ON: &str = "06 00 00 00 01";

pub(super) fn a_signed_image_enrols_its_keys_and_runs_docker_under_secure_boot(
    lab: &mut Lab,
) -> Result<()> {
    let machine = secure_machine(lab)?;
    let machine = with_seed(lab, machine)?;
    let (_vm, ssh) = lab.boot(&machine)?;
    Status::wait_settled(&ssh, SETTLE_DEADLINE)?;
    let log = ssh.check("sudo dmesg")?;
    for line in [
        "secureboot: Secure boot enabled",
        "Kernel is locked down from EFI Secure Boot",
    ] {
        ensure!(log.contains(line), "the kernel's log lacks {line:?}");
    }
    ensure!(
        !log.contains("unsigned module"),
        "modules were offered without their signatures"
    );
    // What the console does not see, a container of the system engine is given.
    let host = "system-docker run --rm --network none -v /sys:/host:ro keelson/console";
    let lockdown = ssh.check(&format!("{host} cat /host/kernel/security/lockdown"))?;
    ensure!(lockdown.contains("[integrity]"), "lockdown is {lockdown}");
    let variable = "/host/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c";
    let bytes = ssh.check(&format!("{host} od -An -tx1 {variable}"))?;
    ensure!(
        bytes.trim() == SECURE_BOOT_ON,
        "the firmware's SecureBoot is {bytes}"
    );
    docker::import(&ssh)?;
    let said = docker::run(&ssh, &format!("{} echo afloat", docker::IMAGE))?;
    ensure!(said == "afloat", "a container says {said:?}");
    Ok(())
}

pub(super) fn nothing_but_what_was_signed_is_started_under_secure_boot(
    lab: &mut Lab,
) -> Result<()> {
    let (raw, esp) = copy(lab)?;
    let path = esp.kernel_image()?;
    let (image, loader) = (esp.read(&path)?, esp.read(esp::LOADER)?);
    let spoilt = [
        (
            "one bit of the kernel changed",
            flipped(&image, b"HdrS", 1 << 20)?,
        ),
        (
            "one bit of the command line changed",
            flipped(&image, b"keelson.roothash=", 20)?,
        ),
        ("not signed", unsigned(lab, &image)?),
        ("signed by others", signed_by_others(lab, &image)?),
    ];
    for (what, spoilt) in spoilt {
        esp.write(&path, &spoilt)?;
        let context = format!("a kernel image, {what}");
        refused(lab, &raw, &[REFUSED_BY_LOADER, NOT_STARTED]).context(context)?;
    }
    esp.write(&path, &image)?;
    esp.write(esp::LOADER, &flipped(&loader, b"#### LoaderInfo", 20)?)?;
    refused(lab, &raw, &[NOT_LOADED]).context("a boot loader, one bit changed")
}

pub(super) fn one_flipped_bit_in_the_os_slot_is_refused_under_secure_boot_too(
    lab: &mut Lab,
) -> Result<()> {
    let (raw, _) = copy(lab)?;
    let slot = disk::partition(&raw, "keelson-a")?;
    disk::flip_bit(&raw, slot.start_bytes + 1024 + 64)?;
    let machine = secure_machine_of(lab, &raw)?;
    let vm = lab.boot_to(&machine, "dm-verity refuses")?;
    vm.serial
        .wait_for_all(&["keelson-init: OS slot"], Duration::ZERO)?;
    ensure!(
        !vm.serial.text().contains("login:"),
        "it booted from a slot that had been changed"
    );
    Ok(())
}

pub(super) fn arguments_that_nobody_signed_do_not_choose_another_root(lab: &mut Lab) -> Result<()> {
    let (raw, esp) = copy(lab)?;
    // Who can write to the EFI system partition has a boot entry with arguments, and allows that they are edited.
    let entry = format!(
        "title hostile\nefi /{}\noptions keelson.hostname=hostile keelson.slot=/dev/vdb\n",
        esp.kernel_image()?
    );
    esp.make_directory("loader/entries")?;
    esp.write("loader/entries/hostile.conf", entry.as_bytes())?;
    esp.write(
        "loader/loader.conf",
        b"timeout 0\neditor yes\ndefault hostile.conf\n",
    )?;
    // Who sets the machine's SMBIOS strings has the stub append some, even so.
    let other = "0".repeat(64);
    let mut machine = secure_machine_of(lab, &raw)?;
    smbios(
        &mut machine,
        &format!("keelson.roothash={other} keelson.hostname=smbios"),
    );
    let vm = lab.boot_to(&machine, "login:")?;
    let text = vm.serial.text();
    ensure!(
        text.contains(&format!(
            "the first keelson.roothash counts, not keelson.roothash={other}"
        )),
        "nothing is said about the second root hash"
    );
    ensure!(
        text.contains("smbios login:") && !text.contains("hostile"),
        "the entry's arguments reached the kernel"
    );
    Ok(())
}

pub(super) fn tools_of_others_find_nothing_wrong_with_a_signed_image(lab: &mut Lab) -> Result<()> {
    let signed = lab.signed()?;
    let (raw, esp) = copy(lab)?;
    let certificate = lab.signing_keys().join("db.crt");
    for path in [
        esp.kernel_image()?.as_str(),
        esp::LOADER,
        "EFI/systemd/systemd-bootx64.efi",
    ] {
        let file = lab.dir().join("program.efi");
        fs::write(&file, esp.read(path)?).context("writing a program of the ESP")?;
        tool("sbverify", &["--cert"], &[&certificate, &file]).with_context(|| path.to_owned())?;
    }
    let partitions = tool("sgdisk", &["-v"], &[&raw])?;
    ensure!(
        partitions.contains("No problems found"),
        "sgdisk says: {partitions}"
    );
    let part = lab.dir().join("part.raw");
    disk::extract_whole(&raw, disk::partition(&raw, "esp")?, &part)?;
    tool("fsck.vfat", &["-n"], &[&part])?;
    let command_line = signed.cmdline()?;
    let (hash, offset) = (
        word(&command_line, "keelson.roothash=")?,
        word(&command_line, "keelson.hashoffset=")?,
    );
    disk::extract_whole(&raw, disk::partition(&raw, "keelson-a")?, &part)?;
    let mut verify = Command::new("veritysetup");
    verify.arg("verify").arg(&part).arg(&part).arg(hash);
    process::check(verify.arg(format!("--hash-offset={offset}")), TOOL_DEADLINE)?;
    says_what_it_is_signed_with(lab, &certificate)?;
    holds_no_private_key(lab, &raw)
}

/// The manifest names the certificate.
fn says_what_it_is_signed_with(lab: &Lab, certificate: &Path) -> Result<()> {
    let text = fs::read(lab.signed()?.manifest()).context("reading the manifest")?;
    let manifest: Value = serde_json::from_slice(&text).context("reading the manifest")?;
    let fingerprint = tool(
        "openssl",
        &["x509", "-noout", "-fingerprint", "-sha256", "-in"],
        &[certificate],
    )?;
    let (_, fingerprint) = fingerprint.split_once('=').context("no fingerprint")?;
    let fingerprint = fingerprint.trim().replace(':', "").to_lowercase();
    ensure!(
        manifest["signed"]["certificate_sha256"] == fingerprint.as_str(),
        "the manifest says {}, the certificate is {fingerprint}",
        manifest["signed"]
    );
    Ok(())
}

/// Neither the disk nor what the builder keeps holds a line of a private key.
fn holds_no_private_key(lab: &Lab, raw: &Path) -> Result<()> {
    for name in ["PK", "KEK", "db", "release"] {
        let path = lab.signing_keys().join(format!("{name}.key"));
        let key =
            fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
        let line = key.lines().nth(1).context("a key without lines")?;
        let mut grep = Command::new("grep");
        grep.args(["-rlaF", line]).arg(raw).arg("out/cache");
        let found = process::run(&mut grep, &[], TOOL_DEADLINE)?;
        ensure!(
            found.status.code() == Some(1),
            "{name}.key is in: {}",
            found.text()
        );
    }
    Ok(())
}

/// A raw copy of the signed image's disk, and its EFI system partition.
fn copy(lab: &Lab) -> Result<(PathBuf, Esp)> {
    let raw = disk::copy(&lab.signed()?.disk(), &lab.dir().join("signed.raw"))?;
    let esp = Esp::of(&raw)?;
    Ok((raw, esp))
}

/// A machine whose firmware knows the keys, with a new disk of the signed image.
fn secure_machine(lab: &mut Lab) -> Result<Machine> {
    let image = lab.signed()?.disk();
    secure_machine_of(lab, &image)
}

/// The same with a new disk over `raw`, without network and seed.
fn secure_machine_of(lab: &mut Lab, raw: &Path) -> Result<Machine> {
    let variables = lab.dir().join("variables");
    fs::copy(lab.enrolled()?, &variables).context("copying the firmware's variables")?;
    let overlay = lab.dir().join("disk.qcow2");
    let mut machine = Machine::new(Boot::SecureUefi { variables })
        .with_disk(&disk::overlay(raw, "raw", &overlay)?);
    machine.network = Network::None;
    smbios(&mut machine, "");
    Ok(machine)
}

/// Has the machine's SMBIOS ask systemd-boot for arguments, which it may not get, and the stub for `words`.
///
/// The stub is always asked not to have the kernel try its timer: a busy host serves an emulated one so late that the kernel thinks there is none.
fn smbios(machine: &mut Machine, words: &str) {
    machine.extra = vec![
        "-smbios".into(),
        format!(
            "type=11,value=io.systemd.stub.kernel-cmdline-extra=no_timer_check {words},\
             value=io.systemd.boot.kernel-cmdline-extra=keelson.hostname=hostile"
        )
        .into(),
    ];
}

fn with_seed(lab: &Lab, mut machine: Machine) -> Result<Machine> {
    machine.network = Network::User {
        forwards: vec![22],
        page: None,
    };
    Ok(machine.with_raw(&lab.seed()?))
}

/// Boots `raw` and waits for the firmware's verdict, access denied; `words` must have been said by then.
fn refused(lab: &mut Lab, raw: &Path, words: &[&str]) -> Result<()> {
    let mut machine = secure_machine_of(lab, raw)?;
    // The firmware has each processor enter system management mode whenever one does.
    machine.cpus = 1;
    let vm = lab.start(&machine)?;
    let ends = [": Access Denied", "login:", "keelson-init"];
    let first = vm.serial.wait_for_any(&ends, BOOT_DEADLINE)?;
    ensure!(first == 0, "it was started:\n{}", vm.serial.tail());
    vm.serial.wait_for_all(words, Duration::ZERO)
}

/// `program` with one bit changed, so many bytes behind the first `mark`.
fn flipped(program: &[u8], mark: &[u8], behind: usize) -> Result<Vec<u8>> {
    let at = program
        .windows(mark.len())
        .position(|window| window == mark)
        .with_context(|| format!("no {:?} in a program", String::from_utf8_lossy(mark)))?;
    let mut program = program.to_vec();
    *program
        .get_mut(at + behind)
        .context("a program ends early")? ^= 1;
    Ok(program)
}

fn unsigned(lab: &Lab, program: &[u8]) -> Result<Vec<u8>> {
    let file = lab.dir().join("unsigned.efi");
    fs::write(&file, program).context("writing a program")?;
    tool("sbattach", &["--remove"], &[&file])?;
    fs::read(&file).context("reading a program")
}

fn signed_by_others(lab: &Lab, program: &[u8]) -> Result<Vec<u8>> {
    let path = |name: &str| -> PathBuf { lab.dir().join(name) };
    fs::write(path("plain.efi"), unsigned(lab, program)?).context("writing a program")?;
    let mut openssl = Command::new("openssl");
    openssl.args([
        "req", "-new", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj",
    ]);
    openssl.arg("/CN=Keelson Secure Boot db/");
    openssl.arg("-keyout").arg(path("other.key"));
    process::check(openssl.arg("-out").arg(path("other.crt")), TOOL_DEADLINE)?;
    let mut sbsign = Command::new("sbsign");
    sbsign.arg("--key").arg(path("other.key"));
    sbsign.arg("--cert").arg(path("other.crt"));
    sbsign.arg("--output").arg(path("other.efi"));
    process::check(sbsign.arg(path("plain.efi")), TOOL_DEADLINE)?;
    fs::read(path("other.efi")).context("reading a program")
}

fn tool(name: &str, options: &[&str], files: &[&Path]) -> Result<String> {
    process::check(Command::new(name).args(options).args(files), TOOL_DEADLINE)
}

fn word<'line>(command_line: &'line str, key: &str) -> Result<&'line str> {
    command_line
        .split_whitespace()
        .find_map(|word| word.strip_prefix(key))
        .with_context(|| format!("the command line has no {key}"))
}
