//! `keelson.upgrade`: where releases of the operating system come from, how they are tried, and what is done without being asked.
//!
//! - [`window`]: when a machine may restart by itself
//! - [`checks`]: what has to pass before a new version is good

mod checks;
mod window;

use serde::Serialize;

use super::below;
use crate::diagnostic::Diagnostics;
use crate::yaml::{self, Fields, Shape, Table};
pub use checks::{Check, What};
pub use window::Window;

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
        (
            "policy",
            Shape::Words(&POLICIES),
            "What is done without being asked: nothing, fetching newer versions, or restarting for them, too",
        ),
        (
            "interval",
            Shape::Text,
            "How often the source is asked without being asked to, from 1m to 30d (24h)",
        ),
        (
            "window",
            Shape::Text,
            "When the machine may restart by itself: [DAYS] HH:MM-HH:MM [UTC|+HH:MM|-HH:MM], as in sat,sun 02:00-05:00 +01:00",
        ),
        (
            "jitter",
            Shape::Text,
            "Each machine puts its restart off by a time of its own below this, at most 1d (10m)",
        ),
        (
            "checks",
            Shape::List(&Shape::Table(&checks::CHECK)),
            "What has to pass, beside the system's own services, before a new version is good",
        ),
    ],
);
/// A version may take so long to be up, in seconds; PID 1 waits no longer than the last.
const DEADLINES_S: std::ops::RangeInclusive<u64> = 30..=15 * 60;

const POLICIES: [&str; 3] = ["manual", "download", "auto"];
const MINUTE_S: u64 = 60;
const HOUR_S: u64 = 60 * MINUTE_S;
const DAY_S: u64 = 24 * HOUR_S;
const INTERVALS_S: std::ops::RangeInclusive<u64> = MINUTE_S..=30 * DAY_S;
const JITTERS_S: std::ops::RangeInclusive<u64> = 0..=DAY_S;

/// What the upgrade service reads.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Upgrade {
    /// `HOST/REPOSITORY[:TAG]`, or an OCI image layout: `https://HOST/PATH[#TAG]`, `/mnt/PATH[#TAG]`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// How long a new version may take to be up, in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deadline_s: Option<u64>,
    /// What is done without being asked: `manual`, `download` or `auto`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
    /// How often the source is asked then, in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interval_s: Option<u64>,
    /// When the machine may restart by itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub window: Option<Window>,
    /// A restart is put off by up to so many seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jitter_s: Option<u64>,
    /// What has to pass before a new version is good.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub checks: Vec<Check>,
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
    let mut span = |key: &str, range: std::ops::RangeInclusive<u64>, expected: &str| {
        let node = fields.get(key)?;
        let what = format!("keelson.upgrade.{key}");
        let text = yaml::string(&what, node, diagnostics)?;
        let read = seconds(&text).filter(|seconds| range.contains(seconds));
        if read.is_none() {
            let message = format!("{what}: `{text}` is no time {expected}");
            diagnostics.error(node.position, message);
        }
        read
    };
    upgrade.deadline_s = span("deadline", DEADLINES_S, "from 30s to 15m; it stays at 5m");
    upgrade.interval_s = span("interval", INTERVALS_S, "from 1m to 30d; it stays at 24h");
    upgrade.jitter_s = span("jitter", JITTERS_S, "of at most 1d; it stays at 10m");
    by_itself(&fields, &mut upgrade, diagnostics);
    if let Some(node) = fields.get("checks") {
        upgrade.checks = checks::parse(node, diagnostics);
    }
    upgrade
}

/// What is done without being asked. What makes no sense there has nothing done.
fn by_itself(fields: &Fields<'_>, upgrade: &mut Upgrade, diagnostics: &mut Diagnostics) {
    if let Some(node) = fields.get("policy")
        && let Some(policy) = yaml::string("keelson.upgrade.policy", node, diagnostics)
    {
        if POLICIES.contains(&policy.as_str()) {
            upgrade.policy = Some(policy);
        } else {
            let message = format!(
                "keelson.upgrade.policy: `{policy}` is none of {}; nothing is done by itself",
                POLICIES.join(", ")
            );
            diagnostics.error(node.position, message);
        }
    }
    if let Some(node) = fields.get("window")
        && let Some(text) = yaml::string("keelson.upgrade.window", node, diagnostics)
    {
        upgrade.window = Window::parse(&text);
        if upgrade.window.is_none() {
            // Who names times does not want the machine to restart at others.
            let message = format!(
                "keelson.upgrade.window: `{text}` is no window ([DAYS] HH:MM-HH:MM [UTC|+HH:MM|-HH:MM]); the machine does not restart by itself"
            );
            diagnostics.error(node.position, message);
            if upgrade.policy.as_deref() == Some("auto") {
                upgrade.policy = Some("download".to_owned());
            }
        }
    }
}

/// `90`, `90s`, `5m`, `12h`, `7d`
fn seconds(text: &str) -> Option<u64> {
    let units = [('s', 1), ('m', MINUTE_S), ('h', HOUR_S), ('d', DAY_S)];
    let unit = units
        .iter()
        .find_map(|(unit, seconds)| Some((text.strip_suffix(*unit)?, *seconds)));
    let (number, unit) = unit.unwrap_or((text, 1));
    let is_number = number.bytes().all(|byte| byte.is_ascii_digit());
    is_number
        .then(|| number.parse::<u64>().ok()?.checked_mul(unit))
        .flatten()
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
    fn all_that_is_said_is_for_the_service() {
        let (upgrade, complaints) = read(
            "keelson:\n  upgrade:\n    source: example.org/os:stable\n    deadline: 2m\n    policy: auto\n    interval: 1h\n    window: sat,sun 02:00-05:00 +01:00\n    jitter: 0\n    checks:\n    - {name: shop, http: 'http://127.0.0.1:80/'}\n    - {name: db, tcp: 'db:5432'}\n    - {name: disk, exec: [test, -e, /x]}\n    - {container: web}\n",
        );
        assert_eq!(complaints, 0);
        // The same text stands in upgrade/src/settings.rs.
        assert_eq!(
            upgrade.for_service().unwrap(),
            r#"{"source":"example.org/os:stable","deadline_s":120,"policy":"auto","interval_s":3600,"window":{"days":[6,0],"from_min":120,"to_min":300,"offset_min":60},"jitter_s":0,"checks":[{"name":"shop","http":"http://127.0.0.1:80/"},{"name":"db","tcp":"db:5432"},{"name":"disk","exec":["test","-e","/x"]},{"name":"web","container":"web"}]}"#
        );
    }

    #[test]
    fn a_policy_that_makes_no_sense_does_nothing() {
        for (text, policy, complaints) in [
            ("{policy: always}", None, 1),
            ("{policy: auto, window: at night}", Some("download"), 1),
            ("{policy: auto, interval: 5s, jitter: 2d}", Some("auto"), 2),
            ("{policy: auto, window: ''}", Some("download"), 1),
        ] {
            let (upgrade, count) = read(&format!("keelson: {{upgrade: {text}}}"));
            assert_eq!(
                (upgrade.policy.as_deref(), count),
                (policy, complaints),
                "{text}"
            );
        }
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
