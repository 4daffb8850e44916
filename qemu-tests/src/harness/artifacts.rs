//! The files that the image builder writes.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

/// A folder with a built image.
#[derive(Clone, Debug)]
pub struct Artifacts {
    dir: PathBuf,
}

impl Artifacts {
    /// The image in `dir`.
    ///
    /// # Errors
    /// When it has not been built.
    pub fn open(dir: &Path) -> Result<Self> {
        let artifacts = Artifacts {
            dir: dir.to_owned(),
        };
        for file in [
            artifacts.disk(),
            artifacts.kernel(),
            artifacts.initrd(),
            artifacts.cmdline_file(),
        ] {
            ensure!(
                file.is_file(),
                "{} is missing: build the image first (./mkimage.sh build)",
                file.display()
            );
        }
        Ok(artifacts)
    }

    /// The disk image: GPT, both OS slots, state partition.
    pub fn disk(&self) -> PathBuf {
        self.dir.join("keelson.img")
    }

    /// What the build consists of.
    pub fn manifest(&self) -> PathBuf {
        self.dir.join("manifest.json")
    }

    /// The kernel, for boots without firmware.
    pub fn kernel(&self) -> PathBuf {
        self.dir.join("vmlinuz")
    }

    /// The initrd that goes with it.
    pub fn initrd(&self) -> PathBuf {
        self.dir.join("initrd")
    }

    /// The kernel's command line, as in the signed image.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn cmdline(&self) -> Result<String> {
        let path = self.cmdline_file();
        Ok(fs::read_to_string(&path)
            .with_context(|| format!("reading {}", path.display()))?
            .trim()
            .to_owned())
    }

    fn cmdline_file(&self) -> PathBuf {
        self.dir.join("cmdline")
    }
}
