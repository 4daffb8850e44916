//! The OCI `process` object of a further process: the container's own with what was asked for instead.

use crate::spec::{CAPABILITIES, user};
use bollard_stubs::models::ExecConfig;
use serde_json::{Value, json};
use std::path::Path;

/// Makes it from the container's `config.json`. `root` is the container's root, in which names of users are looked up.
///
/// # Errors
/// For a person: what the container does not have.
pub fn build(container: &Value, config: &ExecConfig, root: &Path) -> Result<Value, String> {
    let mut process = container["process"].clone();
    process["args"] = json!(config.cmd.clone().unwrap_or_default());
    let tty = config.tty.unwrap_or(false);
    process["terminal"] = tty.into();
    let mut given = config.env.clone().unwrap_or_default();
    if tty {
        given.insert(0, "TERM=xterm".to_owned());
    }
    process["env"] = json!(merged(&process["env"], &given));
    if let Some(path) = config.working_dir.as_ref().filter(|path| !path.is_empty()) {
        process["cwd"] = path.as_str().into();
    }
    if let Some(name) = config.user.as_ref().filter(|name| !name.is_empty()) {
        let user = user::resolve(root, Some(name), &[])?;
        process["user"] =
            json!({ "uid": user.uid, "gid": user.gid, "additionalGids": user.groups });
        let home = format!("HOME={}", user.home.as_deref().unwrap_or("/"));
        if !given.iter().any(|variable| variable.starts_with("HOME=")) {
            process["env"] = json!(merged(&process["env"], &[home]));
        }
    }
    if config.privileged == Some(true) {
        let all: Vec<String> = CAPABILITIES
            .iter()
            .map(|name| format!("CAP_{name}"))
            .collect();
        let none: [&str; 0] = [];
        process["capabilities"] = json!({
            "bounding": all, "effective": all, "permitted": all, "inheritable": none, "ambient": none,
        });
        process["noNewPrivileges"] = false.into();
    }
    Ok(process)
}

/// Variables with those given instead of their namesakes; one given without a value takes its namesake away.
fn merged(variables: &Value, given: &[String]) -> Vec<String> {
    let name = |variable: &str| variable.split('=').next().unwrap_or_default().to_owned();
    let old = variables.as_array().into_iter().flatten();
    let mut all: Vec<String> = old
        .filter_map(|variable| variable.as_str().map(str::to_owned))
        .filter(|variable| !given.iter().any(|new| name(new) == name(variable)))
        .collect();
    for (at, variable) in given.iter().enumerate() {
        let again = given[at + 1..]
            .iter()
            .any(|later| name(later) == name(variable));
        if variable.contains('=') && !again {
            all.push(variable.clone());
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_the_containers_own_with_what_was_asked_for() {
        let container = json!({ "process": {
            "args": ["serve"], "env": ["PATH=/bin", "A=1", "B=2"], "cwd": "/srv", "terminal": false,
            "capabilities": {"bounding": ["CAP_KILL"]}, "user": {"uid": 5, "gid": 5},
        }});
        let config: ExecConfig = serde_json::from_value(json!({
            "Cmd": ["sh"], "Tty": true, "Env": ["A=3", "B"], "User": "7:8",
        }))
        .unwrap();
        let process = build(&container, &config, Path::new("/nonexistent")).unwrap();
        assert_eq!(process["args"], json!(["sh"]));
        assert_eq!(
            process["env"],
            json!(["PATH=/bin", "TERM=xterm", "A=3", "HOME=/"])
        );
        assert_eq!(process["cwd"], "/srv");
        assert_eq!(
            process["user"],
            json!({ "uid": 7, "gid": 8, "additionalGids": [] })
        );
        assert_eq!(process["capabilities"]["bounding"], json!(["CAP_KILL"]));
        let all = ExecConfig {
            privileged: Some(true),
            ..config
        };
        let process = build(&container, &all, Path::new("/nonexistent")).unwrap();
        assert_eq!(
            process["capabilities"]["effective"]
                .as_array()
                .unwrap()
                .len(),
            41
        );
    }

    #[test]
    fn a_user_that_the_container_does_not_have_is_an_error() {
        let config = ExecConfig {
            user: Some("web".into()),
            ..ExecConfig::default()
        };
        let error = build(&json!({}), &config, Path::new("/nonexistent")).unwrap_err();
        assert_eq!(error, "the image has no user `web`");
    }
}
