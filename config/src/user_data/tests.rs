use super::*;
use crate::yaml;
use serde_json::json;
use std::io::Write as _;

fn read_all(bytes: &[u8]) -> (UserData, Vec<String>) {
    let mut diagnostics = Diagnostics::new("");
    let instance = json!({"v1": {"cloud_name": "kvm"}, "ds": {"meta_data": {"launch_index": 1}}});
    let mut fetch = |include: Include<'_>| match include.url {
        "http://one/" => Ok(b"#cloud-config\nhostname: included\n".to_vec()),
        "http://two/" => Ok(b"#include\nhttp://two/\n".to_vec()),
        "http://once/" if include.once => Ok(b"#!/bin/sh\n".to_vec()),
        "http://later/" => Err(Missing::Pending),
        address => Err(Missing::Refused(format!("{address} is not there"))),
    };
    let mut context = Context {
        fetch: &mut fetch,
        instance: &instance,
    };
    let data = read(bytes, "user-data", &mut context, &mut diagnostics);
    let messages = diagnostics.into_sorted();
    (data, messages.iter().map(ToString::to_string).collect())
}

fn config(data: &UserData) -> Json {
    data.config.as_ref().map_or(Json::Null, yaml::to_json)
}

const MESSAGE: &str = "Content-Type: multipart/mixed; boundary=\"==B==\"\nMIME-Version: 1.0\n\n\
--==B==\nContent-Type: text/cloud-config; charset=\"us-ascii\"\nMIME-Version: 1.0\nContent-Disposition: attachment; filename=\"first.yml\"\n\n\
#cloud-config\nruncmd: [a]\nhostname: one\n\n\
--==B==\nContent-Type: text/cloud-config\nContent-Transfer-Encoding: base64\nMerge-Type: list(append)+dict(recurse_list)+str()\n\n\
I2Nsb3VkLWNvbmZpZwpydW5jbWQ6IFtiXQpob3N0bmFtZTogdHdvCg==\n\n\
--==B==\nContent-Type: text/x-shellscript-per-boot\nContent-Disposition: attachment; filename=\"../each boot.sh\"\n\n#!/bin/sh\necho boot\n\n\
--==B==\nContent-Type: text/plain\n\n#!/bin/sh\necho once\n\n\
--==B==\nContent-Type: text/cloud-boothook\n\n#cloud-boothook\n#!/bin/sh\necho hook\n\n\
--==B==\nContent-Type: text/cloud-config\nLaunch-Index: 7\n\n#cloud-config\nhostname: other\n\n\
--==B==\nContent-Type: text/cloud-config\n\n#cloud-config\na: [\n\n\
--==B==\nContent-Type: application/x-secret\n\nx\n--==B==--\n";

#[test]
fn each_part_of_a_message_is_what_it_is_said_to_be() {
    let (data, messages) = read_all(MESSAGE.as_bytes());
    assert_eq!(
        config(&data),
        json!({"runcmd": ["a", "b"], "hostname": "one"})
    );
    let scripts: Vec<_> = data
        .scripts
        .iter()
        .map(|script| (script.name.as_str(), script.when, script.content.as_slice()))
        .collect();
    assert_eq!(scripts.len(), 2, "{scripts:?}");
    assert_eq!((scripts[0].0, scripts[0].1), ("_each_boot.sh", When::Boot));
    assert_eq!((scripts[1].0, scripts[1].1), ("part-004", When::Instance));
    assert!(scripts[1].2.starts_with(b"#!/bin/sh\necho once\n"));
    assert!(
        data.boothooks[0]
            .content
            .starts_with(b"#!/bin/sh\necho hook\n")
    );
    assert!(data.understood);
    assert_eq!(messages.len(), 2, "{messages:#?}");
    assert!(
        messages[0].starts_with("user-data part-006:"),
        "{messages:#?}"
    );
    assert!(messages[1].contains("`application/x-secret` are not read"));
}

#[test]
fn packed_data_is_unpacked() {
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packed
        .write_all(b"#cloud-config\nhostname: packed\n")
        .unwrap();
    let (data, messages) = read_all(&packed.finish().unwrap());
    assert_eq!(config(&data), json!({"hostname": "packed"}));
    assert!(messages.is_empty());
}

#[test]
fn archives_and_includes_are_followed_to_an_end() {
    let text = "#cloud-config-archive\n- 'hostname: first'\n- type: text/x-shellscript\n  filename: s\n  content: |\n    #!/bin/sh\n- {content: \"#include\\nhttp://one/\"}\n- {content: !!binary I2Nsb3VkLWNvbmZpZwpsb2NhbGU6IEMK}\n";
    let (data, messages) = read_all(text.as_bytes());
    assert_eq!(
        config(&data),
        json!({"hostname": "included", "locale": "C"})
    );
    assert_eq!(data.scripts[0].name, "s");
    assert_eq!(messages, [] as [&str; 0]);

    let (data, messages) = read_all(b"#include\n# comment\nhttp://two/\nhttp://three/\n");
    assert!(!data.understood);
    assert!(
        messages[0].contains("user-data:4:1: #include: http://three/ is not there"),
        "{messages:#?}"
    );
    assert!(
        messages
            .iter()
            .any(|message| message.contains("inside one another"))
    );
}

