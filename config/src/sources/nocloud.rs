//! NoCloud: the files of a seed, and what the kernel command line or the SMBIOS serial number say of one.

use super::http::{Client, Request, found};
use super::{Source, meta_data};
use crate::diagnostic::Diagnostics;
use crate::network;
use crate::yaml;

/// Files of a seed. One that is not there is `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Files {
    /// `user-data`.
    pub user_data: Option<Vec<u8>>,
    /// `meta-data`.
    pub meta_data: Option<Vec<u8>>,
    /// `vendor-data`.
    pub vendor_data: Option<Vec<u8>>,
    /// `network-config`.
    pub network_config: Option<Vec<u8>>,
}

/// What the files of a seed say; `place` is where they were found. `None`, and an error, when there is meta-data that cannot be
/// read: nobody knows then which instance it is.
pub fn read(files: Files, place: &str, diagnostics: &mut Diagnostics) -> Option<Source> {
    if files.meta_data.is_none() {
        diagnostics.add_source(place);
        diagnostics.warning(
            None,
            "there is no meta-data; the instance-id is taken to be `nocloud`",
        );
    }
    let meta = meta_data::parse(files.meta_data.as_deref().unwrap_or_default(), diagnostics)?;
    let network = files
        .network_config
        .and_then(|bytes| network_config(&bytes, diagnostics));
    Some(Source {
        platform: "nocloud".to_owned(),
        place: place.to_owned(),
        instance_id: meta.instance_id,
        hostname: meta.local_hostname,
        public_keys: meta.public_keys,
        meta_data: meta.all,
        network,
        user_data: files.user_data,
        vendor_data: files.vendor_data.into_iter().collect(),
        ..Source::default()
    })
}

/// Reads a document `network-config`. What is wrong with it is an error: the machine asks DHCP then.
pub fn network_config(bytes: &[u8], diagnostics: &mut Diagnostics) -> Option<network::Network> {
    network_config_of(bytes, "network-config", diagnostics)
}

/// The same, of a document that people know as `name`.
pub fn network_config_of(
    bytes: &[u8],
    name: &str,
    diagnostics: &mut Diagnostics,
) -> Option<network::Network> {
    let source = diagnostics.add_source(name);
    let Ok(text) = std::str::from_utf8(bytes) else {
        diagnostics.error(None, "not UTF-8 text; nothing of it is applied");
        return None;
    };
    match yaml::parse_source(text, source) {
        Ok(parsed) => {
            parsed.report(diagnostics);
            network::parse(&parsed.root, diagnostics)
        }
        Err(error) => {
            let message = format!(
                "not valid YAML, nothing of it is applied: {}",
                error.message
            );
            diagnostics.error(error.position, message);
            None
        }
    }
}

/// What `ds=nocloud;...` asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// Where the seed is: `s=` or `seedfrom=`, an address that file names are added to.
    pub seed_from: Option<String>,
    /// `h=` or `local-hostname=`.
    pub hostname: Option<String>,
    /// `i=` or `instance-id=`.
    pub instance_id: Option<String>,
}

/// Reads `ds=nocloud` or `ds=nocloud-net` from a kernel command line, or from the serial number of the SMBIOS.
pub fn asked(line: &str) -> Option<Asked> {
    let words = line.split_whitespace();
    let mut found = words.filter_map(|word| {
        let word = word.trim_matches('"');
        let rest = word
            .strip_prefix("ds=")
            .or_else(|| word.strip_prefix("ci.ds="))?;
        let (name, rest) = rest.split_once(';').unwrap_or((rest, ""));
        let name = name.to_ascii_lowercase();
        matches!(name.as_str(), "nocloud" | "nocloud-net").then_some(rest)
    });
    let rest = found.next()?;
    let mut asked = Asked::default();
    for part in rest.split(';') {
        let Some((key, value)) = part.split_once('=') else {
            continue;
        };
        let value = Some(value.to_owned()).filter(|value| !value.is_empty());
        match key {
            "s" | "seedfrom" => asked.seed_from = value,
            "h" | "local-hostname" => asked.hostname = value,
            "i" | "instance-id" => asked.instance_id = value,
            _ => {}
        }
    }
    Some(asked)
}

impl Asked {
    /// What was asked for counts before what the seed's own meta-data says.
    pub fn overrule(&self, source: &mut Source) {
        if let Some(id) = &self.instance_id {
            source.instance_id.clone_from(id);
        }
        if self.hostname.is_some() {
            source.hostname.clone_from(&self.hostname);
        }
    }
}

/// Whether a seed there is fetched over the network.
pub fn is_address(seed_from: &str) -> bool {
    ["http://", "https://"]
        .iter()
        .any(|scheme| seed_from.starts_with(scheme))
}

