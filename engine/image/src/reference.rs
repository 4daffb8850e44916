//! Names of images: `busybox`, `example.org:5000/team/app:1.2`, `app@sha256:...` (OCI distribution specification,
//! "Definitions"; Docker's rules for what may be left out).

use crate::Digest;
use std::fmt;
use std::str::FromStr;

/// The registry of names that name none.
pub const DEFAULT_REGISTRY: &str = "docker.io";
const DEFAULT_NAMESPACE: &str = "library/";
const DEFAULT_TAG: &str = "latest";
/// The longest name, registry included.
const NAME_MAX: usize = 255;
const TAG_MAX: usize = 128;

/// A name with nothing left out.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reference {
    /// Host and port.
    pub registry: String,
    /// Path in the registry.
    pub repository: String,
    /// The tag; `latest` when neither tag nor digest was given.
    pub tag: Option<String>,
    /// The digest.
    pub digest: Option<Digest>,
}

impl Reference {
    /// Registry and repository.
    pub fn name(&self) -> String {
        format!("{}/{}", self.registry, self.repository)
    }

    /// As people write it: without the default registry and namespace.
    pub fn familiar(&self) -> String {
        let mut text = self.familiar_name();
        if let Some(tag) = &self.tag {
            text.push_str(&format!(":{tag}"));
        }
        if let Some(digest) = &self.digest {
            text.push_str(&format!("@{digest}"));
        }
        text
    }

    /// Registry and repository as people write them.
    pub fn familiar_name(&self) -> String {
        if self.registry != DEFAULT_REGISTRY {
            return self.name();
        }
        let short = self.repository.strip_prefix(DEFAULT_NAMESPACE);
        short.unwrap_or(&self.repository).to_owned()
    }

    /// What a registry knows it by: the digest if there is one, else the tag.
    pub fn target(&self) -> &str {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => digest.as_str(),
            (None, Some(tag)) => tag,
            (None, None) => DEFAULT_TAG,
        }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", self.name())?;
        if let Some(tag) = &self.tag {
            write!(formatter, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(formatter, "@{digest}")?;
        }
        Ok(())
    }
}

impl FromStr for Reference {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("invalid reference format: `{text}`");
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest.parse().map_err(|_| wrong())?)),
            None => (text, None),
        };
        // A colon after the last slash is a tag's, one before it a port's.
        let last = rest.rfind('/').map_or(0, |at| at + 1);
        let (name, tag) = match rest[last..].split_once(':') {
            Some((_, tag)) => (&rest[..rest.len() - tag.len() - 1], Some(tag.to_owned())),
            None => (rest, None),
        };
        if tag.as_deref().is_some_and(|tag| !is_tag(tag)) {
            return Err(wrong());
        }
        let (registry, path) = match name.split_once('/') {
            Some((first, path)) if is_registry(first) => (first, path.to_owned()),
            _ if name.contains('/') => (DEFAULT_REGISTRY, name.to_owned()),
            _ => (DEFAULT_REGISTRY, format!("{DEFAULT_NAMESPACE}{name}")),
        };
        let registry = match registry {
            "index.docker.io" => DEFAULT_REGISTRY,
            other => other,
        };
        let path = match (registry, path.contains('/')) {
            (DEFAULT_REGISTRY, false) => format!("{DEFAULT_NAMESPACE}{path}"),
            _ => path,
        };
        if name.len() > NAME_MAX || !path.split('/').all(is_component) {
            return Err(match path.chars().any(char::is_uppercase) {
                true => format!("{}: repository name must be lowercase", wrong()),
                false => wrong(),
            });
        }
        let tag = tag.or_else(|| digest.is_none().then(|| DEFAULT_TAG.to_owned()));
        Ok(Self {
            registry: registry.to_owned(),
            repository: path,
            tag,
            digest,
        })
    }
}

