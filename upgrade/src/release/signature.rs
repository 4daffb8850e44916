//! Signatures as cosign makes and checks them with key pairs (`cosign sign --key`, `cosign verify --key`): beside the manifest
//! that is signed stands another one, under the tag `sha256-DIGEST.sig`, each layer of which is a payload ("simple signing") that names
//! the digest, with its ECDSA signature over P-256 and SHA-256 in an annotation.

use std::fs;
use std::io;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use keelson_image::Digest;
use ring::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};
use rustls_pki_types::SubjectPublicKeyInfoDer;
use rustls_pki_types::pem::PemObject as _;
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Media type of a payload.
pub const PAYLOAD_TYPE: &str = "application/vnd.dev.cosign.simplesigning.v1+json";
/// The annotation that holds the signature, base64.
pub const ANNOTATION: &str = "dev.cosignproject.cosign/signature";
const KIND: &str = "cosign container image signature";
/// A SubjectPublicKeyInfo of P-256 up to its point (RFC 5480, section 2): the whole of it is always 91 bytes long.
const P256_PREFIX: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a,
    0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];
const POINT_BYTES: usize = 65;

/// What is signed.
#[derive(Debug, Serialize, Deserialize)]
struct Payload {
    critical: Critical,
    #[serde(default)]
    optional: serde_json::Value,
}

#[derive(Debug, Serialize, Deserialize)]
struct Critical {
    identity: Identity,
    image: Image,
    #[serde(rename = "type")]
    kind: String,
}

#[derive(Debug, Serialize, Deserialize)]
struct Identity {
    #[serde(rename = "docker-reference")]
    reference: String,
}

#[derive(Debug, Serialize, Deserialize)]
struct Image {
    #[serde(rename = "docker-manifest-digest")]
    digest: Digest,
}

/// The payload for a manifest.
pub fn payload(digest: &Digest, reference: &str) -> Vec<u8> {
    let payload = Payload {
        critical: Critical {
            identity: Identity {
                reference: reference.to_owned(),
            },
            image: Image {
                digest: digest.clone(),
            },
            kind: KIND.to_owned(),
        },
        optional: serde_json::Value::Null,
    };
    serde_json::to_vec(&payload).unwrap_or_default()
}

/// The tag under which the signatures of a manifest stand.
pub fn tag(digest: &Digest) -> String {
    format!("sha256-{}.sig", digest.hex())
}

/// Why a public key cannot be used.
#[derive(Debug, Error)]
pub enum KeyError {
    /// The directory or a file cannot be read.
    #[error("read {0}: {1}")]
    Read(String, io::Error),
    /// Another kind of key, or none at all.
    #[error("{0}: not a public key of ECDSA over P-256 in PEM (SubjectPublicKeyInfo)")]
    Kind(String),
}

/// Why a signature does not count.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum Refused {
    /// No key is trusted.
    #[error("this image trusts no release key, so no release can be verified")]
    NoKeys,
    /// The annotation is not base64.
    #[error("the signature is not base64")]
    Encoding,
    /// Made with another key, or over something else.
    #[error("the signature is of none of the keys that this image trusts")]
    Key,
    /// Signed as something else.
    #[error("what is signed is no payload of cosign's: {0}")]
    Payload(String),
    /// Of another release.
    #[error("the signature is that of another release, {0}")]
    Other(Digest),
}

/// Public keys that are trusted.
#[derive(Debug, Default)]
pub struct Keys(Vec<(String, Vec<u8>)>);

impl Keys {
    /// The keys in a directory, files named `*.pem` or `*.pub`. A directory that is not there has none.
    ///
    /// # Errors
    /// [`KeyError`] names the file.
    pub fn read(directory: &Path) -> Result<Self, KeyError> {
        let shown = |path: &Path| path.display().to_string();
        let entries = match fs::read_dir(directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Keys::default()),
            other => other.map_err(|error| KeyError::Read(shown(directory), error))?,
        };
        let mut keys = Keys::default();
        for entry in entries {
            let path = entry
                .map_err(|error| KeyError::Read(shown(directory), error))?
                .path();
            let ending = path.extension().and_then(|ending| ending.to_str());
            if !matches!(ending, Some("pem" | "pub")) {
                continue;
            }
            let text = fs::read(&path).map_err(|error| KeyError::Read(shown(&path), error))?;
            let name = path.file_stem().unwrap_or_default().to_string_lossy();
            let point = point(&text).ok_or_else(|| KeyError::Kind(shown(&path)))?;
            keys.0.push((name.into_owned(), point));
        }
        keys.0.sort();
        Ok(keys)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The name of the key that has signed `payload` for the manifest `digest`; `signature` is the annotation.
    ///
    /// # Errors
    /// [`Refused`] says why it does not count.
    pub fn check(&self, digest: &Digest, payload: &[u8], signature: &str) -> Result<&str, Refused> {
        if self.is_empty() {
            return Err(Refused::NoKeys);
        }
        let signature = STANDARD.decode(signature).map_err(|_| Refused::Encoding)?;
        let signer = self.0.iter().find(|(_, point)| {
            let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, point);
            key.verify(payload, &signature).is_ok()
        });
        let (name, _) = signer.ok_or(Refused::Key)?;
        // Only now is it worth reading.
        let payload: Payload =
            serde_json::from_slice(payload).map_err(|error| Refused::Payload(error.to_string()))?;
        if payload.critical.kind != KIND {
            return Err(Refused::Payload(payload.critical.kind));
        }
        if payload.critical.image.digest != *digest {
            return Err(Refused::Other(payload.critical.image.digest));
        }
        Ok(name)
    }
}

