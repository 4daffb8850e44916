//! Hashes of passwords for `/etc/shadow`.

use std::fs::File;
use std::io::{self, Read};

use sha_crypt::{Sha512Params, sha512_simple};

/// SHA-512-crypt rounds: four times the format's default, still quick to check on a small machine.
const ROUNDS: usize = 20_000;
const RANDOM_LENGTH: usize = 20;
/// Without characters that look alike.
const ALPHABET: &[u8; 32] = b"abcdefghjkmnpqrstuvwxyz23456789-";

/// The hash of `password` with a fresh random salt, as crypt(5) writes SHA-512.
///
/// # Errors
/// A sentence without the password.
pub(crate) fn hash(password: &str) -> Result<String, String> {
    let parameters = Sha512Params::new(ROUNDS)
        .map_err(|_| "hash a password: wrong number of rounds".to_owned())?;
    sha512_simple(password, &parameters)
        .map_err(|_| "hash a password: no random salt to be had".to_owned())
}

/// A new password that nobody chose.
///
/// # Errors
/// The kernel gives no random bytes.
pub(crate) fn random() -> io::Result<String> {
    let mut bytes = [0_u8; RANDOM_LENGTH];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes
        .iter()
        .filter_map(|byte| ALPHABET.get(usize::from(byte % 32)))
        .map(|byte| char::from(*byte))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_is_salted_and_checks_out() {
        let (one, two) = (hash("secret").unwrap(), hash("secret").unwrap());
        assert!(one.starts_with("$6$rounds=20000$"), "{one}");
        assert_ne!(one, two);
        assert!(sha_crypt::sha512_check("secret", &one).is_ok());
        assert!(sha_crypt::sha512_check("Secret", &one).is_err());
        assert!(!one.contains([':', '\n']));
    }

    #[test]
    fn random_passwords_differ() {
        let (one, two) = (random().unwrap(), random().unwrap());
        assert_eq!(one.len(), RANDOM_LENGTH);
        assert_ne!(one, two);
    }
}
