//! Which data sources may be asked: cloud-init's `datasource_list` and `datasource`, RancherOS' `rancher.cloud_init.datasources`,
//! and `keelson.datasources`. The list restricts; the order among them is fixed.

use super::nocloud;
use crate::diagnostic::Diagnostics;
use crate::yaml::{self, Fields, Node, Shape, Table, Value};
use serde_json::{Value as Json, json};

/// `datasource`
pub(crate) const DATASOURCE: Shape =
    Shape::AnyOf(&[Shape::Table(&BY_NAME), Shape::Schema(by_any_spelling)]);
static BY_NAME: Table = Table::new(
    "datasource",
    &[(
        "NoCloud",
        Shape::Table(&NOCLOUD),
        "A seed at an address of yours",
    )],
);
static NOCLOUD: Table = Table::new(
    "datasource.NoCloud",
    &[(
        "seedfrom",
        Shape::Text,
        "Address of the seed: http:// or https://",
    )],
)
.unsupported(&[
    ("user-data", OWN_FILE),
    ("meta-data", OWN_FILE),
    ("vendor-data", OWN_FILE),
    ("network-config", "use `keelson.network`"),
    ("fs_label", "the label is cidata"),
]);
const OWN_FILE: &str = "a file in /state/config/config.d says the same";

/// The same with the name in small letters or capitals.
fn by_any_spelling() -> Json {
    json!({"type": ["object", "null"], "propertyNames": {"pattern": "^[Nn][Oo][Cc][Ll][Oo][Uu][Dd]$"},
        "additionalProperties": {"$ref": format!("#/definitions/{}", NOCLOUD.name)}})
}

/// Names of data sources that there are here, in small letters.
const KNOWN: [&str; 20] = [
    "nocloud",
    "configdrive",
    "ovf",
    "vmware",
    "ec2",
    "openstack",
    "gce",
    "azure",
    "hetzner",
    "digitalocean",
    "vultr",
    "oracle",
    "scaleway",
    "akamai",
    "upcloud",
    "aliyun",
    "exoscale",
    "cloudstack",
    "equinix",
    NONE,
];
/// Other names of the same.
const ALIASES: [(&str, &str); 4] = [
    ("nocloudnet", "nocloud"),
    ("packet", "equinix"),
    ("proxmox", "nocloud"),
    ("linode", "akamai"),
];
/// RancherOS' that are none here, and what to do instead.
const INSTEAD: [(&str, &str); 3] = [
    (
        "url",
        "write `cloud-config-url=ADDRESS` on the kernel command line",
    ),
    (
        "file",
        "put the file into /state/config/config.d, with a name that ends in .yml",
    ),
    (
        "tftp",
        "nothing here speaks TFTP: write `cloud-config-url=http://...` on the kernel command line",
    ),
];
/// No data source at all.
const NONE: &str = "none";
/// RancherOS' name of the kernel command line, which is a layer of the configuration whatever is listed.
const COMMAND_LINE: &str = "cmdline";
/// Stands in a choice for what is no data source here: of such a list none is the only one.
const OTHER: &str = "other";
/// The firmware's credentials are not asked for by a name of their own: they may be where a seed may be.
const CREDENTIALS: &str = "credentials";
const TOO_LATE: &str = "the data source that says it is found already; put it into /state/config/config.d or on the kernel command line";

/// Which data sources may be asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Choice {
    /// Their names, in small letters; `None` for all.
    names: Option<Vec<String>>,
    /// Where a NoCloud seed is, an address.
    seed_from: Option<String>,
}

impl Choice {
    /// Those with these names, and a seed at this address.
    pub fn new(names: Option<Vec<String>>, seed_from: Option<String>) -> Self {
        Choice { names, seed_from }
    }

    /// Their names; `None` for all.
    pub fn names(&self) -> Option<&[String]> {
        self.names.as_deref()
    }

    /// Where a NoCloud seed is.
    pub fn seed_from(&self) -> Option<&str> {
        self.seed_from.as_deref()
    }

