//! Which data source on the network a machine has, by what its firmware and the kernel command line say; nothing is tried out.

use std::collections::BTreeMap;

use super::choice::Choice;
use super::ec2::Dialect;
use super::http::Client;
use super::{Source, nocloud};
use super::{
    akamai, azure, digitalocean, ec2, equinix, gce, hetzner, openstack, oracle, scaleway, vultr,
};
use crate::diagnostic::Diagnostics;
use crate::names;

/// Azure's machines bear it.
const AZURE_TAG: &str = "7783-7084-3265-9085-8269-3286-77";
const OPENSTACK_PRODUCTS: [&str; 2] = ["OpenStack Nova", "OpenStack Compute"];
const OPENSTACK_TAGS: [&str; 6] = [
    "OpenStack Nova",
    "OpenStack Compute",
    "OpenTelekomCloud",
    "SAP CCloud VM",
    "HUAWEICLOUD",
    "Samsung Cloud Platform",
];
/// CloudStack's virtual router has this name in the networks behind it.
const CLOUDSTACK_SERVER: &str = "data-server";

/// What a machine says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Machine {
    /// Fields of the SMBIOS by the kernel's names (`sys_vendor`, `product_uuid`), without blanks at their ends.
    pub dmi: BTreeMap<String, String>,
    /// The kernel command line.
    pub command_line: String,
    /// The first router of version 4.
    pub router: Option<std::net::Ipv4Addr>,
    /// Which data sources its configuration allows.
    pub choice: Choice,
}

/// A data source on the network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Platform {
    /// NoCloud's files below an address.
    NoCloud(nocloud::Asked),
    /// Amazon EC2.
    Ec2,
    /// OpenStack.
    OpenStack,
    /// Google Compute Engine.
    Gce,
    /// Microsoft Azure.
    Azure,
    /// Hetzner Cloud.
    Hetzner,
    /// DigitalOcean.
    DigitalOcean,
    /// Vultr.
    Vultr,
    /// Oracle Cloud Infrastructure.
    Oracle,
    /// Scaleway.
    Scaleway,
    /// Akamai, once Linode.
    Akamai,
    /// UpCloud.
    UpCloud,
    /// Alibaba Cloud.
    Alibaba,
    /// Exoscale.
    Exoscale,
    /// Apache CloudStack.
    CloudStack,
    /// Equinix Metal.
    Equinix,
}

/// Those without settings, by cloud-init's names.
const NAMES: [(&str, Platform); 15] = [
    ("Ec2", Platform::Ec2),
    ("OpenStack", Platform::OpenStack),
    ("GCE", Platform::Gce),
    ("Azure", Platform::Azure),
    ("Hetzner", Platform::Hetzner),
    ("DigitalOcean", Platform::DigitalOcean),
    ("Vultr", Platform::Vultr),
    ("Oracle", Platform::Oracle),
    ("Scaleway", Platform::Scaleway),
    ("Akamai", Platform::Akamai),
    ("UpCloud", Platform::UpCloud),
    ("AliYun", Platform::Alibaba),
    ("Exoscale", Platform::Exoscale),
    ("CloudStack", Platform::CloudStack),
    ("Equinix", Platform::Equinix),
];

impl Machine {
    /// A field of the SMBIOS; empty when it is not there.
    pub fn dmi(&self, field: &str) -> &str {
        self.dmi.get(field).map_or("", String::as_str)
    }

    /// Whether no data source at all is wanted: `cloud-init=disabled`, `ds=none`, or an empty list in the configuration, before
    /// which the command line counts.
    pub fn wants_none(&self) -> bool {
        let asked = self.asked();
        self.words().any(|word| word == "cloud-init=disabled")
            || asked.is_some_and(|name| name.eq_ignore_ascii_case("none"))
            || (asked.is_none() && self.choice.is_none() && self.nocloud().is_none())
    }

    /// Whether a data source, by cloud-init's name, may be asked, and what it says be used. Where `ds=` names one, on the command
    /// line or in the SMBIOS' serial number, or a seed has an address, the configuration's list does not count.
    pub fn allows(&self, name: &str) -> bool {
        self.asked().is_some() || self.nocloud().is_some() || self.choice.allows(name)
    }

