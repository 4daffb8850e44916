//! `keelson service ...`.
//!
//! - [`logs`]: what services have said

mod logs;

use keelson_engine::api::{Service, State};

use crate::arguments::Service as Command;
use crate::client;
use crate::failure::Failure;
use crate::output::{Output, seconds, size, table};
use crate::status::start_time;

const SERVICES: &str = "/keelson/v1/services";

/// Runs a command about services.
pub(crate) fn run(command: Command, output: &mut Output<'_>) -> Result<(), Failure> {
    match command {
        Command::Ls { all } => {
            let mut services: Vec<Service> = client::get(SERVICES)?;
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
        Command::Restart { name } => {
            if !client::restart(&name)? {
                return Err(unknown(&name, &client::get::<Vec<Service>>(SERVICES)?));
            }
            if output.json {
                output.value(&serde_json::json!({"restarted": name}))
            } else {
                Ok(())
            }
        }
        Command::Privileges => {
            let services: Vec<Service> = client::get(SERVICES)?;
            if !output.json {
                return output.text(&privileges(&services));
            }
            let privileges: Vec<_> = services
                .iter()
                .map(|service| {
                    serde_json::json!({
                        "name": service.name,
                        "privileged": service.privileges.privileged,
                        "capabilities": service.privileges.capabilities,
                    })
                })
                .collect();
            output.value(&privileges)
        }
    }
}

fn unknown(name: &str, services: &[Service]) -> Failure {
    Failure::unknown(
        "service",
        name,
        services.iter().map(|service| service.name.as_str()),
    )
}

fn list(services: &[Service]) -> String {
    let rows: Vec<[String; 7]> = services
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
        ],
        &rows,
    )
}

fn privileges(services: &[Service]) -> String {
    let rows: Vec<[String; 2]> = services
        .iter()
        .map(|service| {
            let may = match (
                service.privileges.privileged,
                service.privileges.capabilities.as_slice(),
            ) {
                (true, _) => "everything (privileged)".to_owned(),
                (false, []) => "nothing".to_owned(),
                (false, capabilities) => capabilities.join(" "),
            };
            [service.name.clone(), may]
        })
        .collect();
    table(["NAME", "CAPABILITIES"], &rows)
}

#[cfg(test)]
mod tests {
    use keelson_engine::api::Privileges;

    use super::*;

    fn service(name: &str, capabilities: &[&str], privileged: bool) -> Service {
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
            privileges: Privileges {
                capabilities: capabilities.iter().map(|name| (*name).to_owned()).collect(),
                privileged,
            },
            memory_bytes: None,
        }
    }

    #[test]
    fn services_and_privileges_are_tables() {
        let services = [
            service("docker", &[], true),
            service("network", &["NET_ADMIN", "NET_RAW"], false),
            service("log", &[], false),
        ];
        assert_eq!(
            list(&services[..1]),
            "NAME    STATE  PID  RESTARTS  STARTED IN  MEMORY  IMAGE\n\
             docker  ready  42   1         0.200 s             keelson/docker\n"
        );
        assert_eq!(
            privileges(&services),
            "NAME     CAPABILITIES\n\
             docker   everything (privileged)\n\
             network  NET_ADMIN NET_RAW\n\
             log      nothing\n"
        );
        assert_eq!(
            unknown("netwrok", &services).to_string(),
            "no such service: `netwrok`; did you mean `network`?"
        );
    }
}
