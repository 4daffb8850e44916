//! What is done with the bytes of each fuzz target, and bytes to begin from. Fuzzers (`fuzz_targets/`) and a plain test
//! (`tests/documents.rs`) share it.

use keelson_config::cloud_config::CloudConfig;
use keelson_config::network::{self, Network};
use keelson_config::sources::http::{Client, Request, Response};
use keelson_config::sources::machine::{Machine, Platform};
use keelson_config::sources::{Source, credentials, nocloud, openstack, ovf, vmware};
use keelson_config::user_data::{self, Context, Missing};
use keelson_config::{Diagnostics, yaml};
use serde_json::Value as Json;

/// Between the documents of one input.
const SEPARATOR: &[u8] = b"\n\x1e\n";
const UUID: &str = "4c4c4544-0050-3510-8052-b4c04f4e5331";

/// A target: its name, what it does, what it begins from.
pub(crate) type Target = (&'static str, fn(&[u8]), fn() -> Vec<Vec<u8>>);

/// All of them.
pub(crate) const TARGETS: [Target; 4] = [
    ("cloud_config", cloud_config, cloud_config_seeds),
    ("network_config", network_config, network_config_seeds),
    ("sources", sources, sources_seeds),
    ("user_data", user_data, user_data_seeds),
];

fn bytes_of(texts: &[&str]) -> Vec<Vec<u8>> {
    texts.iter().map(|text| text.as_bytes().to_vec()).collect()
}

/// Every message can be shown.
fn shown(diagnostics: Diagnostics) {
    for message in diagnostics.into_sorted() {
        assert!(!message.to_string().is_empty());
    }
}

/// A cloud-config document, and its tree written out again.
pub(crate) fn cloud_config(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let mut diagnostics = Diagnostics::new("user-data");
    let _ = CloudConfig::parse(&text, &mut diagnostics);
    shown(diagnostics);
    if let Ok(parsed) = yaml::parse(&text) {
        let written = yaml::write(&parsed.root);
        let again = yaml::parse(&written).expect("what is written can be read");
        assert_eq!(yaml::write(&again.root), written);
    }
}

fn cloud_config_seeds() -> Vec<Vec<u8>> {
    bytes_of(&[
        "#cloud-config\nhostname: node\nusers: [default, {name: a, groups: [docker], ssh_authorized_keys: ['ssh-ed25519 AAAA a']}]\nwrite_files:\n- {path: /opt/a, encoding: b64, content: YQ==, permissions: '0600'}\nruncmd: [[ls, -l], 'echo a']\n",
        "#cloud-config\nbootcmd: [a]\nchpasswd: {list: 'a:b', expire: no}\nntp: {servers: [a.example]}\nmounts: [[vdb, /mnt/a, auto, 'defaults', '0', '2']]\nfs_setup: [{device: /dev/vdb, filesystem: ext4, label: a}]\ndisk_setup: {/dev/vdb: {table_type: gpt, layout: [50, [50, 82]]}}\nswap: {filename: /swap, size: 1G}\n",
        "#cloud-config\nkeelson: {firewall: {allow: [22, 53/udp]}, services: {a: {image: b, ports: ['80:80']}}, network: {version: 2, ethernets: {eth0: {dhcp4: true}}}}\nrancher: {docker: {extra_args: [--a]}, sysctl: {a.b: 1}, mounts: [[a, /mnt/b, ext4, '']]}\nphone_home: {url: 'http://a.example', post: all}\npower_state: {mode: reboot, delay: '+1'}\n",
        "a: &a [1, 2, 0x1f, 1_000, 1e3, .inf, ~, yes, 2001-12-14]\nb: *a\nc: {<<: {d: e}}\nf: |\n  g\n   h\ni: >-\n  j\n  k\n? l\n: !!str 5\n",
    ])
}

/// A network-config of any version, and RancherOS' network.
pub(crate) fn network_config(bytes: &[u8]) {
    let mut diagnostics = Diagnostics::new("network-config");
    let found = nocloud::network_config(bytes, &mut diagnostics);
    shown(diagnostics);
    if let Some(network) = found {
        let json = serde_json::to_vec(&network).expect("a network is JSON");
        let again: Network = serde_json::from_slice(&json).expect("and can be read");
        assert_eq!(again, network);
    }
    if let Ok(parsed) = yaml::parse(&String::from_utf8_lossy(bytes)) {
        let mut diagnostics = Diagnostics::new("user-data");
        let _ = network::parse_rancher(&parsed.root, &mut diagnostics);
        shown(diagnostics);
    }
}

fn network_config_seeds() -> Vec<Vec<u8>> {
    bytes_of(&[
        "version: 1\nconfig:\n- {type: physical, name: eth0, mac_address: '52:54:00:00:00:01', subnets: [{type: static, address: 192.0.2.5, netmask: 255.255.255.0, gateway: 192.0.2.1, routes: [{network: 10.0.0.0, netmask: 255.0.0.0, gateway: 192.0.2.2}]}]}\n- {type: bond, name: b, bond_interfaces: [eth0], params: {bond-mode: 4}}\n- {type: vlan, name: v, vlan_id: 7, vlan_link: b}\n- {type: nameserver, address: 192.0.2.53, search: [a.example]}\n",
        "version: 2\nethernets:\n  wan: {match: {macaddress: '52:54:00:00:00:01'}, set-name: w, dhcp6: true, dhcp6-overrides: {request-prefix: 56}}\n  lan: {addresses: ['2001:db8::5/64', 192.0.2.5/24], dhcp6-prefix: {from: wan, subnet-id: 5, token: '::1'}, routes: [{to: default, via: 192.0.2.1, on-link: true}], routing-policy: [{from: 192.0.2.0/24, table: 7}]}\nbridges: {br: {interfaces: [lan], parameters: {stp: true, path-cost: {lan: 5}}}}\ntunnels: {t: {mode: vxlan, id: 7, local: 192.0.2.5}}\nvrfs: {r: {table: 8, interfaces: [br]}}\n",
        "interfaces:\n  eth*: {dhcp: true}\n  mac=52:54:00:AB:*: {addresses: [192.0.2.9/24], gateway: 192.0.2.1, vlans: '100,200:foo'}\n  bond0: {bond_opts: {mode: 4}}\n  eth2: {bond: bond0}\ndns: {nameservers: [192.0.2.53]}\n",
    ])
}

/// User-data of any kind; what is included is the bytes themselves.
pub(crate) fn user_data(bytes: &[u8]) {
    let mut included = 0;
    let mut fetch = |_: user_data::Include<'_>| {
        included += 1;
        match included {
            1..=3 => Ok(bytes.to_vec()),
            4 => Err(Missing::Pending),
            _ => Err(Missing::Refused("enough".to_owned())),
        }
    };
    let instance = Source::default().instance_data();
    let mut context = Context {
        fetch: &mut fetch,
        instance: &instance,
    };
    let mut diagnostics = Diagnostics::new("user-data");
    let found = user_data::read(bytes, "user-data", &mut context, &mut diagnostics);
    if let Some(config) = &found.config {
        let _ = CloudConfig::from_node(config, &mut diagnostics);
    }
    shown(diagnostics);
}

