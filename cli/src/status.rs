//! `keelson status`.

use keelson_engine::api::{Failure as Fault, Service, State, Status};

use crate::client;
use crate::failure::Failure;
use crate::output::{Output, seconds, size, table, uptime};

/// Shows the state of the whole system.
pub(crate) fn run(output: &mut Output<'_>) -> Result<(), Failure> {
    let status: Status = client::get("/keelson/v1/status")?;
    if output.json {
        output.value(&status)
    } else {
        output.text(&render(&status))
    }
}

fn render(status: &Status) -> String {
    let mut text = format!(
        "{}: Keelson {}, up {}",
        status.hostname,
        status.version,
        uptime(status.uptime_us)
    );
    text.push_str(&match status.boot_complete_us {
        Some(us) => format!(
            ", booted in {}\n",
            seconds(i64::try_from(us).unwrap_or(i64::MAX))
        ),
        None => ", still starting\n".to_owned(),
    });
    text.push_str(&match (&status.state.device, &status.state.reason) {
        (device, _) if status.state.persistent => {
            format!(
                "state: kept on {}\n",
                device.as_deref().unwrap_or("the state partition")
            )
        }
        (_, Some(reason)) => format!("state: in RAM, lost at the next boot: {reason}\n"),
        (_, None) => "state: in RAM, lost at the next boot\n".to_owned(),
    });
    let failed: Vec<&Service> = status
        .services
        .iter()
        .filter(|service| matches!(service.state, State::Failed | State::Backoff))
        .collect();
    if !status.failures.is_empty() || !failed.is_empty() {
        text.push_str("\nfailed:\n");
    }
    for fault in &status.failures {
        text.push_str(&format!(
            "  {}: {}{}\n",
            fault.source,
            place(fault),
            fault.message
        ));
    }
    // What the engine lists as a failure needs no second line.
    for service in failed.iter().filter(|service| {
        status
            .failures
            .iter()
            .all(|fault| fault.source != service.name)
    }) {
        text.push_str(&format!(
            "  {}: {}\n",
            service.name,
            service.detail.as_deref().unwrap_or("no reason is known")
        ));
    }
    text.push('\n');
    let rows: Vec<[String; 6]> = status.services.iter().map(row).collect();
    text.push_str(&table(
        [
            "SERVICE",
            "STATE",
            "STARTED IN",
            "RESTARTS",
            "MEMORY",
            "DETAIL",
        ],
        &rows,
    ));
    text
}

fn row(service: &Service) -> [String; 6] {
    [
        service.name.clone(),
        service.state.as_str().to_owned(),
        start_time(service).map(seconds).unwrap_or_default(),
        service.restarts.to_string(),
        service.memory_bytes.map(size).unwrap_or_default(),
        service.detail.clone().unwrap_or_default(),
    ]
}

/// From the order to start until ready, in microseconds.
pub(crate) fn start_time(service: &Service) -> Option<i64> {
    i64::try_from(service.ready_us?.checked_sub(service.created_us?)?).ok()
}

fn place(fault: &Fault) -> String {
    let Some(file) = &fault.file else {
        return String::new();
    };
    let mut place = file.clone();
    for number in [fault.line, fault.column].into_iter().flatten() {
        place.push_str(&format!(":{number}"));
    }
    place + ": "
}

#[cfg(test)]
mod tests {
    use keelson_engine::api::Storage;

    use super::*;

    fn service(name: &str, state: State) -> Service {
        Service {
            state,
            pid: Some(7),
            restarts: 0,
            created_us: Some(2_000_000),
            started_us: Some(2_100_000),
            ready_us: Some(2_345_000),
            memory_bytes: Some(5 * 1024 * 1024),
            ..crate::service::tests::service(name)
        }
    }

    #[test]
    fn a_healthy_system_is_told_in_a_few_lines() {
        let status = Status {
            version: "0.1.0".into(),
            hostname: "timber".into(),
            uptime_us: 200_000_000,
            state: Storage {
                persistent: true,
                device: Some("/dev/vda4".into()),
                reason: None,
            },
            services: vec![
                service("docker", State::Ready),
                service("first-boot", State::Finished),
            ],
            failures: Vec::new(),
            boot_complete_us: Some(6_543_210),
        };
        assert_eq!(
            render(&status),
            "timber: Keelson 0.1.0, up 3 min 20 s, booted in 6.544 s\n\
             state: kept on /dev/vda4\n\
             \n\
             SERVICE     STATE     STARTED IN  RESTARTS  MEMORY   DETAIL\n\
             docker      ready     0.345 s     0         5.0 MiB\n\
             first-boot  finished  0.345 s     0         5.0 MiB\n"
        );
    }

    #[test]
    fn what_failed_comes_first_with_its_place() {
        let mut network = service("network", State::Failed);
        network.detail = Some("exit status 1".into());
        (network.ready_us, network.memory_bytes) = (None, None);
        let status = Status {
            version: "0.1.0".into(),
            hostname: "timber".into(),
            uptime_us: 9_000_000,
            state: Storage {
                persistent: false,
                device: None,
                reason: Some("no state partition".into()),
            },
            services: vec![network],
            failures: vec![Fault {
                source: "time".into(),
                message: "unknown key `netwrok_mode`".into(),
                file: Some("time.yml".into()),
                line: Some(6),
                column: Some(5),
            }],
            boot_complete_us: None,
        };
        assert_eq!(
            render(&status),
            "timber: Keelson 0.1.0, up 9 s, still starting\n\
             state: in RAM, lost at the next boot: no state partition\n\
             \n\
             failed:\n\
             \x20 time: time.yml:6:5: unknown key `netwrok_mode`\n\
             \x20 network: exit status 1\n\
             \n\
             SERVICE  STATE   STARTED IN  RESTARTS  MEMORY  DETAIL\n\
             network  failed              0                 exit status 1\n"
        );
    }
}
