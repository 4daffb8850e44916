//! What a configuration is made of, as it is stored: files of layers, the last good data of the machine's data source, and the
//! documents that this includes.
//!
//! - [`imported`]: keys that services told

pub mod imported;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use keelson_config::MAX_DOCUMENT_BYTES;
use keelson_config::instance::{LAYERS_DIRECTORY, SET_FILE, SOURCE_DIRECTORY};
use keelson_config::layers::{self, Inputs};
use keelson_config::sources::Source;
use keelson_config::user_data::Missing;
use keelson_sys::durable::{Access, Tree};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// Layers of the OS image.
const IMAGE_DIRECTORY: &str = "/usr/lib/keelson/config.d";
const RECORD: &str = "source.json";
/// Is there while something is still to be applied.
const NEWS: &str = "news";
/// Directory of documents that were fetched, below that of the data source.
const FETCHED: &str = "fetched";
/// What the name of a file with the reason ends with, when a document cannot be had.
const REFUSED: &str = ".refused";
/// Several documents in base64, and meta-data with what its aliases repeat.
const MAX_RECORD_BYTES: u64 = 16 * MAX_DOCUMENT_BYTES as u64;
/// They may hold secrets.
const ACCESS: Access = Access::root(0o600);

/// What a data source said, in one file: it is there as a whole or not at all.
#[derive(Serialize, Deserialize)]
struct Record {
    #[serde(flatten)]
    source: Source,
    /// In base64, as all documents.
    #[serde(default)]
    user_data: Option<String>,
    #[serde(default)]
    vendor_data: Vec<String>,
}

/// Keeps what `source` says. What another instance included is thrown away.
///
/// # Errors
/// What writing reports.
pub fn keep(config: &Tree, source: &Source) -> io::Result<()> {
    let directory = Path::new(SOURCE_DIRECTORY);
    config.make_directory(directory, Access::root(0o700))?;
    let path = directory.join(RECORD);
    let before = kept(config).ok().flatten();
    if before.is_some_and(|before| before.instance_id != source.instance_id) {
        forget_included(config)?;
    }
    let vendor_data = source.vendor_data.iter();
    let record = Record {
        source: source.clone(),
        user_data: source.user_data.as_ref().map(|data| STANDARD.encode(data)),
        vendor_data: vendor_data.map(|data| STANDARD.encode(data)).collect(),
    };
    let json = serde_json::to_vec(&record).map_err(io::Error::other)?;
    let there = config.read(&path, MAX_RECORD_BYTES).ok().flatten();
    if there.as_deref() == Some(json.as_slice()) {
        return Ok(());
    }
    config.write(&path, &json, ACCESS)
}

/// What was kept; `None` when nothing was.
///
/// # Errors
/// What reading reports, or what is wrong with the record.
pub fn kept(config: &Tree) -> io::Result<Option<Source>> {
    let path = Path::new(SOURCE_DIRECTORY).join(RECORD);
    let Some(record) = config.read(&path, MAX_RECORD_BYTES)? else {
        return Ok(None);
    };
    let record: Record = serde_json::from_slice(&record).map_err(io::Error::other)?;
    let unpack = |data: &String| STANDARD.decode(data).map_err(io::Error::other);
    let mut source = record.source;
    source.user_data = record.user_data.as_ref().map(unpack).transpose()?;
    source.vendor_data = record
        .vendor_data
        .iter()
        .map(unpack)
        .collect::<Result<_, _>>()?;
    Ok(Some(source))
}

/// Where a document is kept, by its address.
fn fetched(url: &str) -> PathBuf {
    let name = hex::encode(Sha256::digest(url.as_bytes()));
    Path::new(SOURCE_DIRECTORY).join(FETCHED).join(name)
}

/// A document that was fetched from `url`.
///
/// # Errors
/// It was not, so far; or it cannot be had.
pub fn included(config: &Tree, url: &str) -> Result<Vec<u8>, Missing> {
    let path = fetched(url);
    let refused = |error: io::Error| {
        Missing::Refused(format!("read /state/config/{}: {error}", path.display()))
    };
    if let Some(content) = config
        .read(&path, MAX_DOCUMENT_BYTES as u64)
        .map_err(refused)?
    {
        return Ok(content);
    }
    match config
        .read(&path.with_extension(&REFUSED[1..]), MAX_RECORD_BYTES)
        .map_err(refused)?
    {
        Some(reason) => Err(Missing::Refused(
            String::from_utf8_lossy(&reason).into_owned(),
        )),
        None => Err(Missing::Pending),
    }
}

/// Keeps a document that was fetched from `url`, or the reason why it cannot be had. A reason takes no document away.
///
/// # Errors
/// What writing reports.
pub fn keep_included(config: &Tree, url: &str, content: Result<&[u8], &str>) -> io::Result<()> {
    config.make_directory(
        &Path::new(SOURCE_DIRECTORY).join(FETCHED),
        Access::root(0o700),
    )?;
    let path = fetched(url);
    let reason = path.with_extension(&REFUSED[1..]);
    match content {
        Ok(content) => {
            config.write(&path, content, ACCESS)?;
            config.remove(&reason)
        }
        Err(why) => config.write(&reason, why.as_bytes(), ACCESS),
    }
}

/// Says that there is something to apply: before it is written, so that a process that ends in between is made up for.
///
/// # Errors
/// What writing reports.
pub fn keep_news(config: &Tree) -> io::Result<()> {
    config.write(&Path::new(SOURCE_DIRECTORY).join(NEWS), b"", ACCESS)
}