    /// Whether a data source, by cloud-init's name, may be asked. That there is none may always be. What the command line says
    /// besides, [`super::machine::Machine::allows`] knows.
    pub fn allows(&self, name: &str) -> bool {
        let name = match name {
            CREDENTIALS => "nocloud",
            name => name,
        };
        let is = |known: &String| known.eq_ignore_ascii_case(name);
        name == NONE || self.names.as_ref().is_none_or(|names| names.iter().any(is))
    }

    /// The only one that may be asked: it is, whatever the machine is.
    pub fn only(&self) -> Option<&str> {
        let mut names = self.some();
        names.next().filter(|_| names.next().is_none())
    }

    /// Whether none at all may be asked.
    pub fn is_none(&self) -> bool {
        self.names.is_some() && self.some().next().is_none()
    }

    fn some(&self) -> impl Iterator<Item = &str> {
        let names = self.names.iter().flatten().map(String::as_str);
        names.filter(|name| *name != NONE)
    }
}

/// Reads all of it from the top of a configuration; `keelson.datasources` counts before the others.
pub fn read(root: &Node, diagnostics: &mut Diagnostics) -> Choice {
    let Some(top) = fields(root) else {
        return Choice::default();
    };
    let mut choice = Choice::default();
    let lists = [
        ("datasource_list", top.get("datasource_list")),
        (
            "rancher.cloud_init.datasources",
            below(&top, "rancher")
                .and_then(|rancher| below(&rancher, "cloud_init"))
                .and_then(|section| section.get("datasources")),
        ),
        (
            "keelson.datasources",
            below(&top, "keelson").and_then(|keelson| keelson.get("datasources")),
        ),
    ];
    for (what, node) in lists {
        if let Some(node) = node.filter(|node| !node.is_null()) {
            choice.names = names(what, node, diagnostics);
        }
    }
    if let Some(node) = top.get("datasource") {
        choice.seed_from = seed_from(node, diagnostics);
    }
    choice
}

fn fields(node: &Node) -> Option<Fields<'_>> {
    match node.value {
        Value::Mapping(_) => yaml::mapping("", node, &mut Diagnostics::new("")),
        _ => None,
    }
}

fn below<'a>(top: &Fields<'a>, name: &str) -> Option<Fields<'a>> {
    fields(top.get(name)?)
}

/// Names in a list; `None` when it allows all, or when nothing in it is a data source here: a name that is spelled wrong must not
/// cost the machine its data source.
fn names(what: &str, node: &Node, diagnostics: &mut Diagnostics) -> Option<Vec<String>> {
    let mut found: Vec<String> = Vec::new();
    let mut others: Vec<String> = Vec::new();
    let mut others_at = None;
    let mut allows_all = false;
    let mut is_other_there = false;
    for item in yaml::list_or_single(node) {
        let Some(text) = yaml::string(what, item, diagnostics) else {
            is_other_there = true;
            continue;
        };
        // RancherOS has an address or a path behind some.
        let (name, place) = text.split_once(':').unwrap_or((&text, ""));
        let lower = name.trim().to_ascii_lowercase();
        let lower = ALIASES
            .iter()
            .find(|(alias, _)| *alias == lower)
            .map_or(lower.as_str(), |(_, name)| name);
        if lower == "*" {
            allows_all = true;
        } else if let Some((_, instead)) = INSTEAD.iter().find(|(name, _)| *name == lower) {
            is_other_there = true;
            let message = format!("{what}: `{text}` is no data source here: {instead}");
            diagnostics.warning(item.position, message);
        } else if !KNOWN.contains(&lower) && lower != COMMAND_LINE {
            is_other_there = true;
            others.push(format!("`{name}`"));
            others_at.get_or_insert(item.position);
        } else if !found.iter().any(|known| known == lower) && lower != COMMAND_LINE {
            found.push(lower.to_owned());
        }
        if KNOWN.contains(&lower) && !["", "/media/config-2", "/dev/sr0"].contains(&place) {
            let message = format!(
                "{what}: `{name}` is asked where it always is, not at `{place}`; a seed at an address of yours is `datasource: {{NoCloud: {{seedfrom: ADDRESS}}}}`"
            );
            diagnostics.warning(item.position, message);
        }
    }
    if let Some(position) = others_at {
        let others = others.join(", ");
        let message = format!("{what}: no data sources here, and not asked: {others}");
        diagnostics.warning(position, message);
    }
    if allows_all {
        return None;
    }
    if is_other_there && found.iter().all(|name| name == NONE) {
        let message = format!(
            "{what}: nothing in it is a data source here: all are asked; an empty list is for none"
        );
        diagnostics.error(node.position, message);
        return None;
    }
    if is_other_there {
        found.push(OTHER.to_owned());
    }
    Some(found)
}

