//! What is left out of what is shown.

use keelson_config::yaml::{Node, Value};

/// Keys whose values are secrets, wherever they stand.
const SECRET: [&str; 18] = [
    "password",
    "passwd",
    "plain_text_passwd",
    "hashed_passwd",
    "chpasswd",
    "ssh_keys",
    "registry_auths",
    "auth",
    "key",
    "keys",
    "private",
    "shared",
    "psk",
    "ca_key",
    "server_key",
    "token",
    "secret",
    "random_seed",
];

/// The document without the values of secrets.
pub(super) fn left_out(node: Node) -> Node {
    let Node { position, value } = node;
    let value = match value {
        Value::Mapping(entries) => {
            let entries = entries.into_iter();
            let public = entries.filter(|(key, _)| {
                let plain = key.text.to_ascii_lowercase().replace('-', "_");
                !SECRET.contains(&plain.as_str())
            });
            Value::Mapping(public.map(|(key, node)| (key, left_out(node))).collect())
        }
        Value::Sequence(items) => Value::Sequence(items.into_iter().map(left_out).collect()),
        scalar => scalar,
    };
    Node { position, value }
}

#[cfg(test)]
mod tests {
    use super::*;
    use keelson_config::yaml;

    #[test]
    fn secrets_are_left_out_at_every_depth() {
        let text = "users: [{name: a, hashed-passwd: x}]\nchpasswd: {users: []}\nrancher: {ssh: {keys: {rsa: x}}}\nhostname: h\n";
        let root = left_out(yaml::parse(text).unwrap().root);
        assert_eq!(
            yaml::write(&root),
            "users:\n  -\n    name: a\nrancher:\n  ssh: {}\nhostname: h\n"
        );
    }
}
