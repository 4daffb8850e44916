//! Scripts, for the console to run: `bootcmd` and boothooks at each boot; `runcmd`, RancherOS' applications and user-data that is
//! a script once an instance.

use std::fs;
use std::io;
use std::path::Path;

use keelson_config::instance::{BOOT_SCRIPTS, ONCE_SCRIPTS, SCRIPTS_DIRECTORY};
use keelson_config::shell;
use keelson_config::user_data::When;
use keelson_sys::durable::Access;
use sha2::{Digest, Sha256};

use super::{Context, Wanted, replace};
use crate::report::Report;
use crate::state::State;

/// Names of the scripts: they are run in this order, as in cloud-init (`part-001` comes before).
const APPLICATIONS: &str = "rancher-services";
const COMMANDS: &str = "runcmd";
const FETCHED: &str = "00-write_files";
const FINISH: &str = "zz-final";
/// Scripts may hold secrets.
const ACCESS: Access = Access::root(0o700);

type Named = Vec<(String, Vec<u8>)>;

/// Writes the scripts of this boot.
///
/// Unless they are `due`, there are none.
pub(super) fn write_each_boot(
    context: &Context<'_>,
    wanted: &Wanted,
    due: bool,
    report: &mut Report,
) {
    let directories = [BOOT_SCRIPTS, ONCE_SCRIPTS];
    let all = match due {
        true => [each_boot(wanted), of(wanted, When::Once, "")],
        false => [Vec::new(), Vec::new()],
    };
    for (directory, scripts) in directories.into_iter().zip(all) {
        let directory = Path::new(SCRIPTS_DIRECTORY).join(directory);
        write(context.state, &directory, &scripts, report);
    }
}

fn each_boot(wanted: &Wanted) -> Named {
    let mut scripts: Named = Vec::new();
    for (number, hook) in wanted.boothooks.iter().enumerate() {
        scripts.push((
            format!("00-boothook-{number:03}-{}", hook.name),
            hook.content.clone(),
        ));
    }
    if !wanted.config.boot_commands.is_empty() {
        let script = shell::script(&wanted.config.boot_commands);
        scripts.push(("01-bootcmd".to_owned(), script.into_bytes()));
    }
    scripts.extend(of(wanted, When::Boot, "10-"));
    scripts
}

/// Writes the scripts of a new instance; gives the name of their directory when there are any.
pub(super) fn write_instance(
    state: &State,
    wanted: &Wanted,
    report: &mut Report,
) -> Option<String> {
    let config = &wanted.config;
    let mut scripts = of(wanted, When::Instance, "");
    for (name, commands) in [
        (APPLICATIONS, &config.services.applications),
        (COMMANDS, &config.commands),
    ] {
        if !commands.is_empty() {
            scripts.push((name.to_owned(), shell::script(commands).into_bytes()));
        }
    }
    scripts.extend(
        super::files::fetching(state, &config.write_files)
            .map(|script| (FETCHED.to_owned(), script)),
    );
    if let Some(script) = config.finish.script() {
        let fqdn = config.fqdn.as_ref().or(config.hostname.as_ref());
        let variables = format!(
            "export HOSTNAME_FULL={} DATASOURCE={}\n",
            shell::quote(fqdn.map_or("", String::as_str)),
            shell::quote(&wanted.source.platform)
        );
        let script = script.replacen('\n', &format!("\n{variables}"), 1);
        scripts.push((FINISH.to_owned(), script.into_bytes()));
    }
    if scripts.is_empty() {
        return None;
    }
    // An instance-id may be anything; its hash is a name of a directory.
    let name: String = hex::encode(Sha256::digest(wanted.source.instance_id.as_bytes()))
        .chars()
        .take(16)
        .collect();
    write(
        state,
        &Path::new(SCRIPTS_DIRECTORY).join(&name),
        &scripts,
        report,
    );
    Some(name)
}

fn of(wanted: &Wanted, when: When, prefix: &str) -> Named {
    let scripts = wanted.scripts.iter().filter(|script| script.when == when);
    scripts
        .map(|script| (format!("{prefix}{}", script.name), script.content.clone()))
        .collect()
}

/// Writes scripts into a directory and removes others from it.
fn write(state: &State, directory: &Path, scripts: &[(String, Vec<u8>)], report: &mut Report) {
    let path = state.config.path().join(directory);
    match fs::read_dir(&path) {
        Ok(entries) => {
            for entry in entries.flatten() {
                let name = entry.file_name();
                let is_script = entry.metadata().is_ok_and(|file| {
                    use std::os::unix::fs::PermissionsExt;
                    file.permissions().mode() & 0o100 != 0
                });
                let is_wanted = scripts.iter().any(|(wanted, _)| name == wanted.as_str());
                if is_script && !is_wanted {
                    replace(state, &directory.join(name), None, ACCESS, report);
                }
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            if scripts.is_empty() {
                return;
            }
        }
        Err(error) => report.error(format!("read {}: {error}", path.display())),
    }
    if let Err(error) = state.config.make_directory(directory, ACCESS) {
        return report.error(format!(
            "write /state/config/{}: {error}",
            directory.display()
        ));
    }
    for (name, content) in scripts {
        replace(state, &directory.join(name), Some(content), ACCESS, report);
    }
}
