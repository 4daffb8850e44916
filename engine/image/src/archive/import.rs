//! `import`: an image of one layer, from a root file system.

use crate::arguments::Import;
use crate::failure::Failure;
use crate::progress::Progress;
use crate::unpack::{self, decompress};
use crate::{blob, commit};
use anyhow::Context;
use keelson_image::document::{Configuration, History, RootFs, media};
use keelson_image::store::Mark;
use keelson_image::{Digest, Reference, Store};
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};
use std::fs::File;
use std::io::{self, Read};
use std::time::SystemTime;

/// Makes an image of the archive on standard input.
///
/// # Errors
/// When it is no archive, or a change is not understood; then there is no image.
pub(crate) fn import(store: &Store, asked: &Import, progress: &Progress) -> anyhow::Result<()> {
    let reference = asked
        .reference
        .as_deref()
        .filter(|name| !name.is_empty())
        .map(|name| {
            name.parse::<Reference>()
                .map_err(|why| Failure::error(400, why))
        })
        .transpose()?;
    let config = changes(Map::new(), &asked.changes)?;
    let (layer, size) = blob::put_stream(store, &mut io::stdin().lock(), None)?;
    let mut mark = Mark::set(store, std::slice::from_ref(&layer))?;
    let (diff_id, media_type) = look(store, &layer)?;
    let created = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
    let configuration = Configuration {
        created: Some(created.clone()),
        architecture: "amd64".to_owned(),
        os: "linux".to_owned(),
        config: Value::Object(config),
        rootfs: RootFs {
            kind: "layers".to_owned(),
            diff_ids: vec![diff_id.clone()],
        },
        history: vec![History {
            created: Some(created),
            comment: Some(match asked.message.is_empty() {
                true => "Imported from -".to_owned(),
                false => asked.message.clone(),
            }),
            ..History::default()
        }],
        ..Configuration::default()
    };
    mark.add(store, std::slice::from_ref(&diff_id))?;
    unpack::layer(store, &layer, &diff_id, &diff_id, &[], &Progress::silent())?;
    let layers = vec![commit::descriptor(media_type, &layer, size)];
    let id = commit::image(store, &configuration, layers, reference)?;
    progress.line(&json!({ "status": id }));
    Ok(())
}

/// The digest of a layer's archive, not compressed, and what the blob is.
fn look(store: &Store, layer: &Digest) -> anyhow::Result<(Digest, &'static str)> {
    let path = store.blob(layer);
    let mut begin = [0; 4];
    let length = File::open(&path)?.take(4).read(&mut begin)?;
    let media_type = match &begin[..length] {
        [0x1f, 0x8b, ..] => media::LAYER_GZIP,
        [0x28, 0xb5, 0x2f, 0xfd] => media::LAYER_ZSTD,
        _ => media::LAYER,
    };
    let mut hasher = Sha256::new();
    let mut reader = decompress::reader(File::open(&path)?)?;
    io::copy(&mut reader, &mut blob::HashWriter(&mut hasher)).context("read the archive")?;
    Ok((Digest::finish(hasher), media_type))
}

/// Instructions as in a Dockerfile, those that change a configuration.
///
/// # Errors
/// With the first one that is none.
pub(super) fn changes(
    mut config: Map<String, Value>,
    lines: &[String],
) -> anyhow::Result<Map<String, Value>> {
    for line in lines {
        let wrong = || Failure::error(400, format!("{line} is not a valid change command"));
        let (word, rest) = line
            .trim()
            .split_once(char::is_whitespace)
            .ok_or_else(wrong)?;
        let rest = rest.trim();
        match word.to_ascii_uppercase().as_str() {
            "CMD" => drop(config.insert("Cmd".to_owned(), command(rest))),
            "ENTRYPOINT" => drop(config.insert("Entrypoint".to_owned(), command(rest))),
            "USER" => drop(config.insert("User".to_owned(), rest.into())),
            "WORKDIR" => drop(config.insert("WorkingDir".to_owned(), rest.into())),
            "STOPSIGNAL" => drop(config.insert("StopSignal".to_owned(), rest.into())),
            "ENV" => {
                let (name, value) = pair(rest).ok_or_else(wrong)?;
                let list = config.entry("Env").or_insert_with(|| json!([]));
                if let Some(list) = list.as_array_mut() {
                    let before = format!("{name}=");
                    let is_other = |variable: &Value| {
                        !variable
                            .as_str()
                            .is_some_and(|text| text.starts_with(&before))
                    };
                    list.retain(is_other);
                    list.push(format!("{name}={value}").into());
                }
            }
            "LABEL" => {
                let (name, value) = pair(rest).ok_or_else(wrong)?;
                config.entry("Labels").or_insert_with(|| json!({}))[name] = value.into();
            }
            "EXPOSE" => {
                let port = match rest.contains('/') {
                    true => rest.to_owned(),
                    false => format!("{rest}/tcp"),
                };
                config.entry("ExposedPorts").or_insert_with(|| json!({}))[port] = json!({});
            }
            "VOLUME" => {
                let paths = serde_json::from_str(rest).unwrap_or_else(|_| vec![rest.to_owned()]);
                for path in paths {
                    config.entry("Volumes").or_insert_with(|| json!({}))[path] = json!({});
                }
            }
            _ => return Err(wrong()),
        }
    }
    Ok(config)
}

/// A JSON list, or a line for the shell.
fn command(text: &str) -> Value {
    match serde_json::from_str::<Vec<String>>(text) {
        Ok(words) => words.into(),
        Err(_) => json!(["/bin/sh", "-c", text]),
    }
}

/// `NAME=VALUE` or `NAME VALUE`, the value perhaps in quotes.
fn pair(text: &str) -> Option<(String, String)> {
    let at = text.find(['=', ' '])?;
    let value = text[at + 1..].trim();
    let value = value
        .strip_prefix('"')
        .and_then(|rest| rest.strip_suffix('"'))
        .unwrap_or(value);
    Some((text[..at].to_owned(), value.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_those_of_a_dockerfile() {
        let lines = [
            r#"CMD ["sh", "-l"]"#,
            "entrypoint /init x",
            "ENV A=0",
            "ENV A=1",
            "ENV B two words",
            "LABEL a=\"b c\"",
            "EXPOSE 80",
            "VOLUME /data",
            "USER 5",
            "WORKDIR /srv",
        ];
        let config = Value::Object(changes(Map::new(), &lines.map(str::to_owned)).unwrap());
        let expected = json!({
            "Cmd": ["sh", "-l"], "Entrypoint": ["/bin/sh", "-c", "/init x"], "Env": ["A=1", "B=two words"],
            "Labels": {"a": "b c"}, "ExposedPorts": {"80/tcp": {}}, "Volumes": {"/data": {}}, "User": "5",
            "WorkingDir": "/srv",
        });
        assert_eq!(config, expected);
        for wrong in ["RUN x", "CMD", "ENV x"] {
            assert!(changes(Map::new(), &[wrong.to_owned()]).is_err(), "{wrong}");
        }
    }
}
