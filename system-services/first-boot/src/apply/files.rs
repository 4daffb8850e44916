//! `write_files`.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use keelson_config::cloud_config::WriteFile;
use keelson_config::instance::{APPEND_DIRECTORY, CONFIG_DIRECTORY, FILES_DIRECTORY};
use keelson_config::shell::quote;
use keelson_sys::durable::{Access, Tree};

use super::{Context, Steps};
use crate::accounts::Accounts;
use crate::report::Report;
use crate::state::{Place, State, Tier};

/// The largest file that is appended to.
const MAX_APPENDED_BYTES: u64 = 64 * 1024 * 1024;

/// Writes the files, those that are deferred last, and tells whether there were any. Users are there already, so that each file can
/// be anybody's. They are not durable before [`State::sync`].
pub(super) fn apply(
    context: &Context<'_>,
    accounts: &Accounts,
    files: &[WriteFile],
    steps: &mut Steps,
    report: &mut Report,
) -> bool {
    let mut any = false;
    let (deferred, first): (Vec<_>, Vec<_>) = files.iter().partition(|file| file.defer);
    // By path: how many entries there were for it, and whether one of them has replaced it now.
    let mut seen: BTreeMap<&str, (usize, bool)> = BTreeMap::new();
    for file in first.into_iter().chain(deferred) {
        let (number, replaced) = seen.entry(&file.path).or_default();
        let what = match file.append {
            true => format!("addition {number} to {}", file.path),
            false => format!("file {number} {}", file.path),
        };
        *number += 1;
        let asked = asked(file);
        // What comes after a replacement is to be done again.
        if !*replaced && !steps.is_due(&what, &asked) {
            steps.is_done(&what, &asked);
            continue;
        }
        let errors = report.errors().len();
        let access = Access {
            mode: file.mode,
            uid: id(
                accounts.user_id(&file.owner.user),
                file,
                &file.owner.user,
                report,
            ),
            gid: id(
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
            report.error_at(file.position, &message);
            continue;
        };
        let in_home = std::ptr::eq(place.tree, &raw const context.state.home);
        let written = place
            .make_parents(in_home, access)
            .and_then(|()| write(&context.state.config, &place, file, access));
        match written {
            Ok(()) => {
                *replaced |= !file.append;
                any = true;
            }
            Err(error) => report.error(format!("write {}: {error}", file.path)),
        }
        if report.errors().len() == errors {
            steps.is_done(&what, &asked);
        }
    }
    any
}

/// What tells one file's definition from another.
fn asked(file: &WriteFile) -> Vec<u8> {
    let mut asked = format!("{:o} {:?} {} ", file.mode, file.owner, file.append).into_bytes();
    asked.extend_from_slice(&file.content);
    asked
}

/// A script that fetches the files whose content is somewhere else; `None` when there are none.
pub(super) fn fetching(state: &State, files: &[WriteFile]) -> Option<Vec<u8>> {
    let mut script = String::from(
        "#!/bin/sh\n# Files of write_files whose content is somewhere else: to where they are kept, and from there to where they are seen.\n",
    );
    let empty = script.len();
    for file in files {
        let (Some(source), Some(place)) = (&file.source, state.place(&file.path)) else {
            continue;
        };
        let headers: String = source
            .headers
            .iter()
            .map(|(name, value)| format!(" --header={}", quote(&format!("{name}: {value}"))))
            .collect();
        let path = quote(&file.path);
        let kept = match std::ptr::eq(place.tree, &raw const state.config) {
            true => quote(&format!("{CONFIG_DIRECTORY}/{}", place.path.display())),
            false => path.clone(),
        };
        let lay = match kept == path {
            true => String::new(),
            false => format!(" && mkdir -p \"$(dirname {path})\" && cp -pT {kept} {path}"),
        };
        script.push_str(&format!(
            "new=$(mktemp -p {CONFIG_DIRECTORY}) && wget -q --tries=3 --timeout=10{headers} -O \"$new\" {uri} \\\n  \
             && chown {owner} \"$new\" && chmod {mode:04o} \"$new\" \\\n  \
             && mkdir -p \"$(dirname {kept})\" && mv -fT \"$new\" {kept} && sync {kept}{lay} \\\n  \
             || {{ rm -f \"$new\"; printf 'write_files: %s was not fetched; %s has the content beside it\\n' {uri} {path} >&2; }}\n",
            uri = quote(&source.uri),
            mode = file.mode,
            owner = quote(&format!("{}:{}", file.owner.user, file.owner.group)),
        ));
    }
    (script.len() > empty).then(|| script.into_bytes())
}

/// The number of an owner; root's, and a message, when there is no such name.
fn id(found: Option<u32>, file: &WriteFile, name: &str, report: &mut Report) -> u32 {
    if found.is_none() {
        let message = format!(
            "write_files: {} shall be `{name}`'s, who does not exist; it is root's instead",
            file.path
        );
        report.error_at(file.position, &message);
    }
    found.unwrap_or(0)
}

fn write(config: &Tree, place: &Place<'_>, file: &WriteFile, access: Access) -> io::Result<()> {
    if !file.append {
        return place.tree.write_later(&place.path, &file.content, access);
    }
    // What is added to must not be lost.
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
