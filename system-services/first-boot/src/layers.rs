//! The layers of the configuration, put together.

use keelson_config::sources::Source;
use keelson_config::{CloudConfig, Diagnostics, layers};
use keelson_first_boot::stored;

use crate::apply::Wanted;
use crate::report::Report;
use crate::state::State;

/// Puts together what is wanted.
pub(crate) fn assemble(
    state: &State,
    source: Source,
    command_line: &str,
    diagnostics: &mut Diagnostics,
    report: &mut Report,
) -> Wanted {
    let mut unread = |problem: String| report.error(problem);
    let inputs = stored::inputs(state.config.path(), source, command_line, &mut unread);
    let mut fetch = |address: &str| {
        Err(format!(
            "{address} is not fetched: this version reads documents of disks alone"
        ))
    };
    let assembled = layers::assemble(&inputs, &mut fetch, diagnostics);
    let config = assembled
        .root
        .and_then(|root| CloudConfig::from_node(&root, diagnostics));
    Wanted {
        config: config.unwrap_or_else(CloudConfig::nothing),
        scripts: assembled.scripts,
        boothooks: assembled.boothooks,
        understood: assembled.understood,
        source: inputs.source,
    }
}
