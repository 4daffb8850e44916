//! The kernel command line: the options that are ours, and parameters of modules. Pure.

use keelson_boot_entries::Entry;
use std::path::PathBuf;

/// Where the OS slot is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Slot {
    /// A GPT partition by its unique identifier, in lower case.
    PartUuid(String),
    /// A device node.
    Device(PathBuf),
}

/// Where the state partition is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum State {
    /// The partition of this GPT name.
    PartLabel(String),
    /// A device node.
    Device(PathBuf),
    /// Nowhere: state is kept in memory.
    Ram,
}

/// The GPT name of the state partition.
pub(crate) const STATE_LABEL: &str = "KEELSON_STATE";

/// What PID 1 is told by the command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Options {
    /// `keelson.slot=PARTUUID=...|/dev/...`
    pub(crate) slot: Option<Slot>,
    /// `keelson.roothash=<64 hex digits>`, in lower case
    pub(crate) root_hash: Option<String>,
    /// `keelson.hashoffset=<bytes>`: where in the slot the verity superblock is
    pub(crate) hash_offset: Option<u64>,
    /// `keelson.version=VERSION`: that of the boot entry
    pub(crate) version: Option<String>,
    /// `keelson.kexec=NAME`: started by kexec, as the entry of that name, its tries counted
    pub(crate) kexec: Option<String>,
    /// `keelson.state=ram|off|PARTLABEL=...|/dev/...`
    pub(crate) state: State,
    /// `keelson.reset=1`: the state partition is made anew
    pub(crate) reset: bool,
    /// `keelson.live=1`: started from a medium that is not written to
    pub(crate) live: bool,
    /// `keelson.rescue=1`
    pub(crate) rescue: bool,
    /// `keelson.hostname=NAME`
    pub(crate) hostname: Option<String>,
    /// `module.parameter=value` words, as they stand
    pub(crate) module_parameters: Vec<(String, String)>,
    /// What could not be understood, one sentence each
    pub(crate) complaints: Vec<String>,
}

/// Modules that would make interfaces that nobody asked for, in place of those that are asked for.
const DEFAULTS: [(&str, &str); 3] = [
    ("bonding", "max_bonds=0"),
    ("dummy", "numdummies=0"),
    ("ifb", "numifbs=0"),
];

impl Options {
    /// Reads the text of /proc/cmdline. A later word wins over an earlier one; what is not ours is left alone.
    ///
    /// What says which root is started is the other way round: the builder puts it first, and signs it. What the stub of a signed
    /// image appends (firmware's strings of SMBIOS type 11) is signed by nobody.
    pub(crate) fn parse(text: &str) -> Self {
        let mut options = Self {
            slot: None,
            root_hash: None,
            hash_offset: None,
            version: None,
            kexec: None,
            state: State::PartLabel(STATE_LABEL.to_owned()),
            reset: false,
            live: false,
            rescue: false,
            hostname: None,
            module_parameters: Vec::new(),
            complaints: Vec::new(),
        };
        let words = words(text);
        if words.iter().any(|word| word == "keelson.live=1") {
            // Not on the disk of a system that is installed, unless that is asked for.
            options.state = State::Ram;
        }
        for word in words {
            let (key, value) = word.split_once('=').unwrap_or((&word, ""));
            match key.strip_prefix("keelson.") {
                Some(key) => options.ours(key, value),
                None => {
                    if let Some((module, parameter)) = key.split_once('.') {
                        let setting = word
                            .strip_prefix(module)
                            .and_then(|rest| rest.strip_prefix('.'));
                        if !parameter.is_empty() {
                            let setting = setting.unwrap_or_default().to_owned();
                            options
                                .module_parameters
                                .push((module.replace('-', "_"), setting));
                        }
                    }
                }
            }
        }
        options
    }

