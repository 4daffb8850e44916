//! `volumes`, `tmpfs` and `devices`: what of the host a container sees.

use super::values::{ByteSize, Mode, scalars, words};
use serde::de::value::MapAccessDeserializer;
use serde::de::{self, Deserialize, Deserializer, MapAccess, Visitor};
use std::fmt;
use std::str::FromStr;

words! {
    /// What is mounted.
    Kind {
        /// A directory or file of the host.
        Bind = "bind",
        /// A file system in memory, empty at each start.
        Tmpfs = "tmpfs",
    }
}

words! {
    /// How mounts made later travel between host and container; the words are mount options of the OCI runtime
    /// specification too.
    Propagation {
        /// Not at all.
        Private = "private",
        /// Not at all, for mounts below as well.
        Rprivate = "rprivate",
        /// Both ways.
        Shared = "shared",
        /// Both ways, for mounts below as well.
        Rshared = "rshared",
        /// From the host into the container.
        Slave = "slave",
        /// From the host into the container, for mounts below as well.
        Rslave = "rslave",
    }
}

/// One entry of `volumes`, from the short or the long syntax.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Volume {
    /// What is mounted.
    pub kind: Kind,
    /// Path on the host; empty for tmpfs.
    pub source: String,
    /// Path in the container.
    pub target: String,
    /// Nothing can be written there.
    pub read_only: bool,
    /// How later mounts travel.
    pub propagation: Propagation,
    /// A missing source under `/run` or `/state` is made, as a directory.
    pub create: bool,
    /// Most that a tmpfs holds.
    pub size: Option<ByteSize>,
    /// Permissions of a tmpfs.
    pub mode: Option<Mode>,
}

impl Volume {
    fn bind(source: &str, target: &str) -> Result<Self, String> {
        Ok(Self {
            kind: Kind::Bind,
            source: absolute(source)?,
            target: absolute(target)?,
            read_only: false,
            propagation: Propagation::Rprivate,
            create: true,
            size: None,
            mode: None,
        })
    }
}

/// Refuses paths that a mount cannot stand for: relative ones and such with `.` or `..` in them.
pub(super) fn absolute(path: &str) -> Result<String, String> {
    if !path.starts_with('/') {
        return Err(format!(
            "`{path}` is not an absolute path (named volumes do not exist here)"
        ));
    }
    if path.split('/').any(|part| part == ".." || part == ".") {
        return Err(format!("`{path}` has `.` or `..` in it"));
    }
    let trimmed = path.trim_end_matches('/');
    Ok(if trimmed.is_empty() { "/" } else { trimmed }.to_owned())
}

impl FromStr for Volume {
    type Err = String;

    /// The short syntax: `SOURCE:TARGET[:OPTION,...]`.
    fn from_str(text: &str) -> Result<Self, String> {
        let mut parts = text.split(':');
        let (Some(source), Some(target), options, None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(format!(
                "`{text}` is not a volume: write SOURCE:TARGET or SOURCE:TARGET:ro"
            ));
        };
        let mut volume = Self::bind(source, target)?;
        for option in options.into_iter().flat_map(|options| options.split(',')) {
            match option {
                "ro" => volume.read_only = true,
                "rw" => volume.read_only = false,
                // SELinux labels: Docker accepts them on systems without SELinux too.
                "z" | "Z" => {}
                other => {
                    volume.propagation = other
                        .parse()
                        .map_err(|_| format!("volume `{text}` has the unknown option `{other}`"))?;
                }
            }
        }
        Ok(volume)
    }
}

/// The long syntax.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Long {
    #[serde(rename = "type")]
    kind: Kind,
    source: Option<String>,
    target: String,
    #[serde(default)]
    read_only: bool,
    #[serde(default)]
    bind: BindOptions,
    #[serde(default)]
    tmpfs: TmpfsOptions,
}

#[derive(Default, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct BindOptions {
    propagation: Option<Propagation>,
    create_host_path: Option<bool>,
}

#[derive(Default, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct TmpfsOptions {
    size: Option<ByteSize>,
    mode: Option<Mode>,
}

impl TryFrom<Long> for Volume {
    type Error = String;

    fn try_from(long: Long) -> Result<Self, String> {
        let source = match (long.kind, &long.source) {
            (Kind::Bind, None) => return Err("a bind volume needs `source`".to_owned()),
            (Kind::Tmpfs, Some(_)) => return Err("a tmpfs volume has no `source`".to_owned()),
            (Kind::Bind, Some(source)) => absolute(source)?,
            (Kind::Tmpfs, None) => String::new(),
        };
        Ok(Self {
            kind: long.kind,
            source,
            target: absolute(&long.target)?,
            read_only: long.read_only,
            propagation: long.bind.propagation.unwrap_or(Propagation::Rprivate),
            create: long.bind.create_host_path.unwrap_or(true),
            size: long.tmpfs.size,
            mode: long.tmpfs.mode,
        })
    }
}

/// Reads a value that is a string in its short syntax and a map in its long one.
pub(super) fn short_or_long<'de, D, T, L>(
    deserializer: D,
    expecting: &'static str,
) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: FromStr<Err = String> + TryFrom<L, Error = String>,
    L: Deserialize<'de>,
{
    struct Either<T, L>(&'static str, std::marker::PhantomData<(T, L)>);
    impl<'de, T, L> Visitor<'de> for Either<T, L>
    where
        T: FromStr<Err = String> + TryFrom<L, Error = String>,
        L: Deserialize<'de>,
    {
        type Value = T;

        fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
            formatter.write_str(self.0)
        }

        fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
            text.parse().map_err(E::custom)
        }

        fn visit_u64<E: de::Error>(self, number: u64) -> Result<T, E> {
            self.visit_str(&number.to_string())
        }

        fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
            let long = L::deserialize(MapAccessDeserializer::new(map))?;
            T::try_from(long).map_err(de::Error::custom)
        }
    }
    deserializer.deserialize_any(Either(expecting, std::marker::PhantomData))
}

