//! Recipes: what goes into each image, as data. Unknown keys and wrong values are errors with file, line and column.
//!
//! - `flavour.rs`: what flavours change in them
//! - `values.rs`: modes, owners and paths as recipes write them
//! - `content.rs`: files, directories, users and groups: the parts that several recipes share
//! - `kinds.rs`: one type per recipe: service image, kernel, initrd, root, disk

mod content;
mod flavour;
mod kinds;
mod values;

use std::path::Path;

use anyhow::{Result, anyhow};
use serde::de::DeserializeOwned;

pub(crate) use content::{Directory, Extract, FileContent, FileEntry, Group, User};
pub(crate) use flavour::{Flavour, USUAL};
pub(crate) use kinds::{
    Disk, Erofs, EveryImage, Grub, Initrd, Kernel, Profile, Root, ServiceImage,
};
pub(crate) use values::{Mode, Owner, TreePath};

use crate::files;

/// A recipe with the text it was read from, which is the input of the steps that follow it.
#[derive(Debug, Clone)]
pub(crate) struct Recipe<T> {
    /// The text of the file.
    pub(crate) text: String,
    /// What it says.
    pub(crate) content: T,
}

/// Reads the recipe at `path`, naming it `shown` in errors.
///
/// # Errors
/// When it cannot be read or is not a valid recipe; then the message begins with `file:line:column`.
pub(crate) fn load<T: DeserializeOwned>(path: &Path, shown: &str) -> Result<Recipe<T>> {
    let text = files::read_text(path)?;
    let content = parse(&text, shown)?;
    Ok(Recipe { text, content })
}

/// Parses a recipe's text, naming the file `shown` in errors.
///
/// # Errors
/// When the text is not a valid recipe.
pub(crate) fn parse<T: DeserializeOwned>(text: &str, shown: &str) -> Result<T> {
    serde_yaml::from_str(text).map_err(|error| match error.location() {
        Some(place) => {
            let message = error.to_string();
            let suffix = format!(" at line {} column {}", place.line(), place.column());
            let message = message.strip_suffix(&suffix).unwrap_or(&message);
            anyhow!("{shown}:{}:{}: {message}", place.line(), place.column())
        }
        None => anyhow!("{shown}: {error}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(text: &str) -> String {
        parse::<ServiceImage>(text, "image.yml")
            .unwrap_err()
            .to_string()
    }

    #[test]
    fn a_service_recipe_is_read_whole() {
        let text = r#"
image: console
packages: [bash, openssh-server]
without: [perl-base]
programs: [keelson]
drop: ["usr/share/doc/**"]
directories: [{path: /var/lib/foo, mode: "0750", owner: "101:102"}]
files:
  - {path: /etc/hostname, content: "x\n", mode: "0600", owner: "0:5"}
  - {path: /etc/link, link: ../target}
  - {path: /etc/copy, source: copy.conf}
users: [{name: root, uid: 0, gid: 0, home: /root, shell: /bin/bash, groups: [docker]}]
groups: [{name: docker, gid: 998, members: [keelson]}]
"#;
        let recipe: ServiceImage = parse(text, "image.yml").unwrap();
        assert_eq!(recipe.image, "console");
        assert_eq!(recipe.directories[0].mode, Mode(0o750));
        assert_eq!(
            recipe.directories[0].owner,
            Owner {
                user: 101,
                group: 102
            }
        );
        assert_eq!(recipe.files[0].mode, Mode(0o600));
        assert_eq!(
            recipe.files[1].content,
            FileContent::Link("../target".into())
        );
        assert_eq!(
            recipe.files[2].content,
            FileContent::Source("copy.conf".into())
        );
        assert_eq!(recipe.users[0].groups, ["docker"]);
        assert_eq!(recipe.groups[0].members, ["keelson"]);
    }

    #[test]
    fn an_unknown_key_is_an_error_with_line_and_column() {
        let message = failure("image: console\npackages: []\npakcages: [bash]\n");
        assert!(message.starts_with("image.yml:3:1: "), "{message}");
        assert!(message.contains("pakcages"), "{message}");
    }

    #[test]
    fn an_unknown_key_in_a_list_entry_is_an_error_with_line_and_column() {
        let message = failure("image: x\ndirectories:\n  - path: /a\n    mod: \"0755\"\n");
        assert!(message.starts_with("image.yml:4:5: "), "{message}");
    }

    #[test]
    fn wrong_values_are_errors_with_a_line() {
        for (text, wanted) in [
            (
                "image: x\ndirectories: [{path: etc}]\n",
                "must begin with a slash",
            ),
            (
                "image: x\ndirectories: [{path: /a/../b}]\n",
                "must not contain `..`",
            ),
            ("image: x\ndirectories: [{path: /a, mode: rwx}]\n", "octal"),
            (
                "image: x\ndirectories: [{path: /a, owner: root}]\n",
                "USER:GROUP",
            ),
            ("image: x\nfiles: [{path: /a}]\n", "exactly one of"),
            (
                "image: x\nfiles: [{path: /a, link: b, content: c}]\n",
                "exactly one of",
            ),
            ("image: x/y\n", "letters"),
        ] {
            let message = failure(text);
            assert!(message.contains(wanted), "{text}: {message}");
            assert!(message.starts_with("image.yml:"), "{message}");
        }
    }
}
