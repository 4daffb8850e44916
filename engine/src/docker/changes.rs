//! `GET /containers/NAME/changes`: what a container has changed of its image.

use super::Context;
use super::container;
use super::error::{blocking, error};
use crate::server::Refused;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Json;
use bollard_stubs::models::{ChangeType, FilesystemChange};
use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{self, PathBuf};

/// What every container is given, and no change of its own.
const PLACES: [&str; 6] = [
    "/dev",
    "/etc/hostname",
    "/etc/hosts",
    "/etc/resolv.conf",
    "/proc",
    "/sys",
];

pub(super) async fn changes(
    State(context): State<Context>,
    Path(name): Path<String>,
) -> Result<Json<Vec<FilesystemChange>>, Refused> {
    let container = container::find(&context.engine, &name).await?;
    let Some(stored) = container.stored.clone() else {
        return Err(error(
            StatusCode::CONFLICT,
            format!("{name} is a service of the system: what it writes is not kept apart"),
        ));
    };
    let containers = context.paths.options.containers();
    let upper = containers.container(stored.key()).join("upper");
    let changes = blocking("read what the container has written", move || {
        let mut found = Vec::new();
        compare(&upper, path::Path::new("/"), &stored.layers, &mut found)?;
        Ok(found)
    });
    Ok(Json(changes.await?))
}

/// Looks through the upper layer of an overlay (Linux, Documentation/filesystems/overlayfs): what is there was written,
/// a character device 0/0 stands for what was removed.
fn compare(
    upper: &path::Path,
    below: &path::Path,
    layers: &[PathBuf],
    found: &mut Vec<FilesystemChange>,
) -> io::Result<()> {
    let directory = inside(upper, below);
    let entries = match fs::read_dir(&directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    let mut names = entries
        .map(|entry| Ok(entry?.file_name()))
        .collect::<io::Result<Vec<_>>>()?;
    names.sort();
    for name in names {
        let path = below.join(name);
        if PLACES.iter().any(|place| path == path::Path::new(place)) {
            continue;
        }
        let is = fs::symlink_metadata(inside(upper, &path))?;
        let was = layers.iter().find_map(|layer| {
            let was = fs::symlink_metadata(inside(layer, &path)).ok()?;
            Some(!is_whiteout(&was))
        });
        let kind = match (is_whiteout(&is), was == Some(true)) {
            (true, _) => ChangeType::_2,
            (false, true) => ChangeType::_0,
            (false, false) => ChangeType::_1,
        };
        found.push(FilesystemChange {
            path: path.display().to_string(),
            kind,
        });
        if is.is_dir() {
            compare(upper, &path, layers, found)?;
        }
    }
    Ok(())
}

fn inside(root: &path::Path, path: &path::Path) -> PathBuf {
    root.join(path.strip_prefix("/").unwrap_or(path))
}

fn is_whiteout(found: &fs::Metadata) -> bool {
    found.file_type().is_char_device() && found.rdev() == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_told_from_what_was_there() {
        let directory = tempfile::tempdir().unwrap();
        let [upper, layer] = ["upper", "layer"].map(|name| directory.path().join(name));
        for (root, file) in [
            (&layer, "etc/passwd"),
            (&upper, "etc/passwd"),
            (&upper, "etc/hosts"),
            (&upper, "etc/new/deep"),
        ] {
            fs::create_dir_all(root.join(file).parent().unwrap()).unwrap();
            fs::write(root.join(file), "x").unwrap();
        }
        let mut found = Vec::new();
        compare(&upper, path::Path::new("/"), &[layer], &mut found).unwrap();
        let found: Vec<(&str, ChangeType)> = found
            .iter()
            .map(|change| (change.path.as_str(), change.kind))
            .collect();
        assert_eq!(
            found,
            [
                ("/etc", ChangeType::_0),
                ("/etc/new", ChangeType::_1),
                ("/etc/new/deep", ChangeType::_1),
                ("/etc/passwd", ChangeType::_0)
            ]
        );
        let mut nothing = Vec::new();
        compare(&upper.join("none"), path::Path::new("/"), &[], &mut nothing).unwrap();
        assert!(nothing.is_empty());
    }
}
