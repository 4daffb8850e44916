//! Whole files.

use std::path::{Path, PathBuf};

use keelson_config::shell::script;
use keelson_config::{CloudConfig, Diagnostics};
use serde_json::Value;

use super::{corpus, read};

fn files(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, found)
        } else {
            found.push(path)
        }
    }
}

#[test]
fn no_file_of_the_corpus_makes_the_reader_panic() {
    let Some(corpus) = corpus() else { return };
    let mut found = Vec::new();
    files(&corpus.join("raw"), &mut found);
    files(&corpus.join("extracted"), &mut found);
    assert!(found.len() > 100);
    let mut with_header = 0;
    for path in &found {
        let bytes = std::fs::read(path).unwrap();
        let mut forced = b"#cloud-config\n".to_vec();
        forced.extend_from_slice(&bytes);
        for bytes in [&bytes, &forced] {
            let mut diagnostics = Diagnostics::new("user-data");
            let data = read(bytes, &mut diagnostics);
            assert!(data.understood || diagnostics.has_errors(), "{path:?}");
            with_header += usize::from(data.config.is_some());
            if let Some(root) = &data.config {
                let _ = CloudConfig::from_node(root, &mut diagnostics);
            }
        }
        let _ = keelson_config::meta_data::parse(&bytes, &mut Diagnostics::new(""));
    }
    println!("{} files, {with_header} read as cloud-config", found.len());
}

/// What cloud-init made of files, by their paths.
fn effects(corpus: &Path) -> serde_json::Map<String, Value> {
    let effects = std::fs::read(corpus.join("expected/cloud_config_effects.json")).unwrap();
    serde_json::from_slice(&effects).unwrap()
}

#[test]
fn effects_are_those_that_cloud_init_has() {
    let Some(corpus) = corpus() else { return };
    let effects = effects(&corpus);
    let mut compared = 0;
    let mut differing = Vec::new();
    for (path, expected) in &effects {
        let Ok(bytes) = std::fs::read(corpus.join(path)) else {
            continue;
        };
        let mut diagnostics = Diagnostics::new(path);
        let Some(root) = read(&bytes, &mut diagnostics).config else {
            continue;
        };
        let Some(config) = CloudConfig::from_node(&root, &mut diagnostics) else {
            continue;
        };
        if let Some(wanted) = expected.get("runcmd_script").and_then(Value::as_str) {
            compared += 1;
            if script(&config.commands) != wanted {
                differing.push(format!(
                    "{path}: runcmd: {:?} instead of {wanted:?}",
                    script(&config.commands)
                ));
            }
        }
        if let Some(wanted) = expected.get("bootcmd_script").and_then(Value::as_str) {
            compared += 1;
            let found = script(&config.boot_commands);
            if found != wanted {
                differing.push(format!("{path}: bootcmd: {found:?} instead of {wanted:?}"));
            }
        }
        let wanted: Vec<_> = expected
            .get("write_files")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .collect();
        if expected.get("write_files").is_some() && config.write_files.len() != wanted.len() {
            let (found, wanted) = (config.write_files.len(), wanted.len());
            differing.push(format!("{path}: {found} files instead of {wanted}"));
        }
        for (file, wanted) in config.write_files.iter().zip(&wanted) {
            compared += 1;
            let found = serde_json::json!({
                "path": file.path, "mode": format!("{:04o}", file.mode), "user": file.owner.user,
                "append": file.append, "len": file.content.len(),
            });
            for (key, value) in found.as_object().unwrap() {
                if wanted.get(key).is_some_and(|wanted| wanted != value) {
                    differing.push(format!(
                        "{path}: {}: {key} is {value} instead of {}",
                        file.path, wanted[key]
                    ));
                }
            }
        }
    }
    println!("{compared} effects compared");
    assert!(differing.is_empty(), "{}", differing.join("\n"));
}

/// Lines of fstab(5) without what is for systemd alone, and what is not written where there is a default.
fn fstab(line: &str) -> String {
    let fields: Vec<&str> = line.split('\t').collect();
    let [source, target, kind, options, _, pass] = fields[..] else {
        return line.to_owned();
    };
    let skipped = ["comment=", "x-", "nofail", "defaults", "_netdev"];
    let options = options.split(',').filter(|option| {
        !option.is_empty() && !skipped.iter().any(|word| option.starts_with(word))
    });
    let options: Vec<&str> = options.collect();
    let kind = if kind.is_empty() { "auto" } else { kind };
    let checked = if kind == "swap" { "0" } else { pass };
    format!("{source} {target} {kind} {} {checked}", options.join(","))
}

const NOT_MOUNTED: [(&str, &str); 3] = [
    ("test_23", "/test is part of the read-only system"),
    ("test_gh3603", "NFS, and not mounted by itself"),
    ("test_disk_setup", "/mnt1 is part of the read-only system"),
];

