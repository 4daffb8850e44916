//! `ssh_import_id`: public keys of a person that a service on the network tells, as ssh-import-id(1) has them.

use super::authorized_keys::is_public_key;
use crate::diagnostic::{Diagnostics, Position};
use crate::yaml::{self, Node};

/// The largest answer that is one: a person has a few keys.
const MAX_ANSWER_BYTES: usize = 64 * 1024;
const MAX_NAME_BYTES: usize = 64;

/// A person at a service that tells public keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyImport {
    /// Where it stands, for messages about it.
    pub position: Position,
    /// The service.
    pub service: KeyService,
    /// The person's name there.
    pub person: String,
}

/// A service that tells the public keys of those who have an account there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyService {
    /// `gh:`
    GitHub,
    /// `lp:`, and what has no service before it.
    Launchpad,
}

impl KeyImport {
    /// Reads `gh:NAME`, `lp:NAME` or `NAME`, which is Launchpad's. An error is a sentence for a person.
    ///
    /// # Errors
    /// Another service, or no name of anybody.
    pub fn parse(text: &str, position: Position) -> Result<Self, String> {
        let (service, person) = match text.split_once(':') {
            Some(("gh", person)) => (KeyService::GitHub, person),
            Some(("lp", person)) => (KeyService::Launchpad, person),
            None => (KeyService::Launchpad, text),
            Some(_) => {
                return Err(format!(
                    "`{text}` is of a service that is not asked (`gh:NAME` of GitHub and `lp:NAME` of Launchpad are)"
                ));
            }
        };
        let letter = |letter: char| letter.is_ascii_alphanumeric() || "-_.+".contains(letter);
        let is_name = person.starts_with(|first: char| first.is_ascii_alphanumeric())
            && person.len() <= MAX_NAME_BYTES
            && person.chars().all(letter);
        if !is_name {
            return Err(format!("`{text}` names nobody, as gh:NAME"));
        }
        Ok(KeyImport {
            position,
            service,
            person: person.to_owned(),
        })
    }

    /// `gh:NAME` or `lp:NAME`: the same person has the same.
    pub fn id(&self) -> String {
        let service = match self.service {
            KeyService::GitHub => "gh",
            KeyService::Launchpad => "lp",
        };
        format!("{service}:{}", self.person)
    }

    /// Where the service tells the keys, one a line. GitHub's own address for it, unlike its API, answers any number of machines.
    pub fn url(&self) -> String {
        let person = &self.person;
        match self.service {
            KeyService::GitHub => format!("https://github.com/{person}.keys"),
            KeyService::Launchpad => {
                let person = person.replace('+', "%2B");
                format!("https://launchpad.net/~{person}/+sshkeys")
            }
        }
    }

    /// The keys in an answer, as lines of an `authorized_keys` file that say whose they are. There may be none.
    ///
    /// # Errors
    /// A sentence for a person: it is no list of keys. Options before a key are none of the service's business.
    pub fn keys(&self, answer: &[u8]) -> Result<Vec<String>, String> {
        let none = |why: &str| format!("{} answers with no list of keys: {why}", self.url());
        if answer.len() > MAX_ANSWER_BYTES {
            return Err(none(&format!("it has more than {MAX_ANSWER_BYTES} bytes")));
        }
        let text = std::str::from_utf8(answer).map_err(|_| none("it is no text"))?;
        let mut keys = Vec::new();
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
            if line.contains(char::is_control) || !is_public_key(line) {
                return Err(none("one of its lines is no key"));
            }
            let key = format!("{line} # ssh-import-id {}", self.id());
            if !keys.contains(&key) {
                keys.push(key);
            }
        }
        Ok(keys)
    }
}

