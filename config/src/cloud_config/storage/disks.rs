//! `disk_setup` and `fs_setup`.

use serde::{Deserialize, Serialize};

use crate::diagnostic::Diagnostics;
use crate::yaml::{self, Node, Shape, Table, Value};

/// `disk_setup`
pub(in super::super) const DISK_SETUP: Shape = Shape::Map(&Shape::Table(&DISK));
static DISK: Table = Table::new(
    "disk_setup",
    &[
        (
            "table_type",
            Shape::Words(&["mbr", "dos", "gpt"]),
            "Kind of the partition table",
        ),
        (
            "layout",
            LAYOUT,
            "True for one part, or parts in per cent with their types: [50, [50, 82]]",
        ),
        (
            "overwrite",
            Shape::Boolean,
            "Also when there is something on the disk",
        ),
    ],
);
const PERCENT: Shape = Shape::Integer(1, 100);
const LAYOUT: Shape = Shape::AnyOf(&[
    Shape::Boolean,
    Shape::Words(&["remove"]),
    Shape::List(&Shape::AnyOf(&[PERCENT, Shape::List(&Shape::Any)])),
]);
/// `fs_setup`
pub(in super::super) const FS_SETUP: Shape = Shape::List(&Shape::Table(&FILESYSTEM));
static FILESYSTEM: Table = Table::new(
    "fs_setup",
    &[
        ("device", Shape::Text, "The disk or partition"),
        (
            "filesystem",
            Shape::Words(&KINDS),
            "ext4 unless said otherwise",
        ),
        ("label", Shape::Text, "Its label"),
        (
            "partition",
            PARTITION,
            "Number of the partition of `device`",
        ),
        (
            "overwrite",
            Shape::Boolean,
            "Also when there is something on it",
        ),
        (
            "replace_fs",
            Shape::Text,
            "Also when this kind of file system is on it",
        ),
        ("extra_opts", Shape::TEXTS, "Options of mkfs"),
    ],
)
.unsupported(&[("cmd", "file systems are made by mkfs")])
.required(&["device"]);
const PARTITION: Shape = Shape::AnyOf(&[
    Shape::Words(&["auto", "any", "none"]),
    Shape::Integer(0, 255),
]);

/// A disk and what it is parted into.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disk {
    /// Its device.
    pub device: String,
    /// Whether the table is a GPT; else an MBR.
    pub gpt: bool,
    /// What is asked for.
    pub layout: Layout,
    /// Also when there is something on it: done once.
    pub overwrite: bool,
}

/// What a disk is parted into.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Layout {
    /// One table, or what else there is, is taken away.
    Remove,
    /// These partitions, in order.
    Partitions(Vec<Partition>),
}

/// A partition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Partition {
    /// Its part of the disk, in per cent.
    pub percent: u8,
    /// Its type as sfdisk(8) takes it.
    pub kind: String,
}

/// A file system to make.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Filesystem {
    /// The device, or the disk that has the partition.
    pub device: String,
    /// Which part of it.
    pub target: Target,
    /// `ext4`, `xfs` and the like; `swap`.
    pub kind: String,
    /// Its label.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// Also when there is something on it: done once.
    pub overwrite: bool,
    /// A kind of file system that may be replaced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replace: Option<String>,
    /// Further words for mkfs(8).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub options: Vec<String>,
}

/// Which part of a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// The device itself.
    Whole,
    /// This partition.
    Number(u8),
    /// The one with that label and kind, or else one that is free.
    Auto,
    /// The one with that kind, or else one that is free.
    Any,
}

/// File systems that can be made.
pub(super) const KINDS: [&str; 7] = ["ext2", "ext3", "ext4", "xfs", "btrfs", "vfat", "swap"];

/// Reads `disk_setup`: by device.
pub(super) fn disks(
    node: &Node,
    device: &dyn Fn(&str) -> String,
    diagnostics: &mut Diagnostics,
) -> Vec<Disk> {
    let Some(all) = yaml::mapping("disk_setup", node, diagnostics) else {
        return Vec::new();
    };
    let mut disks = Vec::new();
    for (key, node) in all.iter() {
        let what = format!("disk_setup.{}", key.text);
        let Some(fields) = yaml::mapping(&what, node, diagnostics) else {
            continue;
        };
        fields.check(&format!(" of {what}"), &DISK, diagnostics);
        let table = fields.get("table_type");
        let kind = table.and_then(|node| yaml::string(&what, node, diagnostics));
        let gpt = match kind.as_deref() {
            None | Some("mbr" | "dos") => false,
            Some("gpt") => true,
            Some(other) => {
                let at = table.map_or(key.position, |node| node.position);
                let message = format!(
                    "{what}: table_type: expected mbr or gpt, found `{other}`; the disk is left as it is"
                );
                diagnostics.error(at, message);
                continue;
            }
        };
        let overwrite = fields
            .get("overwrite")
            .and_then(|node| yaml::boolean(&format!("{what}.overwrite"), node, diagnostics));
        let Some(layout) = layout(&what, fields.get("layout"), gpt, diagnostics) else {
            continue;
        };
        disks.push(Disk {
            device: device(&key.text),
            gpt,
            layout,
            overwrite: overwrite.unwrap_or(false),
        });
    }
    disks
}

