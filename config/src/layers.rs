//! Layers of a machine's configuration, of which the later one counts: mappings are merged key by key, of lists and values
//! the later one's are taken, unless a layer says otherwise with `merge_how`.
//!
//! Built in, files of the OS image, files of `config.d` in order of name, vendor-data, user-data, what `keelson config set`
//! wrote, kernel command line.

use crate::DataSource;
use crate::cloud_config::wants_vendor_data;
use crate::diagnostic::{Diagnostics, Position};
use crate::sources::choice::{self, Choice};
use crate::user_data::{self, Script, UserData};
use crate::yaml::merge::{MERGE_KEYS, Mergers, overlay};
use crate::yaml::{self, Key, Node, Scalar, Value};

/// Words of the kernel command line that are PID 1's, below `keelson.`.
const OF_PID_1: [&str; 10] = [
    "slot",
    "roothash",
    "hashoffset",
    "version",
    "kexec",
    "state",
    "rescue",
    "reset",
    "tries",
    "live",
];

/// All that a configuration is made of. Documents have the names that people know them by.
#[derive(Clone, Debug, Default)]
pub struct Inputs {
    /// Files of the OS image and of `config.d`, in order.
    pub files: Vec<(String, Vec<u8>)>,
    /// What the data source says.
    pub source: DataSource,
    /// What `keelson config set` wrote.
    pub set: Option<(String, Vec<u8>)>,
    /// The kernel command line.
    pub command_line: String,
}

/// A configuration.
#[derive(Clone, Debug)]
pub struct Assembled {
    /// The settings of all layers; `None` when nothing is said.
    pub root: Option<Node>,
    /// Scripts of vendors' and of the user's.
    pub scripts: Vec<Script>,
    /// Scripts that run early at each boot.
    pub boothooks: Vec<Script>,
    /// Whether any of the user-data could be read.
    pub understood: bool,
}

/// Puts all layers together. `fetch` fetches what documents include.
pub fn assemble(
    inputs: &Inputs,
    fetch: &mut user_data::Fetch<'_>,
    diagnostics: &mut Diagnostics,
) -> Assembled {
    let source = &inputs.source;
    let instance = source.instance_data();
    let mut context = user_data::Context {
        fetch,
        instance: &instance,
    };
    let user = source
        .user_data
        .as_ref()
        .map(|bytes| user_data::read(bytes, "user-data", &mut context, diagnostics));
    let wants_vendors = user
        .as_ref()
        .and_then(|user| user.config.as_ref())
        .is_none_or(wants_vendor_data);
    let vendors = source.vendor_data.iter().filter(|_| wants_vendors);
    let mut vendors: Vec<UserData> = vendors
        .map(|bytes| user_data::read(bytes, "vendor-data", &mut context, diagnostics))
        .collect();
    let configs = vendors.iter().chain(&user);
    for config in configs.filter_map(|part| part.config.as_ref()) {
        choice::warn_if_late(config, diagnostics);
    }
    // Their parts are numbered as the user's are.
    for (number, vendor) in vendors.iter_mut().enumerate() {
        for script in vendor.scripts.iter_mut().chain(&mut vendor.boothooks) {
            script.name = format!("00-vendor-{number}-{}", script.name);
        }
    }
    let files = inputs.files.iter();
    let mut nodes: Vec<Node> = files
        .filter_map(|(name, bytes)| parse(bytes, name, diagnostics))
        .collect();
    // The user's words count, vendors' fill in what is not said.
    let of_vendors = vendors.iter().filter_map(|vendor| vendor.config.clone());
    nodes.extend(of_vendors.reduce(overlay));
    nodes.extend(user.as_ref().and_then(|user| user.config.clone()));
    if let Some((name, bytes)) = &inputs.set {
        nodes.extend(parse(bytes, name, diagnostics));
    }
    nodes.extend(from_command_line(&inputs.command_line, diagnostics));
    let parts = || vendors.iter().chain(&user);
    Assembled {
        root: merge(nodes, diagnostics),
        scripts: parts().flat_map(|part| part.scripts.clone()).collect(),
        boothooks: parts().flat_map(|part| part.boothooks.clone()).collect(),
        understood: user.as_ref().is_none_or(|user| user.understood),
    }
}

