//! The directory of networks that clients made: one JSON file each.

use super::Network;
use keelson_sys::durable::{Access, Tree};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Far more than a network's description has.
const FILE_MAX_BYTES: u64 = 1 << 20;

/// The directory. Every call blocks on the disk.
#[derive(Clone, Debug)]
pub struct Store {
    directory: PathBuf,
}

impl Store {
    /// The networks in `directory`, which is made with the first one.
    pub fn new(directory: PathBuf) -> Self {
        Self { directory }
    }

    /// Writes a network down: it is on the disk when this returns.
    ///
    /// # Errors
    /// What the system calls report.
    pub fn write(&self, network: &Network) -> io::Result<()> {
        fs::create_dir_all(&self.directory)?;
        let text = serde_json::to_vec(network)?;
        let name = format!("{}.json", network.id);
        Tree::open(&self.directory)?.write(Path::new(&name), &text, Access::root(0o600))
    }

    /// Takes a network out: gone for good when this returns.
    ///
    /// # Errors
    /// What the system calls report.
    pub fn remove(&self, network: &Network) -> io::Result<()> {
        fs::remove_file(self.directory.join(format!("{}.json", network.id)))?;
        fs::File::open(&self.directory)?.sync_all()
    }

    /// All networks, and what could not be read: path and reason.
    pub fn load(&self) -> (Vec<Network>, Vec<String>) {
        let (mut networks, mut complaints) = (Vec::new(), Vec::new());
        for entry in fs::read_dir(&self.directory)
            .into_iter()
            .flatten()
            .flatten()
        {
            let name = entry.file_name();
            if !name.as_encoded_bytes().ends_with(b".json") {
                continue;
            }
            match self.read(Path::new(&name)) {
                Ok(Some(network)) => networks.push(network),
                Ok(None) => {}
                Err(error) => {
                    complaints.push(format!("cannot use {}: {error}", entry.path().display()));
                }
            }
        }
        (networks, complaints)
    }

    fn read(&self, path: &Path) -> io::Result<Option<Network>> {
        let text = Tree::open(&self.directory)?.read(path, FILE_MAX_BYTES)?;
        Ok(text.map(|text| serde_json::from_slice(&text)).transpose()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_is_there_until_it_is_removed() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::new(directory.path().join("networks"));
        assert_eq!(store.load(), (vec![], vec![]));
        let network = Network::default_bridge();
        store.write(&network).unwrap();
        fs::write(directory.path().join("networks/x.json"), "{").unwrap();
        let (networks, complaints) = store.load();
        assert_eq!((networks, complaints.len()), (vec![network.clone()], 1));
        store.remove(&network).unwrap();
        assert_eq!(store.load().0, []);
    }
}
