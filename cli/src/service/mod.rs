//! `keelson service ...`.
//!
//! - [`control`]: up, down, start, stop, restart, disable
//! - [`files`]: Compose files that are taken in, and removed
//! - [`logs`]: what services have said
//! - [`privileges`]: what services may do, and why
//! - [`switch`]: services get other images

mod control;
mod files;
mod logs;
mod privileges;
pub(crate) mod switch;

pub(crate) use files::fetch;

use keelson_engine::api::{Service, State};

use crate::arguments::Service as Command;
use crate::client::{self, escape};
use crate::failure::Failure;
use crate::output::{Output, seconds, size, table};
use crate::status::start_time;

const SERVICES: &str = "/keelson/v1/services";

/// Runs a command about services.
pub(crate) fn run(command: Command, output: &mut Output<'_>) -> Result<(), Failure> {
    match command {
        Command::Ls { all } => {
            let mut services = all_services()?;
            services.retain(|service| {
                all || !matches!(service.state, State::Finished | State::Stopped)
            });
            if output.json {
                output.value(&services)
            } else {
                output.text(&list(&services))
            }
        }
        Command::Logs(command) => logs::run(&command, output),
        Command::Up { names } => control::up(names, output),
        Command::Down { names } => control::each(&names, "down", "stopped", output),
        Command::Start { names } => control::each(&names, "start", "started", output),
        Command::Stop { names } => control::each(&names, "stop", "stopped", output),
        Command::Restart { names } => control::each(&names, "restart", "restarted", output),
        Command::Enable { what, now } => files::enable(&what, now, output),
        Command::Disable { names, now } => control::disable(&names, now, output),
        Command::Rm { names } => files::remove(&names, output),
        Command::Pull { names } => switch::pull(&names),
        Command::Upgrade { name, image } => switch::upgrade(&name, image, output),
        Command::Privileges { names } => privileges::run(&names, output),
    }
}

fn all_services() -> Result<Vec<Service>, Failure> {
    client::get(SERVICES)
}

/// Has the engine do something with a service.
fn act(name: &str, verb: &str) -> Result<(), Failure> {
    let path = format!("{SERVICES}/{}/{verb}", escape(name));
    match client::command("POST", &path, &[])? {
        Some(_) => Ok(()),
        None => Err(unknown(name, &all_services()?)),
    }
}

/// The service of that name.
fn find<'s>(name: &str, services: &'s [Service]) -> Result<&'s Service, Failure> {
    let found = services.iter().find(|service| service.name == name);
    found.ok_or_else(|| unknown(name, services))
}

fn unknown(name: &str, services: &[Service]) -> Failure {
    Failure::unknown(
        "service",
        name,
        services.iter().map(|service| service.name.as_str()),
    )
}

/// What a person should know of a service beside what it is doing.
fn note(service: &Service) -> String {
    let notes = [
        (service.outdated, "has changed: `up` starts it anew"),
        (!service.enabled, "disabled"),
    ];
    let notes = notes.iter().filter(|(is_so, _)| *is_so);
    notes.map(|(_, note)| *note).collect::<Vec<_>>().join("; ")
}

fn list(services: &[Service]) -> String {
    let rows: Vec<[String; 8]> = services
        .iter()
        .map(|service| {
            [
                service.name.clone(),
                service.state.as_str().to_owned(),
                service.pid.map(|pid| pid.to_string()).unwrap_or_default(),
                service.restarts.to_string(),
                start_time(service).map(seconds).unwrap_or_default(),
                service.memory_bytes.map(size).unwrap_or_default(),
                service.image.clone(),
                note(service),
            ]
        })
        .collect();
    table(
        [
            "NAME",
            "STATE",
            "PID",
            "RESTARTS",
            "STARTED IN",
            "MEMORY",
            "IMAGE",
            "NOTE",
        ],
        &rows,
    )
}

#[cfg(test)]
pub(crate) mod tests {
    use keelson_engine::api::Privileges;

    use super::*;

    /// A service that runs.
    pub(crate) fn service(name: &str) -> Service {
        Service {
            name: name.into(),
            image: format!("keelson/{name}"),
            state: State::Ready,
            detail: None,
            pid: Some(42),
            restarts: 1,
            exit_code: None,
            created_us: Some(1_000_000),
            started_us: Some(1_100_000),
            ready_us: Some(1_200_000),
            depends_on: Vec::new(),
            after: Vec::new(),
            privileges: Privileges::default(),
            file: Some(format!("/usr/lib/keelson/services/{name}.yml")),
            own: false,
            enabled: true,
            next_image: None,
            outdated: false,
            memory_bytes: None,
        }
    }

    #[test]
    fn services_are_a_table() {
        let mut services = [service("docker"), service("network")];
        assert_eq!(
            list(&services[..1]),
            "NAME    STATE  PID  RESTARTS  STARTED IN  MEMORY  IMAGE           NOTE\n\
             docker  ready  42   1         0.200 s             keelson/docker\n"
        );
        services[1].enabled = false;
        services[1].outdated = true;
        assert_eq!(
            note(&services[1]),
            "has changed: `up` starts it anew; disabled"
        );
        assert_eq!(
            unknown("netwrok", &services).to_string(),
            "no such service: `netwrok`; did you mean `network`?"
        );
    }
}
