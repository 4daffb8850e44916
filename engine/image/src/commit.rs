//! The last step of whatever brings an image: its name.

use crate::failpoint;
use keelson_image::store::{Entry, Lock};
use keelson_image::{Reference, Store};

/// Gives an image its entry. A name that another image had is taken from it; that one stays without, until it is cleaned
/// away. Returns whether anything changed.
///
/// # Errors
/// When index.json cannot be read or written.
pub(crate) fn commit(store: &Store, entry: Entry) -> anyhow::Result<bool> {
    let _lock = Lock::exclusive(store)?;
    let mut entries = store.entries()?;
    if entries.contains(&entry) {
        return Ok(false);
    }
    if let Some(reference) = &entry.reference {
        lose_name(&mut entries, reference);
    }
    entries.retain(|other| !(other.reference.is_none() && other.manifest == entry.manifest));
    entries.push(entry);
    failpoint::reach("before-index");
    store.replace_entries(&entries)?;
    failpoint::reach("after-index");
    Ok(true)
}

/// Takes a name from whoever has it; an image that has no other name stays as one without.
pub(crate) fn lose_name(entries: &mut Vec<Entry>, reference: &Reference) {
    let Some(at) = entries
        .iter()
        .position(|entry| entry.reference.as_ref() == Some(reference))
    else {
        return;
    };
    let mut entry = entries.remove(at);
    if entries.iter().any(|other| other.manifest == entry.manifest) {
        return;
    }
    entry.reference = None;
    entries.push(entry);
}