    fn ours(&mut self, key: &str, value: &str) {
        let said = match key {
            "slot" => self.slot.is_some(),
            "roothash" => self.root_hash.is_some(),
            "hashoffset" => self.hash_offset.is_some(),
            "version" => self.version.is_some(),
            "kexec" => self.kexec.is_some(),
            _ => false,
        };
        if said {
            self.complaints.push(format!(
                "kernel command line: the first keelson.{key} counts, not keelson.{key}={value}"
            ));
            return;
        }
        let understood = match key {
            "slot" => {
                self.slot = slot(value);
                self.slot.is_some()
            }
            "roothash" => {
                let good = value.len() == 64 && value.bytes().all(|byte| byte.is_ascii_hexdigit());
                if good {
                    self.root_hash = Some(value.to_ascii_lowercase());
                }
                good
            }
            "hashoffset" => {
                self.hash_offset = value
                    .parse()
                    .ok()
                    .filter(|offset| offset % 4096 == 0 && *offset > 0);
                self.hash_offset.is_some()
            }
            "version" => {
                self.version = keelson_boot_entries::is_version(value).then(|| value.to_owned());
                self.version.is_some()
            }
            "kexec" => {
                self.kexec = Entry::parse(value).map(|entry| entry.to_string());
                self.kexec.is_some()
            }
            "state" => match state(value) {
                Some(state) => {
                    self.state = state;
                    true
                }
                None => false,
            },
            "reset" => {
                self.reset = value == "1";
                matches!(value, "0" | "1")
            }
            "live" => {
                self.live = value == "1";
                matches!(value, "0" | "1")
            }
            "rescue" => {
                self.rescue = value == "1";
                matches!(value, "0" | "1")
            }
            "hostname" => {
                let good = is_hostname(value);
                if good {
                    self.hostname = Some(value.to_owned());
                }
                good
            }
            // First-boot's, which has the others and says what it does not know.
            _ => true,
        };
        if !understood {
            self.complaints.push(format!(
                "kernel command line: cannot understand keelson.{key}={value}"
            ));
        }
    }

    /// The parameters for a module, as finit_module(2) takes them: [`DEFAULTS`], then those of the command line, of which the
    /// kernel heeds the later one. `-` and `_` are the same.
    pub(crate) fn parameters_of(&self, module: &str) -> String {
        let module = module.replace('-', "_");
        let defaults = DEFAULTS.iter().filter(|(name, _)| *name == module);
        let given = self
            .module_parameters
            .iter()
            .filter(|(name, _)| *name == module);
        let settings: Vec<&str> = defaults
            .map(|(_, setting)| *setting)
            .chain(given.map(|(_, setting)| setting.as_str()))
            .collect();
        settings.join(" ")
    }
}

fn slot(value: &str) -> Option<Slot> {
    match value.strip_prefix("PARTUUID=") {
        Some(uuid) => is_uuid(uuid).then(|| Slot::PartUuid(uuid.to_ascii_lowercase())),
        None => value
            .starts_with("/dev/")
            .then(|| Slot::Device(value.into())),
    }
}

fn state(value: &str) -> Option<State> {
    match (value, value.strip_prefix("PARTLABEL=")) {
        ("ram" | "off", _) => Some(State::Ram),
        (_, Some(label)) if !label.is_empty() => Some(State::PartLabel(label.to_owned())),
        (device, None) if device.starts_with("/dev/") => Some(State::Device(device.into())),
        _ => None,
    }
}

fn is_uuid(text: &str) -> bool {
    text.len() == 36
        && text.char_indices().all(|(at, character)| {
            if matches!(at, 8 | 13 | 18 | 23) {
                character == '-'
            } else {
                character.is_ascii_hexdigit()
            }
        })
}

/// Whether the kernel and the resolver both take it: RFC 1123 labels, at most 64 characters.
pub(crate) fn is_hostname(name: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    name.len() <= 64 && name.split('.').all(label)
}

