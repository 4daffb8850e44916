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

#[test]
fn effects_are_those_that_cloud_init_has() {
    let Some(corpus) = corpus() else { return };
    let effects = std::fs::read(corpus.join("expected/cloud_config_effects.json")).unwrap();
    let effects: serde_json::Map<String, Value> = serde_json::from_slice(&effects).unwrap();
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
        let wanted: Vec<_> = expected
            .get("write_files")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .collect();
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
