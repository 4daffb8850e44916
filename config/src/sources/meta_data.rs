//! NoCloud's meta-data: what the data source says of the machine itself, in YAML or JSON.

use crate::MAX_DOCUMENT_BYTES;
use crate::cloud_config::authorized_keys;
use crate::diagnostic::Diagnostics;
use crate::names;
use crate::yaml::{self, Fields};
use serde_json::Value as Json;

/// The instance when the data source names none, as in cloud-init.
pub const DEFAULT_INSTANCE_ID: &str = "nocloud";

/// What meta-data says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetaData {
    /// A new one means a new machine: everything is applied again.
    pub instance_id: String,
    /// Name of the host.
    pub local_hostname: Option<String>,
    /// Keys for the default user.
    pub public_keys: Vec<String>,
    /// All that it says.
    pub all: Json,
}

impl Default for MetaData {
    fn default() -> Self {
        MetaData {
            instance_id: DEFAULT_INSTANCE_ID.to_owned(),
            local_hostname: None,
            public_keys: Vec::new(),
            all: Json::Null,
        }
    }
}

/// Reads meta-data. What cannot be understood is an error, and left at its default; `None` when nothing of it can be.
pub fn parse(bytes: &[u8], diagnostics: &mut Diagnostics) -> Option<MetaData> {
    let mut meta_data = MetaData::default();
    let source = diagnostics.add_source("meta-data");
    if bytes.len() > MAX_DOCUMENT_BYTES {
        diagnostics.error(
            None,
            format!("larger than {MAX_DOCUMENT_BYTES} bytes; nothing of it is applied"),
        );
        return None;
    }
    let Ok(text) = std::str::from_utf8(bytes) else {
        diagnostics.error(None, "not UTF-8 text; nothing of it is applied");
        return None;
    };
    let root = match yaml::parse_source(text, source) {
        Ok(parsed) => parsed.root,
        Err(error) => {
            diagnostics.error(
                error.position,
                format!(
                    "not valid YAML, nothing of it is applied: {}",
                    error.message
                ),
            );
            return None;
        }
    };
    if root.is_null() {
        return Some(meta_data);
    }
    let fields = yaml::mapping("meta-data", &root, diagnostics)?;
    meta_data.all = yaml::to_json(&root);
    if let Some(id) = fields
        .get("instance-id")
        .and_then(|node| yaml::string("instance-id", node, diagnostics))
        && !id.trim().is_empty()
    {
        id.trim().clone_into(&mut meta_data.instance_id);
    }
    meta_data.local_hostname = hostname(&fields, &["local-hostname", "hostname"], diagnostics);
    if let Some(node) = fields.get("public-keys") {
        meta_data.public_keys = authorized_keys("public-keys", node, diagnostics);
    }
    Some(meta_data)
}

/// The first of the keys that is there, when it is a name of a host.
pub(super) fn hostname(
    fields: &Fields<'_>,
    keys: &[&str],
    diagnostics: &mut Diagnostics,
) -> Option<String> {
    let (key, node) = keys.iter().find_map(|key| Some((*key, fields.get(key)?)))?;
    let name = yaml::string(key, node, diagnostics)?;
    let valid = names::is_host(&name);
    if !valid {
        diagnostics.error(node.position, format!("{key}: `{name}` is no host name"));
    }
    valid.then_some(name)
}
