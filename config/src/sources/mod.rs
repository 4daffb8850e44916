//! What data sources say of a machine, from the documents that each hands out.
//!
//! - [`meta_data`]: NoCloud's `meta-data`
//! - [`nocloud`]: its files, and `ds=nocloud` on the kernel command line
//! - [`openstack`]: config drives and OpenStack's metadata service

pub mod meta_data;
pub mod nocloud;
pub mod openstack;

use serde::{Deserialize, Serialize};
use serde_json::{Value as Json, json};

use crate::network::Network;

/// The instance when no data source names one.
pub const NO_INSTANCE: &str = "iid-datasource-none";

/// What a data source says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Source {
    /// Its kind, as cloud-init calls it in instance data: `nocloud`, `configdrive`, `ec2`.
    pub platform: String,
    /// Where it was found, for people.
    pub place: String,
    /// A new one means a new machine: everything is applied again.
    pub instance_id: String,
    /// Name of the host, with or without domain.
    pub hostname: Option<String>,
    /// Keys for the default user.
    pub public_keys: Vec<String>,
    /// All that it says, for templates.
    pub meta_data: Json,
    /// What it says of the network.
    pub network: Option<Network>,
    /// What the user says.
    #[serde(skip)]
    pub user_data: Option<Vec<u8>>,
    /// What those who run the machine say, the less important first.
    #[serde(skip)]
    pub vendor_data: Vec<Vec<u8>>,
    /// Bytes that nobody else knows, for the kernel's random number generator.
    #[serde(skip)]
    pub random_seed: Option<Vec<u8>>,
}

impl Default for Source {
    fn default() -> Self {
        Source {
            platform: "none".to_owned(),
            place: "no data source".to_owned(),
            instance_id: NO_INSTANCE.to_owned(),
            hostname: None,
            public_keys: Vec::new(),
            meta_data: Json::Null,
            network: None,
            user_data: None,
            vendor_data: Vec::new(),
            random_seed: None,
        }
    }
}

impl Source {
    /// cloud-init's instance data, for templates: `v1`, `ds`, and the names of `v1` at the top as well.
    pub fn instance_data(&self) -> Json {
        let text = |names: &[&str]| {
            let mut values = names.iter().map(|name| &self.meta_data[*name]);
            values.find(|value| value.is_string()).cloned()
        };
        let hostname = self.hostname.as_deref().unwrap_or_default();
        let v1 = json!({
            "cloud_name": self.platform,
            "cloud_id": self.platform,
            "platform": self.platform,
            "subplatform": self.place,
            "instance_id": self.instance_id,
            "local_hostname": hostname.split('.').next(),
            "public_ssh_keys": self.public_keys,
            "region": text(&["region"]),
            "availability_zone": text(&["availability_zone", "availability-zone"]),
            "distro": "keelson",
            "variant": "keelson",
            "system_platform": "linux",
        });
        let mut all = json!({
            "v1": v1,
            "ds": {"meta_data": self.meta_data},
            "userdata": self.user_data.as_deref().map(String::from_utf8_lossy),
        });
        if let (Json::Object(all), Json::Object(v1)) = (&mut all, v1) {
            for (name, value) in v1 {
                all.entry(name).or_insert(value);
            }
        }
        all
    }
}
