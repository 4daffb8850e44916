//! Kinds of documents, messages, merging, templates.

use keelson_config::Diagnostics;
use keelson_config::user_data::{Context, Kind, Missing};
use keelson_config::yaml::merge::Mergers;
use keelson_config::yaml::{self, Node};
use serde_json::Value;

use super::{bytes, check, corpus, pairs, read};

#[test]
fn kinds_are_told_apart_by_their_first_line() {
    let Some(corpus) = corpus() else { return };
    let cases = pairs(&corpus, "type_from_starts_with.jsonl");
    let mut differing = Vec::new();
    for case in &cases {
        let content = bytes(&case["in"]["payload"]);
        let found = Kind::of(&content).and_then(Kind::content_type);
        let found = found.or(case["in"]["default"].as_str());
        if found != case["out"].as_str() {
            differing.push((
                case["test"].to_string(),
                format!("{found:?} instead of {}", case["out"]),
            ));
        }
    }
    check("kinds", cases.len(), &differing, &[]);
}

/// The settings of parts that are of the kind of settings, merged.
fn merged(parts: &[Value]) -> Option<Value> {
    let mut merged: Option<Node> = None;
    for part in parts {
        let content_type = part["content_type"].as_str().unwrap_or_default();
        if !content_type.starts_with("text/cloud-config") || content_type.contains("jsonp") {
            continue;
        }
        let mut diagnostics = Diagnostics::new("part");
        let next = read(&bytes(&part["payload"]), &mut diagnostics).config;
        merged = match (merged, next) {
            (Some(earlier), Some(later)) => Some(Mergers::PARTS.merge(earlier, later)),
            (earlier, later) => earlier.or(later),
        };
    }
    merged.as_ref().map(yaml::to_json)
}

#[test]
fn messages_come_apart_as_in_cloud_init() {
    let Some(corpus) = corpus() else { return };
    let cases = pairs(&corpus, "userdata_process.jsonl");
    let mut differing = Vec::new();
    let mut compared = 0;
    for case in &cases {
        let content = bytes(&case["in"]["blob"]);
        if content.starts_with(b"#include") || content.windows(6).any(|word| word == b"jsonp\n") {
            continue;
        }
        compared += 1;
        let mut diagnostics = Diagnostics::new("");
        let data = read(&content, &mut diagnostics);
        let parts = case["out"].as_array().cloned().unwrap_or_default();
        let found = data.config.as_ref().map(yaml::to_json);
        let wanted = merged(&parts);
        if found != wanted {
            differing.push((
                case["test"].to_string(),
                format!("{found:?} instead of {wanted:?}"),
            ));
        }
        let of_type = |name: &str| {
            parts
                .iter()
                .filter(|part| part["content_type"] == name)
                .count()
        };
        let scripts = of_type("text/x-shellscript");
        if data.scripts.len() != scripts {
            let found = data.scripts.len();
            differing.push((
                case["test"].to_string(),
                format!("{found} scripts instead of {scripts}"),
            ));
        }
    }
    check("messages", compared, &differing, &[]);
}

