//! `GET /containers/json`.

use super::connection::port_list;
use super::container::{self, Container};
use super::filters::Filters;
use super::inspect::{exposed, mounts, places};
use crate::server::{Engine, Refused};
use axum::extract::{Query, State};
use axum::response::Json;
use bollard_stubs::models::{
    ContainerSummary, ContainerSummaryHostConfig, ContainerSummaryNetworkSettings,
    ContainerSummaryStateEnum, EndpointSettings, HealthStatusEnum,
};
use regex_lite::Regex;
use serde::Deserialize;
use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, SystemTime};

/// The filters that mean something for system containers.
const FILTERS: [&str; 9] = [
    "ancestor", "exited", "health", "id", "label", "name", "network", "status", "volume",
];

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Parameters {
    all: Option<String>,
    limit: Option<i64>,
    filters: Option<String>,
}

/// A boolean as Docker reads it: everything but these words is true.
pub(super) fn is_true(value: Option<&str>) -> bool {
    !matches!(value, None | Some("" | "0" | "no" | "false" | "none"))
}

pub(super) async fn list(
    State(engine): State<Engine>,
    Query(parameters): Query<Parameters>,
) -> Result<Json<Vec<ContainerSummary>>, Refused> {
    let filters = Filters::parse(parameters.filters.as_deref(), &FILTERS)?;
    let limit = usize::try_from(parameters.limit.unwrap_or(0)).unwrap_or(0);
    // A limit, and asking for a state, are about those that do not run as well.
    let all = is_true(parameters.all.as_deref())
        || limit > 0
        || !filters.values("status").is_empty()
        || !filters.values("exited").is_empty();
    let mut containers = container::all(&engine).await?;
    containers.retain(|container| (all || container.is_up()) && matches(container, &filters));
    // The newest first, as Docker has it.
    containers.sort_by_key(|container| Reverse(container.created()));
    if limit > 0 {
        containers.truncate(limit);
    }
    Ok(Json(containers.iter().map(summary).collect()))
}

fn matches(container: &Container, filters: &Filters) -> bool {
    let service = &container.service;
    let labels = &container.definition.labels.0;
    let health = container
        .health
        .unwrap_or(HealthStatusEnum::NONE)
        .to_string();
    let status = container.status().to_string();
    filters.pass("id", |id| container.id.starts_with(id))
        && filters.pass("name", |name| {
            name_matches(name, &service.name)
        })
        && filters.pass("status", |word| word == status)
        && filters.pass("health", |word| word == health)
        && filters.pass("ancestor", |image| image == service.image)
        && filters.pass("exited", |code| {
            !container.is_up() && code.parse() == Ok(container.exit_code)
        })
        // Of several labels all have to be there.
        && filters.values("label").iter().all(|label| has_label(labels, label))
        && filters.pass("volume", |name| {
            mounts(container).iter().any(|mount| {
                [&mount.name, &mount.destination].contains(&&Some(name.to_owned()))
            })
        })
        && filters.pass("network", |name| {
            places(container).iter().any(|(network, place)| {
                network == name || place.network_id.as_deref() == Some(name)
            })
        })
}

/// Whether `KEY` is among the labels, or `KEY=VALUE`.
pub(super) fn has_label(labels: &BTreeMap<String, String>, wanted: &str) -> bool {
    let (key, value) = match wanted.split_once('=') {
        Some((key, value)) => (key, Some(value)),
        None => (wanted, None),
    };
    let found = labels.get(key);
    found.is_some_and(|found| value.is_none_or(|value| value == found))
}

/// Whether all labels of the filter `label` are there, and none of `label!`.
pub(super) fn pass_labels(filters: &Filters, labels: &BTreeMap<String, String>) -> bool {
    let is_there = |label: &String| has_label(labels, label);
    filters.values("label").iter().all(is_there) && !filters.values("label!").iter().any(is_there)
}

/// A regular expression anywhere in the name, which may be written with or without its slash. A broken one is in none.
fn name_matches(pattern: &str, name: &str) -> bool {
    let Ok(pattern) = Regex::new(pattern) else {
        return false;
    };
    pattern.is_match(name) || pattern.is_match(&format!("/{name}"))
}

