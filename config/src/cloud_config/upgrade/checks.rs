//! `keelson.upgrade.checks`: what has to pass before a new version is good.

use serde::Serialize;

use crate::diagnostic::Diagnostics;
use crate::yaml::{self, Fields, Node, Shape, Table};

/// An element of the list.
pub(super) static CHECK: Table = Table::new(
    "check",
    &[
        ("name", Shape::Text, "What it is called when it fails"),
        (
            "http",
            Shape::Text,
            "A URL, http://HOST[:PORT]/PATH, that has to answer with a status from 200 to 299",
        ),
        (
            "tcp",
            Shape::Text,
            "HOST:PORT that has to take a connection",
        ),
        (
            "exec",
            Shape::TEXTS,
            "A program with its arguments, run in the console as root, that has to end with status 0",
        ),
        (
            "container",
            Shape::Text,
            "A container of Docker that has to run, and to be healthy if it has a health check",
        ),
    ],
);
const KINDS: [&str; 4] = ["http", "tcp", "exec", "container"];

/// A check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What it is called when it fails.
    pub name: String,
    /// What it looks at.
    #[serde(flatten)]
    pub what: What,
}

/// What a check looks at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum What {
    /// A URL without TLS.
    Http(String),
    /// `HOST:PORT`
    Tcp(String),
    /// A program and its arguments.
    Exec(Vec<String>),
    /// A container's name.
    Container(String),
}

/// Reads the list. A check that makes no sense is left out.
pub(super) fn parse(node: &Node, diagnostics: &mut Diagnostics) -> Vec<Check> {
    let mut checks = Vec::new();
    for node in yaml::list("keelson.upgrade.checks", node, diagnostics).unwrap_or_default() {
        if let Some(fields) = yaml::mapping("keelson.upgrade.checks", node, diagnostics) {
            fields.check(" of a check", &CHECK, diagnostics);
            match check(&fields, diagnostics) {
                Ok(check) => checks.push(check),
                Err(why) => {
                    let message = format!("keelson.upgrade.checks: {why}; it is left out");
                    diagnostics.error(node.position, message);
                }
            }
        }
    }
    checks
}

fn check(fields: &Fields<'_>, diagnostics: &mut Diagnostics) -> Result<Check, String> {
    let given: Vec<&str> = KINDS
        .into_iter()
        .filter(|kind| fields.get(kind).is_some())
        .collect();
    let [kind] = given.as_slice() else {
        return Err(format!("a check has one of {}", KINDS.join(", ")));
    };
    let node = fields.get(kind).ok_or("it is not there")?;
    let path = format!("keelson.upgrade.checks.{kind}");
    let words = match *kind {
        "exec" => yaml::strings(&path, node, diagnostics),
        _ => yaml::string(&path, node, diagnostics).into_iter().collect(),
    };
    let text = words.first().cloned().unwrap_or_default();
    let what = match *kind {
        "exec" if text.is_empty() => return Err("`exec` names no program".to_owned()),
        "exec" => What::Exec(words),
        _ if words.len() != 1 => return Err(format!("`{kind}` has one text")),
        "http" if !is_url(&text) => {
            return Err(format!("`{text}` is no URL http://HOST[:PORT]/PATH"));
        }
        "http" => What::Http(text.clone()),
        "tcp" if !is_address(&text) => return Err(format!("`{text}` is no HOST:PORT")),
        "tcp" => What::Tcp(text.clone()),
        _ if !is_container(&text) => return Err(format!("`{text}` is no container's name")),
        _ => What::Container(text.clone()),
    };
    let name = fields
        .get("name")
        .and_then(|node| yaml::string("name", node, diagnostics));
    let name = name.map(|name| name.replace(char::is_control, " "));
    Ok(Check {
        name: name.filter(|name| !name.trim().is_empty()).unwrap_or(text),
        what,
    })
}

fn is_url(text: &str) -> bool {
    let host = text.strip_prefix("http://");
    let is_plain = !text.contains(|letter: char| letter.is_whitespace() || letter.is_control());
    is_plain && host.is_some_and(|host| !host.is_empty() && !host.starts_with('/'))
}

fn is_address(text: &str) -> bool {
    let parts = text.rsplit_once(':');
    parts.is_some_and(|(host, port)| {
        let is_plain = !host.contains(|letter: char| letter.is_whitespace() || letter.is_control());
        !host.is_empty() && is_plain && port.parse::<u16>().is_ok_and(|port| port > 0)
    })
}

/// As Docker has them.
fn is_container(text: &str) -> bool {
    let of_name = |letter: char| letter.is_ascii_alphanumeric() || "_.-".contains(letter);
    text.starts_with(|first: char| first.is_ascii_alphanumeric()) && text.chars().all(of_name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> (Vec<Check>, usize) {
        let mut diagnostics = Diagnostics::new("user-data");
        let root = yaml::parse(text).unwrap().root;
        let checks = parse(&root, &mut diagnostics);
        (checks, diagnostics.into_sorted().len())
    }

    #[test]
    fn a_check_is_one_of_four_and_has_a_name() {
        let (checks, complaints) = read(
            "[{http: 'http://[::1]:8080/health?a=1'}, {tcp: '[::1]:80', name: web}, {exec: 'true'}, {exec: [a, b]}, {container: web_1}]",
        );
        assert_eq!(complaints, 0);
        let names: Vec<&str> = checks.iter().map(|check| check.name.as_str()).collect();
        assert_eq!(
            names,
            ["http://[::1]:8080/health?a=1", "web", "true", "a", "web_1"]
        );
    }

    #[test]
    fn a_check_that_makes_no_sense_is_left_out() {
        for text in [
            "{name: a}",
            "{http: 'http://a/', tcp: 'a:1'}",
            "{http: 'https://a/'}",
            "{http: 'http:///x'}",
            "{http: 'http://a b'}",
            "{tcp: a}",
            "{tcp: 'a:0'}",
            "{tcp: ':80'}",
            "{exec: []}",
            "{exec: ''}",
            "{container: --help}",
            "{container: 'a b'}",
            "text",
        ] {
            let (checks, complaints) = read(&format!("[{text}, {{tcp: 'a:1'}}]"));
            assert_eq!((checks.len(), complaints), (1, 1), "{text}");
        }
    }
}
