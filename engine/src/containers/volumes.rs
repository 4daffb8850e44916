//! Named volumes: directories that outlive the containers that they are mounted in.

use crate::compose::values::{ByteSize, Mode};
use crate::compose::volume::{Kind, Propagation, Volume as Mounted};
use crate::record::new_id;
use bollard_stubs::models::{ContainerCreateBody, Mount, MountType, Volume, VolumeScopeEnum};
use keelson_sys::durable::{Access, Tree};
use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

const FILE: &str = "volume.json";
const DATA: &str = "_data";
const FILE_MAX_BYTES: u64 = 1 << 20;

/// The directory of volumes. Every call blocks on the disk.
#[derive(Clone, Debug)]
pub struct Volumes {
    directory: PathBuf,
}

impl Volumes {
    /// The volumes in `directory`, which is made with the first one.
    pub fn new(directory: PathBuf) -> Self {
        Self { directory }
    }

    /// The directory.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Makes a volume; one of that name that is there is given back as it is.
    ///
    /// # Errors
    /// What the system calls report; `InvalidInput` when it is no name.
    pub fn create(&self, name: &str, labels: HashMap<String, String>) -> io::Result<Volume> {
        if !super::is_name(name) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!(
                    "\"{name}\" includes invalid characters for a local volume name, only \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are allowed. If you intended to pass a host directory, use absolute path"
                ),
            ));
        }
        if let Some(volume) = self.read(name)? {
            return Ok(volume);
        }
        let data = self.directory.join(name).join(DATA);
        let created = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
        let volume = Volume {
            name: name.to_owned(),
            driver: "local".to_owned(),
            mountpoint: data.display().to_string(),
            created_at: Some(created),
            labels,
            scope: Some(VolumeScopeEnum::LOCAL),
            ..Volume::default()
        };
        fs::create_dir_all(&data)?;
        let text = serde_json::to_vec(&volume)?;
        let path = Path::new(name).join(FILE);
        Tree::open(&self.directory)?.write(&path, &text, Access::root(0o600))?;
        fs::File::open(&self.directory)?.sync_all()?;
        Ok(volume)
    }

    /// All volumes, in order of name.
    ///
    /// # Errors
    /// What the system calls report.
    pub fn list(&self) -> io::Result<Vec<Volume>> {
        let mut volumes = Vec::new();
        for entry in fs::read_dir(&self.directory)
            .into_iter()
            .flatten()
            .flatten()
        {
            if let Some(name) = entry.file_name().to_str()
                && let Some(volume) = self.read(name)?
            {
                volumes.push(volume);
            }
        }
        volumes.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(volumes)
    }

    /// The volume of that name.
    ///
    /// # Errors
    /// What the system calls report.
    pub fn read(&self, name: &str) -> io::Result<Option<Volume>> {
        if !super::is_name(name) || !self.directory.is_dir() {
            return Ok(None);
        }
        let path = Path::new(name).join(FILE);
        let text = Tree::open(&self.directory)?.read(&path, FILE_MAX_BYTES)?;
        Ok(text.map(|text| serde_json::from_slice(&text)).transpose()?)
    }

    /// Removes a volume and all that is in it.
    ///
    /// # Errors
    /// What the system calls report.
    pub fn remove(&self, name: &str) -> io::Result<()> {
        let directory = self.directory.join(name);
        // Without its description it is none, whatever becomes of the rest.
        fs::remove_file(directory.join(FILE))?;
        fs::File::open(&directory)?.sync_all()?;
        fs::remove_dir_all(directory)
    }

    /// Bytes that a volume takes on the disk.
    pub fn size_bytes(&self, name: &str) -> u64 {
        size_bytes(&self.directory.join(name).join(DATA))
    }
}

/// Bytes that a directory's files take on the disk, without following links or leaving its file system.
pub fn size_bytes(directory: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let Ok(own) = fs::symlink_metadata(directory) else {
        return 0;
    };
    let (mut total, mut open) = (0, vec![directory.to_owned()]);
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            let Ok(data) = entry.metadata() else { continue };
            if data.is_dir() && data.dev() == own.dev() {
                open.push(entry.path());
            }
            total += data.blocks() * 512;
        }
    }
    total
}

/// Names the volumes that a request leaves without one: those that its image asks for, `-v PATH`, and mounts of
/// kind `volume` without a source. What it names already stays.
pub fn name_anonymous(body: &mut ContainerCreateBody) {
    let paths = body.volumes.take().unwrap_or_default();
    let host = body.host_config.get_or_insert_default();
    let taken: Vec<String> = host
        .binds
        .iter()
        .flatten()
        .filter_map(|bind| bind.split(':').nth(1).map(str::to_owned))
        .chain(
            host.mounts
                .iter()
                .flatten()
                .filter_map(|mount| mount.target.clone()),
        )
        .chain(
            host.tmpfs
                .iter()
                .flatten()
                .map(|(target, _)| target.clone()),
        )
        .collect();
    for mount in host.mounts.iter_mut().flatten() {
        let unnamed = mount.source.as_ref().is_none_or(String::is_empty);
        if mount.typ == Some(MountType::VOLUME) && unnamed {
            mount.source = Some(new_id());
        }
    }
    let binds = host.binds.get_or_insert_default();
    for bind in binds.iter_mut().filter(|bind| !bind.contains(':')) {
        *bind = format!("{}:{bind}", new_id());
    }
    for path in paths.iter().filter(|path| !taken.contains(path)) {
        binds.push(format!("{}:{path}", new_id()));
    }
    body.volumes = Some(paths).filter(|paths| !paths.is_empty());
}