/// Which data sources the layers allow that are there before any is asked.
pub fn choice(inputs: &Inputs) -> Choice {
    let mut unsaid = Diagnostics::new("");
    let files = inputs.files.iter().chain(&inputs.set);
    let mut nodes: Vec<Node> = files
        .filter_map(|(name, bytes)| parse(bytes, name, &mut unsaid))
        .collect();
    nodes.extend(from_command_line(&inputs.command_line, &mut unsaid));
    let merged = merge(nodes, &mut unsaid);
    merged.map_or_else(Choice::default, |root| choice::read(&root, &mut unsaid))
}

/// Reads a file of settings, which the user knows as `name`. The first line `#cloud-config` may be missing.
pub fn parse(bytes: &[u8], name: &str, diagnostics: &mut Diagnostics) -> Option<Node> {
    let source = diagnostics.add_source(name);
    let at = Position::start_of(source);
    if bytes.len() > crate::MAX_DOCUMENT_BYTES {
        let limit = crate::MAX_DOCUMENT_BYTES;
        diagnostics.error(
            at,
            format!("larger than {limit} bytes; nothing of it is applied"),
        );
        return None;
    }
    let Ok(text) = std::str::from_utf8(bytes) else {
        diagnostics.error(at, "not UTF-8 text; nothing of it is applied");
        return None;
    };
    let parsed = match yaml::parse_source(text, source) {
        Ok(parsed) => parsed,
        Err(error) => {
            let message = format!(
                "not valid YAML, nothing of it is applied: {}",
                error.message
            );
            diagnostics.error(error.position, message);
            return None;
        }
    };
    parsed.report(diagnostics);
    match parsed.root.value {
        Value::Mapping(_) => Some(parsed.root),
        _ if parsed.root.is_null() => None,
        _ => {
            let message = format!(
                "expected keys and values, found {}; nothing is applied",
                parsed.root.kind()
            );
            diagnostics.error(parsed.root.position, message);
            None
        }
    }
}

/// The address of a cloud-config that the kernel command line names (`cloud-config-url=`): a layer before the data source's.
pub fn command_line_url(command_line: &str) -> Option<&str> {
    let mut words = command_line
        .split_whitespace()
        .map(|word| word.trim_matches('"'));
    words.find_map(|word| word.strip_prefix("cloud-config-url="))
}

/// All layers, the earliest first, as one document.
pub fn merge(
    layers: impl IntoIterator<Item = Node>,
    diagnostics: &mut Diagnostics,
) -> Option<Node> {
    let mut merged: Option<Node> = None;
    for mut layer in layers {
        let mut mergers = None;
        if let Value::Mapping(entries) = &mut layer.value {
            // As in cloud-init, a hyphen is an underscore: `ca-certs` and `ca_certs` are one key.
            for (key, _) in entries
                .iter_mut()
                .filter(|(key, _)| key.text != "launch-index")
            {
                key.text = key.text.replace('-', "_");
            }
            let how = entries
                .iter()
                .find(|(key, _)| MERGE_KEYS.contains(&key.text.as_str()));
            mergers = how.and_then(|(_, node)| Mergers::from_node(node, diagnostics));
            entries.retain(|(key, _)| !MERGE_KEYS.contains(&key.text.as_str()));
        }
        merged = Some(match (merged, mergers) {
            (None, _) => layer,
            (Some(earlier), Some(mergers)) => mergers.merge(earlier, layer),
            (Some(earlier), None) => overlay(earlier, layer),
        });
    }
    merged
}