fn user_data_seeds() -> Vec<Vec<u8>> {
    let mut all = bytes_of(&[
        "#!/bin/sh\necho a\n",
        "#cloud-boothook\n#!/bin/sh\necho a\n",
        "#include\nhttp://a.example/b\n",
        "## template: jinja\n#cloud-config\nhostname: {{ v1.instance_id }}{% for a in [1, 2] %}{{ a }}{% endfor %}\n",
        "#cloud-config-archive\n- {type: text/cloud-config, content: 'hostname: a'}\n- '#!/bin/sh'\n",
        "#cloud-config-jsonp\n[{\"op\": \"add\", \"path\": \"/hostname\", \"value\": \"a\"}]\n",
        "Content-Type: multipart/mixed; boundary=\"=a\"\nMIME-Version: 1.0\n\n--=a\nContent-Type: text/cloud-config\nMerge-Type: list(append)+dict(recurse_array)\n\nhostname: a\n--=a\nContent-Type: text/x-shellscript; charset=us-ascii\nContent-Transfer-Encoding: base64\nContent-Disposition: attachment; filename=b\n\nIyEvYmluL3NoCg==\n--=a--\n",
        "#cloud-config\nmerge_how: dict(recurse_array,no_replace)+list(append)\nusers: [a]\n",
    ]);
    // `#cloud-config\nhostname: a\n`, stored in gzip's format.
    let text = b"#cloud-config\nhostname: a\n";
    let mut packed = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3, 1];
    let length = text.len() as u16;
    packed.extend(length.to_le_bytes());
    packed.extend((!length).to_le_bytes());
    packed.extend(text);
    packed.extend(crc32(text).to_le_bytes());
    packed.extend(u32::from(length).to_le_bytes());
    all.push(packed);
    all
}