/// The names of all volumes that a request mounts.
pub fn named(body: &ContainerCreateBody) -> Vec<String> {
    let Some(host) = &body.host_config else {
        return Vec::new();
    };
    let binds = host.binds.iter().flatten();
    let mut names: Vec<String> = binds
        .filter_map(|bind| bind.split(':').next())
        .filter(|source| !source.starts_with('/'))
        .map(str::to_owned)
        .collect();
    let mounts = host.mounts.iter().flatten();
    names.extend(
        mounts
            .filter(|mount| mount.typ == Some(MountType::VOLUME))
            .filter_map(|mount| mount.source.clone()),
    );
    names
}

/// Whether a volume was made for one container that gave it no name.
pub fn is_anonymous(name: &str) -> bool {
    name.len() == 64 && name.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// What a request mounts, `Binds` and `Mounts`.
pub(super) fn mounted(body: &ContainerCreateBody, volumes: &Path) -> Result<Vec<Mounted>, String> {
    let Some(host) = &body.host_config else {
        return Ok(Vec::new());
    };
    let data = |name: &str| volumes.join(name).join(DATA).display().to_string();
    let mut all = Vec::new();
    for bind in host.binds.iter().flatten() {
        let full = match bind.split_once(':') {
            Some((source, rest)) if !source.starts_with('/') => format!("{}:{rest}", data(source)),
            // Docker's own options of named volumes mean nothing for files of the host.
            _ => bind.clone(),
        };
        let line = full.strip_suffix(":nocopy").unwrap_or(&full);
        let mounted = line
            .parse()
            .map_err(|why| format!("invalid volume specification: '{bind}': {why}"))?;
        all.push(mounted);
    }
    for mount in host.mounts.iter().flatten() {
        all.push(from_mount(mount, &data)?);
    }
    let mut targets: Vec<&str> = all
        .iter()
        .map(|mounted: &Mounted| mounted.target.as_str())
        .collect();
    targets.sort_unstable();
    match targets.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => Err(format!("Duplicate mount point: {}", pair[0])),
        None => Ok(all),
    }
}

fn from_mount(mount: &Mount, data: &impl Fn(&str) -> String) -> Result<Mounted, String> {
    let target = mount.target.clone().unwrap_or_default();
    let source = mount.source.clone().unwrap_or_default();
    let kind = mount.typ.unwrap_or(MountType::VOLUME);
    let host_path = match kind {
        MountType::BIND => source,
        MountType::VOLUME => data(&source),
        MountType::TMPFS => "/".to_owned(),
        other => {
            return Err(format!(
                "invalid mount config for type \"{other}\": the system engine does not do this"
            ));
        }
    };
    let mut mounted: Mounted = format!("{host_path}:{target}")
        .parse()
        .map_err(|why| format!("invalid mount config for type \"{kind}\": {why}"))?;
    mounted.read_only = mount.read_only.unwrap_or(false);
    // A mount is stricter than a bind: what is missing stays missing.
    mounted.create = kind == MountType::VOLUME;
    if kind == MountType::TMPFS {
        (mounted.kind, mounted.source) = (Kind::Tmpfs, String::new());
        let options = mount.tmpfs_options.clone().unwrap_or_default();
        let size = options
            .size_bytes
            .and_then(|bytes| u64::try_from(bytes).ok());
        mounted.size = size.filter(|bytes| *bytes > 0).map(ByteSize);
        let mode = options.mode.and_then(|mode| u32::try_from(mode).ok());
        mounted.mode = mode.filter(|mode| *mode > 0).map(Mode);
    }
    let options = mount.bind_options.as_ref();
    if let Some(propagation) = options.and_then(|options| options.propagation) {
        let word = propagation.to_string();
        if !word.is_empty() {
            mounted.propagation = word.parse::<Propagation>()?;
        }
    }
    Ok(mounted)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bollard_stubs::models::HostConfig;

    fn body(binds: &[&str], paths: &[&str]) -> ContainerCreateBody {
        let own = |list: &[&str]| Some(list.iter().map(|text| (*text).to_owned()).collect());
        ContainerCreateBody {
            volumes: own(paths),
            host_config: Some(HostConfig {
                binds: own(binds),
                ..HostConfig::default()
            }),
            ..ContainerCreateBody::default()
        }
    }

    #[test]
    fn volumes_without_a_name_get_one_unless_something_else_is_mounted_there() {
        let mut body = body(&["data:/a:ro", "/host:/b"], &["/a", "/c"]);
        name_anonymous(&mut body);
        let names = named(&body);
        assert_eq!(names.len(), 2, "{names:?}");
        assert!(names[0] == "data" && is_anonymous(&names[1]), "{names:?}");
        let mounted = mounted(&body, Path::new("/v")).unwrap();
        assert_eq!(mounted[0].source, "/v/data/_data");
        assert!(mounted[0].read_only);
        assert_eq!(
            (mounted[1].source.as_str(), mounted[2].target.as_str()),
            ("/host", "/c")
        );
    }

    #[test]
    fn two_mounts_at_one_place_are_refused() {
        let error = mounted(&body(&["x1:/a", "y2:/a"], &[]), Path::new("/v")).unwrap_err();
        assert_eq!(error, "Duplicate mount point: /a");
    }

    #[test]
    fn a_volume_is_there_until_it_is_removed() {
        let directory = tempfile::tempdir().unwrap();
        let volumes = Volumes::new(directory.path().join("volumes"));
        assert_eq!(volumes.list().unwrap(), []);
        let volume = volumes.create("data", HashMap::new()).unwrap();
        assert_eq!(volumes.create("data", HashMap::new()).unwrap(), volume);
        assert_eq!(volumes.list().unwrap(), [volume]);
        volumes.remove("data").unwrap();
        assert_eq!(volumes.read("data").unwrap(), None);
        assert!(volumes.create("../x", HashMap::new()).is_err());
    }
}