/// The settings on a kernel command line: `keelson.KEY=VALUE` and `rancher.KEY=VALUE` with dots between the keys, `cc.KEY=VALUE`
/// for keys at the top. Values are YAML; a key alone is true; of two the later one counts.
pub fn from_command_line(line: &str, diagnostics: &mut Diagnostics) -> Option<Node> {
    let source = diagnostics.add_source("kernel command line");
    let mut root: Option<Node> = None;
    for (column, word) in words(line) {
        let (path, value) = word.split_once('=').unwrap_or((&word, "true"));
        let keys: Vec<&str> = match path.split_once('.') {
            Some(("cc", rest)) => rest.split('.').collect(),
            // PID 1's own as well: it is the host's name from the start.
            Some(("keelson", "hostname")) => vec!["hostname"],
            Some(("keelson", rest)) if OF_PID_1.contains(&rest) => continue,
            Some(("keelson" | "rancher", _)) => path.split('.').collect(),
            _ => continue,
        };
        let position = Position {
            source,
            line: 1,
            column,
        };
        if keys.iter().any(|key| key.is_empty()) {
            diagnostics.error(position, format!("`{path}` is no key; it is left out"));
            continue;
        }
        let mut node = match yaml::parse(value) {
            Ok(parsed) => parsed.root,
            // A value with colons or hashes is text.
            Err(_) => Node {
                position,
                value: Value::Scalar(Scalar {
                    text: value.to_owned(),
                    plain: false,
                    binary: false,
                }),
            },
        };
        place(&mut node, position);
        for key in keys.into_iter().rev() {
            let key = Key {
                text: key.to_owned(),
                position,
            };
            node = Node {
                position,
                value: Value::Mapping(vec![(key, node)]),
            };
        }
        root = Some(match root {
            Some(earlier) => overlay(earlier, node),
            None => node,
        });
    }
    root
}

/// Everything in `node` stands at `position`.
fn place(node: &mut Node, position: Position) {
    node.position = position;
    match &mut node.value {
        Value::Sequence(items) => items.iter_mut().for_each(|item| place(item, position)),
        Value::Mapping(entries) => {
            for (key, value) in entries {
                key.position = position;
                place(value, position);
            }
        }
        Value::Scalar(_) => {}
    }
}