#[test]
fn parts_are_merged_as_in_cloud_init() {
    let Some(corpus) = corpus() else { return };
    let cases = pairs(&corpus, "cloudconfig_merge.jsonl");
    let mut differing = Vec::new();
    for case in &cases {
        let mut message = String::from(
            "Content-Type: multipart/mixed; boundary=\"=====\"\nMIME-Version: 1.0\n\n",
        );
        for part in case["in"]["parts"].as_array().unwrap() {
            let content_type = part["content_type"].as_str().unwrap_or("text/cloud-config");
            message.push_str(&format!("--=====\nContent-Type: {content_type}\n"));
            for (name, value) in part["merge_headers"].as_object().unwrap() {
                message.push_str(&format!("{name}: {}\n", value.as_str().unwrap()));
            }
            let text = String::from_utf8(bytes(&part["payload"])).unwrap();
            message.push_str(&format!("\n{text}\n"));
        }
        message.push_str("--=====--\n");
        let mut diagnostics = Diagnostics::new("");
        let data = read(message.as_bytes(), &mut diagnostics);
        let found = data.config.as_ref().map_or(Value::Null, yaml::to_json);
        let wanted = &case["out"]["merged"];
        if found != *wanted {
            differing.push((
                case["in"].to_string(),
                format!("{found} instead of {wanted}"),
            ));
        }
    }
    check("merged parts", cases.len(), &differing, &[]);

    let text = std::fs::read(corpus.join("expected/merge_sources.json")).unwrap();
    let sources: Vec<Value> = serde_json::from_slice(&text).unwrap();
    let mut differing = Vec::new();
    let mut compared = 0;
    for case in &sources {
        let content = |path: &Value| std::fs::read(corpus.join(path.as_str().unwrap())).unwrap();
        let exists = |path: &Value| corpus.join(path.as_str().unwrap()).exists();
        let all = case["sources_in_order"].as_array().unwrap();
        // A part of the corpus may lie elsewhere.
        if !all.iter().chain([&case["expected"]]).all(exists) {
            continue;
        }
        compared += 1;
        let mut message =
            b"Content-Type: multipart/mixed; boundary=\"=====\"\nMIME-Version: 1.0\n\n".to_vec();
        for path in all {
            message.extend_from_slice(b"--=====\nContent-Type: text/cloud-config\n\n");
            message.extend(content(path));
            message.push(b'\n');
        }
        message.extend_from_slice(b"--=====--\n");
        let data = read(&message, &mut Diagnostics::new(""));
        let found = data.config.as_ref().map_or(Value::Null, yaml::to_json);
        let wanted = String::from_utf8(content(&case["expected"])).unwrap();
        let wanted = yaml::to_json(&yaml::parse(&wanted).unwrap().root);
        if found != wanted {
            differing.push((
                case["id"].to_string(),
                format!("{found} instead of {wanted}"),
            ));
        }
    }
    check("merged sources", compared, &differing, &[]);
}

/// Where two texts part.
fn difference(found: &str, wanted: &str) -> String {
    let common = found.chars().zip(wanted.chars());
    let same = common.take_while(|(a, b)| a == b).count();
    let from = |text: &str| text.chars().skip(same).take(60).collect::<String>();
    format!(
        "after {same}: {:?} instead of {:?}",
        from(found),
        from(wanted)
    )
}

#[test]
fn templates_are_rendered_as_in_cloud_init() {
    let Some(corpus) = corpus() else { return };
    let cases = pairs(&corpus, "render_string.jsonl");
    let mut differing = Vec::new();
    let mut compared = 0;
    for case in &cases {
        let content = case["in"]["content"].as_str().unwrap();
        let Some((first, _)) = content.split_once('\n') else {
            continue;
        };
        // Cheetah's templates of cloud-init's own are no user-data.
        if !first.starts_with("## template:") {
            continue;
        }
        compared += 1;
        // Rendered as a script, whose text is kept as it is.
        let with_kind = content.replacen('\n', "\n#!\n", 1).into_bytes();
        let mut context = Context {
            fetch: &mut |_| Err(Missing::Pending),
            instance: &case["in"]["params"],
        };
        let mut diagnostics = Diagnostics::new("");
        let data = keelson_config::user_data::read(&with_kind, "t", &mut context, &mut diagnostics);
        let found = data.scripts.first().map(|script| {
            let text = String::from_utf8_lossy(&script.content).into_owned();
            text.strip_prefix("#!\n").unwrap_or(&text).to_owned()
        });
        if found.as_deref() != case["out"].as_str() {
            let wanted = case["out"].as_str().unwrap_or_default();
            let found = found.unwrap_or_default();
            differing.push((format!("{content:?}"), difference(&found, wanted)));
        }
    }
    check(
        "templates",
        compared,
        &differing,
        &[
            (
                "r.append(i)",
                "lists do not change: minijinja has no such methods",
            ),
            (
                "__class__",
                "cloud-init refuses the template; here such a name is a variable that is missing",
            ),
        ],
    );
}
