//! Keys of people that services on the network tell (`ssh_import_id`): the other service asks for them, and keeps what it is told.

use std::collections::BTreeMap;

use keelson_config::cloud_config::KeyImport;
use keelson_first_boot::stored::imported;

use super::Wanted;
use crate::report::Report;
use crate::state::State;

/// Keys by a person's id.
#[derive(Debug, Default)]
pub(crate) struct Imported(BTreeMap<String, Vec<String>>);

impl Imported {
    /// The keys of all these people that are known.
    pub(crate) fn of(&self, imports: &[KeyImport]) -> Vec<String> {
        let keys = imports.iter().filter_map(|import| self.0.get(&import.id()));
        keys.flatten().cloned().collect()
    }
}

/// What services told of the people whom the configuration names; what they told of others is forgotten.
pub(super) fn read(state: &State, wanted: &Wanted, report: &mut Report) -> Imported {
    let imports: Vec<KeyImport> = wanted.config.key_imports().cloned().collect();
    // Who cannot be read of now may be named again at the next boot.
    if wanted.understood
        && let Err(error) = imported::forget_others(&state.config, &imports)
    {
        report.error(format!("write /state/config/source/keys: {error}"));
    }
    let mut all = Imported::default();
    for import in &imports {
        let id = import.id();
        if all.0.contains_key(&id) {
            continue;
        }
        match imported::read(&state.config, import) {
            Ok(said) => {
                let so_far = match &said.keys {
                    Some(_) => "the keys that it had before hold",
                    None => "nobody is let in for it",
                };
                if let Some(why) = said.refused {
                    report.error_at(
                        import.position,
                        &format!("ssh_import_id: {id}: {why}; {so_far}"),
                    );
                }
                all.0.insert(id, said.keys.unwrap_or_default());
            }
            Err(error) => report.error(format!("read the keys of {id}: {error}")),
        }
    }
    all
}