/// `ssh_import_id`: a list, or text with commas. A wrong one is an error of its own, and left out.
pub(super) fn parse(what: &str, node: &Node, diagnostics: &mut Diagnostics) -> Vec<KeyImport> {
    let mut imports: Vec<KeyImport> = Vec::new();
    for item in yaml::list_or_single(node) {
        let Some(text) = yaml::string(what, item, diagnostics) else {
            continue;
        };
        for id in text
            .split([',', ' '])
            .map(str::trim)
            .filter(|id| !id.is_empty())
        {
            match KeyImport::parse(id, item.position) {
                Ok(import) if imports.iter().any(|known| known.id() == import.id()) => {}
                Ok(import) => imports.push(import),
                Err(why) => {
                    diagnostics.error(item.position, format!("{what}: {why}; it is left out"));
                }
            }
        }
    }
    imports
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(text: &str) -> (Vec<String>, Vec<String>) {
        let mut diagnostics = Diagnostics::new("user-data");
        let imports = parse(
            "ssh_import_id",
            &yaml::parse(text).unwrap().root,
            &mut diagnostics,
        );
        let messages = diagnostics.into_sorted();
        (
            imports.iter().map(KeyImport::id).collect(),
            messages.iter().map(ToString::to_string).collect(),
        )
    }

    #[test]
    fn people_are_those_of_a_list_or_of_a_text() {
        let ids = || ["gh:a", "lp:b", "lp:c"].map(str::to_owned).to_vec();
        assert_eq!(read("[gh:a, lp:b, c, gh:a]"), (ids(), Vec::new()));
        assert_eq!(read("'gh:a,lp:b c'"), (ids(), Vec::new()));
        assert_eq!(read("~"), (Vec::new(), Vec::new()));
    }

    #[test]
    fn who_is_nobody_is_said_with_line_and_column() {
        let (ids, messages) = read("- gh:a\n- gl:b\n- gh:../x\n- 'gh:'\n- {a: b}\n");
        assert_eq!(ids, ["gh:a"]);
        assert_eq!(
            messages,
            [
                "user-data:2:3: ssh_import_id: `gl:b` is of a service that is not asked (`gh:NAME` of GitHub and `lp:NAME` of Launchpad are); it is left out",
                "user-data:3:3: ssh_import_id: `gh:../x` names nobody, as gh:NAME; it is left out",
                "user-data:4:3: ssh_import_id: `gh:` names nobody, as gh:NAME; it is left out",
                "user-data:5:3: ssh_import_id: expected text, found a mapping; it is not applied",
            ]
        );
    }

    #[test]
    fn each_service_has_its_address() {
        let url = |id: &str| KeyImport::parse(id, Position::default()).unwrap().url();
        assert_eq!(url("gh:octo-cat"), "https://github.com/octo-cat.keys");
        assert_eq!(url("lp:a+b"), "https://launchpad.net/~a%2Bb/+sshkeys");
    }

    #[test]
    fn an_answer_is_taken_as_a_whole_or_not_at_all() {
        let ann = KeyImport::parse("gh:ann", Position::default()).unwrap();
        assert_eq!(ann.keys(b"\n"), Ok(Vec::new()));
        assert_eq!(
            ann.keys(b"ssh-ed25519 AAAA ann\r\n\nssh-ed25519 AAAA ann\nssh-rsa BBBB\n"),
            Ok(vec![
                "ssh-ed25519 AAAA ann # ssh-import-id gh:ann".to_owned(),
                "ssh-rsa BBBB # ssh-import-id gh:ann".to_owned(),
            ])
        );
        let large = "ssh-rsa AAAA\n".repeat(MAX_ANSWER_BYTES / 10);
        for answer in [
            &b"<html>sign in</html>\n"[..],
            b"command=\"x\" ssh-rsa AAAA\n",
            b"ssh-rsa AAAA\n\x00",
            b"ssh-rsa",
            b"\xff",
            large.as_bytes(),
        ] {
            assert!(ann.keys(answer).is_err(), "{answer:?}");
        }
    }

    proptest! {
        #[test]
        fn no_id_leads_to_another_place_at_its_service(text in "(gh:|lp:)?[ -~]{0,12}") {
            if let Ok(import) = KeyImport::parse(&text, Position::default()) {
                let again = KeyImport::parse(&import.id(), Position::default());
                prop_assert_eq!(again, Ok(import.clone()));
                let url = import.url();
                let rest = url.strip_prefix("https://github.com/").or(url.strip_prefix("https://launchpad.net/~"));
                let rest = rest.unwrap().replace("/+sshkeys", "");
                prop_assert!(!rest.contains(['/', '?', '#', '@', ':']), "{}", url);
            }
        }
    }
}