/// The point of a public key in PEM.
fn point(pem: &[u8]) -> Option<Vec<u8>> {
    let key = SubjectPublicKeyInfoDer::from_pem_slice(pem).ok()?;
    let point = key.as_ref().strip_prefix(&P256_PREFIX)?;
    (point.len() == POINT_BYTES).then(|| point.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    /// A key pair and its directory; the private key is `key`, the trusted one lies in `trusted/`.
    fn keys(kind: &[&str]) -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        let (key, trusted) = (
            directory.path().join("key"),
            directory.path().join("trusted"),
        );
        fs::create_dir(&trusted).unwrap();
        openssl(&[&["genpkey", "-out", key.to_str().unwrap()], kind].concat());
        let public = trusted.join("release.pem");
        let arguments = ["pkey", "-pubout", "-in", key.to_str().unwrap(), "-out"];
        openssl(&[&arguments[..], &[public.to_str().unwrap()]].concat());
        directory
    }

    const P256: [&str; 4] = ["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"];

    fn openssl(arguments: &[&str]) {
        let output = Command::new("openssl").args(arguments).output().unwrap();
        assert!(output.status.success(), "{output:?}");
    }

    fn sign(directory: &Path, payload: &[u8]) -> String {
        let (file, signature) = (directory.join("payload"), directory.join("signature"));
        fs::write(&file, payload).unwrap();
        let key = directory.join("key");
        let words = [key.as_path(), &signature, &file].map(|path| path.to_str().unwrap());
        openssl(&[
            "dgst", "-sha256", "-sign", words[0], "-out", words[1], words[2],
        ]);
        STANDARD.encode(fs::read(signature).unwrap())
    }

    #[test]
    fn a_signature_by_a_trusted_key_counts_for_its_own_release_alone() {
        let directory = keys(&P256);
        let trusted = Keys::read(&directory.path().join("trusted")).unwrap();
        let (digest, other) = (Digest::of(b"one"), Digest::of(b"two"));
        let payload = payload(&digest, "keelson");
        let signature = sign(directory.path(), &payload);
        assert_eq!(trusted.check(&digest, &payload, &signature), Ok("release"));
        assert_eq!(
            trusted.check(&other, &payload, &signature),
            Err(Refused::Other(digest.clone()))
        );
        let mut changed = payload.clone();
        changed[10] ^= 1;
        assert_eq!(
            trusted.check(&digest, &changed, &signature),
            Err(Refused::Key)
        );
        assert_eq!(
            trusted.check(&digest, &payload, "no base64!"),
            Err(Refused::Encoding)
        );
        assert_eq!(
            Keys::default().check(&digest, &payload, &signature),
            Err(Refused::NoKeys)
        );
        let stranger = keys(&P256);
        let forged = sign(stranger.path(), &payload);
        assert_eq!(trusted.check(&digest, &payload, &forged), Err(Refused::Key));
        let nonsense = sign(directory.path(), b"{\"some\": \"other document\"}");
        assert!(matches!(
            trusted.check(&digest, b"{\"some\": \"other document\"}", &nonsense),
            Err(Refused::Payload(_))
        ));
    }

    #[test]
    fn the_payload_has_cosigns_form() {
        let digest = Digest::of(b"x");
        let text = String::from_utf8(payload(&digest, "example.org/os")).unwrap();
        assert_eq!(
            text,
            format!(
                "{{\"critical\":{{\"identity\":{{\"docker-reference\":\"example.org/os\"}},\"image\":{{\"docker-manifest-digest\":\"{digest}\"}},\"type\":\"cosign container image signature\"}},\"optional\":null}}"
            )
        );
    }

    #[test]
    fn keys_of_other_kinds_are_named() {
        let directory = keys(&["-algorithm", "RSA"]);
        let error = Keys::read(&directory.path().join("trusted")).unwrap_err();
        assert!(
            error
                .to_string()
                .contains("release.pem: not a public key of ECDSA"),
            "{error}"
        );
        assert!(
            Keys::read(&directory.path().join("nothing"))
                .unwrap()
                .is_empty()
        );
    }
}
