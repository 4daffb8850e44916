//! `mounts` and `swap`.

use serde::{Deserialize, Serialize};

use crate::diagnostic::Diagnostics;
use crate::yaml::{self, Node, Shape, Table, Value};

/// `mounts`: each entry is a list of the fields of fstab(5), or its first one alone.
pub(in super::super) const MOUNTS: Shape = Shape::List(&Shape::TEXTS);
/// `swap`
pub(in super::super) static SWAP: Table = Table::new(
    "swap",
    &[
        ("filename", Shape::Any, "Says nothing here"),
        (
            "size",
            Shape::Text,
            "Bytes, or with K, M, G, T; auto goes by the memory",
        ),
        (
            "maxsize",
            Shape::Text,
            "At most so much, when the size is auto",
        ),
    ],
);

/// Where people mount things, and where that is kept: containers that show it to people and applications have it from there.
pub(super) const PLACES: [(&str, &str); 6] = [
    ("/home", "/state/home"),
    ("/opt", "/state/opt"),
    ("/mnt", "/state/mnt"),
    ("/media", "/state/media"),
    ("/srv", "/state/srv"),
    ("/data", "/state/data"),
];

/// Fields of fstab(5) that are not given.
const DEFAULTS: [Option<&str>; 6] = [
    None,
    None,
    Some("auto"),
    Some("defaults,nofail"),
    Some("0"),
    Some("2"),
];
/// Options that are for systemd or fstab(5), and not for mount(8).
const NOT_FOR_MOUNT: [&str; 9] = [
    "nofail", "_netdev", "auto", "user", "users", "nouser", "group", "owner", "defaults",
];
/// Kinds that have no device.
pub const NO_DEVICE: [&str; 4] = ["tmpfs", "ramfs", "overlay", "hugetlbfs"];
/// Kinds that need programs and the network.
const ON_THE_NETWORK: [&str; 8] = [
    "nfs",
    "nfs4",
    "cifs",
    "smb3",
    "ceph",
    "glusterfs",
    "9p",
    "sshfs",
];

/// Something to mount, or to swap to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// A device's path, `LABEL=`, `UUID=` and the like; a directory to be seen elsewhere too; or a name (`tmpfs`).
    pub source: String,
    /// Where, as people see it; `None` for memory.
    pub target: Option<String>,
    /// Kind of the file system; `auto` finds out.
    pub kind: String,
    /// Options of mount(8).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub options: Vec<String>,
    /// Whether the file system is checked before (fstab(5), sixth field).
    pub check: bool,
}

/// The file that memory is swapped to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SwapFile {
    /// How large it is.
    pub size: SwapSize,
    /// At most so many bytes, when the size is found out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_bytes: Option<u64>,
}

/// How large the file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SwapSize {
    /// By the memory that there is.
    Auto,
    /// So many bytes.
    Bytes(u64),
}

/// The place on the state partition that stands for `path`, or `None`: it is not one where things are mounted.
pub fn place(path: &str) -> Option<String> {
    PLACES.iter().find_map(|(seen, kept)| {
        let rest = path.strip_prefix(seen)?;
        (rest.is_empty() || rest.starts_with('/')).then(|| format!("{kept}{rest}"))
    })
}

/// An entry's fields; those that are null are `None`.
pub(super) fn fields(
    what: &str,
    node: &Node,
    diagnostics: &mut Diagnostics,
) -> Vec<Option<String>> {
    let items = yaml::list_or_single(node);
    if items.len() > DEFAULTS.len() {
        let message = format!(
            "{what}: fstab(5) has six fields; the {} after them are left out",
            items.len() - DEFAULTS.len()
        );
        diagnostics.warning(node.position, message);
    }
    let items = items.iter().take(DEFAULTS.len());
    items
        .map(|item| yaml::string(what, item, diagnostics))
        .collect()
}

