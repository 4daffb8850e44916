//! Where things are kept: the parts of the state partition that this service writes to.

use std::io;
use std::path::{Path, PathBuf};

use keelson_config::instance::{CONFIG_DIRECTORY, FILES_DIRECTORY};
use keelson_sys::durable::{Access, Tree};

/// Docker's settings: written to `/etc` as everywhere, read by the user engine from the state partition.
const DOCKER_SETTINGS: (&str, &str) = ("/etc/docker/daemon.json", "docker/daemon.json");

/// The directories that this service may write to.
pub(crate) struct State {
    /// `/state/config`.
    pub(crate) config: Tree,
    /// `/state/home`, the console's `/home`.
    pub(crate) home: Tree,
    /// `/state/opt`, the console's `/opt`.
    pub(crate) opt: Tree,
}

/// Where a path of the console's is kept.
#[derive(Clone, Copy)]
pub(crate) enum Tier {
    /// On the state partition itself.
    Kept,
    /// In the tree that the console lays over its root at each start.
    Laid,
}

/// A path of the console's and where it is kept.
pub(crate) struct Place<'a> {
    /// The tree it is in.
    pub(crate) tree: &'a Tree,
    /// Its path there.
    pub(crate) path: PathBuf,
    /// How it gets into the console.
    pub(crate) tier: Tier,
}

impl State {
    /// Opens the directories below `root`.
    ///
    /// # Errors
    /// What open(2) reports of the first that is missing.
    pub(crate) fn open(root: &Path) -> io::Result<Self> {
        let open = |path: &str| {
            let path = root.join(path.trim_start_matches('/'));
            Tree::open(&path).map_err(|error| {
                io::Error::new(error.kind(), format!("open {}: {error}", path.display()))
            })
        };
        Ok(State {
            config: open(CONFIG_DIRECTORY)?,
            home: open("/state/home")?,
            opt: open("/state/opt")?,
        })
    }

    /// Makes all that was written durable. The directories may be on file systems of their own.
    ///
    /// # Errors
    /// What syncfs(2) reports.
    pub(crate) fn sync(&self) -> io::Result<()> {
        let all = [&self.config, &self.home, &self.opt];
        all.into_iter().try_for_each(Tree::sync)
    }

    /// Where the console's absolute `path` is kept; `None` for paths that no file can be kept at.
    pub(crate) fn place(&self, path: &str) -> Option<Place<'_>> {
        let kept = |tree, path: &Path| {
            Some(Place {
                tree,
                path: path.to_owned(),
                tier: Tier::Kept,
            })
        };
        if path == DOCKER_SETTINGS.0 {
            return kept(&self.config, Path::new(DOCKER_SETTINGS.1));
        }
        let path = Path::new(path);
        let below = |directory: &str| {
            path.strip_prefix(directory)
                .ok()
                .filter(|rest| rest.components().count() > 0)
        };
        for (directory, tree) in [
            ("/home", &self.home),
            ("/state/home", &self.home),
            ("/opt", &self.opt),
            ("/state/opt", &self.opt),
            ("/state/config", &self.config),
        ] {
            if let Some(rest) = below(directory) {
                return kept(tree, rest);
            }
        }
        if ["/state", "/proc", "/sys", "/dev", "/home", "/opt"]
            .iter()
            .any(|directory| path.starts_with(directory))
        {
            return None;
        }
        let rest = path.strip_prefix("/").ok()?;
        Some(Place {
            tree: &self.config,
            path: Path::new(FILES_DIRECTORY).join(rest),
            tier: Tier::Laid,
        })
    }
}

impl Place<'_> {
    /// Makes the directories above it that are missing, below a home directory with the owner of what goes there.
    pub(crate) fn make_parents(&self, tree_is_home: bool, owner: Access) -> io::Result<()> {
        let parents: Vec<&Path> = self
            .path
            .ancestors()
            .skip(1)
            .filter(|path| !path.as_os_str().is_empty())
            .collect();
        for (depth, parent) in parents.into_iter().rev().enumerate() {
            // The first one is the user's home itself, which is private.
            let access = match (tree_is_home, depth) {
                (true, 0) => Access {
                    mode: 0o700,
                    ..owner
                },
                (true, _) => Access {
                    mode: 0o755,
                    ..owner
                },
                (false, _) => Access::root(0o755),
            };
            self.tree.make_directory(parent, access)?;
        }
        Ok(())
    }
}
