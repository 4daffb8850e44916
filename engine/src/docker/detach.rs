//! The keys that leave a terminal without ending what runs in it: `ctrl-p,ctrl-q` unless told otherwise.

/// `ctrl-p`, `ctrl-q`.
const DEFAULT: [u8; 2] = [16, 17];

/// Looks for the keys in what is typed.
#[derive(Clone, Debug, Default)]
pub(super) struct Detach {
    keys: Vec<u8>,
    /// So many of the keys have been typed and are held back.
    typed: usize,
}

impl Detach {
    /// From the parameter `detachKeys`: letters and `ctrl-X`, divided by commas; empty is the default.
    ///
    /// # Errors
    /// Names the key that is none.
    pub(super) fn parse(text: Option<&str>) -> Result<Self, String> {
        let keys = match text.filter(|text| !text.is_empty()) {
            None => DEFAULT.to_vec(),
            Some(text) => text.split(',').map(key).collect::<Result<_, _>>()?,
        };
        Ok(Self { keys, typed: 0 })
    }

    /// No keys: everything is the container's.
    pub(super) fn never() -> Self {
        Self::default()
    }

    /// What of the typed is the container's, and whether the keys are complete.
    pub(super) fn scan(&mut self, typed: &[u8]) -> (Vec<u8>, bool) {
        if self.keys.is_empty() {
            return (typed.to_vec(), false);
        }
        let mut passed = Vec::with_capacity(typed.len());
        for byte in typed {
            if self.keys.get(self.typed) == Some(byte) {
                self.typed += 1;
                if self.typed == self.keys.len() {
                    return (passed, true);
                }
                continue;
            }
            passed.extend_from_slice(&self.keys[..self.typed]);
            self.typed = usize::from(self.keys.first() == Some(byte));
            if self.typed == 0 {
                passed.push(*byte);
            }
        }
        (passed, false)
    }
}

fn key(name: &str) -> Result<u8, String> {
    let wrong = || format!("Unknown character: '{name}'");
    if let [letter] = name.as_bytes() {
        return Ok(*letter);
    }
    match name.strip_prefix("ctrl-").map(str::as_bytes) {
        Some([letter @ b'a'..=b'z']) => Ok(letter - b'a' + 1),
        Some(b"@") => Ok(0),
        Some(b"[") => Ok(27),
        Some(b"\\") => Ok(28),
        Some(b"]") => Ok(29),
        Some(b"^") => Ok(30),
        Some(b"_") => Ok(31),
        _ => Err(wrong()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_keys_are_found_across_reads_and_what_is_no_key_passes() {
        let mut detach = Detach::parse(None).unwrap();
        assert_eq!(detach.scan(b"a\x10"), (b"a".to_vec(), false));
        assert_eq!(detach.scan(b"b\x10\x10"), (b"\x10b\x10".to_vec(), false));
        assert_eq!(detach.scan(b"\x11c"), (vec![], true));
        let mut own = Detach::parse(Some("ctrl-@,x")).unwrap();
        assert_eq!(own.scan(b"x\0x"), (b"x".to_vec(), true));
        assert_eq!(
            Detach::never().scan(b"\x10\x11"),
            (b"\x10\x11".to_vec(), false)
        );
        assert!(Detach::parse(Some("ctrl-1")).is_err());
    }
}
