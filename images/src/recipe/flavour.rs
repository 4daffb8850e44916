//! Flavours: `flavours/NAME.yml` says what is other than in the recipes.

use serde::Deserialize;

use super::{Disk, Initrd, Kernel, Recipe};

/// The flavour of the recipes themselves.
pub(crate) const USUAL: &str = "cloud";

/// What a flavour changes.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Flavour {
    /// Debian's meta package of the kernel.
    pub(crate) kernel: String,
    /// Further patterns of modules for the root.
    #[serde(default)]
    pub(crate) modules: Vec<String>,
    /// Further patterns of modules that are left out.
    #[serde(default)]
    pub(crate) without: Vec<String>,
    /// Further modules of the initial RAM disk.
    #[serde(default)]
    pub(crate) initrd_modules: Vec<String>,
    /// Debian packages of which what is below `/usr/lib/firmware` goes onto the root.
    #[serde(default)]
    pub(crate) firmware: Vec<String>,
    /// Size of the EFI system partition.
    pub(crate) esp_mib: u64,
    /// Size of each of the two OS slots.
    pub(crate) slot_mib: u64,
}

impl Recipe<Flavour> {
    /// Changes the recipes. Their texts, which are inputs of steps, have this one behind them then.
    pub(crate) fn apply(
        &self,
        kernel: &mut Recipe<Kernel>,
        initrd: &mut Recipe<Initrd>,
        disk: &mut Recipe<Disk>,
    ) {
        let flavour = &self.content;
        kernel.content.package.clone_from(&flavour.kernel);
        kernel
            .content
            .modules
            .extend(flavour.modules.iter().cloned());
        kernel
            .content
            .without
            .extend(flavour.without.iter().cloned());
        initrd
            .content
            .modules
            .extend(flavour.initrd_modules.iter().cloned());
        disk.content.esp_mib = flavour.esp_mib;
        disk.content.slot_mib = flavour.slot_mib;
        for text in [&mut kernel.text, &mut initrd.text, &mut disk.text] {
            text.push_str(&self.text);
        }
    }
}