    /// What `ds=nocloud` says, on the command line or in the SMBIOS' serial number; or else the configuration.
    pub fn nocloud(&self) -> Option<nocloud::Asked> {
        let lines = [self.command_line.as_str(), self.dmi("product_serial")];
        let configured = || nocloud::Asked {
            seed_from: self.choice.seed_from().map(str::to_owned),
            ..nocloud::Asked::default()
        };
        let is_configured = self.asked().is_none() && self.choice.seed_from().is_some();
        let mut asked = lines
            .into_iter()
            .find_map(nocloud::asked)
            .or_else(|| is_configured.then(configured))?;
        if let Some(seed_from) = &mut asked.seed_from {
            *seed_from = self.filled_in(seed_from);
        }
        Some(asked)
    }

    /// The data source on the network. One that the command line names counts, whatever the machine is.
    pub fn platform(&self) -> Option<Platform> {
        if self.wants_none() {
            return None;
        }
        if let Some(asked) = self.nocloud() {
            let is_address = asked.seed_from.as_deref().is_some_and(nocloud::is_address);
            return is_address.then_some(Platform::NoCloud(asked));
        }
        if let Some(name) = self.asked() {
            return named(name);
        }
        let said = self.firmware_says();
        said.filter(|platform| self.choice.allows(platform.name()))
            .or_else(|| self.choice.only().and_then(named))
    }

    fn words(&self) -> impl Iterator<Item = &str> {
        self.command_line
            .split_whitespace()
            .map(|word| word.trim_matches('"'))
    }

    /// The name in `ds=NAME` or one of its other spellings.
    fn asked(&self) -> Option<&str> {
        let names = ["ds=", "ci.ds=", "ci.datasource="];
        let mut found = self
            .words()
            .filter_map(|word| names.iter().find_map(|name| word.strip_prefix(name)));
        let name = found.next()?;
        Some(name.split(';').next().unwrap_or(name))
    }

    fn firmware_says(&self) -> Option<Platform> {
        let [vendor, product, serial, uuid, tag] = [
            "sys_vendor",
            "product_name",
            "product_serial",
            "product_uuid",
            "chassis_asset_tag",
        ]
        .map(|field| self.dmi(field));
        let is_amazon = vendor == "Amazon EC2"
            || (uuid.to_ascii_lowercase().starts_with("ec2") && uuid.eq_ignore_ascii_case(serial))
            || ["e24cloud", "Tilaa"].contains(&vendor)
            || (vendor == "3DS Outscale" && product == "3DS Outscale VM")
            || serial.ends_with(".brightbox.com")
            || tag.ends_with(".zstack.io");
        Some(match () {
            () if is_amazon => Platform::Ec2,
            () if OPENSTACK_PRODUCTS.contains(&product) || OPENSTACK_TAGS.contains(&tag) => {
                Platform::OpenStack
            }
            () if product == "Google Compute Engine" || serial.starts_with("GoogleCloud-") => {
                Platform::Gce
            }
            () if tag == AZURE_TAG => Platform::Azure,
            () if vendor == "Hetzner" => Platform::Hetzner,
            () if vendor == "DigitalOcean" => Platform::DigitalOcean,
            () if vendor == "Vultr" || self.words().any(|word| word == "vultr") => Platform::Vultr,
            () if tag == "OracleCloud.com" => Platform::Oracle,
            () if vendor == "Scaleway" || self.words().any(|word| word == "scaleway") => {
                Platform::Scaleway
            }
            () if ["Akamai", "Linode"].contains(&vendor) => Platform::Akamai,
            () if vendor == "UpCloud" => Platform::UpCloud,
            () if product == "Alibaba Cloud ECS" => Platform::Alibaba,
            () if product.starts_with("Exoscale") => Platform::Exoscale,
            () if product.starts_with("CloudStack") => Platform::CloudStack,
            () => return None,
        })
    }

    /// With fields of the SMBIOS in place of `__dmi.NAME__`, by dmidecode(8)'s names.
    fn filled_in(&self, text: &str) -> String {
        let mut parts = text.split("__dmi.");
        let mut filled = parts.next().unwrap_or_default().to_owned();
        for part in parts {
            match part.split_once("__") {
                Some((name, rest)) => {
                    let name = name
                        .replace("baseboard-", "board-")
                        .replace("system-manufacturer", "sys-vendor");
                    let name = name
                        .replace("system-", "product-")
                        .replace("-manufacturer", "-vendor");
                    let field = name.replace("-number", "").replace('-', "_");
                    filled.push_str(self.dmi(&field));
                    filled.push_str(rest);
                }
                None => filled.push_str(&format!("__dmi.{part}")),
            }
        }
        filled
    }
}

