//! Kernel modules.
//!
//! - [`index`]: modules.dep and its companions, pure
//! - [`signature`]: the signature of a module file, pure
//! - [`Library`]: a module directory; loads modules with what they need, decompressed by the kernel
//! - [`background`]: loads beside the caller, for the initrd
//! - [`modprobe`]: the program that the kernel calls when it wants a module
//! - [`coldplug`]: the modaliases of the devices that are there already

pub(crate) mod background;
mod index;
mod signature;

use crate::cmdline::Options;
use crate::{files, kmsg};
use anyhow::{Context as _, Result, bail};
use index::Index;
use nix::errno::Errno;
use nix::kmod::{ModuleInitFlags, finit_module, init_module};
use std::collections::BTreeSet;
use std::ffi::CString;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

/// MODULE_INIT_COMPRESSED_FILE of linux/module.h, which nix does not name.
const COMPRESSED_FILE: ModuleInitFlags = ModuleInitFlags::from_bits_retain(4);

/// Whether the kernel takes signed modules only: with Secure Boot it says so from the start, and refuses others one by one
/// with a line in its log each.
const ONLY_SIGNED: &str = "/sys/module/module/parameters/sig_enforce";

/// The modules of the running kernel.
#[derive(Debug)]
pub(crate) struct Library {
    directory: PathBuf,
    index: Index,
    options: Options,
    /// The kernel takes no module without its signature.
    signatures_wanted: AtomicBool,
}

impl Library {
    /// Opens /usr/lib/modules/RELEASE.
    pub(crate) fn open() -> Result<Self> {
        let release = files::get("/proc/sys/kernel/osrelease")?;
        let options = Options::parse(&files::get("/proc/cmdline")?);
        Self::at(Path::new("/usr/lib/modules").join(release), options)
    }

    fn at(directory: PathBuf, options: Options) -> Result<Self> {
        let dependencies =
            files::get_if_present(directory.join("modules.dep"))?.with_context(|| {
                format!(
                    "{} has no modules.dep (run depmod when the image is built)",
                    directory.display()
                )
            })?;
        // Only modules.dep must be there; depmod leaves out what would be empty in some versions. Without one of
        // the others modules can still be loaded by name.
        let optional = |name: &str| {
            let text = files::get_if_present(directory.join(name));
            kmsg::tolerate("going on without a module index", text)
                .flatten()
                .unwrap_or_default()
        };
        let index = Index {
            dependencies,
            aliases: optional("modules.alias"),
            soft_dependencies: optional("modules.softdep"),
            builtin: optional("modules.builtin"),
        };
        Ok(Self {
            directory,
            index,
            options,
            // When it cannot be read, the kernel's first refusal tells the same.
            signatures_wanted: AtomicBool::new(files::get(ONLY_SIGNED).is_ok_and(|on| on == "Y")),
        })
    }

    /// The names of the modules that a name or alias means.
    pub(crate) fn resolve(&self, request: &str) -> Vec<String> {
        self.index.resolve(request)
    }

    /// Loads a module and what it needs. One that is loaded already is fine.
    pub(crate) fn load(&self, name: &str) -> Result<()> {
        self.load_while(name, || true)
    }

    /// Loads a module and what it needs, file by file as long as that is wanted.
    fn load_while(&self, name: &str, wanted: impl Fn() -> bool) -> Result<()> {
        for file in self.index.files(name) {
            if !wanted() {
                break;
            }
            self.insert(file)
                .with_context(|| format!("load module {file}"))?;
        }
        Ok(())
    }

    fn insert(&self, file: &str) -> Result<()> {
        let path = self.directory.join(file);
        let parameters = CString::new(self.options.parameters_of(&index::module_name(file)))?;
        let compressed = !file.ends_with(".ko");
        if !compressed && !self.signatures_wanted.load(Ordering::Relaxed) {
            let module = fs::read(&path)?;
            match init_module(signature::without(&module).unwrap_or(&module), &parameters) {
                Err(Errno::EKEYREJECTED | Errno::EPERM) => {
                    self.signatures_wanted.store(true, Ordering::Relaxed)
                }
                result => return loaded(result),
            }
        }
        let flags = if compressed {
            COMPRESSED_FILE
        } else {
            ModuleInitFlags::empty()
        };
        loaded(finit_module(File::open(path)?, &parameters, flags))
    }

    /// Loads several names or aliases at once, on as many threads as make sense; returns when all are done. Names
    /// that mean nothing here are skipped: kernels differ in what is built in.
    pub(crate) fn load_all(&self, requests: &[&str]) {
        let next = AtomicUsize::new(0);
        let work = || {
            while let Some(request) = requests.get(next.fetch_add(1, Ordering::Relaxed)) {
                for name in self.resolve(request) {
                    kmsg::tolerate("going on without a kernel module", self.load(&name));
                }
            }
        };
        let processors = thread::available_parallelism().map_or(1, usize::from);
        thread::scope(|scope| {
            for _ in 1..processors.min(requests.len()) {
                scope.spawn(work);
            }
            work();
        });
    }
}

/// One that is loaded already, or was by somebody else while we waited, is as good; so is a driver that does not
/// find its device, which only its own start can tell.
fn loaded(result: nix::Result<()>) -> Result<()> {
    match result {
        Ok(()) | Err(Errno::EEXIST | Errno::ENODEV) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// The modaliases of all devices that are there, each once.
pub(crate) fn coldplug() -> BTreeSet<String> {
    let entries = |path: &Path| {
        fs::read_dir(path)
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path())
    };
    entries(Path::new("/sys/bus"))
        .flat_map(|bus| entries(&bus.join("devices")))
        .filter_map(|device| fs::read_to_string(device.join("modalias")).ok())
        .map(|alias| alias.trim().to_owned())
        .filter(|alias| !alias.is_empty())
        .collect()
}

/// `modprobe [-q] [-a] [--] NAME...` as the kernel calls it.
pub(crate) fn modprobe(arguments: &[String]) -> Result<()> {
    let mut quiet = false;
    let mut requests = Vec::new();
    for argument in arguments {
        match argument.as_str() {
            "-q" => quiet = true,
            "-a" | "-s" | "-v" | "--" => {}
            option if option.starts_with('-') => bail!("modprobe: unknown option {option}"),
            request => requests.push(request),
        }
    }
    let library = Library::open()?;
    for request in requests {
        let names = library.resolve(request);
        if names.is_empty() && !quiet {
            bail!("modprobe: no module is or answers to {request}");
        }
        for name in names {
            library.load(&name)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_directory_without_modules_dep_says_what_to_do() {
        let directory = tempfile::tempdir().unwrap();
        let error = Library::at(directory.path().to_owned(), Options::parse("")).unwrap_err();
        assert!(format!("{error:#}").contains("run depmod"), "{error:#}");
    }

    #[test]
    fn a_module_file_that_is_missing_is_an_error_with_its_path() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("modules.dep"), "kernel/x.ko:\n").unwrap();
        let library = Library::at(directory.path().to_owned(), Options::parse("")).unwrap();
        let error = format!("{:#}", library.load("x").unwrap_err());
        assert!(error.starts_with("load module kernel/x.ko: "), "{error}");
        assert_eq!(library.resolve("unheard-of"), Vec::<String>::new());
    }
}
