//! `GET /events`: what happens, one JSON object a line.

use super::error::invalid;
use super::filters::Filters;
use super::list::has_label;
use crate::server::{Engine, Refused, Request, ask};
use axum::body::Body;
use axum::extract::{Query, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use bollard_stubs::models::{EventMessage, EventMessageTypeEnum};
use futures_util::stream;
use serde::Deserialize;
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::sync::broadcast::error::RecvError;
use tokio::time::Instant;

const FILTERS: [&str; 10] = [
    "config",
    "container",
    "daemon",
    "event",
    "image",
    "label",
    "network",
    "scope",
    "type",
    "volume",
];

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Parameters {
    since: Option<String>,
    until: Option<String>,
    filters: Option<String>,
}

pub(super) async fn events(
    State(engine): State<Engine>,
    Query(parameters): Query<Parameters>,
) -> Result<Response, Refused> {
    let filters = Filters::parse(parameters.filters.as_deref(), &FILTERS)?;
    let since = nanoseconds("since", parameters.since.as_deref())?;
    let until = nanoseconds("until", parameters.until.as_deref())?;
    let (past, coming) = ask(&engine, Request::Events).await?;
    let is_wanted = move |event: &EventMessage| {
        let time = event.time_nano.unwrap_or(0);
        matches(event, &filters) && until.is_none_or(|until| time <= until)
    };
    // Without a moment to begin with, only what comes.
    let past: VecDeque<Arc<EventMessage>> = past
        .into_iter()
        .filter(|event| since.is_some_and(|since| event.time_nano.unwrap_or(0) >= since))
        .collect();
    let deadline = until.map(deadline);
    let state = (past, coming, is_wanted);
    let body = stream::try_unfold(state, move |(mut past, mut coming, is_wanted)| async move {
        loop {
            let event = match past.pop_front() {
                Some(event) => event,
                None => {
                    let next = async {
                        match deadline {
                            Some(at) => tokio::time::timeout_at(at, coming.recv()).await.ok(),
                            None => Some(coming.recv().await),
                        }
                    };
                    match next.await {
                        Some(Ok(event)) => event,
                        // Too slow: what it missed is lost to it, what follows is not.
                        Some(Err(RecvError::Lagged(_))) => continue,
                        Some(Err(RecvError::Closed)) | None => return Ok(None),
                    }
                }
            };
            if is_wanted(&event) {
                let line = line(&event)?;
                return Ok::<_, io::Error>(Some((line, (past, coming, is_wanted))));
            }
        }
    });
    let json = [(header::CONTENT_TYPE, "application/json")];
    Ok((json, Body::from_stream(body)).into_response())
}

/// The event with the older names of its parts, as clients up to API 1.45 read them too.
fn line(event: &EventMessage) -> io::Result<Vec<u8>> {
    let mut value = serde_json::to_value(event)?;
    if event.typ == Some(EventMessageTypeEnum::CONTAINER) {
        value["status"] = event.action.clone().into();
        value["id"] = value["Actor"]["ID"].clone();
        value["from"] = value["Actor"]["Attributes"]["image"].clone();
    }
    let mut line = serde_json::to_vec(&value)?;
    line.push(b'\n');
    Ok(line)
}

fn matches(event: &EventMessage, filters: &Filters) -> bool {
    let kind = event.typ.map(|kind| kind.to_string()).unwrap_or_default();
    let action = event.action.as_deref().unwrap_or_default();
    let actor = event.actor.clone().unwrap_or_default();
    let id = actor.id.unwrap_or_default();
    let attributes: BTreeMap<String, String> =
        actor.attributes.unwrap_or_default().into_iter().collect();
    let attribute = |name: &str| attributes.get(name).map(String::as_str).unwrap_or_default();
    let of = |what: &str| {
        filters.pass(what, |name| {
            kind == what && (id.starts_with(name) || attribute("name") == name)
        })
    };
    filters.pass("type", |word| word == kind)
        // `exec_start` is told with its command: `exec_start: sh`.
        && filters.pass("event", |word| {
            action == word || action.strip_prefix(word).is_some_and(|rest| rest.starts_with(':'))
        })
        && filters.pass("image", |name| attribute("image") == name || id == name)
        && filters.pass("scope", |word| word == "local")
        && ["container", "volume", "network", "daemon", "config"].iter().all(|what| of(what))
        && filters.values("label").iter().all(|label| has_label(&attributes, label))
}

/// A moment, seconds with a fraction, in nanoseconds of Unix time.
fn nanoseconds(name: &str, text: Option<&str>) -> Result<Option<i64>, Refused> {
    let Some(text) = text.filter(|text| !text.is_empty()) else {
        return Ok(None);
    };
    let wrong = || invalid(format!("invalid value for \"{name}\": {text}"));
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds: i64 = seconds.parse().map_err(|_| wrong())?;
    if !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(wrong());
    }
    let nanos: String = fraction
        .chars()
        .chain("000000000".chars())
        .take(9)
        .collect();
    let nanos: i64 = nanos.parse().map_err(|_| wrong())?;
    let total = seconds.checked_mul(1_000_000_000);
    total
        .and_then(|total| total.checked_add(nanos))
        .map(Some)
        .ok_or_else(wrong)
}

/// When a moment of Unix time will be.
fn deadline(nanoseconds: i64) -> Instant {
    let moment = Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(0));
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    Instant::now() + moment.saturating_sub(now.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use bollard_stubs::models::EventActor;

    fn event(action: &str) -> EventMessage {
        EventMessage {
            typ: Some(EventMessageTypeEnum::CONTAINER),
            action: Some(action.into()),
            actor: Some(EventActor {
                id: Some("abcd".into()),
                attributes: Some([("name".to_owned(), "web".to_owned())].into()),
            }),
            ..EventMessage::default()
        }
    }

    #[test]
    fn events_pass_filters_by_type_name_and_label() {
        let passes = |filter: &str, action: &str| {
            matches(
                &event(action),
                &Filters::parse(Some(filter), &FILTERS).unwrap(),
            )
        };
        assert!(passes("{}", "start"));
        assert!(passes(
            r#"{"container":["web"],"event":["start","die"]}"#,
            "die"
        ));
        assert!(passes(r#"{"event":["exec_start"]}"#, "exec_start: sh -c"));
        assert!(passes(r#"{"container":["ab"]}"#, "die"));
        assert!(!passes(r#"{"event":["start"]}"#, "die"));
        assert!(!passes(r#"{"volume":["web"]}"#, "die"));
        assert!(!passes(r#"{"label":["a"]}"#, "die"));
        assert!(!passes(r#"{"type":["image"]}"#, "die"));
    }

    #[test]
    fn an_event_has_its_older_names_too() {
        let line = String::from_utf8(line(&event("start")).unwrap()).unwrap();
        assert!(
            line.contains(r#""status":"start""#) && line.ends_with('\n'),
            "{line}"
        );
        assert!(line.contains(r#""id":"abcd""#), "{line}");
    }
}
