//! Microsoft Azure: its instance metadata service (Azure documentation, "Azure Instance Metadata Service"), and the report to the
//! platform that the machine is up ("Create a managed image without a provisioning agent"), without which Azure takes it for failed.

use serde_json::{Map, Value as Json, json};

use super::http::{Client, LINK_LOCAL, Method, Request, found, text};
use super::{Source, http};
use crate::cloud_config::authorized_keys;
use crate::diagnostic::{Diagnostics, Position};
use crate::yaml;

/// Versions of the service, the newest first.
const VERSIONS: [&str; 2] = ["2021-08-01&extended=true", "2019-06-01"];
/// Where machines report to.
const WIRE_SERVER: &str = "http://168.63.129.16";

/// Asks the service.
///
/// # Errors
/// It was not reached, refuses, or says nothing of the instance.
pub fn fetch(client: &mut Client<'_>, diagnostics: &mut Diagnostics) -> Result<Source, String> {
    client.with_header("Metadata", "true");
    let mut instance = None;
    for version in VERSIONS {
        let url = format!("{LINK_LOCAL}/metadata/instance?api-version={version}");
        let request = Request {
            url: url.clone(),
            ..Request::default()
        };
        let response = client.send(request)?;
        // A version that it does not know.
        if response.status == 400 {
            continue;
        }
        let body =
            found(&url, response)?.ok_or_else(|| format!("{url} answers with status 404"))?;
        instance = Some(
            serde_json::from_slice::<Json>(&body)
                .map_err(|error| format!("{url} answers with no JSON: {error}"))?,
        );
        break;
    }
    let instance = instance.ok_or("the metadata service knows no version that is known here")?;
    let compute = &instance["compute"];
    let id = text(&compute["vmId"]).ok_or("the metadata service names no machine")?;
    let keys = compute["publicKeys"].as_array().into_iter().flatten();
    let keys: Vec<Json> = keys.map(|key| key["keyData"].clone()).collect();
    let keys = yaml::from_json(&Json::from(keys), Position::default());
    let user_data = text(&compute["userData"]);
    let user_data =
        user_data.and_then(|data| http::base64("userData", data.as_bytes(), diagnostics));
    let network = network(&instance["network"], true)
        .and_then(|network| super::synthesised(&network, diagnostics));
    Ok(Source {
        platform: "azure".to_owned(),
        place: "the instance metadata service of Azure".to_owned(),
        instance_id: id.to_ascii_lowercase(),
        hostname: text(&compute["osProfile"]["computerName"]).or_else(|| text(&compute["name"])),
        public_keys: authorized_keys("publicKeys", &keys, diagnostics),
        region: text(&compute["location"]),
        availability_zone: text(&compute["platformFaultDomain"]),
        network,
        user_data,
        meta_data: instance,
        ..Source::default()
    })
}

/// The network in version 2 of network-config, as cloud-init makes it: DHCP on each card, the first of them first, name servers
/// from the first one alone; with `all_addresses` a card's further ones as well. `None` without cards.
pub fn network(network: &Json, all_addresses: bool) -> Option<Json> {
    let mut ethernets = Map::new();
    for (index, card) in network["interface"].as_array()?.iter().enumerate() {
        let mac = card["macAddress"]
            .as_str()
            .unwrap_or_default()
            .to_ascii_lowercase();
        let pairs: Vec<&str> = (0..6)
            .filter_map(|pair| mac.get(pair * 2..pair * 2 + 2))
            .collect();
        let mut overrides = json!({"route-metric": (index + 1) * 100});
        if index > 0 {
            overrides["use-dns"] = json!(false);
        }
        let mut device = json!({
            "match": {"macaddress": pairs.join(":")},
            "dhcp4": true,
            "dhcp4-overrides": overrides,
            "dhcp6": false,
        });
        let (mut further, mut has_address) = (Vec::new(), false);
        for (family, longest) in [("ipv4", "24"), ("ipv6", "128")] {
            let addresses = card[family]["ipAddress"].as_array();
            let mut addresses = addresses
                .into_iter()
                .flatten()
                .filter_map(|one| one["privateIpAddress"].as_str());
            if addresses.next().is_none() {
                continue;
            }
            has_address = true;
            if family == "ipv6" {
                device["dhcp6"] = json!(true);
                // Name servers come with version 4's answer.
                device["dhcp6-overrides"] = device["dhcp4-overrides"].clone();
            }
            let prefix = text(&card[family]["subnet"][0]["prefix"]);
            let prefix = prefix.as_deref().unwrap_or(longest);
            further.extend(addresses.map(|address| format!("{address}/{prefix}")));
        }
        if all_addresses && !further.is_empty() {
            device["addresses"] = json!(further);
        }
        if has_address {
            ethernets.insert(format!("eth{index}"), device);
        }
    }
    (!ethernets.is_empty()).then(|| json!({"version": 2, "ethernets": ethernets}))
}

/// Whether two ids are the same machine's: of older ones the firmware has the bytes of the first three parts in the other order.
pub fn is_same(one: &str, other: &str) -> bool {
    let swapped = |id: &str| -> Option<String> {
        let mut parts: Vec<String> = id.split('-').map(str::to_ascii_lowercase).collect();
        for part in parts.iter_mut().take(3) {
            let pairs: Option<Vec<&str>> = (0..part.len() / 2)
                .map(|at| part.get(at * 2..at * 2 + 2))
                .collect();
            *part = pairs?.into_iter().rev().collect();
        }
        Some(parts.join("-"))
    };
    one.eq_ignore_ascii_case(other)
        || swapped(one).is_some_and(|one| one.eq_ignore_ascii_case(other))
}