/// RFC 1952 8.
fn crc32(bytes: &[u8]) -> u32 {
    let step = |sum: u32| (sum >> 1) ^ (0xedb8_8320 & (sum & 1).wrapping_neg());
    let sum = bytes.iter().fold(u32::MAX, |sum, byte| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| step(sum))
    });
    !sum
}

/// What data sources say: the first byte is which one it is, the rest its documents in the order in which they are asked for.
pub(crate) fn sources(bytes: &[u8]) {
    let Some((which, rest)) = bytes.split_first() else {
        return;
    };
    let documents = split(rest);
    let platforms = [
        Platform::Ec2,
        Platform::OpenStack,
        Platform::Gce,
        Platform::Azure,
        Platform::Hetzner,
        Platform::DigitalOcean,
        Platform::Vultr,
        Platform::Oracle,
        Platform::Scaleway,
        Platform::Akamai,
        Platform::UpCloud,
        Platform::Alibaba,
        Platform::Exoscale,
        Platform::CloudStack,
        Platform::Equinix,
    ];
    let mut diagnostics = Diagnostics::new("");
    match platforms.get(usize::from(which % 20)) {
        Some(platform) => ask(platform, &documents, &mut diagnostics),
        None => read(which % 20, rest, &documents, &mut diagnostics),
    }
    shown(diagnostics);
}

fn split(bytes: &[u8]) -> Vec<&[u8]> {
    let (mut documents, mut rest) = (Vec::new(), bytes);
    while let Some(at) = rest
        .windows(SEPARATOR.len())
        .position(|part| part == SEPARATOR)
    {
        documents.push(&rest[..at]);
        rest = &rest[at + SEPARATOR.len()..];
    }
    documents.push(rest);
    documents
}

/// A service on the network that answers with each document in turn, and a few hundred times at most.
fn ask(platform: &Platform, documents: &[&[u8]], diagnostics: &mut Diagnostics) {
    let mut asked = 0;
    let mut exchange = |_: &Request| {
        asked += 1;
        if asked > 300 {
            return Err("it does not answer any more".to_owned());
        }
        let body = documents[(asked - 1) % documents.len()];
        let status = if body.is_empty() { 404 } else { 200 };
        Ok(Response {
            status,
            body: body.to_vec(),
        })
    };
    let mut client = Client::new(&mut exchange);
    let found = platform.fetch(&Machine::default(), 0, &mut client, diagnostics);
    if let Ok(source) = found {
        let _ = source.instance_data();
    }
}