/// Names of those without settings.
#[cfg(test)]
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    NAMES.iter().map(|(name, _)| *name)
}

/// The one of this name, in small letters or capitals.
fn named(name: &str) -> Option<Platform> {
    let mut all = NAMES.into_iter();
    all.find(|(known, _)| known.eq_ignore_ascii_case(name))
        .map(|(_, platform)| platform)
}

impl Platform {
    /// As cloud-init calls it.
    pub fn name(&self) -> &'static str {
        let mut names = NAMES.iter();
        names
            .find(|(_, platform)| platform == self)
            .map_or("NoCloud", |(name, _)| name)
    }

    /// Asks the data source. `now` is the time, in seconds since 1970.
    ///
    /// # Errors
    /// A sentence for a person: it was not reached, refuses, or says nothing of the instance.
    pub fn fetch(
        &self,
        machine: &Machine,
        now: u64,
        client: &mut Client<'_>,
        diagnostics: &mut Diagnostics,
    ) -> Result<Source, String> {
        let source = match self {
            Platform::NoCloud(asked) => nocloud::fetch(asked, client, diagnostics),
            Platform::Ec2 => ec2::fetch(&Dialect::amazon(), client, diagnostics),
            Platform::Alibaba => ec2::fetch(&Dialect::alibaba(), client, diagnostics),
            Platform::Exoscale => ec2::fetch(&Dialect::exoscale(), client, diagnostics),
            Platform::CloudStack => {
                let router = machine.router.map(|router| router.to_string());
                let servers = [Some(CLOUDSTACK_SERVER.to_owned()), router];
                let bases = servers
                    .into_iter()
                    .flatten()
                    .map(|server| format!("http://{server}"));
                ec2::fetch(&Dialect::cloudstack(bases.collect()), client, diagnostics)
            }
            Platform::OpenStack => openstack::fetch(client, diagnostics),
            Platform::Gce => gce::fetch(client, now, diagnostics),
            Platform::Azure => azure::fetch(client, diagnostics),
            Platform::Hetzner => hetzner::fetch(client, diagnostics),
            Platform::DigitalOcean => digitalocean::fetch(client, diagnostics),
            Platform::UpCloud => digitalocean::fetch_upcloud(client, diagnostics),
            Platform::Vultr => vultr::fetch(client, diagnostics),
            Platform::Oracle => oracle::fetch(client, diagnostics),
            Platform::Scaleway => scaleway::fetch(client, diagnostics),
            Platform::Akamai => akamai::fetch(client, diagnostics),
            Platform::Equinix => equinix::fetch(client, diagnostics),
        };
        let mut source = source?;
        source.hostname = source
            .hostname
            .and_then(|name| host_name(&name, diagnostics));
        let id = Some(machine.dmi("product_uuid")).filter(|id| !id.is_empty());
        source.machine = id.map(str::to_owned);
        Ok(source)
    }
}