/// Reads a list of entries, each the fields of fstab(5).
pub(super) fn parse(
    what: &str,
    node: &Node,
    defaults: &[Option<String>],
    device: &dyn Fn(&str) -> String,
    diagnostics: &mut Diagnostics,
) -> Vec<Mount> {
    let Some(entries) = yaml::list(what, node, diagnostics) else {
        return Vec::new();
    };
    let mut mounts: Vec<Mount> = Vec::new();
    for entry in entries {
        if !matches!(entry.value, Value::Sequence(_) | Value::Scalar(_)) {
            let message = format!(
                "{what}: expected the fields of fstab(5) as a list ([/dev/vdb, /mnt/data]), found {}; it is not applied",
                entry.kind()
            );
            diagnostics.error(entry.position, message);
            continue;
        }
        yaml::warn_of_nothing(what, entry, diagnostics);
        let given = fields(what, entry, diagnostics);
        let Some(name) = given.first().cloned().flatten() else {
            continue;
        };
        let kind = given.get(2).cloned().flatten();
        let source = match kind.as_deref() {
            Some(kind) if NO_DEVICE.contains(&kind) => name.trim().to_owned(),
            _ => device(name.trim()),
        };
        let is_meta = ["ephemeral", "root", "swap", "ami"]
            .iter()
            .any(|word| source.starts_with(&format!("/dev/{word}")));
        if is_meta {
            let message = format!(
                "{what}: `{name}` is a cloud's name for a disk; give its device, or say under device_aliases which it is; it is not mounted"
            );
            diagnostics.warning(entry.position, message);
            continue;
        }
        // A later entry of the same device and place stands for the earlier one; the device alone takes it away.
        if given.len() == 1 {
            mounts.retain(|mount| mount.source != source);
            continue;
        }
        let field = |index: usize| -> Option<String> {
            if let Some(Some(text)) = given.get(index) {
                return Some(text.clone());
            }
            // What is null in between is taken from the defaults as well.
            match defaults.get(index) {
                Some(default) => default.clone(),
                None => DEFAULTS.get(index).copied().flatten().map(str::to_owned),
            }
        };
        let kind = field(2)
            .filter(|kind| !kind.is_empty())
            .unwrap_or_else(|| "auto".to_owned());
        let target = field(1).map(|target| target.trim().to_owned());
        let all = field(3).unwrap_or_default();
        let options: Vec<String> = all
            .split(',')
            .map(str::trim)
            .filter(|option| {
                let for_systemd = option.starts_with("x-") || option.starts_with("comment=");
                !option.is_empty() && !for_systemd && !NOT_FOR_MOUNT.contains(option)
            })
            .map(str::to_owned)
            .collect();
        let check = field(5).is_some_and(|pass| pass.trim() != "0");
        if kind == "swap" {
            mounts.push(Mount {
                source,
                target: None,
                kind,
                options,
                check: false,
            });
            continue;
        }
        let Some(target) = target.filter(|target| !target.is_empty() && target != "none") else {
            mounts.retain(|mount| mount.source != source);
            continue;
        };
        let why = if !target.starts_with('/') || target.split('/').any(|part| part == "..") {
            Some(format!("`{target}` is no path from the root"))
        } else if place(&target).is_none() {
            let places = PLACES.map(|(seen, _)| seen).join(", ");
            Some(format!(
                "`{target}` is part of the read-only system or of one container alone; things are mounted in {places}"
            ))
        } else if ON_THE_NETWORK.contains(&kind.as_str()) || is_on_the_network(&source) {
            Some(format!(
                "`{source}` is on the network; use a volume of Docker's for it (docker volume create --driver local --opt type={kind} ...)"
            ))
        } else if is_bind(&options) && place(&source).is_none() {
            Some(format!(
                "`{source}` is not there for all; mount what is below {}",
                PLACES.map(|(seen, _)| seen).join(", ")
            ))
        } else {
            None
        };
        if let Some(why) = why {
            diagnostics.error(entry.position, format!("{what}: {why}; it is not mounted"));
            continue;
        }
        // fstab's `noauto`: somebody mounts it later.
        if options.iter().any(|option| option == "noauto") {
            let message = format!("{what}: `{name}` is not mounted by itself (noauto)");
            diagnostics.warning(entry.position, message);
            continue;
        }
        mounts.retain(|mount| mount.target.as_deref() != Some(target.as_str()));
        mounts.push(Mount {
            source,
            target: Some(target),
            kind,
            options,
            check,
        });
    }
    mounts
}

fn is_on_the_network(source: &str) -> bool {
    source.starts_with("//") || (source.contains(':') && !source.starts_with('/'))
}

/// Whether a directory is made to be seen in another place.
fn is_bind(options: &[String]) -> bool {
    let mut options = options.iter();
    options.any(|option| option == "bind" || option == "rbind")
}

/// `swap`: a file. Where it is is ours to say.
pub(super) fn swap_file(node: &Node, diagnostics: &mut Diagnostics) -> Option<SwapFile> {
    let all = yaml::mapping("swap", node, diagnostics)?;
    all.check(" of swap", &SWAP, diagnostics);
    let mut bytes = |key: &str| {
        let node = all.get(key)?;
        let text = yaml::string(&format!("swap.{key}"), node, diagnostics)?;
        let size = parse_size(&text);
        if size.is_none() && text != "auto" {
            let message = format!(
                "swap.{key}: `{text}` is no size (bytes, or with K, M, G, T); there is no swap file"
            );
            diagnostics.error(node.position, message);
        }
        // cloud-init itself takes one letter.
        if size.is_some()
            && text
                .trim_end_matches(['B', 'b'])
                .ends_with(|unit: char| unit.is_ascii_alphabetic())
            && text.ends_with(['B', 'b'])
        {
            let message =
                format!("swap.{key}: units are K, M, G, T (of 1024); `{text}` is taken as such");
            diagnostics.warning(node.position, message);
        }
        Some((text, size))
    };
    let (size, maximum) = (bytes("size"), bytes("maxsize"));
    let size = match size {
        None => SwapSize::Bytes(0),
        Some((text, None)) if text == "auto" => SwapSize::Auto,
        Some((_, size)) => SwapSize::Bytes(size?),
    };
    let max_bytes = match maximum {
        None => None,
        Some((_, maximum)) => Some(maximum?),
    };
    // As in cloud-init: no size is no file.
    (size != SwapSize::Bytes(0)).then_some(SwapFile { size, max_bytes })
}

/// Bytes, or with a unit of 1024 (`2G`, `512MB`, `1.5GiB`).
fn parse_size(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = text
        .find(|letter: char| !letter.is_ascii_digit() && letter != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: f64 = number.parse().ok()?;
    let unit = unit.trim().to_ascii_uppercase();
    let shift = match unit.trim_end_matches('B').trim_end_matches('I') {
        "" => 0,
        "K" => 10,
        "M" => 20,
        "G" => 30,
        "T" => 40,
        _ => return None,
    };
    let bytes = number * (1u64 << shift) as f64;
    (bytes.is_finite() && (0.0..1e18).contains(&bytes)).then_some(bytes as u64)
}
