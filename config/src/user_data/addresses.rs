//! `$private_ipv4` and its like, as RancherOS has them in its cloud-configs: the machine's addresses, as the data source tells them.

use serde_json::Value as Json;

/// What stands for what, and where data sources have it (RFC 6901 pointers into their meta-data): EC2 and those like it,
/// DigitalOcean, Azure.
const VARIABLES: [(&str, &[&str]); 4] = [
    (
        "private_ipv4",
        &[
            "/local-ipv4",
            "/local_ipv4",
            "/interfaces/private/0/ipv4/ip_address",
            "/network/interface/0/ipv4/ipAddress/0/privateIpAddress",
        ],
    ),
    (
        "public_ipv4",
        &[
            "/public-ipv4",
            "/public_ipv4",
            "/interfaces/public/0/ipv4/ip_address",
            "/network/interface/0/ipv4/ipAddress/0/publicIpAddress",
        ],
    ),
    (
        "private_ipv6",
        &["/local-ipv6", "/interfaces/private/0/ipv6/ip_address"],
    ),
    (
        "public_ipv6",
        &[
            "/ipv6",
            "/public-ipv6",
            "/interfaces/public/0/ipv6/ip_address",
        ],
    ),
];

/// The text with addresses in place of variables, and the variables that nothing is known of; `None` when there are none in it. A
/// backslash before a variable keeps it as it stands.
pub(super) fn filled_in(text: &str, instance: &Json) -> Option<(String, Vec<&'static str>)> {
    let is_there = |(name, _): &(&str, _)| text.contains(&format!("${name}"));
    if !VARIABLES.iter().any(is_there) {
        return None;
    }
    let meta_data = &instance["ds"]["meta_data"];
    let mut unknown = Vec::new();
    let mut filled = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        let (before, after) = rest.split_at(at);
        let variable = VARIABLES
            .iter()
            .find(|(name, _)| after[1..].starts_with(name));
        let Some((name, places)) = variable else {
            filled.push_str(before);
            filled.push('$');
            rest = &after[1..];
            continue;
        };
        rest = &after[1 + name.len()..];
        if let Some(before) = before.strip_suffix('\\') {
            filled.push_str(before);
            filled.push('$');
            filled.push_str(name);
            continue;
        }
        filled.push_str(before);
        let mut found = places
            .iter()
            .filter_map(|place| meta_data.pointer(place)?.as_str());
        match found.next().filter(|address| !address.is_empty()) {
            Some(address) => filled.push_str(address),
            None if unknown.contains(name) => {}
            None => unknown.push(name),
        }
    }
    filled.push_str(rest);
    Some((filled, unknown))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn addresses_stand_where_variables_stood() {
        let instance = json!({"ds": {"meta_data": {"local-ipv4": "10.0.0.5"}}});
        let (text, unknown) = filled_in(
            "a: $private_ipv4:80\nb: \\$private_ipv4 $HOME\nc: $public_ipv4$public_ipv4\n",
            &instance,
        )
        .unwrap();
        assert_eq!(text, "a: 10.0.0.5:80\nb: $private_ipv4 $HOME\nc: \n");
        assert_eq!(unknown, ["public_ipv4"]);
        assert_eq!(filled_in("echo $HOME", &instance), None);
    }
}