#[test]
fn templates_become_what_their_second_line_says() {
    let (data, messages) =
        read_all(b"## template: jinja\n#cloud-config\nhostname: on-{{ v1.cloud_name }}\nlocale: {{ nope }}\n");
    assert_eq!(
        config(&data),
        json!({"hostname": "on-kvm", "locale": "CI_MISSING_JINJA_VAR/nope"})
    );
    assert_eq!(messages.len(), 1);
    let (data, messages) = read_all(b"## template: jinja\n#cloud-config\na: {% if %}\n");
    assert!(!data.understood);
    assert!(
        messages[0].starts_with("user-data:3:1: not a template"),
        "{messages:#?}"
    );
}

#[test]
fn patches_change_what_was_read_before_them() {
    let text = "#cloud-config-archive\n- 'a: {b: yes, c: 0644}'\n- \"#cloud-config-jsonp\\n[{\\\"op\\\": \\\"remove\\\", \\\"path\\\": \\\"/a/b\\\"}]\"\n";
    let (data, messages) = read_all(text.as_bytes());
    assert_eq!(config(&data), json!({"a": {"c": 0o644}}));
    assert_eq!(messages, [] as [&str; 0]);
    let (data, messages) = read_all(b"#cloud-config-jsonp\n[{\"op\": \"remove\"}]\n");
    assert!(
        !data.understood && messages[0].contains("not a JSON patch"),
        "{messages:#?}"
    );
}

#[test]
fn services_of_a_compose_file_are_ranchers() {
    let (data, _) = read_all(b"#compose\nversion: '2'\nservices:\n  web: {image: nginx}\n");
    assert_eq!(
        config(&data),
        json!({"rancher": {"services": {"web": {"image": "nginx"}}}})
    );
}

#[test]
fn user_data_that_multiplies_is_bounded_and_what_came_before_stays() {
    let mut text = String::from("#cloud-config-archive\n- 'hostname: first'\n");
    for number in 0..400 {
        text.push_str(&format!("- 'k{number}: 1'\n"));
    }
    let (data, messages) = read_all(text.as_bytes());
    assert_eq!(messages.len(), 1, "{messages:#?}");
    assert!(
        messages[0].contains("more than 256 documents"),
        "{messages:#?}"
    );
    let config = config(&data);
    assert_eq!(config["hostname"], "first");
    assert!(config["k399"].is_null());

    let mut patch = vec![json!({"op": "add", "path": "/a", "value": {"x": "y"}})];
    for number in 0..60 {
        patch.push(json!({"op": "copy", "from": "/a", "path": format!("/a/{number}")}));
    }
    let patch = format!("#cloud-config-jsonp\n{}\n", json!(patch));
    let (data, messages) = read_all(patch.as_bytes());
    assert!(
        messages[0].contains("the patch makes too much of it"),
        "{messages:#?}"
    );
    assert_eq!(data.config, None);
}

#[test]
fn scripts_have_names_of_their_own() {
    let text = "#cloud-config-archive\n\
        - {content: \"#!/bin/sh\\na\", filename: started}\n- {content: \"#!/bin/sh\\nb\", filename: x}\n- {content: \"#!/bin/sh\\nc\", filename: x}\n\
        - \"#cloud-boothook\\r\\n\\r\\n#!/bin/sh\\r\\nd\\r\\n\"\n";
    let (data, messages) = read_all(text.as_bytes());
    assert_eq!(messages, [] as [&str; 0]);
    let names: Vec<&str> = data.scripts.iter().map(|script| &*script.name).collect();
    assert_eq!(names, ["started_", "x", "x-003"]);
    assert_eq!(data.boothooks[0].content, b"#!/bin/sh\nd\n");
}

#[test]
fn what_is_still_to_be_fetched_is_no_mistake() {
    let (data, messages) = read_all(b"#include\nhttp://later/\n#include-once\nhttp://once/\n");
    assert_eq!(
        messages,
        ["user-data:2:1: #include: http://later/ is still to be fetched; it is applied then"]
    );
    assert_eq!(data.scripts.len(), 1);
}

#[test]
fn rancheros_documents_have_the_machines_addresses() {
    let mut diagnostics = Diagnostics::new("");
    let instance = json!({"ds": {"meta_data": {"local-ipv4": "10.0.0.5"}}});
    let mut read = |text: &str| {
        let mut context = Context {
            fetch: &mut |_| Err(Missing::Pending),
            instance: &instance,
        };
        config(&read(
            text.as_bytes(),
            "user-data",
            &mut context,
            &mut diagnostics,
        ))
    };
    let rancher = read("#cloud-config\nrancher: {environment: {A: $private_ipv4}}\n");
    assert_eq!(rancher["rancher"]["environment"]["A"], "10.0.0.5");
    let other = read("#cloud-config\nruncmd: ['echo $private_ipv4']\n");
    assert_eq!(other["runcmd"][0], "echo $private_ipv4");
    assert_eq!(diagnostics.into_sorted(), []);
}