#[test]
fn mounts_are_those_that_cloud_init_has() {
    let Some(corpus) = corpus() else { return };
    let effects = effects(&corpus);
    let mut compared = 0;
    let mut differing = Vec::new();
    for (path, expected) in &effects {
        let Some(lines) = expected["fstab_lines_if_devices_exist"].as_array() else {
            continue;
        };
        let Ok(bytes) = std::fs::read(corpus.join(path)) else {
            continue;
        };
        let mut diagnostics = Diagnostics::new(path);
        let root = read(&bytes, &mut diagnostics).config.unwrap();
        let config = CloudConfig::from_node(&root, &mut diagnostics).unwrap();
        compared += 1;
        let found: Vec<String> = config
            .storage
            .mounts
            .iter()
            .map(|mount| {
                let target = mount
                    .target
                    .clone()
                    .unwrap_or_default()
                    .replace(' ', "\\040");
                let options = mount.options.join(",");
                let pass = if mount.check { 2 } else { 0 };
                let source = &mount.source;
                fstab(&format!(
                    "{source}\t{target}\t{}\t{options}\t0\t{pass}",
                    mount.kind
                ))
            })
            .collect();
        let wanted = lines.iter().filter_map(Value::as_str).map(fstab);
        let wanted: Vec<String> = wanted.collect();
        if found != wanted {
            differing.push((path.clone(), format!("{found:?} instead of {wanted:?}")));
        }
    }
    super::check("fstab", compared, &differing, &NOT_MOUNTED);
}

/// The value at `a.b[0].c`; a key may have dots in it.
fn at<'v>(value: &'v Value, place: &str) -> Option<&'v Value> {
    if place.is_empty() {
        return Some(value);
    }
    if let Some(rest) = place.strip_prefix('[') {
        let (index, rest) = rest.split_once(']')?;
        let item = value.get(index.parse::<usize>().ok()?)?;
        return at(item, rest.trim_start_matches('.'));
    }
    let mut keys = value.as_object()?.iter();
    keys.find_map(|(key, value)| {
        let rest = place.strip_prefix(key.as_str())?;
        let ends = rest.is_empty() || rest.starts_with(['.', '[']);
        ends.then(|| at(value, rest.trim_start_matches('.')))?
    })
}

/// Files that mean something else to a reader of YAML 1.2: what is said of each there is what is read.
#[test]
fn yaml_is_read_as_version_1_1() {
    let Some(corpus) = corpus() else { return };
    let all = std::fs::read(corpus.join("expected/yaml11_vs_12.json")).unwrap();
    let all: serde_json::Map<String, Value> = serde_json::from_slice(&all).unwrap();
    let mut compared = 0;
    let mut differing = Vec::new();
    for (path, lines) in &all {
        let Ok(text) = std::fs::read_to_string(corpus.join(path)) else {
            continue;
        };
        let Ok(parsed) = keelson_config::yaml::parse(&text) else {
            differing.push((path.clone(), "not read".to_owned()));
            continue;
        };
        let root = keelson_config::yaml::to_json(&parsed.root);
        for line in lines.as_array().unwrap().iter().filter_map(Value::as_str) {
            let Some((place, wanted)) = line.split_once(": 1.1 ") else {
                continue;
            };
            let wanted = wanted.split(", 1.2").next().unwrap();
            if wanted.starts_with('[') {
                continue;
            }
            compared += 1;
            let found = at(&root, place.trim_start_matches('.')).map(|value| match value {
                Value::String(text) => format!("'{text}'"),
                Value::Bool(true) => "True".to_owned(),
                Value::Bool(false) => "False".to_owned(),
                Value::Null => "None".to_owned(),
                other => other.to_string(),
            });
            if found.as_deref() != Some(wanted) {
                let text = format!("{place} is {found:?} instead of {wanted}");
                differing.push((path.clone(), text));
            }
        }
    }
    super::check("YAML 1.1", compared, &differing, &[]);
}

/// Files that cloud-init's schema finds right get no error here; those that it finds wrong get a word.
#[test]
fn what_the_schema_refuses_is_said() {
    let Some(corpus) = corpus() else { return };
    let cases = std::fs::read(corpus.join("expected/schema_cases.json")).unwrap();
    let cases: Vec<Value> = serde_json::from_slice(&cases).unwrap();
    let mut compared = 0;
    let mut differing = Vec::new();
    for case in &cases {
        let path = case["path"].as_str().unwrap();
        let Ok(bytes) = std::fs::read(corpus.join(path)) else {
            continue;
        };
        compared += 1;
        let mut diagnostics = Diagnostics::new(path);
        // Some are the rest of a file whose first line is elsewhere.
        let bytes = match bytes.starts_with(b"#") {
            true => bytes,
            false => [b"#cloud-config\n".as_slice(), &bytes].concat(),
        };
        let data = read(&bytes, &mut diagnostics);
        if let Some(root) = &data.config {
            let _ = CloudConfig::from_node(root, &mut diagnostics);
        }
        let has_errors = diagnostics.has_errors();
        let said = diagnostics.into_sorted();
        let differs = match case["expected"].as_str().unwrap() {
            "invalid" => said.is_empty(),
            _ => has_errors,
        };
        if differs {
            let said: Vec<String> = said.iter().map(ToString::to_string).collect();
            let text = format!("{}: {} {said:?}", case["expected"], case["errors"]);
            differing.push((path.to_owned(), text));
        }
    }
    super::check("schema", compared, &differing, &[]);
}
