//! Where a key stands in a YAML file in block style: the YAML reader forgets it once a value has been accepted, and
//! what only turns out later (an image that does not exist) should name the place all the same. And the reasons that
//! are given for what a service is allowed, which YAML takes for comments.

use std::collections::BTreeMap;

/// A place in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// From 1.
    pub line: u64,
    /// From 1, in characters.
    pub column: u64,
}

/// Places of one service's own keys.
#[derive(Clone, Debug, Default)]
pub struct Keys {
    service: Option<Position>,
    keys: BTreeMap<String, Position>,
}

impl Keys {
    /// The place of a key such as `image` or `x-keelson.after`; of what it stands in when it is not found.
    pub fn of(&self, key: &str) -> Option<Position> {
        let outer = || self.keys.get(key.split('.').next().unwrap_or_default());
        self.keys.get(key).or_else(outer).copied().or(self.service)
    }
}

/// Finds the keys of the service with that name. Finds nothing in flow style (`{...}`).
pub fn keys_of(text: &str, service: &str) -> Keys {
    let mut found = Keys::default();
    let mut path: Vec<(usize, &str)> = Vec::new();
    for (number, line) in (1_u64..).zip(text.lines()) {
        let body = line.trim_start_matches(' ');
        let Some(key) = key_of(body) else { continue };
        let indent = line.len() - body.len();
        path.retain(|(outer, _)| *outer < indent);
        path.push((indent, key));
        let position = Position {
            line: number,
            column: indent as u64 + 1,
        };
        match path[..] {
            [(_, "services"), (_, name)] if name == service => found.service = Some(position),
            [(_, "services"), (_, name), (_, key)] if name == service => {
                found.keys.entry(key.to_owned()).or_insert(position);
            }
            [(_, "services"), (_, name), (_, "x-keelson"), (_, key)] if name == service => {
                found
                    .keys
                    .entry(format!("x-keelson.{key}"))
                    .or_insert(position);
            }
            _ => {}
        }
    }
    found
}

/// What a service is allowed, and the comment that stands beside it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reason {
    /// A key such as `cap_add`.
    pub key: String,
    /// Its value, or one of its list.
    pub value: String,
    /// For a person.
    pub why: String,
}

/// Comments at the ends of the lines of a service, with what stands before them. Finds nothing in flow style.
pub fn reasons_of(text: &str, service: &str) -> Vec<Reason> {
    let mut found = Vec::new();
    let mut path: Vec<(usize, &str)> = Vec::new();
    for line in text.lines() {
        let body = line.trim_start_matches(' ');
        let indent = line.len() - body.len();
        let item = body.strip_prefix("- ");
        if let (None, Some(key)) = (item, key_of(body)) {
            path.retain(|(outer, _)| *outer < indent);
            path.push((indent, key));
        }
        let [(_, "services"), (_, name), (at, key), ..] = path[..] else {
            continue;
        };
        let Some((value, why)) = body.split_once(" #").filter(|_| name == service) else {
            continue;
        };
        let value = match item {
            Some(_) if indent >= at => value.trim_start_matches("- "),
            None => value.split_once(':').map_or("", |(_, value)| value),
            Some(_) => continue,
        };
        found.push(Reason {
            key: key.to_owned(),
            value: value.trim().trim_matches(['"', '\'']).to_owned(),
            why: why.trim().to_owned(),
        });
    }
    found
}

/// The key that a line begins with, quotes taken off.
fn key_of(body: &str) -> Option<&str> {
    if body.starts_with(['#', '-', '[', '{']) {
        return None;
    }
    let (key, rest) = body.split_once(':')?;
    if !(rest.is_empty() || rest.starts_with([' ', '\t', '\r'])) {
        return None;
    }
    let key = key.trim_end();
    let bare = key
        .strip_prefix(['"', '\''])
        .and_then(|inner| inner.strip_suffix(['"', '\'']))
        .unwrap_or(key);
    (!bare.contains(' ')).then_some(bare)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "# comment\nservices:\n  other:\n    image: x\n  web:\n    command: a: b\n    image: y\n    x-keelson:\n      after: [other]\n";

    #[test]
    fn reasons_stand_beside_what_they_are_for() {
        let file = "services:\n  web:\n    network_mode: host   # it listens\n    cap_add:\n      - NET_RAW   # pings\n      - KILL\n    security_opt: [\"a:b\"]  # for c\n  other:\n    cap_add:\n    - CHOWN # no\n";
        let reasons = reasons_of(file, "web");
        let found: Vec<_> = reasons
            .iter()
            .map(|reason| {
                (
                    reason.key.as_str(),
                    reason.value.as_str(),
                    reason.why.as_str(),
                )
            })
            .collect();
        assert_eq!(
            found,
            [
                ("network_mode", "host", "it listens"),
                ("cap_add", "NET_RAW", "pings"),
                ("security_opt", "[\"a:b\"]", "for c")
            ]
        );
        assert_eq!(reasons_of(file, "other")[0].value, "CHOWN");
    }

    #[test]
    fn keys_are_found_below_their_service() {
        let keys = keys_of(FILE, "web");
        assert_eq!(keys.of("image"), Some(Position { line: 7, column: 5 }));
        assert_eq!(
            keys.of("x-keelson.after"),
            Some(Position { line: 9, column: 7 })
        );
        assert_eq!(keys.of("user"), Some(Position { line: 5, column: 3 }));
        assert_eq!(keys_of(FILE, "missing").of("image"), None);
    }
}
