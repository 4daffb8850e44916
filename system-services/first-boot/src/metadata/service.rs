//! The service that asks, as a file for the system engine: it is there on machines that have something to ask for.

use keelson_config::cloud_config::{KeyImport, ServiceFile};
use keelson_config::sources::choice::Choice;
use keelson_config::sources::machine::Platform;
use serde_json::Value as Json;

/// Name of the file.
const NAME: &str = "user-data-metadata";

/// The service's file, for a machine with this data source on the network, or with something to be fetched alone; and with people
/// whose keys are asked for. Them, and the choice of data sources, the service knows from here alone: it does not see all layers
/// of the configuration.
pub(crate) fn file<'a>(
    platform: Option<&Platform>,
    choice: &Choice,
    imports: impl Iterator<Item = &'a KeyImport>,
) -> ServiceFile {
    let mut what = match platform {
        Some(_) => "fetch",
        None => "fetch, --documents",
    }
    .to_owned();
    if let Some(names) = choice.names() {
        what.push_str(&format!(", \"--datasources={}\"", names.join(",")));
    }
    if let Some(address) = choice.seed_from() {
        // Compose fills in variables, JSON's strings are YAML's.
        let option = format!("--seed-from={address}").replace('$', "$$");
        what.push_str(&format!(", {}", Json::from(option)));
    }
    let mut ids: Vec<String> = imports.map(KeyImport::id).collect();
    ids.sort();
    ids.dedup();
    for id in ids {
        what.push_str(&format!(", \"--keys={id}\""));
    }
    let capabilities = match platform {
        Some(Platform::Scaleway) => {
            "\n    cap_add:\n      - NET_BIND_SERVICE            # Scaleway tells user-data to ports below 1024 alone"
        }
        _ => "",
    };
    let text = format!(
        "# Asks the metadata service, and fetches what user-data includes; written anew with each boot.
services:
  metadata:
    image: keelson/first-boot
    command: [/usr/bin/keelson-first-boot, {what}]
    network_mode: host              # the service is at the machine's own network
    read_only: true{capabilities}
    volumes:
      - /state/config/source:/state/config/source                             # what it says is kept
      - /state/config/ca-certificates:/state/config/ca-certificates:ro        # authorities of https: addresses
      - /usr/lib/keelson/images/console/etc/ssl/certs:/usr/share/keelson/console/etc/ssl/certs:ro
      - /usr/lib/keelson/keelson-image:/usr/bin/keelson-image:ro              # speaks HTTP
      - /run/keelson/network:/run/keelson/network:ro                          # resolv.conf
    restart: on-failure
    stop_signal: KILL               # it keeps things as a whole or not at all
    mem_limit: 128m
    pids_limit: 8
    x-keelson:
      after: [first-boot, network]
      ready: started
      follows: true                 # it is told whose keys to ask for
      requests: [configure]         # there is something to apply
      directories:
        - {{path: /state/config/source, mode: \"0700\"}}
        - {{path: /state/config/ca-certificates, mode: \"0755\"}}
"
    );
    ServiceFile { name: NAME, text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_below_1024_is_for_those_alone_who_need_it() {
        assert!(
            file(Some(&Platform::Scaleway), &Choice::default(), [].iter())
                .text
                .contains("NET_BIND_SERVICE")
        );
        assert!(
            !file(Some(&Platform::Ec2), &Choice::default(), [].iter())
                .text
                .contains("cap_add")
        );
    }

    #[test]
    fn whose_keys_are_asked_for_stands_in_the_command_once() {
        let import = |id| KeyImport::parse(id, keelson_config::Position::default()).unwrap();
        let imports = ["gh:b", "lp:a", "gh:b"].map(import);
        let text = file(None, &Choice::default(), imports.iter()).text;
        let command = "command: [/usr/bin/keelson-first-boot, fetch, --documents, \"--keys=gh:b\", \"--keys=lp:a\"]\n";
        assert!(text.contains(command), "{text}");
        let choice = Choice::new(
            Some(vec!["nocloud".into(), "none".into()]),
            Some("http://h/$x\"/".into()),
        );
        let text = file(Some(&Platform::Ec2), &choice, [].iter()).text;
        let command = "fetch, \"--datasources=nocloud,none\", \"--seed-from=http://h/$$x\\\"/\"]\n";
        assert!(text.contains(command), "{text}");
    }
}