/// Files of a disk, variables of a hypervisor, the firmware's strings.
fn read(which: u8, rest: &[u8], documents: &[&[u8]], diagnostics: &mut Diagnostics) {
    let document = |at: usize| documents.get(at).map(|bytes| bytes.to_vec());
    let found = match which {
        15 => ovf::read(rest, UUID, "disc", diagnostics),
        16 => openstack::read(
            openstack::Files {
                meta_data: document(0).unwrap_or_default(),
                user_data: document(1),
                vendor_data: document(2),
                vendor_data_2: document(3),
                network_data: document(4),
            },
            "openstack",
            "config drive",
            diagnostics,
        ),
        17 => nocloud::read(
            nocloud::Files {
                meta_data: document(0),
                user_data: document(1),
                vendor_data: document(2),
                network_config: document(3),
            },
            "seed",
            diagnostics,
        ),
        18 => {
            let mut next = 0;
            let mut get = |_: &str| {
                next += 1;
                Ok::<_, ()>(document(next - 1))
            };
            vmware::read(&mut get, UUID, diagnostics).ok().flatten()
        }
        _ => {
            let given = credentials::of_smbios(rest, diagnostics);
            credentials::read(given, UUID, diagnostics)
        }
    };
    if let Some(source) = found {
        let json = source.instance_data();
        assert_ne!(json, Json::Null);
    }
}

fn sources_seeds() -> Vec<Vec<u8>> {
    let with = |which: u8, documents: &[&str]| {
        let documents: Vec<&[u8]> = documents.iter().map(|text| text.as_bytes()).collect();
        let mut bytes = vec![which];
        bytes.extend(documents.join(SEPARATOR));
        bytes
    };
    let network = r#"{"links": [{"id": "a", "type": "phy", "ethernet_mac_address": "52:54:00:00:00:01"}], "networks": [{"link": "a", "type": "ipv4", "ip_address": "192.0.2.5", "netmask": "255.255.255.0", "routes": [{"network": "0.0.0.0", "netmask": "0.0.0.0", "gateway": "192.0.2.1"}]}], "services": [{"type": "dns", "address": "192.0.2.53"}]}"#;
    let smbios = b"\x13\x0b\x05\0\0\x01io.systemd.credential:keelson.user-data=#cloud-config\0\0\x7f\x04\0\0\0\0".to_vec();
    vec![
        with(
            0,
            &["token", "instance-id\nlocal-hostname\n", "i-1", "node"],
        ),
        with(
            2,
            &[
                r#"{"instance": {"id": 1, "hostname": "node.a", "attributes": {"user-data": "a", "ssh-keys": "a:ssh-ed25519 AAAA"}}}"#,
            ],
        ),
        with(
            3,
            &[
                r#"{"compute": {"vmId": "a", "osProfile": {"computerName": "node"}, "publicKeys": [{"keyData": "ssh-rsa AAAA"}]}, "network": {"interface": [{"macAddress": "525400000001", "ipv4": {"ipAddress": [{"privateIpAddress": "10.0.0.4"}], "subnet": [{"address": "10.0.0.0", "prefix": "24"}]}}]}}"#,
            ],
        ),
        with(
            5,
            &[
                r#"{"droplet_id": 1, "hostname": "node", "interfaces": {"public": [{"mac": "52:54:00:00:00:01", "ipv4": {"ip_address": "192.0.2.5", "netmask": "255.255.255.0", "gateway": "192.0.2.1"}}]}, "dns": {"nameservers": ["192.0.2.53"]}}"#,
            ],
        ),
        with(
            15,
            &[
                r#"<Environment xmlns="http://schemas.dmtf.org/ovf/environment/1"><PropertySection><Property key="instance-id" value="a"/><Property key="user-data" value="YQ=="/></PropertySection></Environment>"#,
            ],
        ),
        with(
            16,
            &[
                r#"{"uuid": "a", "name": "node", "public_keys": {"a": "ssh-rsa AAAA"}}"#,
                "#!/bin/sh",
                "{}",
                "{}",
                network,
            ],
        ),
        with(
            17,
            &[
                "instance-id: a\nlocal-hostname: node\n",
                "#cloud-config\n",
                "",
                "version: 2\nethernets: {eth0: {dhcp4: true}}\n",
            ],
        ),
        with(
            18,
            &[
                "instance-id: a\nnetwork:\n  version: 2\n",
                "",
                "#cloud-config\n",
            ],
        ),
        [vec![19], smbios].concat(),
    ]
}