/// Asks for the files of a seed.
///
/// # Errors
/// It was not reached, refuses, or has neither meta-data nor user-data.
pub fn fetch(
    asked: &Asked,
    client: &mut Client<'_>,
    diagnostics: &mut Diagnostics,
) -> Result<Source, String> {
    let seed_from = asked.seed_from.as_deref().unwrap_or_default();
    if !is_address(seed_from) {
        return Err(format!(
            "ds=nocloud: `{seed_from}` is no address that begins with http:// or https://"
        ));
    }
    let mut file = |name: &str| client.get(&address(seed_from, name));
    let (user_data, meta_data) = (file("user-data")?, file("meta-data")?);
    // These are seldom there, and some servers refuse what is not there.
    let mut optional = |name: &str| {
        let url = address(seed_from, name);
        let response = client.send(Request {
            url: url.clone(),
            ..Request::default()
        })?;
        match response.status {
            status @ 401..=403 => {
                diagnostics.warning(
                    None,
                    format!("{url} answers with status {status}; it is taken not to be there"),
                );
                Ok(None)
            }
            _ => found(&url, response),
        }
    };
    let files = Files {
        user_data,
        meta_data,
        vendor_data: optional("vendor-data")?,
        network_config: optional("network-config")?,
    };
    if files.meta_data.is_none() && files.user_data.is_none() {
        return Err(format!(
            "{} answers with status 404",
            address(seed_from, "meta-data")
        ));
    }
    let mut source = read(files, &format!("the seed at {seed_from}"), diagnostics)
        .ok_or_else(|| format!("{} cannot be used", address(seed_from, "meta-data")))?;
    asked.overrule(&mut source);
    Ok(source)
}

/// The address of one file of a seed: `%s` in it stands for the name, or the name is put behind it.
pub fn address(seed_from: &str, file: &str) -> String {
    if seed_from.contains("%s") {
        return seed_from.replace("%s", file);
    }
    let slash = match seed_from.ends_with('/') || seed_from.contains('?') {
        true => "",
        false => "/",
    };
    format!("{seed_from}{slash}{file}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sources::http::fake::Service;

    #[test]
    fn a_seed_is_fetched_file_by_file_and_what_was_asked_for_counts() {
        let asked = asked("ds=nocloud;s=http://h/seed;i=i-9").unwrap();
        let mut service = Service::new(
            "http://h/seed/",
            &[
                ("user-data", "#!/bin/sh"),
                ("meta-data", "instance-id: i-1\nlocal-hostname: node\n"),
            ],
        );
        let mut exchange = |request: &Request| service.answer(request);
        let mut diagnostics = Diagnostics::new("");
        let source = fetch(&asked, &mut Client::new(&mut exchange), &mut diagnostics).unwrap();
        assert_eq!(
            (source.instance_id.as_str(), source.hostname.as_deref()),
            ("i-9", Some("node"))
        );
        for (documents, words) in [
            (&[][..], "meta-data answers with status 404"),
            (&[("meta-data", ": [")][..], "meta-data cannot be used"),
        ] {
            let mut service = Service::new("http://h/seed/", documents);
            let mut exchange = |request: &Request| service.answer(request);
            let error =
                fetch(&asked, &mut Client::new(&mut exchange), &mut diagnostics).unwrap_err();
            assert!(error.ends_with(words), "{error}");
        }
        let file = Asked {
            seed_from: Some("/var/seed".into()),
            ..Asked::default()
        };
        let mut exchange = |_: &Request| Err(String::new());
        let error = fetch(&file, &mut Client::new(&mut exchange), &mut diagnostics).unwrap_err();
        assert!(error.contains("`/var/seed` is no address"), "{error}");
    }

    #[test]
    fn a_command_line_may_name_a_seed() {
        let found = asked("ro ds=nocloud;s=http://10.0.2.2:8000/x;h=node;i=i-7 quiet").unwrap();
        assert_eq!(found.seed_from.as_deref(), Some("http://10.0.2.2:8000/x"));
        assert_eq!(found.hostname.as_deref(), Some("node"));
        assert_eq!(found.instance_id.as_deref(), Some("i-7"));
        assert_eq!(asked("ds=nocloud"), Some(Asked::default()));
        assert_eq!(asked("ds=ec2 root=x"), None);
    }

    #[test]
    fn names_of_files_are_put_behind_an_address_or_into_it() {
        assert_eq!(address("http://a/b", "user-data"), "http://a/b/user-data");
        assert_eq!(address("http://a/b/", "user-data"), "http://a/b/user-data");
        assert_eq!(
            address("http://a/?f=", "meta-data"),
            "http://a/?f=meta-data"
        );
        assert_eq!(
            address("http://a/%s.txt", "meta-data"),
            "http://a/meta-data.txt"
        );
    }
}
