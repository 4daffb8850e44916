//! Files, directories, users and groups: what several kinds of recipe can ask for.

use serde::Deserialize;

use super::{Mode, Owner, TreePath};

/// A directory that is made.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Directory {
    /// Where.
    pub(crate) path: TreePath,
    /// Permission bits, `0755` when not given.
    #[serde(default = "directory_mode")]
    pub(crate) mode: Mode,
    /// Owner, root when not given.
    #[serde(default)]
    pub(crate) owner: Owner,
}

/// A file or symbolic link that is made; it replaces one that a package brought.
#[derive(Debug, Clone, Deserialize)]
#[serde(try_from = "RawFile")]
pub(crate) struct FileEntry {
    /// Where.
    pub(crate) path: TreePath,
    /// What stands in it.
    pub(crate) content: FileContent,
    /// Permission bits, `0644` when not given.
    pub(crate) mode: Mode,
    /// Owner, root when not given.
    pub(crate) owner: Owner,
}

/// Where a file's content comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum FileContent {
    /// The text itself.
    Text(String),
    /// A file in the recipe's own folder.
    Source(String),
    /// Not a file but a symbolic link to this target.
    Link(String),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawFile {
    path: TreePath,
    content: Option<String>,
    source: Option<String>,
    link: Option<String>,
    #[serde(default = "file_mode")]
    mode: Mode,
    #[serde(default)]
    owner: Owner,
}

impl TryFrom<RawFile> for FileEntry {
    type Error = String;

    fn try_from(raw: RawFile) -> Result<Self, String> {
        let content = match (raw.content, raw.source, raw.link) {
            (Some(text), None, None) => FileContent::Text(text),
            (None, Some(source), None) => FileContent::Source(source),
            (None, None, Some(target)) => FileContent::Link(target),
            _ => {
                let path = raw.path.relative();
                return Err(format!(
                    "file /{path} needs exactly one of `content`, `source` and `link`"
                ));
            }
        };
        Ok(Self {
            path: raw.path,
            content,
            mode: raw.mode,
            owner: raw.owner,
        })
    }
}

/// A user of an image; the password is locked.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct User {
    /// Login name.
    pub(crate) name: String,
    /// User id.
    pub(crate) uid: u32,
    /// Primary group's id.
    pub(crate) gid: u32,
    /// Home directory.
    #[serde(default = "no_home")]
    pub(crate) home: String,
    /// Login shell.
    #[serde(default = "no_shell")]
    pub(crate) shell: String,
    /// Full name or remark.
    #[serde(default)]
    pub(crate) gecos: String,
    /// Further groups, by name.
    #[serde(default)]
    pub(crate) groups: Vec<String>,
}

/// A group of an image.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Group {
    /// Group name.
    pub(crate) name: String,
    /// Group id.
    pub(crate) gid: u32,
    /// Members beside the users that name this group themselves.
    #[serde(default)]
    pub(crate) members: Vec<String>,
}

/// One file taken out of a package.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Extract {
    /// Debian package.
    pub(crate) package: String,
    /// The file's path in it.
    pub(crate) from: TreePath,
    /// Where it goes.
    pub(crate) to: TreePath,
    /// Permission bits, `0644` when not given.
    #[serde(default = "file_mode")]
    pub(crate) mode: Mode,
}

fn directory_mode() -> Mode {
    Mode(0o755)
}

fn file_mode() -> Mode {
    Mode(0o644)
}

fn no_home() -> String {
    "/nonexistent".into()
}

fn no_shell() -> String {
    "/usr/sbin/nologin".into()
}
