//! `keelson.upgrade`: where releases of the operating system come from, and how they are tried.

use serde::Serialize;

use super::below;
use crate::diagnostic::Diagnostics;
use crate::yaml::{self, Fields, Shape, Table};

/// `keelson.upgrade`
pub(super) static UPGRADE: Table = Table::new(
    "upgrade",
    &[
        (
            "source",
            Shape::Text,
            "Where releases come from: HOST/REPOSITORY[:TAG], https://HOST/PATH or /mnt/PATH",
        ),
        (
            "deadline",
            Shape::Text,
            "How long a new version may take to be up, from 30s to 15m",
        ),
    ],
);
/// A version may take so long to be up, in seconds; PID 1 waits no longer than the last.
const DEADLINES_S: std::ops::RangeInclusive<u64> = 30..=15 * 60;

/// What the upgrade service reads.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Upgrade {
    /// `HOST/REPOSITORY[:TAG]`, or an OCI image layout: `https://HOST/PATH[#TAG]`, `/mnt/PATH[#TAG]`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// How long a new version may take to be up, in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deadline_s: Option<u64>,
}

/// Reads it.
pub(super) fn parse(top: &Fields<'_>, diagnostics: &mut Diagnostics) -> Upgrade {
    let mut upgrade = Upgrade::default();
    let Some(fields) = below(top, "keelson", "upgrade")
        .filter(|node| !node.is_null())
        .and_then(|node| yaml::mapping("keelson.upgrade", node, diagnostics))
    else {
        return upgrade;
    };
    fields.check(" of keelson.upgrade", &UPGRADE, diagnostics);
    if let Some(node) = fields.get("source")
        && let Some(source) = yaml::string("keelson.upgrade.source", node, diagnostics)
    {
        let is_source = !source.is_empty()
            && !source.starts_with('-')
            && !source
                .chars()
                .any(|letter| letter.is_whitespace() || letter.is_control());
        if is_source {
            upgrade.source = Some(source);
        } else {
            let message = format!(
                "keelson.upgrade.source: `{source}` is no source of releases (HOST/REPOSITORY[:TAG], https://HOST/PATH, /mnt/PATH)"
            );
            diagnostics.error(node.position, message);
        }
    }
    if let Some(node) = fields.get("deadline")
        && let Some(text) = yaml::string("keelson.upgrade.deadline", node, diagnostics)
    {
        match seconds(&text).filter(|seconds| DEADLINES_S.contains(seconds)) {
            Some(seconds) => upgrade.deadline_s = Some(seconds),
            None => {
                let message = format!(
                    "keelson.upgrade.deadline: `{text}` is no time from 30s to 15m; it stays at 5m"
                );
                diagnostics.error(node.position, message);
            }
        }
    }
    upgrade
}

/// `90`, `90s`, `5m`
fn seconds(text: &str) -> Option<u64> {
    let (number, unit) = match text.strip_suffix('m') {
        Some(number) => (number, 60),
        None => (text.strip_suffix('s').unwrap_or(text), 1),
    };
    number.parse::<u64>().ok()?.checked_mul(unit)
}

impl Upgrade {
    /// The file that the service reads; `None` when nothing is said.
    pub fn for_service(&self) -> Option<String> {
        let text = serde_json::to_string(self).ok();
        text.filter(|_| *self != Upgrade::default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> (Upgrade, usize) {
        let mut diagnostics = Diagnostics::new("user-data");
        let root = yaml::parse(text).unwrap().root;
        let top = yaml::mapping("top", &root, &mut diagnostics).unwrap();
        let upgrade = parse(&top, &mut diagnostics);
        (upgrade, diagnostics.into_sorted().len())
    }

    #[test]
    fn a_source_and_a_deadline_are_for_the_service() {
        let (upgrade, complaints) =
            read("keelson: {upgrade: {source: 'example.org/os:stable', deadline: 2m}}");
        assert_eq!(complaints, 0);
        assert_eq!(
            upgrade.for_service().unwrap(),
            r#"{"source":"example.org/os:stable","deadline_s":120}"#
        );
        assert_eq!(read("keelson: {}").0.for_service(), None);
    }

    #[test]
    fn what_makes_no_sense_costs_itself_alone() {
        for (text, source) in [
            ("{source: 'a b'}", None),
            ("{source: --help}", None),
            ("{source: x/y, deadline: 1h}", Some("x/y")),
            ("{source: x/y, deadline: 5}", Some("x/y")),
            ("{source: x/y, sauce: 1}", Some("x/y")),
        ] {
            let (upgrade, complaints) = read(&format!("keelson: {{upgrade: {text}}}"));
            assert_eq!(
                (upgrade.source.as_deref(), complaints),
                (source, 1),
                "{text}"
            );
        }
    }
}
