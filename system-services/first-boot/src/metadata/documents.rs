//! Documents that user-data, vendor-data and the kernel command line include.

use std::collections::BTreeSet;
use std::io;

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
    /// Why something is not there that may still come.
    pub(super) missing: Option<String>,
    /// Why something could not be kept.
    pub(super) failure: Option<String>,
}

/// Fetches all that is included, however deeply; what is kept already is fetched again, unless it is for once, or among those that
/// were `answered` by this process.
pub(super) fn fetch(
    config: &Tree,
    source: Source,
    machine: &Machine,
    http: &mut Http,
    answered: &mut BTreeSet<String>,
    report: &mut Report,
) -> Progress {
    let mut progress = Progress::default();
    let mut one = |include: Include<'_>| {
        let kept = stored::included(config, include.url);
        if (include.once && kept.is_ok()) || answered.contains(include.url) {
            return kept;
        }
        let got = get(http, include.url);
        if !matches!(got, Got::Nothing(_)) {
            answered.insert(include.url.to_owned());
        }
        match (got, &kept) {
            (Got::Document(content), Ok(before)) if *before == content => return kept,
            (Got::Document(content), _) => {
                if let Err(error) = keep(config, include.url, Ok(&content)) {
                    let failure = format!("write /state/config/source/fetched: {error}");
                    progress.failure.get_or_insert(failure);
                }
                return Ok(content);
            }
            // What was fetched at another time will do.
            (Got::Refusal(why) | Got::Nothing(why), Ok(_)) => {
                report.info(&format!("{why}; what it was before is used"));
            }
            (Got::Refusal(why), Err(Missing::Refused(before))) if why == *before => {}
            (Got::Refusal(why), Err(_)) => {
                if let Err(error) = keep(config, include.url, Err(&why)) {
                    let failure = format!("write /state/config/source/fetched: {error}");
                    progress.failure.get_or_insert(failure);
                }
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
    progress
}

/// Keeps what came of a document, which is something to apply.
fn keep(config: &Tree, url: &str, content: Result<&[u8], &str>) -> io::Result<()> {
    stored::keep_news(config)?;
    stored::keep_included(config, url, content)
}

/// What comes of asking for a document.
pub(super) enum Got {
    Document(Vec<u8>),
    /// Asking again would bring the same.
    Refusal(String),
    /// Nobody was reached, or just has no time.
    Nothing(String),
}

pub(super) fn get(http: &mut Http, url: &str) -> Got {
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
        redirects: true,
        ..Request::default()
    };
    // It may be a secret who is asked how.
    let shown = url.split(['?', '#']).next().unwrap_or(url);
    match http.try_exchange(&request) {
        Ok(response) => match response.status {
            200..=299 => Got::Document(response.body),
            status @ (400..=407 | 409..=428 | 431..=499) => {
                Got::Refusal(format!("{shown} answers with status {status}"))
            }
            status => Got::Nothing(format!("{shown} answers with status {status}")),
        },
        Err(failure) if failure.is_permanent => Got::Refusal(failure.why),
        Err(failure) => Got::Nothing(failure.why),
    }
}