/// True is one partition, a list their parts in per cent, each alone or with its type.
fn layout(
    what: &str,
    node: Option<&Node>,
    gpt: bool,
    diagnostics: &mut Diagnostics,
) -> Option<Layout> {
    let node = node?;
    let linux = |percent| Partition {
        percent,
        kind: partition_type("83", gpt),
    };
    let wrong = |diagnostics: &mut Diagnostics, at: &Node| {
        let message = format!(
            "{what}.layout: expected true, remove, or parts in per cent ([50, [50, 82]]) of 100 at most; the disk is left as it is"
        );
        diagnostics.error(at.position, message);
        None
    };
    let items = match &node.value {
        Value::Scalar(scalar) if scalar.as_bool() == Some(true) => {
            return Some(Layout::Partitions(vec![linux(100)]));
        }
        Value::Scalar(scalar) if scalar.as_bool() == Some(false) || scalar.is_null() => {
            return None;
        }
        Value::Scalar(scalar) if scalar.text == "remove" => return Some(Layout::Remove),
        Value::Sequence(items) if !items.is_empty() => items,
        _ => return wrong(diagnostics, node),
    };
    let percent = |node: &Node| match &node.value {
        Value::Scalar(scalar) => scalar.text.trim().parse::<u8>().ok(),
        _ => None,
    };
    let mut partitions = Vec::new();
    for item in items {
        let partition = match &item.value {
            Value::Sequence(pair) => match pair.as_slice() {
                [size, kind] => percent(size).map(|percent| Partition {
                    percent,
                    kind: match &kind.value {
                        Value::Scalar(scalar) => partition_type(&scalar.text, gpt),
                        _ => partition_type("83", gpt),
                    },
                }),
                [size] => percent(size).map(linux),
                _ => None,
            },
            _ => percent(item).map(linux),
        };
        match partition {
            Some(partition) if partition.percent > 0 => partitions.push(partition),
            _ => return wrong(diagnostics, item),
        }
    }
    let sum: u32 = partitions
        .iter()
        .map(|partition| u32::from(partition.percent))
        .sum();
    let is_type = |kind: &str| {
        kind.chars()
            .all(|it| it.is_ascii_alphanumeric() || it == '-')
    };
    if sum > 100 || !partitions.iter().all(|it| is_type(&it.kind)) {
        return wrong(diagnostics, node);
    }
    Some(Layout::Partitions(partitions))
}

/// A type as it is written for an MBR, for the table that there will be.
fn partition_type(kind: &str, gpt: bool) -> String {
    let alias = match kind.to_ascii_lowercase().as_str() {
        "83" if gpt => "linux",
        "82" if gpt => "swap",
        "8e" if gpt => "lvm",
        "fd" if gpt => "raid",
        "ef" if gpt => "uefi",
        _ => kind,
    };
    alias.to_owned()
}

/// Reads `fs_setup`.
pub(super) fn filesystems(
    node: &Node,
    device: &dyn Fn(&str) -> String,
    diagnostics: &mut Diagnostics,
) -> Vec<Filesystem> {
    let Some(items) = yaml::list("fs_setup", node, diagnostics) else {
        return Vec::new();
    };
    let mut filesystems = Vec::new();
    for item in items {
        let Some(fields) = yaml::mapping("fs_setup", item, diagnostics) else {
            continue;
        };
        fields.check(" of fs_setup", &FILESYSTEM, diagnostics);
        if fields.get("cmd").is_some() {
            continue;
        }
        let mut text = |key: &str| {
            let node = fields.get(key)?;
            yaml::string(&format!("fs_setup.{key}"), node, diagnostics)
        };
        let (name, kind) = (text("device"), text("filesystem"));
        let (label, replace) = (text("label"), text("replace_fs"));
        let partition = text("partition");
        let Some(name) = name else {
            diagnostics.error(
                item.position,
                "fs_setup: `device` is missing; no file system is made",
            );
            continue;
        };
        let kind = kind.unwrap_or_else(|| "ext4".to_owned());
        if !KINDS.contains(&kind.as_str()) {
            let message = format!(
                "fs_setup: `{kind}` cannot be made here ({} can); no file system is made",
                KINDS.join(", ")
            );
            let at = fields
                .get("filesystem")
                .map_or(item.position, |it| it.position);
            diagnostics.error(at, message);
            continue;
        }
        let target = match partition.as_deref() {
            None | Some("none") => Target::Whole,
            Some("auto") => Target::Auto,
            Some("any") => Target::Any,
            Some(number) => match number.parse() {
                Ok(0) => Target::Whole,
                Ok(number) => Target::Number(number),
                Err(_) => {
                    let at = fields
                        .get("partition")
                        .map_or(item.position, |it| it.position);
                    let message = format!(
                        "fs_setup.partition: expected a number, auto, any or none, found `{number}`; no file system is made"
                    );
                    diagnostics.error(at, message);
                    continue;
                }
            },
        };
        let overwrite = fields
            .get("overwrite")
            .and_then(|node| yaml::boolean("fs_setup.overwrite", node, diagnostics));
        let options = fields
            .get("extra_opts")
            .map(|node| yaml::strings("fs_setup.extra_opts", node, diagnostics))
            .unwrap_or_default();
        let most = match kind.as_str() {
            "vfat" => 11,
            "xfs" => 12,
            "swap" => 15,
            "btrfs" => 255,
            _ => 16,
        };
        if let Some(label) = &label
            && (label.len() > most || !label.chars().all(|it| it.is_ascii_graphic() || it == ' '))
        {
            let at = fields.get("label").map_or(item.position, |it| it.position);
            let message = format!(
                "fs_setup.label: `{label}` cannot be the label of {kind} (at most {most} letters and digits); no file system is made"
            );
            diagnostics.error(at, message);
            continue;
        }
        filesystems.push(Filesystem {
            device: device(&name),
            target,
            kind,
            label: label.filter(|label| !label.is_empty()),
            overwrite: overwrite.unwrap_or(false),
            replace,
            options: options
                .iter()
                .flat_map(|words| words.split_whitespace())
                .map(str::to_owned)
                .collect(),
        });
    }
    filesystems
}
