//! Meta-data: what the data source says of the machine itself (NoCloud's `meta-data` file, YAML or JSON).

use crate::MAX_DOCUMENT_BYTES;
use crate::cloud_config::authorized_keys;
use crate::diagnostic::Diagnostics;
use crate::names;
use crate::yaml;

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
}

impl Default for MetaData {
    fn default() -> Self {
        MetaData {
            instance_id: DEFAULT_INSTANCE_ID.to_owned(),
            local_hostname: None,
            public_keys: Vec::new(),
        }
    }
}

/// Reads meta-data. What cannot be understood is an error, and left at its default.
pub fn parse(bytes: &[u8], diagnostics: &mut Diagnostics) -> MetaData {
    let mut meta_data = MetaData::default();
    if bytes.len() > MAX_DOCUMENT_BYTES {
        diagnostics.error(
            None,
            format!("larger than {MAX_DOCUMENT_BYTES} bytes; nothing of it is applied"),
        );
        return meta_data;
    }
    let Ok(text) = std::str::from_utf8(bytes) else {
        diagnostics.error(None, "not UTF-8 text; nothing of it is applied");
        return meta_data;
    };
    let root = match yaml::parse(text) {
        Ok(parsed) => parsed.root,
        Err(error) => {
            diagnostics.error(
                error.position,
                format!(
                    "not valid YAML, nothing of it is applied: {}",
                    error.message
                ),
            );
            return meta_data;
        }
    };
    let Some(fields) = yaml::mapping("meta-data", &root, diagnostics) else {
        return meta_data;
    };
    if let Some(id) = fields
        .get("instance-id")
        .and_then(|node| yaml::string("instance-id", node, diagnostics))
        && !id.trim().is_empty()
    {
        id.trim().clone_into(&mut meta_data.instance_id);
    }
    if let Some(node) = fields.get("local-hostname") {
        let name = yaml::string("local-hostname", node, diagnostics);
        meta_data.local_hostname = name.filter(|name| {
            let valid = names::is_host(name);
            if !valid {
                diagnostics.error(
                    node.position,
                    format!("local-hostname: `{name}` is no host name"),
                );
            }
            valid
        });
    }
    if let Some(node) = fields.get("public-keys") {
        meta_data.public_keys = authorized_keys("public-keys", node, diagnostics);
    }
    meta_data
}
