//! What data sources say of a machine, from the documents that each hands out.
//!
//! - [`machine`]: which of those on the network a machine has
//! - [`choice`]: which may be asked
//! - [`http`]: how they are asked
//! - [`nocloud`]: files of a seed, and `ds=nocloud` on the kernel command line; [`meta_data`]: its `meta-data`
//! - [`credentials`]: what a hypervisor hands over in the firmware's tables
//! - [`ovf`]: `ovf-env.xml`, of Azure and others; [`vmware`]: VMware's guestinfo
//! - [`openstack`]: config drives and OpenStack's metadata service
//! - [`ec2`] (with Alibaba Cloud, Exoscale, CloudStack), [`gce`], [`azure`], [`hetzner`], [`digitalocean`] (with UpCloud),
//!   [`vultr`], [`oracle`], [`scaleway`], [`akamai`], [`equinix`]: metadata services

pub mod akamai;
pub mod azure;
pub mod choice;
pub mod credentials;
pub mod digitalocean;
pub mod ec2;
pub mod equinix;
pub mod gce;
pub mod hetzner;
pub mod http;
pub mod machine;
pub mod meta_data;
pub mod nocloud;
pub mod openstack;
pub mod oracle;
pub mod ovf;
pub mod scaleway;
pub mod vmware;
pub mod vultr;

use serde::{Deserialize, Serialize};
use serde_json::{Value as Json, json};

use crate::diagnostic::{Diagnostics, Position};
use crate::network::{self, Network};
use crate::yaml;

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
    /// Where in the world it runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// And in which part of the region.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub availability_zone: Option<String>,
    /// All that it says, for templates.
    pub meta_data: Json,
    /// The machine that it was said to (`product_uuid`), when it was said over the network.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub machine: Option<String>,
    /// What of it comes from a disk, which may be gone by now: what a service on the network says is put beside that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from_disk: Option<FromDisk>,
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

/// What a disk said, where a service on the network says the rest.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct FromDisk {
    /// The user-data is the disk's.
    pub user_data: bool,
    /// Its keys for the default user.
    pub public_keys: Vec<String>,
    /// The service has said its part.
    pub answered: bool,
}

impl Default for Source {
    fn default() -> Self {
        Source {
            platform: "none".to_owned(),
            place: "no data source".to_owned(),
            instance_id: NO_INSTANCE.to_owned(),
            hostname: None,
            public_keys: Vec::new(),
            region: None,
            availability_zone: None,
            meta_data: Json::Null,
            machine: None,
            from_disk: None,
            network: None,
            user_data: None,
            vendor_data: Vec::new(),
            random_seed: None,
        }
    }
}

/// A network-config that was made from what a service says of cards: they are known by their hardware addresses, and keep the
/// names that they have. Any other card asks DHCP: without it, a copy of the machine would not reach the service that
/// tells it who it is.
fn synthesised(config: &Json, diagnostics: &mut Diagnostics) -> Option<Network> {
    let node = yaml::from_json(config, Position::default());
    let mut network = network::parse(&node, diagnostics)?;
    for interface in &mut network.interfaces {
        if interface.matches.mac.is_some() {
            interface.set_name = None;
        }
    }
    network
        .interfaces
        .extend(Network::dhcp_everywhere().interfaces);
    Some(network)
}

impl Source {
    /// What a disk said, with what the platform's service says of the same machine beside it: now, or as it was kept. The instance
    /// stays the one that it was when the disk was read, and what the user wrote there counts.
    #[must_use]
    pub fn with_service(self, service: Source) -> Source {
        let disk = self.from_disk.unwrap_or_default();
        let kept = service.from_disk.unwrap_or_default();
        let mut public_keys = service.public_keys;
        // Of a record that was kept, what an earlier disk said is not the service's.
        public_keys.retain(|key| !kept.public_keys.contains(key));
        for key in &disk.public_keys {
            if !public_keys.contains(key) {
                public_keys.push(key.clone());
            }
        }
        let user_data = match disk.user_data {
            true => self.user_data,
            false => service.user_data.filter(|_| !kept.user_data),
        };
        Source {
            place: service.place,
            hostname: service.hostname.or(self.hostname),
            public_keys,
            region: service.region,
            availability_zone: service.availability_zone,
            meta_data: service.meta_data,
            machine: service.machine.or(self.machine),
            network: service.network.or(self.network),
            user_data,
            random_seed: service.random_seed.or(self.random_seed),
            platform: self.platform,
            instance_id: self.instance_id,
            from_disk: Some(FromDisk {
                answered: true,
                ..disk
            }),
            vendor_data: self.vendor_data,
        }
    }

    /// cloud-init's instance data, for templates: `v1`, `ds`, and the names of `v1` at the top as well.
    pub fn instance_data(&self) -> Json {
        let text = |names: &[&str]| {
            let mut values = names.iter().map(|name| &self.meta_data[*name]);
            values.find(|value| value.is_string()).cloned()
        };
        let own = |own: &Option<String>, names: &[&str]| match own {
            Some(own) => Some(Json::from(own.as_str())),
            None => text(names),
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
            "region": own(&self.region, &["region"]),
            "availability_zone": own(&self.availability_zone, &["availability_zone", "availability-zone"]),
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
