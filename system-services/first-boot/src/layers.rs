//! The layers of the configuration, put together.

use keelson_config::sources::Source;
use keelson_config::sources::machine::{Machine, Platform};
use keelson_config::user_data::{Include, Missing};
use keelson_config::{CloudConfig, Diagnostics, layers};
use keelson_first_boot::stored;

use crate::apply::Wanted;
use crate::metadata;
use crate::report::Report;
use crate::state::State;

/// Puts together what is wanted. What is to be fetched, and has not been, is the other service's: it is part of what is wanted,
/// and with nothing to fetch it is not.
pub(crate) fn assemble(
    state: &State,
    source: Source,
    machine: &Machine,
    platform: Option<&Platform>,
    diagnostics: &mut Diagnostics,
    report: &mut Report,
) -> Wanted {
    let mut unread = |problem: String| report.error(problem);
    let inputs = stored::inputs(&state.config, source, &machine.command_line, &mut unread);
    let url = layers::command_line_url(&machine.command_line);
    let mut includes = url.is_some();
    let is_there = |url| stored::included(&state.config, url) != Err(Missing::Pending);
    let mut is_whole = url.is_none_or(is_there);
    // A disk that has no user-data may not be all: what the service says is part of the instance.
    let disk = inputs.source.from_disk.as_ref();
    is_whole &= platform.is_none() || disk.is_none_or(|disk| disk.user_data || disk.answered);
    let mut fetch = |include: Include<'_>| {
        includes = true;
        let found = stored::included(&state.config, include.url);
        is_whole &= found != Err(Missing::Pending);
        found
    };
    let assembled = layers::assemble(&inputs, &mut fetch, diagnostics);
    let config = assembled
        .root
        .and_then(|root| CloudConfig::from_node(&root, diagnostics));
    let mut config = config.unwrap_or_else(CloudConfig::nothing);
    if includes || platform.is_some() || config.key_imports().next().is_some() {
        let file = metadata::service::file(platform, &machine.choice, config.key_imports());
        config.services.files.push(file);
    }
    Wanted {
        config,
        scripts: assembled.scripts,
        boothooks: assembled.boothooks,
        // The instance is applied as a whole, with all that it includes.
        understood: assembled.understood && is_whole,
        source: inputs.source,
    }
}
