//! `runcmd`, RancherOS' applications, and user-data that is a script: written here, run once by the console.

use std::path::Path;

use keelson_config::instance::SCRIPTS_DIRECTORY;
use keelson_config::{CloudConfig, UserData, shell};
use keelson_sys::durable::Access;
use sha2::{Digest, Sha256};

use crate::report::Report;
use crate::state::State;

/// Names of the scripts: they are run in this order, as in cloud-init.
const USER_SCRIPT: &str = "part-001";
const APPLICATIONS: &str = "rancher-services";
const COMMANDS: &str = "runcmd";
/// Scripts may hold secrets.
const ACCESS: Access = Access::root(0o700);

/// Writes the instance's scripts; gives the name of their directory when there are any.
pub(super) fn write(
    state: &State,
    instance_id: &str,
    config: &CloudConfig,
    user_data: &UserData,
    report: &mut Report,
) -> Option<String> {
    let mut scripts: Vec<(&str, Vec<u8>)> = Vec::new();
    if let UserData::Script(script) = user_data {
        scripts.push((USER_SCRIPT, script.clone()));
    }
    for (name, commands) in [
        (APPLICATIONS, &config.services.applications),
        (COMMANDS, &config.commands),
    ] {
        if !commands.is_empty() {
            scripts.push((name, shell::script(commands).into_bytes()));
        }
    }
    if scripts.is_empty() {
        return None;
    }
    // An instance-id may be anything; its hash is a name of a directory.
    let name: String = hex::encode(Sha256::digest(instance_id.as_bytes()))
        .chars()
        .take(16)
        .collect();
    let directory = Path::new(SCRIPTS_DIRECTORY).join(&name);
    if let Err(error) = state.config.make_directory(&directory, ACCESS) {
        report.error(format!(
            "write /state/config/{}: {error}",
            directory.display()
        ));
        return None;
    }
    for (script, content) in scripts {
        let path = directory.join(script);
        if let Err(error) = state.config.write(&path, &content, ACCESS) {
            report.error(format!("write /state/config/{}: {error}", path.display()));
        }
    }
    Some(name)
}