/// Words separated by white space; within double quotes white space is part of a word, as in the kernel.
fn words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut quoted = false;
    for character in text.chars() {
        match character {
            '"' => quoted = !quoted,
            space if space.is_ascii_whitespace() && !quoted => {
                words.push(std::mem::take(&mut word))
            }
            other => word.push(other),
        }
    }
    words.push(word);
    words.retain(|word| !word.is_empty());
    words
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HASH: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

    #[test]
    fn the_shipped_command_line_is_understood() {
        let text = format!(
            "BOOT_IMAGE=x keelson.slot=PARTUUID=00112233-4455-6677-8899-AABBCCDDEEFF keelson.roothash={HASH} \
             keelson.hashoffset=40960 keelson.version=1.2 console=tty0 console=ttyS0,115200n8 quiet loglevel=4 printk.devkmsg=on panic=10\n"
        );
        let options = Options::parse(&text);
        assert_eq!(
            options.slot,
            Some(Slot::PartUuid(
                "00112233-4455-6677-8899-aabbccddeeff".into()
            ))
        );
        assert_eq!(options.root_hash.as_deref(), Some(HASH));
        assert_eq!(options.hash_offset, Some(40960));
        assert_eq!(options.version.as_deref(), Some("1.2"));
        assert_eq!(options.state, State::PartLabel("KEELSON_STATE".into()));
        assert!(!options.rescue && !options.reset);
        assert!(Options::parse("quiet keelson.reset=1").reset);
        assert_eq!(options.complaints, Vec::<String>::new());
    }

    #[test]
    fn what_cannot_be_understood_is_named() {
        for word in [
            "keelson.slot=vda2",
            "keelson.slot=PARTUUID=1",
            "keelson.roothash=12",
            "keelson.hashoffset=5",
            "keelson.hashoffset=0",
            "keelson.version=a/b",
            "keelson.kexec=other.efi",
            "keelson.state=",
            "keelson.state=PARTLABEL=",
            "keelson.rescue=yes",
            "keelson.reset=yes",
            "keelson.live=yes",
            "keelson.hostname=-a",
        ] {
            assert_eq!(
                Options::parse(word).complaints,
                [format!("kernel command line: cannot understand {word}")]
            );
        }
    }

    #[test]
    fn nothing_that_is_appended_says_which_root_is_started() {
        let other = HASH.replace('0', "f");
        let first =
            format!("keelson.slot=/dev/vda2 keelson.roothash={HASH} keelson.hashoffset=4096");
        let appended = format!(
            "{first} keelson.slot=/dev/vdb keelson.roothash={other} keelson.hashoffset=8192 keelson.hostname=boat"
        );
        let (alone, options) = (Options::parse(&first), Options::parse(&appended));
        assert_eq!(options.slot, alone.slot);
        assert_eq!(options.root_hash, alone.root_hash);
        assert_eq!(options.hash_offset, alone.hash_offset);
        assert_eq!(options.hostname.as_deref(), Some("boat"));
        assert_eq!(
            options.complaints.get(1).map(String::as_str),
            Some(format!("kernel command line: the first keelson.roothash counts, not keelson.roothash={other}").as_str())
        );
        assert_eq!(options.complaints.len(), 3);
    }

    #[test]
    fn the_state_option_has_four_forms() {
        for (word, wanted) in [
            ("ram", State::Ram),
            ("off", State::Ram),
            ("PARTLABEL=mine", State::PartLabel("mine".into())),
            ("/dev/sdb1", State::Device("/dev/sdb1".into())),
        ] {
            assert_eq!(
                Options::parse(&format!("keelson.state={word}")).state,
                wanted
            );
        }
    }

    #[test]
    fn a_live_system_keeps_its_state_in_memory_unless_told_otherwise() {
        let options = Options::parse("quiet keelson.live=1");
        assert!(options.live);
        assert_eq!(options.state, State::Ram);
        let label = State::PartLabel("mine".into());
        for line in [
            "keelson.live=1 keelson.state=PARTLABEL=mine",
            "keelson.state=PARTLABEL=mine keelson.live=1",
        ] {
            assert_eq!(Options::parse(line).state, label);
        }
        assert!(!Options::parse("quiet").live);
    }

    #[test]
    fn module_parameters_are_collected_with_dashes_and_quotes() {
        let options =
            Options::parse("dm-verity.prefetch_cluster=8 a.b=\"x y\" dm_verity.c virtio_blk.=1");
        assert_eq!(options.parameters_of("dm-verity"), "prefetch_cluster=8 c");
        assert_eq!(options.parameters_of("a"), "b=x y");
        assert_eq!(options.parameters_of("virtio_blk"), "");
        let own = Options::parse("dummy.numdummies=2");
        assert_eq!(own.parameters_of("dummy"), "numdummies=0 numdummies=2");
    }

    #[test]
    fn hostnames_follow_rfc_1123() {
        for good in ["a", "boat-1", "a.example.com", &"x".repeat(63)] {
            assert!(is_hostname(good), "{good}");
        }
        for bad in ["", "-a", "a-", "a..b", "a_b", &"x".repeat(64), "a b", "ä"] {
            assert!(!is_hostname(bad), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn no_command_line_panics(text in any::<String>()) {
            let _ = Options::parse(&text);
        }
    }
}
