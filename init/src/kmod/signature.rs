//! The signature at the end of a module file (kernel: Documentation/admin-guide/module-signing.rst). Pure.
//!
//! Checking one costs more than all the rest of loading a module. Ours come from a root that dm-verity has verified,
//! or from an initrd that is part of the same signed image, so the check says nothing new: modules are handed to
//! the kernel without their signatures. Where the kernel insists (Secure Boot, `module.sig_enforce`) it gets them with; where
//! nothing says so beforehand (`lockdown=integrity`) it refuses the first one, and gets the others with.

const MARKER: &[u8] = b"~Module signature appended~\n";
/// `struct module_signature` of linux/module_signature.h; its last four bytes are the length of the signature, in
/// network order.
const TRAILER_BYTES: usize = 12;

/// A module file without its signature; `None` when it has none.
pub(super) fn without(module: &[u8]) -> Option<&[u8]> {
    let (body, trailer) = module
        .strip_suffix(MARKER)?
        .split_last_chunk::<TRAILER_BYTES>()?;
    let length = trailer
        .last_chunk()
        .map(|length| u32::from_be_bytes(*length))?;
    body.get(..body.len().checked_sub(usize::try_from(length).ok()?)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn signed(body: &[u8], signature: &[u8]) -> Vec<u8> {
        let mut bytes = [body, signature, &[0, 0, 2, 0, 0, 0, 0, 0]].concat();
        bytes.extend_from_slice(&u32::try_from(signature.len()).unwrap().to_be_bytes());
        bytes.extend_from_slice(MARKER);
        bytes
    }

    #[test]
    fn what_has_no_signature_is_left_alone() {
        assert_eq!(without(b"\x7fELF"), None);
        assert_eq!(without(b""), None);
        assert_eq!(without(MARKER), None);
        let mut absurd = signed(b"body", b"sig");
        let length = absurd.len();
        absurd[length - MARKER.len() - 4] = 0xff;
        assert_eq!(without(&absurd), None);
    }

    proptest! {
        #[test]
        fn the_signature_and_nothing_else_is_cut_off(
            body in proptest::collection::vec(any::<u8>(), 0..100), signature in proptest::collection::vec(any::<u8>(), 0..600),
        ) {
            let bytes = signed(&body, &signature);
            prop_assert_eq!(without(&bytes), Some(body.as_slice()));
        }

        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = without(&[bytes.as_slice(), MARKER].concat());
        }
    }
}
