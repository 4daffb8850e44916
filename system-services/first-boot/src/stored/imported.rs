//! Keys of people that services on the network told (`ssh_import_id`): what each said last, one file a person.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use keelson_config::cloud_config::KeyImport;
use keelson_config::instance::SOURCE_DIRECTORY;
use keelson_sys::durable::{Access, Tree};
use serde::{Deserialize, Serialize};

use super::ACCESS;

/// Directory of the files, below that of the data source. Another instance of the machine asks for the same people's.
const DIRECTORY: &str = "keys";
const MAX_BYTES: u64 = 1024 * 1024;

/// What a service said of a person.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Imported {
    /// The last list of keys, as lines of an `authorized_keys` file; `None` when there never was one.
    pub keys: Option<Vec<String>>,
    /// Why there is no newer one, when another try would bring the same.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
}

/// The person's file: an id has no slash.
fn path(import: &KeyImport) -> PathBuf {
    Path::new(SOURCE_DIRECTORY)
        .join(DIRECTORY)
        .join(import.id())
}

/// What was said of a person; nothing when nobody was asked yet.
///
/// # Errors
/// What reading reports, or what is wrong with the file.
pub fn read(config: &Tree, import: &KeyImport) -> io::Result<Imported> {
    match config.read(&path(import), MAX_BYTES)? {
        Some(json) => serde_json::from_slice(&json).map_err(io::Error::other),
        None => Ok(Imported::default()),
    }
}

/// Keeps what is said of a person.
///
/// # Errors
/// What writing reports.
pub fn keep(config: &Tree, import: &KeyImport, said: &Imported) -> io::Result<()> {
    let directory = Path::new(SOURCE_DIRECTORY).join(DIRECTORY);
    config.make_directory(&directory, Access::root(0o700))?;
    let json = serde_json::to_vec(said).map_err(io::Error::other)?;
    config.write(&path(import), &json, ACCESS)
}

/// Forgets the keys of all but these people.
///
/// # Errors
/// What reading the directory or removing reports.
pub fn forget_others(config: &Tree, imports: &[KeyImport]) -> io::Result<()> {
    let directory = Path::new(SOURCE_DIRECTORY).join(DIRECTORY);
    let entries = match fs::read_dir(config.path().join(&directory)) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let name = entry?.file_name();
        let is_wanted = imports.iter().any(|import| *import.id() == *name);
        if !is_wanted {
            config.remove(&directory.join(&name))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use keelson_config::Position;

    use super::*;

    #[test]
    fn keys_are_kept_by_person_until_they_are_not_wanted() {
        let directory = tempfile::tempdir().unwrap();
        let tree = Tree::open(directory.path()).unwrap();
        tree.make_directory(Path::new(SOURCE_DIRECTORY), Access::root(0o700))
            .unwrap();
        let import = |id| KeyImport::parse(id, Position::default()).unwrap();
        let (ann, bob) = (import("gh:ann"), import("lp:bob"));
        forget_others(&tree, &[]).unwrap();
        assert_eq!(read(&tree, &ann).unwrap(), Imported::default());
        let said = Imported {
            keys: Some(vec!["ssh-rsa A".into()]),
            refused: Some("gone".into()),
        };
        keep(&tree, &ann, &said).unwrap();
        keep(&tree, &bob, &said).unwrap();
        forget_others(&tree, std::slice::from_ref(&ann)).unwrap();
        assert_eq!(read(&tree, &ann).unwrap(), said);
        assert_eq!(read(&tree, &bob).unwrap(), Imported::default());
    }
}