impl<'de> Deserialize<'de> for Volume {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        short_or_long::<D, Self, Long>(
            deserializer,
            "SOURCE:TARGET[:OPTIONS], or a map with type, source and target",
        )
    }
}

/// One entry of `tmpfs`: `TARGET[:OPTION,...]` with mount options.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tmpfs {
    /// Path in the container.
    pub target: String,
    /// Mount options, such as `size=64m`.
    pub options: Vec<String>,
}

impl FromStr for Tmpfs {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (target, options) = text.split_once(':').unwrap_or((text, ""));
        let options: Vec<String> = options
            .split(',')
            .filter(|option| !option.is_empty())
            .map(str::to_owned)
            .collect();
        const FLAGS: [&str; 8] = [
            "ro", "rw", "exec", "noexec", "suid", "nosuid", "dev", "nodev",
        ];
        const VALUES: [&str; 6] = ["size", "mode", "uid", "gid", "nr_inodes", "nr_blocks"];
        for option in &options {
            let known = match option.split_once('=') {
                Some((key, _)) => VALUES.contains(&key),
                None => FLAGS.contains(&option.as_str()),
            };
            if !known {
                return Err(format!("tmpfs `{text}` has the unknown option `{option}`"));
            }
        }
        Ok(Self {
            target: absolute(target)?,
            options,
        })
    }
}

/// One entry of `devices`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// Node on the host.
    pub source: String,
    /// Node in the container.
    pub target: String,
    /// Some of `rwm`: read, write, make the node.
    pub permissions: String,
}

fn permissions(text: &str) -> Result<String, String> {
    let mut seen = String::new();
    for letter in text.chars() {
        if !"rwm".contains(letter) || seen.contains(letter) {
            return Err(format!(
                "`{text}` are not device permissions: some of r, w and m"
            ));
        }
        seen.push(letter);
    }
    if seen.is_empty() {
        Err("device permissions are missing".to_owned())
    } else {
        Ok(seen)
    }
}

impl FromStr for Device {
    type Err = String;

    /// `SOURCE[:TARGET][:PERMISSIONS]`.
    fn from_str(text: &str) -> Result<Self, String> {
        let parts: Vec<&str> = text.split(':').collect();
        let (source, target, allowed) = match parts[..] {
            [source] => (source, source, "rwm"),
            [source, target] if target.starts_with('/') => (source, target, "rwm"),
            [source, allowed] => (source, source, allowed),
            [source, target, allowed] => (source, target, allowed),
            _ => {
                return Err(format!(
                    "`{text}` is not a device: write SOURCE[:TARGET][:rwm]"
                ));
            }
        };
        Ok(Self {
            source: absolute(source)?,
            target: absolute(target)?,
            permissions: permissions(allowed)?,
        })
    }
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct LongDevice {
    source: String,
    target: Option<String>,
    permissions: Option<String>,
}

impl TryFrom<LongDevice> for Device {
    type Error = String;

    fn try_from(long: LongDevice) -> Result<Self, String> {
        let source = absolute(&long.source)?;
        let target = long
            .target
            .as_deref()
            .map_or_else(|| Ok(source.clone()), absolute)?;
        let permissions = permissions(long.permissions.as_deref().unwrap_or("rwm"))?;
        Ok(Self {
            source,
            target,
            permissions,
        })
    }
}

impl<'de> Deserialize<'de> for Device {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        short_or_long::<D, Self, LongDevice>(
            deserializer,
            "SOURCE[:TARGET][:rwm], or a map with source",
        )
    }
}

/// One entry of `device_cgroup_rules`: `c 4:* rwm`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceRule {
    /// `a`ll, `b`lock or `c`haracter devices.
    pub kind: char,
    /// Major number; `None` is every one.
    pub major: Option<i64>,
    /// Minor number; `None` is every one.
    pub minor: Option<i64>,
    /// Some of `rwm`.
    pub permissions: String,
}

impl fmt::Display for DeviceRule {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number =
            |number: Option<i64>| number.map_or("*".to_owned(), |number| number.to_string());
        let (major, minor) = (number(self.major), number(self.minor));
        write!(
            formatter,
            "{} {major}:{minor} {}",
            self.kind, self.permissions
        )
    }
}

impl FromStr for DeviceRule {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is not a device rule: write it as `c 4:* rwm`");
        let number = |word: &str| match word {
            "*" => Ok(None),
            _ => word
                .parse::<u32>()
                .map(|number| Some(i64::from(number)))
                .map_err(|_| wrong()),
        };
        let words: Vec<&str> = text.split_whitespace().collect();
        let [kind @ ("a" | "b" | "c"), numbers, allowed] = words[..] else {
            return Err(wrong());
        };
        let (major, minor) = numbers.split_once(':').ok_or_else(wrong)?;
        Ok(Self {
            kind: kind.chars().next().ok_or_else(wrong)?,
            major: number(major)?,
            minor: number(minor)?,
            permissions: permissions(allowed)?,
        })
    }
}

scalars!(Tmpfs, DeviceRule);
