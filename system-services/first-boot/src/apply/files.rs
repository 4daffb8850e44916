//! `write_files`.

use std::io;
use std::path::{Path, PathBuf};

use keelson_config::cloud_config::WriteFile;
use keelson_config::instance::{APPEND_DIRECTORY, FILES_DIRECTORY};
use keelson_config::{Diagnostics, Position};
use keelson_sys::durable::{Access, Tree};

use super::Context;
use crate::accounts::Accounts;
use crate::report::Report;
use crate::state::{Place, Tier};

/// The largest file that is appended to.
const MAX_APPENDED_BYTES: u64 = 64 * 1024 * 1024;

/// Writes the files, those that are deferred last. Users are there already, so that each file can be anybody's.
pub(super) fn apply(
    context: &Context<'_>,
    accounts: &Accounts,
    files: &[WriteFile],
    report: &mut Report,
) {
    let (deferred, first): (Vec<_>, Vec<_>) = files.iter().partition(|file| file.defer);
    for file in first.into_iter().chain(deferred) {
        let access = Access {
            mode: file.mode,
            uid: number(
                accounts.user_id(&file.owner.user),
                file,
                &file.owner.user,
                report,
            ),
            gid: number(
                accounts.group_id(&file.owner.group),
                file,
                &file.owner.group,
                report,
            ),
        };
        let Some(place) = context.state.place(&file.path) else {
            let message = format!(
                "write_files: no file can be kept at {}; it is not written",
                file.path
            );
            say(file.position, message, report);
            continue;
        };
        let in_home = std::ptr::eq(place.tree, &raw const context.state.home);
        let written = place
            .make_parents(in_home, access)
            .and_then(|()| write(&context.state.config, &place, file, access));
        if let Err(error) = written {
            report.error(format!("write {}: {error}", file.path));
        }
    }
}

/// The number of an owner; root's, and a message, when there is no such name.
fn number(found: Option<u32>, file: &WriteFile, name: &str, report: &mut Report) -> u32 {
    if found.is_none() {
        let message = format!(
            "write_files: {} shall be `{name}`'s, who does not exist; it is root's instead",
            file.path
        );
        say(file.position, message, report);
    }
    found.unwrap_or(0)
}

fn say(position: Position, message: String, report: &mut Report) {
    let mut diagnostics = Diagnostics::new("user-data");
    diagnostics.error(position, message);
    report.diagnostics(diagnostics.into_sorted());
}

fn write(config: &Tree, place: &Place<'_>, file: &WriteFile, access: Access) -> io::Result<()> {
    if !file.append {
        return place.tree.write(&place.path, &file.content, access);
    }
    match (
        place.tree.read(&place.path, MAX_APPENDED_BYTES)?,
        place.tier,
    ) {
        (Some(content), _) => append(place.tree, &place.path, content, &file.content, access),
        (None, Tier::Kept) => place.tree.write(&place.path, &file.content, access),
        // The file may be one of the console's image: the console adds to it.
        (None, Tier::Laid) => {
            let below = place
                .path
                .strip_prefix(FILES_DIRECTORY)
                .unwrap_or(&place.path);
            let path: PathBuf = Path::new(APPEND_DIRECTORY).join(below);
            let content = config.read(&path, MAX_APPENDED_BYTES)?.unwrap_or_default();
            append(config, &path, content, &file.content, access)
        }
    }
}

/// Adds `more` at the end of `content`, unless an interrupted first boot has done so already.
fn append(
    tree: &Tree,
    path: &Path,
    mut content: Vec<u8>,
    more: &[u8],
    access: Access,
) -> io::Result<()> {
    if !content.ends_with(more) {
        content.extend_from_slice(more);
    }
    tree.write(path, &content, access)
}
