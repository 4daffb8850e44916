//! The directory of containers.

use super::Stored;
use keelson_sys::durable::{Access, Tree};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

const FILE: &str = "container.json";
/// What is being removed: its name no container can have.
const TRASH: &str = ".trash";
/// Far more than a container's description has.
const FILE_MAX_BYTES: u64 = 16 << 20;

/// The directory of containers. Every call blocks on the disk.
#[derive(Clone, Debug)]
pub struct Store {
    directory: PathBuf,
}

impl Store {
    /// The store in `directory`, which is made when something is first written.
    pub fn new(directory: PathBuf) -> Self {
        Self { directory }
    }

    /// The directory of one container.
    pub fn container(&self, key: &str) -> PathBuf {
        self.directory.join(key)
    }

    /// Writes what is known of a container. It is on the disk when this returns, unless the container goes with its
    /// end anyway.
    ///
    /// # Errors
    /// What the system calls report.
    pub fn write(&self, container: &Stored) -> io::Result<()> {
        let text = serde_json::to_vec(container)?;
        let directory = self.container(container.key());
        fs::create_dir_all(&directory)?;
        if container.auto_remove() {
            let new = directory.join("container.new");
            return fs::write(&new, text).and_then(|()| fs::rename(new, directory.join(FILE)));
        }
        let path = Path::new(container.key()).join(FILE);
        Tree::open(&self.directory)?.write(&path, &text, Access::root(0o600))?;
        // The directory's own name; its parent was made with the first container.
        fs::File::open(&self.directory)?.sync_all()
    }

    /// Takes a container out: gone for good when this returns. Its files are removed by [`Store::empty_trash`].
    ///
    /// # Errors
    /// What the system calls report; it is then still there.
    pub fn remove(&self, key: &str) -> io::Result<()> {
        let trash = self.directory.join(TRASH);
        fs::create_dir_all(&trash)?;
        let place = trash.join(key);
        let _ = fs::remove_dir_all(&place);
        match fs::rename(self.container(key), &place) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            other => other?,
        }
        fs::File::open(&self.directory)?.sync_all()
    }

    /// Removes the files of containers that were taken out. Their directory stays: others may be about to use it.
    pub fn empty_trash(&self) {
        let entries = fs::read_dir(self.directory.join(TRASH));
        for entry in entries.into_iter().flatten().flatten() {
            let _ = fs::remove_dir_all(entry.path());
        }
    }

    /// All containers, the oldest first, and what could not be read: path and reason.
    pub fn load(&self) -> (Vec<Stored>, Vec<String>) {
        let (mut containers, mut complaints) = (Vec::new(), Vec::new());
        for entry in fs::read_dir(&self.directory)
            .into_iter()
            .flatten()
            .flatten()
        {
            let name = entry.file_name();
            if name.as_encoded_bytes().starts_with(b".") {
                continue;
            }
            let path = entry.path().join(FILE);
            match self.read(&Path::new(&name).join(FILE)) {
                // It was being made when the power went.
                Ok(None) => drop(fs::remove_dir_all(entry.path())),
                Ok(Some(container)) if name == container.key() => containers.push(container),
                Ok(Some(_)) => complaints.push(format!(
                    "cannot use {}: it is another container's",
                    path.display()
                )),
                Err(error) => {
                    complaints.push(format!("cannot use {}: {error}", path.display()));
                }
            }
        }
        containers.sort_by(|a, b| (a.created_us, &a.id).cmp(&(b.created_us, &b.id)));
        (containers, complaints)
    }

    fn read(&self, path: &Path) -> io::Result<Option<Stored>> {
        let text = Tree::open(&self.directory)?.read(path, FILE_MAX_BYTES)?;
        Ok(text.map(|text| serde_json::from_slice(&text)).transpose()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::containers::Outcome;
    use bollard_stubs::models::ContainerCreateBody;

    fn stored(id: &str, created_us: u64) -> Stored {
        Stored {
            id: id.repeat(16),
            name: format!("name-{id}"),
            created_us,
            image_id: "keelson/console".into(),
            layers: Vec::new(),
            body: ContainerCreateBody::default(),
            outcome: Outcome::default(),
        }
    }

    #[test]
    fn what_was_written_is_there_until_it_is_removed() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::new(directory.path().join("containers"));
        let (old, new) = (stored("abcd", 1), stored("ef01", 2));
        store.write(&new).unwrap();
        store.write(&old).unwrap();
        assert_eq!(store.load(), (vec![old.clone(), new.clone()], vec![]));
        store.remove(old.key()).unwrap();
        store.remove(old.key()).unwrap();
        assert_eq!(store.load(), (vec![new], vec![]));
        store.empty_trash();
        let trash = directory.path().join("containers/.trash");
        assert_eq!(fs::read_dir(trash).unwrap().count(), 0);
    }

    #[test]
    fn half_a_container_is_cleared_away_and_a_broken_one_is_reported_and_kept() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::new(directory.path().to_owned());
        fs::create_dir_all(directory.path().join("half/upper")).unwrap();
        fs::create_dir_all(directory.path().join("broken")).unwrap();
        fs::write(directory.path().join("broken/container.json"), "{").unwrap();
        let (containers, complaints) = store.load();
        assert_eq!(containers, []);
        assert_eq!(complaints.len(), 1, "{complaints:?}");
        assert!(!directory.path().join("half").exists());
        assert!(directory.path().join("broken").exists());
    }
}
