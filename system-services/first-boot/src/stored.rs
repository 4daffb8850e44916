//! What a configuration is made of, as it is stored: files of layers, and the last good data of the machine's data source.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use keelson_config::MAX_DOCUMENT_BYTES;
use keelson_config::instance::{LAYERS_DIRECTORY, SET_FILE, SOURCE_DIRECTORY};
use keelson_config::layers::Inputs;
use keelson_config::sources::Source;
use keelson_sys::durable::{Access, Tree};

/// Layers of the OS image.
const IMAGE_DIRECTORY: &str = "/usr/lib/keelson/config.d";
const RECORD: &str = "source.json";
const USER_DATA: &str = "user-data";
/// More than anybody has.
const MOST_VENDOR_DATA: usize = 8;
/// A document, with what its aliases repeat.
const MAX_RECORD_BYTES: u64 = 16 * MAX_DOCUMENT_BYTES as u64;
/// They may hold secrets.
const ACCESS: Access = Access::root(0o600);

fn vendor_data(number: usize) -> String {
    format!("vendor-data-{number}")
}

/// Keeps what `source` says. The record comes last: with it all is there.
///
/// # Errors
/// What writing reports.
pub fn keep(config: &Tree, source: &Source) -> io::Result<()> {
    let directory = Path::new(SOURCE_DIRECTORY);
    let record = directory.join(RECORD);
    config.make_directory(directory, Access::root(0o700))?;
    let json = serde_json::to_vec(source).map_err(io::Error::other)?;
    let mut files: Vec<(String, Option<&[u8]>)> =
        vec![(USER_DATA.to_owned(), source.user_data.as_deref())];
    for number in 0..MOST_VENDOR_DATA {
        let content = source.vendor_data.get(number).map(Vec::as_slice);
        files.push((vendor_data(number), content));
    }
    for (name, content) in files {
        let path = directory.join(name);
        match content {
            Some(content) => {
                if config
                    .read(&path, MAX_DOCUMENT_BYTES as u64)
                    .ok()
                    .flatten()
                    .as_deref()
                    != Some(content)
                {
                    config.write(&path, content, ACCESS)?;
                }
            }
            None => config.remove(&path)?,
        }
    }
    if config
        .read(&record, MAX_RECORD_BYTES)
        .ok()
        .flatten()
        .as_deref()
        == Some(json.as_slice())
    {
        return Ok(());
    }
    config.write(&record, &json, ACCESS)
}

/// What was kept; `None` when nothing was.
///
/// # Errors
/// What reading reports, or what is wrong with the record.
pub fn kept(config: &Tree) -> io::Result<Option<Source>> {
    let directory = Path::new(SOURCE_DIRECTORY);
    let file = |name: &str| config.read(&directory.join(name), MAX_DOCUMENT_BYTES as u64);
    let Some(record) = config.read(&directory.join(RECORD), MAX_RECORD_BYTES)? else {
        return Ok(None);
    };
    let mut source: Source = serde_json::from_slice(&record).map_err(io::Error::other)?;
    source.user_data = file(USER_DATA)?;
    for number in 0..MOST_VENDOR_DATA {
        source.vendor_data.extend(file(&vendor_data(number))?);
    }
    Ok(Some(source))
}

/// All layers below `config`, the configuration's directory, and on the kernel command line, with what `source` says. What
/// cannot be read is left out: `report` is told.
pub fn inputs(
    config: &Path,
    source: Source,
    command_line: &str,
    report: &mut dyn FnMut(String),
) -> Inputs {
    let mut paths = layers(Path::new(IMAGE_DIRECTORY), report);
    paths.extend(layers(&config.join(LAYERS_DIRECTORY), report));
    let set = config.join(SET_FILE);
    Inputs {
        files: paths
            .iter()
            .filter_map(|path| read_layer(path, report))
            .collect(),
        set: set.exists().then(|| read_layer(&set, report)).flatten(),
        command_line: command_line.to_owned(),
        source,
    }
}

/// The files of a directory of layers, in order of name.
fn layers(directory: &Path, report: &mut dyn FnMut(String)) -> Vec<PathBuf> {
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
}