/// Whether the first part of a name is a host rather than a part of the path: Docker's rule.
fn is_registry(part: &str) -> bool {
    let named =
        part == "localhost" || part.contains(['.', ':']) || part.chars().any(char::is_uppercase);
    let (host, port) = part.split_once(':').unwrap_or((part, "0"));
    let label = |label: &str| {
        let letters = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        !label.is_empty()
            && label.bytes().all(letters)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    named && host.split('.').all(label) && port.parse::<u16>().is_ok()
}

/// Lower-case letters and digits, with `.`, `_`, `__` or any number of `-` between them.
fn is_component(part: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let (Some(first), Some(last)) = (part.bytes().next(), part.bytes().last()) else {
        return false;
    };
    let separators = part.split(|letter: char| letter.is_ascii() && is_plain(letter as u8));
    is_plain(first)
        && is_plain(last)
        && separators
            .filter(|text| !text.is_empty())
            .all(|text| matches!(text, "." | "_" | "__") || text.bytes().all(|byte| byte == b'-'))
}

/// Word letters, `.` and `-`, beginning with a word letter.
fn is_tag(tag: &str) -> bool {
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    tag.len() <= TAG_MAX
        && tag.bytes().next().is_some_and(is_word)
        && tag
            .bytes()
            .all(|byte| is_word(byte) || byte == b'.' || byte == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HEX: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn names_are_completed_and_shortened_as_docker_does() {
        let digest = format!("@sha256:{HEX}");
        for (given, full, familiar) in [
            (
                "busybox",
                "docker.io/library/busybox:latest",
                "busybox:latest",
            ),
            (
                "busybox:1.36",
                "docker.io/library/busybox:1.36",
                "busybox:1.36",
            ),
            ("team/app", "docker.io/team/app:latest", "team/app:latest"),
            (
                "docker.io/busybox",
                "docker.io/library/busybox:latest",
                "busybox:latest",
            ),
            ("index.docker.io/a/b", "docker.io/a/b:latest", "a/b:latest"),
            (
                "localhost/app",
                "localhost/app:latest",
                "localhost/app:latest",
            ),
            (
                "localhost:5000/a__b/c-d:x",
                "localhost:5000/a__b/c-d:x",
                "localhost:5000/a__b/c-d:x",
            ),
            (
                "10.0.2.2:5000/app",
                "10.0.2.2:5000/app:latest",
                "10.0.2.2:5000/app:latest",
            ),
        ] {
            let reference: Reference = given.parse().unwrap();
            assert_eq!(
                (
                    reference.to_string().as_str(),
                    reference.familiar().as_str()
                ),
                (full, familiar)
            );
        }
        let reference: Reference = format!("app{digest}").parse().unwrap();
        assert_eq!(
            (reference.tag.as_ref(), reference.familiar()),
            (None, format!("app{digest}"))
        );
        let both: Reference = format!("app:1{digest}").parse().unwrap();
        assert_eq!(both.target(), &digest[1..]);
    }

    #[test]
    fn what_is_no_name_is_refused() {
        for wrong in [
            "",
            "/",
            "a/",
            "/a",
            "a//b",
            "a:",
            ":a",
            "a:b:c",
            "App",
            "team/App",
            "a..b",
            "a___b",
            "-a",
            "a-",
            "a@sha256:12",
            "a b",
            "a:/b",
            "a:-b",
            "localhost:99999/a",
            "../a",
        ] {
            assert!(wrong.parse::<Reference>().is_err(), "{wrong}");
        }
        let error = "Busybox".parse::<Reference>().unwrap_err();
        assert!(error.contains("must be lowercase"), "{error}");
    }

    proptest! {
        #[test]
        fn a_complete_name_reads_as_itself(
            name in "[a-z0-9]{1,8}(\\.[a-z]{2,3})(:[1-9][0-9]{0,3})?/[a-z0-9]{1,6}([._-][a-z0-9]{1,6}){0,2}(/[a-z0-9]{1,6})?",
            tag in "[A-Za-z0-9_][A-Za-z0-9_.-]{0,10}",
        ) {
            let text = format!("{name}:{tag}");
            let reference: Reference = text.parse().unwrap();
            prop_assert_eq!(reference.to_string(), text.clone());
            let familiar: Reference = reference.familiar().parse().unwrap();
            prop_assert_eq!(familiar, reference);
        }

        #[test]
        fn no_text_makes_it_panic(text in "\\PC{0,40}") {
            let _ = text.parse::<Reference>();
        }
    }
}