/// Words of a kernel command line and their columns. Quotes and brackets keep a word together.
fn words(line: &str) -> Vec<(usize, String)> {
    let mut words = Vec::new();
    let mut word = String::new();
    let (mut begun, mut quoted, mut depth) = (0, false, 0_usize);
    for (index, letter) in line.chars().enumerate() {
        match letter {
            letter if letter.is_whitespace() && !quoted && depth == 0 => {
                if !word.is_empty() {
                    words.push((begun, std::mem::take(&mut word)));
                }
                continue;
            }
            '"' if depth == 0 => {
                quoted = !quoted;
                if word.is_empty() {
                    begun = index + 1;
                }
                continue;
            }
            '[' | '{' if !quoted => depth += 1,
            ']' | '}' if !quoted => depth = depth.saturating_sub(1),
            _ => {}
        }
        if word.is_empty() {
            begun = index + 1;
        }
        word.push(letter);
    }
    if !word.is_empty() {
        words.push((begun, word));
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::user_data::{Include, Missing};
    use serde_json::{Value as Json, json};

    fn command_line(line: &str) -> Json {
        let mut diagnostics = Diagnostics::new("");
        let node = from_command_line(line, &mut diagnostics);
        node.as_ref().map_or(Json::Null, yaml::to_json)
    }

    #[test]
    fn settings_stand_on_the_kernel_command_line() {
        let json = command_line(
            "quiet keelson.slot=PARTUUID=1 root=x cc.hostname=\"node one\" rancher.state.dev=LABEL=S rancher.debug keelson.modules=[a, b] keelson.a.b=1 keelson.a.b=2 cc.x=http://y#z",
        );
        assert_eq!(
            json,
            json!({"hostname": "node one", "rancher": {"state": {"dev": "LABEL=S"}, "debug": true},
                "keelson": {"modules": ["a", "b"], "a": {"b": 2}}, "x": "http://y#z"})
        );
        assert_eq!(command_line("quiet ro"), Json::Null);
    }

    #[test]
    fn all_layers_count_in_their_order() {
        let file = |name: &str, text: &str| (name.to_owned(), text.as_bytes().to_vec());
        let inputs = Inputs {
            files: vec![
                file("image", "hostname: a\ntimezone: UTC\nlocale: C\n"),
                file("config.d", "timezone: Europe/Berlin\n"),
            ],
            source: DataSource {
                user_data: Some(b"#cloud-config\nhostname: user\nruncmd: [u]\n".to_vec()),
                vendor_data: vec![
                    b"#cloud-config\nhostname: vendor\nntp: {servers: [v]}\n".to_vec(),
                ],
                ..DataSource::default()
            },
            set: Some(file("set", "runcmd: [s]\n")),
            command_line: "cc.locale=de_DE ro".to_owned(),
        };
        let mut diagnostics = Diagnostics::new("");
        let mut fetch = |_: Include<'_>| Err(Missing::Pending);
        let assembled = assemble(&inputs, &mut fetch, &mut diagnostics);
        let all = yaml::to_json(&assembled.root.unwrap());
        assert_eq!(
            all,
            json!({"hostname": "user", "timezone": "Europe/Berlin", "locale": "de_DE", "ntp": {"servers": ["v"]}, "runcmd": ["s"]})
        );
        let without = Inputs {
            source: DataSource {
                user_data: Some(b"#cloud-config\nvendor_data: {enabled: false}\n".to_vec()),
                ..inputs.source.clone()
            },
            ..inputs
        };
        let assembled = assemble(&without, &mut fetch, &mut diagnostics);
        let all = yaml::to_json(&assembled.root.unwrap());
        assert!(all["ntp"].is_null());
    }

    #[test]
    fn which_data_sources_are_asked_is_said_before_one_is() {
        let file = |name: &str, text: &str| (name.to_owned(), text.as_bytes().to_vec());
        let mut inputs = Inputs {
            files: vec![file("config.d", "datasource_list: [Ec2]\n")],
            source: DataSource {
                user_data: Some(b"#cloud-config\ndatasource_list: [GCE]\n".to_vec()),
                vendor_data: vec![b"#cloud-config\ndatasource: {Ec2: {}}\n".to_vec()],
                ..DataSource::default()
            },
            ..Inputs::default()
        };
        assert_eq!(choice(&inputs).only(), Some("ec2"));
        let mut diagnostics = Diagnostics::new("");
        let mut fetch = |_: Include<'_>| Err(Missing::Pending);
        assemble(&inputs, &mut fetch, &mut diagnostics);
        let messages = diagnostics.into_sorted();
        assert_eq!(
            messages[0].to_string(),
            "user-data:2:18: `datasource_list` is not applied: the data source that says it is found already; put it into /state/config/config.d or on the kernel command line"
        );
        let of_vendors = "vendor-data:2:13: `datasource` is not applied: ";
        let starts = messages.iter().map(ToString::to_string);
        let count = starts.filter(|message| message.starts_with(of_vendors));
        assert_eq!(count.count(), 1, "{messages:?}");
        inputs.command_line = "ro rancher.cloud_init.datasources=[configdrive, hetzner]".into();
        assert!(choice(&inputs).allows("hetzner") && !choice(&inputs).allows("ec2"));
        inputs.command_line = "ro keelson.datasources=[]".into();
        assert!(choice(&inputs).is_none());
    }

    #[test]
    fn a_wrong_key_has_its_column() {
        let mut diagnostics = Diagnostics::new("");
        assert!(from_command_line("ro keelson..a=1", &mut diagnostics).is_none());
        let messages = diagnostics.into_sorted();
        assert_eq!(
            messages[0].to_string(),
            "kernel command line:1:4: `keelson..a` is no key; it is left out"
        );
    }

    #[test]
    fn of_two_layers_the_later_counts_unless_it_says_otherwise() {
        let mut diagnostics = Diagnostics::new("");
        let mut layer = |text: &str| parse(text.as_bytes(), "layer", &mut diagnostics).unwrap();
        let layers = [
            layer("a: {b: 1, l: [1]}\nruncmd: [x]\n"),
            layer("#cloud-config\na: {l: [2]}\n"),
            layer("runcmd: [y]\nmerge_how: list(append)+dict(recurse_list)\n"),
        ];
        let merged = merge(layers, &mut diagnostics).unwrap();
        assert_eq!(
            yaml::to_json(&merged),
            json!({"a": {"b": 1, "l": [2]}, "runcmd": ["x", "y"]})
        );
        assert!(parse(b"[1]", "list", &mut diagnostics).is_none());
        assert!(parse(b"", "empty", &mut diagnostics).is_none());
    }
}