/// Whether there is something to apply.
///
/// # Errors
/// What reading reports.
pub fn has_news(config: &Tree) -> io::Result<bool> {
    let news = config.read(&Path::new(SOURCE_DIRECTORY).join(NEWS), 0)?;
    Ok(news.is_some())
}

/// It is being applied.
///
/// # Errors
/// What removing reports.
pub fn forget_news(config: &Tree) -> io::Result<()> {
    config.remove(&Path::new(SOURCE_DIRECTORY).join(NEWS))
}

/// Throws all documents away that were fetched: another instance's are others.
fn forget_included(config: &Tree) -> io::Result<()> {
    let directory = config.path().join(SOURCE_DIRECTORY).join(FETCHED);
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// All layers below `config`, the configuration's directory, and on the kernel command line, with what `source` says. What
/// cannot be read is left out: `report` is told.
pub fn inputs(
    config: &Tree,
    source: Source,
    command_line: &str,
    report: &mut dyn FnMut(String),
) -> Inputs {
    let mut paths = files(Path::new(IMAGE_DIRECTORY), report);
    paths.extend(files(&config.path().join(LAYERS_DIRECTORY), report));
    let set = config.path().join(SET_FILE);
    let mut files: Vec<_> = paths
        .iter()
        .filter_map(|path| read_layer(path, report))
        .collect();
    // As in cloud-init, what is there may be anything, and counts when it says that it is one.
    if let Some(url) = layers::command_line_url(command_line) {
        match included(config, url) {
            Ok(content) if content.starts_with(b"#cloud-config") => {
                files.push((url.to_owned(), content));
            }
            Ok(_) => report(format!(
                "cloud-config-url: {url} does not begin with `#cloud-config`; it is not applied"
            )),
            Err(Missing::Refused(error)) => {
                report(format!("cloud-config-url: {error}; it is not applied"))
            }
            Err(Missing::Pending) => {}
        }
    }
    Inputs {
        files,
        set: set.exists().then(|| read_layer(&set, report)).flatten(),
        command_line: command_line.to_owned(),
        source,
    }
}

/// The files of a directory of layers, in order of name.
fn files(directory: &Path, report: &mut dyn FnMut(String)) -> Vec<PathBuf> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Vec::new(),
        Err(error) => {
            report(format!("read {}: {error}", directory.display()));
            return Vec::new();
        }
    };
    let mut files: Vec<PathBuf> = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| {
            let ending = path.extension().and_then(|ending| ending.to_str());
            matches!(ending, Some("yml" | "yaml")) && path.is_file()
        })
        .collect();
    files.sort();
    files
}

/// A document and the name that people know it by.
fn read_layer(path: &Path, report: &mut dyn FnMut(String)) -> Option<(String, Vec<u8>)> {
    let name = path.display().to_string();
    let content =
        fs::metadata(path).and_then(|file| match file.len() > MAX_DOCUMENT_BYTES as u64 {
            true => Err(io::Error::other(format!(
                "larger than {MAX_DOCUMENT_BYTES} bytes; it is not applied"
            ))),
            false => fs::read(path),
        });
    match content {
        Ok(bytes) => Some((name, bytes)),
        Err(error) => {
            report(format!("read {name}: {error}"));
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_what_was_said() {
        let directory = tempfile::tempdir().unwrap();
        let tree = Tree::open(directory.path()).unwrap();
        assert_eq!(kept(&tree).unwrap(), None);
        let mut source = Source {
            instance_id: "i-1".into(),
            user_data: Some(b"#cloud-config\n".to_vec()),
            vendor_data: vec![b"a".to_vec(), b"b".to_vec()],
            ..Source::default()
        };
        keep(&tree, &source).unwrap();
        assert_eq!(kept(&tree).unwrap(), Some(source.clone()));
        (source.user_data, source.vendor_data) = (None, vec![b"c".to_vec()]);
        keep(&tree, &source).unwrap();
        assert_eq!(kept(&tree).unwrap(), Some(source));
    }

    #[test]
    fn a_document_is_there_pending_or_refused_and_a_reason_takes_none_away() {
        let directory = tempfile::tempdir().unwrap();
        let tree = Tree::open(directory.path()).unwrap();
        tree.make_directory(Path::new(SOURCE_DIRECTORY), Access::root(0o700))
            .unwrap();
        let url = "http://h/../x";
        assert_eq!(included(&tree, url), Err(Missing::Pending));
        keep_included(&tree, url, Err("gone")).unwrap();
        assert_eq!(included(&tree, url), Err(Missing::Refused("gone".into())));
        keep_included(&tree, url, Ok(b"#cloud-config\n")).unwrap();
        keep_included(&tree, url, Err("gone")).unwrap();
        assert_eq!(included(&tree, url), Ok(b"#cloud-config\n".to_vec()));
        let line = format!("ro cloud-config-url={url}");
        let files = inputs(&tree, Source::default(), &line, &mut |_| ()).files;
        assert_eq!(
            files.last().unwrap(),
            &(url.to_owned(), b"#cloud-config\n".to_vec())
        );
        let source = |id: &str| Source {
            instance_id: id.into(),
            ..Source::default()
        };
        keep(&tree, &source("i-1")).unwrap();
        assert!(included(&tree, url).is_ok());
        keep(&tree, &source("i-2")).unwrap();
        assert_eq!(included(&tree, url), Err(Missing::Pending));
    }
}