/// Tells the platform that the machine is ready.
///
/// # Errors
/// The platform was not reached, or does not take it.
pub fn report_ready(client: &mut Client<'_>) -> Result<(), String> {
    client.with_header("x-ms-agent-name", "WALinuxAgent");
    client.with_header("x-ms-version", "2012-11-30");
    let goal = client.require(&format!("{WIRE_SERVER}/machine/?comp=goalstate"))?;
    let goal = String::from_utf8_lossy(&goal).into_owned();
    let part = |name: &str| {
        element(&goal, name).ok_or_else(|| format!("{WIRE_SERVER}: its goal state has no {name}"))
    };
    let (incarnation, container, instance) = (
        part("Incarnation")?,
        part("ContainerId")?,
        part("InstanceId")?,
    );
    let health = format!(
        "<?xml version=\"1.0\" encoding=\"utf-8\"?>\n<Health><GoalStateIncarnation>{incarnation}</GoalStateIncarnation><Container><ContainerId>{container}</ContainerId><RoleInstanceList><Role><InstanceId>{instance}</InstanceId><Health><State>Ready</State></Health></Role></RoleInstanceList></Container></Health>"
    );
    let url = format!("{WIRE_SERVER}/machine?comp=health");
    let response = client.send(Request {
        method: Method::Post,
        url: url.clone(),
        headers: vec![(
            "Content-Type".to_owned(),
            "text/xml;charset=utf-8".to_owned(),
        )],
        body: health.into_bytes(),
        ..Request::default()
    })?;
    found(&url, response)?;
    Ok(())
}

/// The text of the first element of that name: ids alone are asked for, in a document that the platform writes.
fn element<'t>(xml: &'t str, name: &str) -> Option<&'t str> {
    let (_, rest) = xml.split_once(&format!("<{name}>"))?;
    let (text, _) = rest.split_once(&format!("</{name}>"))?;
    let is_id = |letter: char| letter.is_ascii_alphanumeric() || "-_.".contains(letter);
    (!text.is_empty() && text.chars().all(is_id)).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sources::http::Response;
    use crate::sources::http::fake::Service;

    #[test]
    fn an_older_service_is_asked_for_an_older_version() {
        let mut asked = Vec::new();
        let mut exchange = |request: &Request| {
            asked.push(request.url.clone());
            assert!(
                request
                    .headers
                    .contains(&("Metadata".into(), "true".into()))
            );
            Ok(match request.url.ends_with("2019-06-01") {
                false => Response { status: 400, body: Vec::new() },
                true => Response {
                    status: 200,
                    body: br#"{"compute": {"vmId": "AB-1", "location": "westeurope", "name": "vm", "osProfile": {"computerName": "node"}, "userData": "I2Nsb3VkLWNvbmZpZwo=", "publicKeys": [{"keyData": "ssh-rsa AAAA me\r\n", "path": "x"}]},
                        "network": {"interface": [{"macAddress": "000D3A047598", "ipv4": {"ipAddress": [{"privateIpAddress": "10.0.0.4"}]}}]}}"#.to_vec(),
                },
            })
        };
        let mut diagnostics = Diagnostics::new("");
        let source = fetch(&mut Client::new(&mut exchange), &mut diagnostics).unwrap();
        assert_eq!(diagnostics.into_sorted(), []);
        assert_eq!(
            (source.instance_id.as_str(), source.hostname.as_deref()),
            ("ab-1", Some("node"))
        );
        assert_eq!(source.public_keys, ["ssh-rsa AAAA me"]);
        assert_eq!(source.user_data.as_deref(), Some(&b"#cloud-config\n"[..]));
        assert_eq!(
            source.network.unwrap().interfaces[0].matches.mac.as_deref(),
            Some("00:0d:3a:04:75:98")
        );
    }

    #[test]
    fn older_machines_have_two_spellings_of_their_id() {
        let id = "4b1c7d3e-00aa-4b00-8000-00000000a2e0";
        assert!(is_same(id, "3E7D1C4B-AA00-004B-8000-00000000A2E0") && is_same(id, id));
        assert!(!is_same(id, "4b1c7d3e-00aa-4b00-8000-00000000a2e1") && !is_same("x", "y"));
    }

    #[test]
    fn the_platform_is_told_that_the_machine_is_ready() {
        let goal = "<GoalState><Incarnation>1</Incarnation><Container><ContainerId>c-1</ContainerId><RoleInstanceList><RoleInstance><InstanceId>i_2.x</InstanceId></RoleInstance></RoleInstanceList></Container></GoalState>";
        let mut service = Service::new(
            WIRE_SERVER,
            &[
                ("/machine/?comp=goalstate", goal),
                ("/machine?comp=health", ""),
            ],
        );
        let mut exchange = |request: &Request| service.answer(request);
        report_ready(&mut Client::new(&mut exchange)).unwrap();
        let told = service.asked.last().unwrap();
        assert_eq!(told.method, Method::Post);
        let body = String::from_utf8_lossy(&told.body);
        assert!(
            body.contains("<ContainerId>c-1</ContainerId>")
                && body.contains("<State>Ready</State>"),
            "{body}"
        );
        let mut service = Service::new(WIRE_SERVER, &[("/machine/?comp=goalstate", "<html>")]);
        let mut exchange = |request: &Request| service.answer(request);
        assert!(
            report_ready(&mut Client::new(&mut exchange))
                .unwrap_err()
                .contains("no Incarnation")
        );
    }
}