/// A container as lists show it.
pub(super) fn summary(container: &Container) -> ContainerSummary {
    let service = &container.service;
    let state = match container.status().to_string().parse() {
        Ok(state) => state,
        Err(_) => ContainerSummaryStateEnum::EMPTY,
    };
    ContainerSummary {
        id: Some(container.id.clone()),
        names: Some(vec![format!("/{}", service.name)]),
        image: Some(service.image.clone()),
        image_id: Some(
            container
                .stored
                .as_ref()
                .map_or(&service.image, |stored| &stored.image_id)
                .clone(),
        ),
        command: Some(command_line(&container.arguments)),
        created: Some(seconds(container.created())),
        ports: Some(port_list(&container.connection, exposed(container))),
        labels: Some(labels(container)),
        state: Some(state),
        status: Some(status_line(container, SystemTime::now())),
        host_config: Some(ContainerSummaryHostConfig {
            network_mode: container
                .definition
                .network_mode
                .as_ref()
                .map(|mode| mode.as_text().into_owned()),
            ..ContainerSummaryHostConfig::default()
        }),
        network_settings: Some(ContainerSummaryNetworkSettings {
            networks: Some(places_in_lists(container)),
        }),
        mounts: Some(mounts(container)),
        ..ContainerSummary::default()
    }
}

/// The program and its arguments; those with a space in them stand in quotes.
fn command_line(arguments: &[String]) -> String {
    let mut words = arguments.iter();
    let program = words.next().cloned().into_iter();
    let quoted = words.map(|word| match word.contains(' ') {
        true => format!("'{word}'"),
        false => word.clone(),
    });
    program.chain(quoted).collect::<Vec<_>>().join(" ")
}

/// Lists leave the names out.
fn places_in_lists(container: &Container) -> HashMap<String, EndpointSettings> {
    let mut places = places(container);
    for place in places.values_mut() {
        place.aliases = None;
        place.dns_names = None;
    }
    places
}

/// The labels of the definition.
pub(super) fn labels(container: &Container) -> HashMap<String, String> {
    let labels = container.definition.labels.0.iter();
    labels
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect()
}

fn seconds(moment: SystemTime) -> i64 {
    let since = moment.duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| {
        i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
    })
}

/// The `STATUS` column of `docker ps`: `Up 5 minutes (healthy)`, `Exited (1) 2 hours ago`.
fn status_line(container: &Container, now: SystemTime) -> String {
    let ago = |moment: Option<SystemTime>| {
        let passed = moment.map(|moment| now.duration_since(moment));
        span(passed.and_then(Result::ok).unwrap_or_default())
    };
    match container.status().to_string().as_str() {
        "created" => "Created".to_owned(),
        "restarting" => format!(
            "Restarting ({}) {} ago",
            container.exit_code,
            ago(container.ended())
        ),
        "exited" => match container.ended() {
            Some(_) => format!(
                "Exited ({}) {} ago",
                container.exit_code,
                ago(container.ended())
            ),
            None => format!("Exited ({})", container.exit_code),
        },
        _ => {
            let health = match container.health {
                Some(HealthStatusEnum::STARTING) => " (health: starting)".to_owned(),
                Some(health) => format!(" ({health})"),
                None => String::new(),
            };
            let paused = if container.paused { " (Paused)" } else { "" };
            format!("Up {}{health}{paused}", ago(container.started()))
        }
    }
}

/// A time span in Docker's words.
fn span(span: Duration) -> String {
    let seconds = span.as_secs();
    let hours = (seconds + 1800) / 3600;
    match (seconds, seconds / 60, hours) {
        (0, ..) => "Less than a second".to_owned(),
        (1, ..) => "1 second".to_owned(),
        (2..60, ..) => format!("{seconds} seconds"),
        (_, 1, _) => "About a minute".to_owned(),
        (_, minutes @ 2..60, _) => format!("{minutes} minutes"),
        (.., 0..=1) => "About an hour".to_owned(),
        (.., 2..48) => format!("{hours} hours"),
        (.., 48..336) => format!("{} days", hours / 24),
        (.., 336..1440) => format!("{} weeks", hours / 24 / 7),
        (.., 1440..17520) => format!("{} months", hours / 24 / 30),
        _ => format!("{} years", seconds / 3600 / 24 / 365),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_regular_expressions() {
        for pattern in ["udev", "^udev$", "^/udev$", "u.*v", ""] {
            assert!(name_matches(pattern, "udev"), "{pattern}");
        }
        for pattern in ["^dev", "udev-", "("] {
            assert!(!name_matches(pattern, "udev"), "{pattern}");
        }
    }

    #[test]
    fn spans_are_in_dockers_words() {
        let words = |seconds| span(Duration::from_secs(seconds));
        assert_eq!(words(0), "Less than a second");
        assert_eq!(words(1), "1 second");
        assert_eq!(words(59), "59 seconds");
        assert_eq!(words(60), "About a minute");
        assert_eq!(words(120), "2 minutes");
        assert_eq!(words(3600), "About an hour");
        assert_eq!(words(3 * 3600), "3 hours");
        assert_eq!(words(48 * 3600), "2 days");
        assert_eq!(words(14 * 24 * 3600), "2 weeks");
        assert_eq!(words(60 * 24 * 3600), "2 months");
        assert_eq!(words(730 * 24 * 3600), "2 years");
    }
}
