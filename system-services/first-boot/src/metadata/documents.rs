//! Documents that user-data, vendor-data and the kernel command line include.

use anyhow::{Context as _, Result};
use keelson_config::sources::Source;
use keelson_config::sources::http::Request;
use keelson_config::sources::machine::Machine;
use keelson_config::user_data::{Include, Missing};
use keelson_config::{Diagnostics, layers};
use keelson_first_boot::stored;
use keelson_sys::durable::Tree;

use super::http::Http;
use crate::report::Report;

/// What came of fetching.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Progress {
    /// Whether there is something that was not there before.
    pub(super) changed: bool,
    /// Why something is not there that may still come.
    pub(super) missing: Option<String>,
}

/// Fetches all that is included, however deeply; what is kept already is fetched again, unless it is for once.
pub(super) fn fetch(
    config: &Tree,
    source: Source,
    machine: &Machine,
    http: &mut Http,
    report: &mut Report,
) -> Result<Progress> {
    let mut progress = Progress::default();
    let mut failure = None;
    let mut one = |include: Include<'_>| {
        let kept = stored::included(config, include.url);
        if include.once && kept.is_ok() {
            return kept;
        }
        match (get(http, include.url), &kept) {
            (Got::Document(content), Ok(before)) if *before == content => return kept,
            (Got::Document(content), _) => {
                if let Err(error) = stored::keep_included(config, include.url, Ok(&content)) {
                    failure.get_or_insert(error);
                }
                progress.changed = true;
                return Ok(content);
            }
            // What was fetched at another time will do.
            (Got::Refusal(why) | Got::Nothing(why), Ok(_)) => {
                report.info(&format!("{why}; what it was before is used"));
            }
            (Got::Refusal(why), Err(Missing::Refused(before))) if why == *before => {}
            (Got::Refusal(why), Err(_)) => {
                if let Err(error) = stored::keep_included(config, include.url, Err(&why)) {
                    failure.get_or_insert(error);
                }
                progress.changed = true;
                return Err(Missing::Refused(why));
            }
            (Got::Nothing(why), Err(_)) => {
                progress.missing.get_or_insert(why);
            }
        }
        kept
    };
    if let Some(url) = layers::command_line_url(&machine.command_line) {
        let _ = one(Include { url, once: false });
    }
    let inputs = layers::Inputs {
        source,
        ..layers::Inputs::default()
    };
    // Applying says what is wrong with it.
    layers::assemble(&inputs, &mut one, &mut Diagnostics::new(""));
    match failure {
        Some(error) => Err(error).context("write /state/config/source/fetched"),
        None => Ok(progress),
    }
}

/// What comes of asking for a document.
enum Got {
    Document(Vec<u8>),
    /// Asking again would bring the same.
    Refusal(String),
    /// Nobody was reached, or just has no time.
    Nothing(String),
}

fn get(http: &mut Http, url: &str) -> Got {
    if !["http://", "https://"]
        .iter()
        .any(|scheme| url.starts_with(scheme))
    {
        return Got::Refusal(format!(
            "`{url}` is no address that begins with http:// or https://"
        ));
    }
    let request = Request {
        url: url.to_owned(),
        ..Request::default()
    };
    match http.exchange(&request) {
        Ok(response) => match response.status {
            200..=299 => Got::Document(response.body),
            status @ (400..=407 | 409..=428 | 431..=499) => {
                Got::Refusal(format!("{url} answers with status {status}"))
            }
            status => Got::Nothing(format!("{url} answers with status {status}")),
        },
        Err(error) => Got::Nothing(error),
    }
}
