//! Keys of people that services on the network tell (`ssh_import_id`).

use std::collections::BTreeSet;

use keelson_config::cloud_config::KeyImport;
use keelson_first_boot::stored;
use keelson_first_boot::stored::imported::{self, Imported};
use keelson_sys::durable::Tree;

use super::documents::{Got, Progress, get};
use super::http::Http;
use crate::report::Report;

/// Asks for the keys of all people, but for those that were `answered` by this process. What was told at another time holds until
/// there is an answer, which is asked for until it comes: a key that somebody has taken back there is to go here, too.
pub(super) fn fetch(
    config: &Tree,
    imports: &[KeyImport],
    http: &mut Http,
    answered: &mut BTreeSet<String>,
    report: &mut Report,
) -> Progress {
    let mut progress = Progress::default();
    for import in imports {
        let id = import.id();
        if answered.contains(&id) {
            continue;
        }
        let kept = imported::read(config, import).unwrap_or_else(|error| {
            report.warning(&format!(
                "read the keys of {id}: {error}; they are asked for"
            ));
            Imported::default()
        });
        let keys = match get(http, &import.url()) {
            Got::Document(answer) => import.keys(&answer),
            Got::Refusal(why) => Err(why),
            Got::Nothing(why) => {
                progress
                    .missing
                    .get_or_insert(format!("ssh_import_id: {why}"));
                continue;
            }
        };
        let said = match keys {
            Ok(keys) => Imported {
                keys: Some(keys),
                refused: None,
            },
            Err(why) => Imported {
                keys: kept.keys.clone(),
                refused: Some(why),
            },
        };
        let written = match said == kept {
            true => Ok(()),
            false => stored::keep_news(config).and_then(|()| imported::keep(config, import, &said)),
        };
        match written {
            Ok(()) => drop(answered.insert(id)),
            Err(error) => {
                let failure = format!("write /state/config/source/keys/{id}: {error}");
                progress.failure.get_or_insert(failure);
            }
        }
    }
    progress
}
