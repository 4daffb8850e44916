//! The whole build, from recipes to the files in `out/`.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

use crate::arguments::Format;
use crate::disk;
use crate::image::{self, Image};
use crate::initrd;
use crate::kernel;
use crate::keys::Keys;
use crate::medium;
use crate::output;
use crate::packages;
use crate::programs::Programs;
use crate::recipe::{self, Profile, Recipe, ServiceImage};
use crate::root;
use crate::step;
use crate::workspace::Workspace;

/// Version of the operating system: that of the workspace.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// All recipes of a build.
#[derive(Debug)]
struct Recipes {
    /// Folder of the recipes that are not a service's.
    folder: PathBuf,
    kernel: Recipe<recipe::Kernel>,
    initrd: Recipe<recipe::Initrd>,
    root: Recipe<recipe::Root>,
    disk: Recipe<recipe::Disk>,
    flavour: Option<Recipe<recipe::Flavour>>,
    services: Vec<Service>,
}

/// One folder of `system-services/`.
#[derive(Debug)]
struct Service {
    folder: PathBuf,
    recipe: Recipe<ServiceImage>,
}

/// How a build is to be done.
#[derive(Debug, Default)]
pub(crate) struct Options {
    /// Fetch the package lists anew, and so take packages in their current versions.
    pub(crate) update: bool,
    /// Compress the root lightly.
    pub(crate) quick: bool,
    /// Folders of services beside `system-services/`.
    pub(crate) services: Vec<PathBuf>,
    /// Folder of the keys that the image is signed with.
    pub(crate) sign: Option<PathBuf>,
    /// Version of the operating system instead of the workspace's.
    pub(crate) version: Option<String>,
    /// The flavour, when it is not that of the recipes.
    pub(crate) flavour: Option<String>,
    /// Formats of the disk image beside the raw one.
    pub(crate) formats: Vec<Format>,
    /// What else the system is put on.
    pub(crate) media: medium::Wanted,
}

/// Builds everything and puts it into the workspace's output folder.
///
/// # Errors
/// When a step fails; the outputs of the build before stay as they are.
pub(crate) fn build(workspace: &Workspace, options: &Options) -> Result<()> {
    let _lock = workspace.lock()?;
    let keys = options.sign.as_deref();
    let keys = keys
        .map(|folder| Keys::open(workspace, folder))
        .transpose()?;
    let version = options.version.as_deref().unwrap_or(VERSION);
    let folders = service_folders(&workspace.top, &options.services)?;
    let flavour = options.flavour.as_deref().unwrap_or(recipe::USUAL);
    let recipes = Recipes::load(&workspace.top, &folders, flavour)?;
    if options.update || !workspace.apt.join("lists.complete").exists() {
        packages::update(workspace)?;
    }
    let programs = Programs::build(workspace, &recipes.programs())?;
    let kernel = kernel::build(workspace, &recipes.kernel.content)?;
    let images = build_images(workspace, &recipes, &programs)?;
    let initrd = initrd::build(
        workspace,
        &recipes.initrd,
        &recipes.folder,
        &kernel,
        &programs,
    )?;
    let services = service_definitions(folders);
    let firmware = recipes
        .flavour
        .as_ref()
        .map(|flavour| packages::exact(workspace, &flavour.content.firmware));
    let firmware = firmware.transpose()?.unwrap_or_default();
    packages::fetch(workspace, &firmware)?;
    let content = &recipes.root.content;
    let parts = root::Parts {
        compression: if options.quick {
            &content.erofs_quick
        } else {
            &content.erofs
        },
        recipe: &recipes.root,
        folder: &recipes.folder,
        kernel_recipe: &recipes.kernel,
        kernel: &kernel,
        images: &images,
        services: &services,
        programs: &programs,
        packages: Vec::new(),
        firmware: &firmware,
        flavour,
        release_key: keys.as_ref().map(|keys| keys.release.as_str()),
        version,
    };
    let root = root::build(workspace, &recipes.root, parts)?;
    let parts = disk::Parts {
        folder: &recipes.folder,
        kernel: &kernel,
        initrd: &initrd,
        root: &root,
        keys: keys.as_ref(),
        version,
        flavour,
    };
    let disk = disk::build(workspace, &recipes.disk, &parts)?;
    let mut more = medium::build(workspace, &recipes.disk, &parts, &disk, options.media)?;
    more.extend(output::formats(workspace, &disk, &options.formats)?);
    let built = output::Built {
        more: &more,
        flavour,
        version,
        kernel: &kernel,
        images: &images,
        initrd: &initrd,
        root: &root,
        disk: &disk,
        keys: keys.as_ref(),
    };
    output::publish(workspace, &built)?;
    step::tidy(workspace)
}

fn build_images(
    workspace: &Workspace,
    recipes: &Recipes,
    programs: &Programs,
) -> Result<Vec<Image>> {
    let every = &recipes.root.content.every_image;
    let build = |service: &Service| {
        image::build(workspace, &service.recipe, &service.folder, every, programs)
    };
    recipes.services.iter().map(build).collect()
}

