//! What openssl is asked about keys and certificates. No passphrase is ever asked for.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::command;

/// The public half of a certificate's key: SubjectPublicKeyInfo, PEM.
///
/// # Errors
/// When the file holds no certificate.
pub(super) fn public_of_certificate(certificate: &Path) -> Result<String> {
    let mut openssl = Command::new("openssl");
    openssl.args(["x509", "-noout", "-pubkey", "-in"]);
    command::run(openssl.arg(certificate))
        .with_context(|| format!("reading the certificate {}", certificate.display()))
}

/// The public half of a private key: SubjectPublicKeyInfo, PEM.
///
/// # Errors
/// When the file holds no private key, or one with a passphrase.
pub(super) fn public_of_key(key: &Path) -> Result<String> {
    let mut openssl = Command::new("openssl");
    openssl.args(["pkey", "-passin", "pass:", "-pubout", "-in"]);
    command::run(openssl.arg(key)).with_context(|| {
        format!(
            "reading the private key {} (one with a passphrase cannot be used)",
            key.display()
        )
    })
}

/// A public key as openssl writes it, and nothing else that may stand in the file: SubjectPublicKeyInfo, PEM.
///
/// # Errors
/// When the file holds no public key.
pub(super) fn public_of_public(public: &Path) -> Result<String> {
    command::run(public_key(public).arg("-pubout"))
        .with_context(|| format!("reading the public key {}", public.display()))
}

/// The same in DER form.
///
/// # Errors
/// As [`public_of_public`].
pub(super) fn der_of_public(public: &Path) -> Result<Vec<u8>> {
    bytes(public_key(public).args(["-pubout", "-outform", "DER"]))
        .with_context(|| format!("reading the public key {}", public.display()))
}

/// Makes sure that a public key is what releases are signed with.
///
/// # Errors
/// When it is not one of ECDSA with P-256.
pub(super) fn check_release(public: &Path) -> Result<()> {
    let text = command::run(public_key(public).args(["-noout", "-text_pub"]))?;
    ensure!(
        text.contains("NIST CURVE: P-256"),
        "{} is not a key of ECDSA with P-256, which is what releases are signed with",
        public.display()
    );
    Ok(())
}

/// A certificate in DER form.
///
/// # Errors
/// When the file holds none.
pub(super) fn der_of_certificate(certificate: &Path) -> Result<Vec<u8>> {
    let mut openssl = Command::new("openssl");
    openssl.args(["x509", "-outform", "DER", "-in"]);
    bytes(openssl.arg(certificate))
        .with_context(|| format!("reading the certificate {}", certificate.display()))
}

fn public_key(public: &Path) -> Command {
    let mut openssl = Command::new("openssl");
    openssl.args(["pkey", "-pubin", "-in"]).arg(public);
    openssl
}

fn bytes(openssl: &mut Command) -> Result<Vec<u8>> {
    command::run_into(openssl, |stream| {
        let mut bytes = Vec::new();
        stream
            .read_to_end(&mut bytes)
            .context("reading what openssl writes")?;
        Ok(bytes)
    })
}