/// `datasource.NoCloud.seedfrom`; settings of other data sources are said to have no effect.
fn seed_from(node: &Node, diagnostics: &mut Diagnostics) -> Option<String> {
    let all = yaml::mapping("datasource", node, diagnostics)?;
    let mut seed = None;
    for (key, node) in all.iter() {
        let what = format!("datasource.{}", key.text);
        if !key.text.eq_ignore_ascii_case("nocloud") {
            let message = format!(
                "{what} is not applied: each data source is asked where it always is, and nothing waits for its answer"
            );
            diagnostics.warning(key.position, message);
            continue;
        }
        let Some(settings) = yaml::mapping(&what, node, diagnostics) else {
            continue;
        };
        settings.check(&format!(" of {what}"), &NOCLOUD, diagnostics);
        let Some(node) = settings.get("seedfrom") else {
            continue;
        };
        let what = format!("{what}.seedfrom");
        seed = yaml::string(&what, node, diagnostics).filter(|address| {
            let good = nocloud::is_address(address) && !address.contains(char::is_whitespace);
            if !good {
                let message = format!(
                    "{what}: `{address}` is no address that begins with http:// or https://; it is not asked"
                );
                diagnostics.error(node.position, message);
            }
            good
        });
    }
    seed
}

/// Warns of all that stands in a document that a data source said itself: it has no effect there.
pub(crate) fn warn_if_late(document: &Node, diagnostics: &mut Diagnostics) {
    let Some(top) = fields(document) else {
        return;
    };
    let mut late = |what: &str, node: Option<&Node>| {
        if let Some(node) = node {
            let message = format!("`{what}` is not applied: {TOO_LATE}");
            diagnostics.warning(node.position, message);
        }
    };
    late("datasource_list", top.get("datasource_list"));
    late("datasource", top.get("datasource"));
    if let Some(keelson) = below(&top, "keelson") {
        late("keelson.datasources", keelson.get("datasources"));
    }
    if let Some(section) = below(&top, "rancher").and_then(|rancher| below(&rancher, "cloud_init"))
    {
        late("rancher.cloud_init.datasources", section.get("datasources"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choice(text: &str) -> (Choice, Vec<String>) {
        let mut diagnostics = Diagnostics::new("config.d");
        let choice = read(&yaml::parse(text).unwrap().root, &mut diagnostics);
        let messages = diagnostics.into_sorted();
        (choice, messages.iter().map(ToString::to_string).collect())
    }

    fn names(text: &str) -> Option<Vec<String>> {
        choice(text).0.names
    }

    #[test]
    fn lists_of_cloud_init_and_rancheros_are_the_same() {
        let list = |names: &[&str]| Some(names.iter().map(|name| (*name).to_owned()).collect());
        assert_eq!(names("{}"), None);
        assert_eq!(
            names("datasource_list: [NoCloud, NoCloudNet, Ec2, None]"),
            list(&["nocloud", "ec2", "none"])
        );
        assert_eq!(
            names(
                "rancher: {cloud_init: {datasources: ['configdrive:/media/config-2', packet, cmdline]}}"
            ),
            list(&["configdrive", "equinix"])
        );
        assert_eq!(
            names("datasource_list: [ec2]\nkeelson: {datasources: hetzner}"),
            list(&["hetzner"])
        );
        assert_eq!(names("rancher: {cloud_init: {datasources: ['*']}}"), None);
        assert_eq!(names("keelson: {datasources: []}"), list(&[]));
    }

    #[test]
    fn what_is_no_data_source_here_is_said() {
        let (choice, messages) = choice(
            "datasource_list: [MAAS, Ec2, LXD]\nrancher: {cloud_init: {datasources: ['url:http://h/', 'ec2:http://h']}}\n",
        );
        // The last list counts, and nothing in it is known but Ec2.
        assert!(choice.allows("ec2") && !choice.allows("gce"));
        assert_eq!(choice.only(), None);
        assert_eq!(
            messages,
            [
                "config.d:1:19: datasource_list: no data sources here, and not asked: `MAAS`, `LXD`",
                "config.d:2:38: rancher.cloud_init.datasources: `url:http://h/` is no data source here: write `cloud-config-url=ADDRESS` on the kernel command line",
                "config.d:2:55: rancher.cloud_init.datasources: `ec2` is asked where it always is, not at `http://h`; a seed at an address of yours is `datasource: {NoCloud: {seedfrom: ADDRESS}}`",
            ]
        );
    }

    #[test]
    fn a_list_without_anything_that_is_known_restricts_nothing() {
        for text in [
            "datasource_list: [Hetzer]",
            "datasource_list: [MAAS, None]",
            "datasource_list: ''",
            "datasource_list: {ec2: true}",
            "keelson: {datasources: [[ec2]]}",
            "rancher: {cloud_init: {datasources: ['file:/x']}}",
        ] {
            let (choice, messages) = choice(text);
            assert!(!choice.is_none() && choice.allows("hetzner"), "{text}");
            let end =
                "nothing in it is a data source here: all are asked; an empty list is for none";
            let is_said = messages.iter().any(|message| message.ends_with(end));
            assert!(is_said, "{text}: {messages:?}");
        }
    }

    #[test]
    fn the_only_one_is_the_only_one_that_was_written() {
        let only = |text: &str| choice(text).0.only().map(str::to_owned);
        assert_eq!(only("datasource_list: [MAAS, Ec2, LXD]"), None);
        assert_eq!(only("datasource_list: [Ec2, None]").as_deref(), Some("ec2"));
        let rancher = "rancher: {cloud_init: {datasources: [cmdline, packet]}}";
        assert_eq!(only(rancher).as_deref(), Some("equinix"));
    }

    #[test]
    fn each_data_source_that_there_is_can_be_listed() {
        let mut all: Vec<String> = super::super::machine::names().map(str::to_owned).collect();
        let on_disks = ["nocloud", "configdrive", "ovf", "vmware"];
        all.extend(on_disks.map(str::to_owned));
        for name in all {
            let (choice, messages) = choice(&format!("datasource_list: [{name}, None]"));
            assert!(choice.allows(&name) && messages.is_empty(), "{name}");
        }
        // The firmware's credentials have no name in lists.
        let credentials = |text: &str| choice(text).0.allows("credentials");
        assert!(credentials("datasource_list: [NoCloud]"));
        assert!(!credentials("datasource_list: [Ec2]"));
    }

    #[test]
    fn a_seed_has_an_address_and_other_settings_are_said_to_have_no_effect() {
        let (choice, messages) = choice(
            "datasource:\n  NoCloud: {seedfrom: 'http://h/', meta-data: {a: b}}\n  Ec2: {timeout: 5}\n",
        );
        assert_eq!(choice.seed_from(), Some("http://h/"));
        assert_eq!(
            messages,
            [
                "config.d:2:36: `meta-data` of datasource.NoCloud is not applied: a file in /state/config/config.d says the same",
                "config.d:3:3: datasource.Ec2 is not applied: each data source is asked where it always is, and nothing waits for its answer",
            ]
        );
        let (choice, messages) = super::tests::choice("datasource: {NoCloud: {seedfrom: /seed}}");
        assert_eq!((choice.seed_from(), messages.len()), (None, 1));
    }

    #[test]
    fn none_may_be_asked_when_none_is_listed() {
        let is_none = |text: &str| choice(text).0.is_none();
        assert!(is_none("datasource_list: [None]") && is_none("datasource_list: []"));
        assert!(!is_none("{}") && !is_none("datasource_list: [Ec2]"));
        let (choice, _) = choice("datasource_list: [Ec2]");
        assert!(choice.allows("ec2") && choice.allows("Ec2") && choice.allows("none"));
        assert!(!choice.allows("gce") && Choice::default().allows("gce"));
    }
}