impl Recipes {
    /// Reads all recipes of the project at `top` whose services are in `folders`, as the flavour has them.
    fn load(top: &Path, folders: &[PathBuf], flavour: &str) -> Result<Self> {
        let folder = top.join("images");
        let mut services: Vec<Service> = Vec::new();
        for service in folders {
            let path = service.join("image.yml");
            if path.is_file() {
                let shown = path
                    .strip_prefix(top)
                    .unwrap_or(&path)
                    .display()
                    .to_string();
                let recipe: Recipe<ServiceImage> = recipe::load(&path, &shown)?;
                let name = &recipe.content.image;
                ensure!(
                    !services
                        .iter()
                        .any(|other| &other.recipe.content.image == name),
                    "{shown}: another recipe makes an image {name} already"
                );
                services.push(Service {
                    folder: service.clone(),
                    recipe,
                });
            }
        }
        let flavour = match flavour {
            recipe::USUAL => None,
            other => {
                let shown = format!("images/flavours/{other}.yml");
                let path = top.join(&shown);
                ensure!(
                    path.is_file(),
                    "there is no flavour {other}: {shown} does not exist (`{}` is that of the other recipes)",
                    recipe::USUAL
                );
                Some(recipe::load::<recipe::Flavour>(&path, &shown)?)
            }
        };
        let mut recipes = Self {
            kernel: recipe::load(&folder.join("kernel.yml"), "images/kernel.yml")?,
            initrd: recipe::load(&folder.join("initrd.yml"), "images/initrd.yml")?,
            root: recipe::load(&folder.join("root.yml"), "images/root.yml")?,
            disk: recipe::load(&folder.join("disk.yml"), "images/disk.yml")?,
            folder,
            flavour: None,
            services,
        };
        if let Some(flavour) = flavour {
            let Self {
                kernel,
                initrd,
                disk,
                ..
            } = &mut recipes;
            flavour.apply(kernel, initrd, disk);
            recipes.flavour = Some(flavour);
        }
        Ok(recipes)
    }

    /// Every program of ours that some recipe names.
    fn programs(&self) -> BTreeSet<(Profile, String)> {
        let placed = self
            .initrd
            .content
            .programs
            .iter()
            .chain(&self.root.content.programs);
        let mut wanted: BTreeSet<_> = placed
            .map(|program| (program.profile, program.name.clone()))
            .collect();
        for service in &self.services {
            let names = service.recipe.content.programs.iter().cloned();
            wanted.extend(names.map(|name| (Profile::Release, name)));
        }
        wanted
    }
}

/// The service definitions: name and file.
fn service_definitions(folders: Vec<PathBuf>) -> Vec<(String, PathBuf)> {
    let definition = |folder: PathBuf| {
        let name = folder.file_name()?.to_str()?.to_owned();
        let file = folder.join("service.yml");
        file.is_file().then_some((name, file))
    };
    folders.into_iter().filter_map(definition).collect()
}

/// The folders of the services: those in `system-services/` and those in each of `others`, which must have other names.
fn service_folders(top: &Path, others: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let mut folders: BTreeMap<OsString, PathBuf> = BTreeMap::new();
    let own = top.join("system-services");
    for parent in std::iter::once(&own).chain(others) {
        let reading = || format!("reading {}", parent.display());
        for entry in fs::read_dir(parent).with_context(reading)? {
            let entry = entry.with_context(reading)?;
            let path = entry.path();
            if !path.is_dir() {
                continue;
            }
            if let Some(other) = folders.insert(entry.file_name(), path.clone()) {
                bail!(
                    "{} and {} are two services of one name",
                    other.display(),
                    path.display()
                );
            }
        }
    }
    Ok(folders.into_values().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_projects_own_recipes_are_valid() {
        let top = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let folders = service_folders(top, &[]).unwrap();
        let metal = Recipes::load(top, &folders, "metal").unwrap();
        assert_eq!(metal.kernel.content.package, "linux-image-amd64");
        let error = Recipes::load(top, &folders, "wood").unwrap_err();
        assert!(error.to_string().contains("no flavour wood"), "{error}");
        let recipes = Recipes::load(top, &folders, recipe::USUAL).unwrap();
        assert!(
            recipes
                .programs()
                .contains(&(Profile::Pid1, "keelson-init".into()))
        );
        assert!(
            recipes
                .services
                .iter()
                .any(|service| service.recipe.content.image == "console")
        );
    }

    #[test]
    fn further_services_are_added_and_no_name_comes_twice() {
        let scratch = tempfile::tempdir().unwrap();
        let (top, more) = (scratch.path().join("top"), scratch.path().join("more"));
        for folder in [top.join("system-services/log"), more.join("extra")] {
            fs::create_dir_all(&folder).unwrap();
            fs::write(folder.join("service.yml"), "").unwrap();
        }
        let folders = service_folders(&top, std::slice::from_ref(&more)).unwrap();
        let names: Vec<String> = service_definitions(folders)
            .into_iter()
            .map(|(name, _)| name)
            .collect();
        assert_eq!(names, ["extra", "log"]);
        fs::create_dir(more.join("log")).unwrap();
        assert!(service_folders(&top, &[more]).is_err());
    }
}