/// A name that may be one of a host: what people call a machine at its provider may have other letters in it.
fn host_name(name: &str, diagnostics: &mut Diagnostics) -> Option<String> {
    if names::is_host(name) {
        return Some(name.to_owned());
    }
    let letter = |letter: char| match letter.is_ascii_alphanumeric() || letter == '.' {
        true => letter,
        false => '-',
    };
    let like: String = name.chars().map(letter).take(63).collect();
    let like = like.trim_matches(['-', '.']).to_owned();
    let is_one = names::is_host(&like);
    let what = if is_one { like.as_str() } else { "none" };
    diagnostics.warning(None, format!("`{name}` is no host name; {what} is taken"));
    is_one.then_some(like)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(command_line: &str, dmi: &[(&str, &str)]) -> Machine {
        let dmi = dmi.iter();
        Machine {
            dmi: dmi
                .map(|(field, value)| ((*field).to_owned(), (*value).to_owned()))
                .collect(),
            command_line: command_line.to_owned(),
            ..Machine::default()
        }
    }

    fn name(command_line: &str, dmi: &[(&str, &str)]) -> Option<&'static str> {
        machine(command_line, dmi)
            .platform()
            .map(|platform| platform.name())
    }

    #[test]
    fn a_machine_is_known_by_its_firmware_and_the_command_line_counts_before_it() {
        assert_eq!(name("quiet", &[("sys_vendor", "QEMU")]), None);
        assert_eq!(name("", &[("sys_vendor", "Amazon EC2")]), Some("Ec2"));
        // A machine of anybody's may have such an id by chance.
        let id = ("product_uuid", "EC2E1916-9099-7CAF-FD21-012345ABCDEF");
        assert_eq!(name("", &[id]), None);
        assert_eq!(
            name(
                "",
                &[
                    id,
                    ("product_serial", "ec2e1916-9099-7caf-fd21-012345abcdef")
                ]
            ),
            Some("Ec2")
        );
        assert_eq!(
            name("ds=hetzner", &[("sys_vendor", "Amazon EC2")]),
            Some("Hetzner")
        );
        assert_eq!(name("ds=none", &[("sys_vendor", "Amazon EC2")]), None);
        assert_eq!(
            name("cloud-init=disabled", &[("sys_vendor", "Amazon EC2")]),
            None
        );
        // Disks alone.
        assert_eq!(name("ds=nocloud", &[("sys_vendor", "Amazon EC2")]), None);
        assert_eq!(name("ds=nocloud;s=/var/seed", &[]), None);
        assert_eq!(
            name("", &[("product_serial", "ds=nocloud;s=http://h/")]),
            Some("NoCloud")
        );
    }

    #[test]
    fn the_configuration_restricts_and_the_command_line_counts_before_it() {
        let chosen = |line: &str, names: &[&str], seed: Option<&str>| {
            let names = names.iter().map(|name| (*name).to_owned()).collect();
            let machine = Machine {
                choice: Choice::new(Some(names), seed.map(str::to_owned)),
                ..machine(line, &[("sys_vendor", "Amazon EC2")])
            };
            let name = machine.platform().map(|platform| platform.name());
            (name, machine.wants_none())
        };
        assert_eq!(chosen("", &["ec2", "gce"], None), (Some("Ec2"), false));
        assert_eq!(chosen("", &["gce", "nocloud"], None), (None, false));
        // The only one is asked whatever the machine is.
        assert_eq!(
            chosen("", &["hetzner", "none"], None),
            (Some("Hetzner"), false)
        );
        assert_eq!(chosen("", &["nocloud"], None), (None, false));
        assert_eq!(chosen("", &[], None), (None, true));
        assert_eq!(chosen("ds=gce", &[], None), (Some("GCE"), false));
        let seed = Some("http://h/");
        assert_eq!(chosen("", &["nocloud"], seed), (Some("NoCloud"), false));
        assert_eq!(chosen("ds=gce", &["nocloud"], seed), (Some("GCE"), false));
    }

    #[test]
    fn a_list_restricts_nothing_where_a_data_source_is_named_otherwise() {
        let allows = |line: &str, serial: &str, seed: Option<&str>| {
            let machine = Machine {
                choice: Choice::new(Some(vec!["ec2".into()]), seed.map(str::to_owned)),
                ..machine(line, &[("product_serial", serial)])
            };
            [machine.allows("gce"), machine.allows("nocloud")]
        };
        assert_eq!(allows("quiet", "s-1", None), [false, false]);
        assert_eq!(allows("ds=gce", "s-1", None), [true, true]);
        assert_eq!(allows("ds=nocloud", "s-1", None), [true, true]);
        assert_eq!(allows("", "ds=nocloud;s=http://h/", None), [true, true]);
        assert_eq!(allows("", "s-1", Some("http://h/")), [true, true]);
    }

    #[test]
    fn names_of_machines_become_host_names() {
        let mut diagnostics = Diagnostics::new("");
        let mut name = |name| host_name(name, &mut diagnostics);
        assert_eq!(name("node.example").as_deref(), Some("node.example"));
        assert_eq!(name("web 1_a").as_deref(), Some("web-1-a"));
        assert_eq!(name("a\nX=1").as_deref(), Some("a-X-1"));
        assert_eq!(name("__"), None);
        assert_eq!(diagnostics.into_sorted().len(), 3);
    }

    #[test]
    fn an_address_may_name_the_machine() {
        let dmi = [
            ("product_serial", "s-1"),
            ("chassis_serial", "c-2"),
            ("board_asset_tag", "b-3"),
            ("product_uuid", "u-4"),
        ];
        let line = "ds=nocloud;s=http://h/__dmi.system-serial-number__/__dmi.chassis-serial-number__/__dmi.baseboard-asset-tag__/__dmi.system-uuid__/__dmi.x";
        let asked = machine(line, &dmi).nocloud().unwrap();
        assert_eq!(
            asked.seed_from.as_deref(),
            Some("http://h/s-1/c-2/b-3/u-4/__dmi.x")
        );
    }
}
